"""The transformer as a task for the loop.

In: codes and captions of pictures, the trained tokenizer, a text model, a recipe. Out: losses of a step, figures on
validation, sheets of samples, and a checkpoint: llm/, text_model/ and tokenizer/ in the published layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hart_edge.bundle.settings import Settings
from hart_edge.evaluation.reconstruction import spread
from hart_edge.reference.checkpoint import TOKENIZER_WEIGHTS, published_transformer
from hart_edge.reference.draw import draw_pictures
from hart_edge.reference.hart import HART
from hart_edge.reference.weight_files import find_weights
from hart_edge.training.captions import Captions, Text, publish_text
from hart_edge.training.checkpoints import State, publish, write_bytes
from hart_edge.training.loop import TrainingSession
from hart_edge.training.order import StepPurpose, random_of, shares_of
from hart_edge.training.transformer.codes import Codes, lesson_of
from hart_edge.training.transformer.recipe import Batch, Generator, TransformerRecipe
from hart_edge.training.transformer.self_correction import Mistakes, corrected_lesson, mistakes_of
from hart_edge.training.transformer.teacher_forcing import drop_tokens

LOOK_PICTURES = 128  # of validation, whose figures are taken while training
LOOK_BATCH = 16
SHEET_PICTURES = 12
SHEET_SEEDS = (0, 1)
SHEET_SETTINGS = Settings(cfg_scale=3.0)


@dataclass(frozen=True)
class Examples:
    """N pictures with captions. twins: mirror images; twin_of: which of them a picture's is (N,), -1 for none.

    groups, weights: of the pictures, for how often each is drawn (order.shares_of); () for none.
    """

    images: NDArray[np.uint8]
    captions: Captions
    codes: Codes
    twins: Codes | None = None
    twin_of: NDArray[np.int64] | None = None
    groups: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


class TransformerTask:
    """Task of the loop: transformer, residual MLP and text model on codes of a trained tokenizer.

    text: whose module is the model's, for the files that are published with it. hart: the reference with the
    tokenizer's weights, on the CPU; it makes lessons of codes, and draws sheets with copies of the trained weights.
    folder: of the tokenizer, which the checkpoint gets a copy of. fingerprint: of the data (Task).
    """

    name = "transformer"

    def __init__(
        self,
        recipe: TransformerRecipe,
        model: Generator,
        train: Examples,
        validation: Examples,
        text: Text,
        hart: HART,
        folder: Path,
        fingerprint: str,
    ) -> None:
        self.recipe, self.model, self.text, self.hart = recipe, model, text, hart
        self.train, self.validation, self.examples = train, validation, len(train.codes)
        self.shares = shares_of(train.groups, train.weights, recipe.group_balance)
        self.tokenizer_folder, self.fingerprint = folder, fingerprint
        self.session: TrainingSession | None = None

    def begin(self, session: TrainingSession) -> None:
        self.session = session

    def losses(self, session: TrainingSession, rows: list[int], share: slice, step: int) -> dict[str, Tensor]:
        batch = self.batch(np.array(rows), share, step).to(session.accelerator.device)
        with session.accelerator.autocast():
            return session.model(batch)

    def batch(self, rows: NDArray[np.int64], share: slice, step: int) -> Batch:
        """This process's share of a step's batch. Random numbers are drawn for the whole batch, and cut to it."""
        recipe, config, seed = self.recipe, self.recipe.transformer, self.recipe.optimisation.seed
        count, last, kept, draws = len(rows), config.patch_nums[-1] ** 2, recipe.kept, config.diffusion_batch_mul
        which = random_of(seed, step, StepPurpose.CAPTION).random(count)
        dropped = random_of(seed, step, StepPurpose.CONDITION).random(count) < config.cond_drop_rate
        mirrored = random_of(seed, step, StepPurpose.MIRROR).random(count) < recipe.mirror
        places = random_of(seed, step, StepPurpose.KEPT).random((count, last)).argsort(1)[:, :kept]
        random = random_of(seed, step, StepPurpose.DIFFUSION)
        steps = random.integers(0, 1000, (count, kept, draws))
        z = self.hart.tokenizer_config.z_channels
        noise = random.standard_normal((count, kept, draws, z), np.float32)
        mistakes = mistakes_of(recipe.self_correction, config.patch_nums, count, seed, step)
        return self.make_batch(
            self.codes_of(rows[share], mirrored[share]),
            self.train.captions.of(rows[share], which[share]),
            torch.from_numpy(dropped[share]),
            torch.from_numpy(np.sort(places[share], 1)),
            torch.from_numpy(steps[share]),
            torch.from_numpy(noise[share]),
            mistakes and mistakes.share(share),
        )

    def codes_of(self, rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Codes:
        """The codes of pictures, or of their mirror images where `mirrored` (B,) says so and the captions allow it."""
        indices, rest = self.train.codes.indices[rows], self.train.codes.rest[rows]
        if self.train.twins is not None and self.train.twin_of is not None:
            at = self.train.twin_of[rows]
            use = mirrored & (at >= 0)
            indices[use], rest[use] = self.train.twins.indices[at[use]], self.train.twins.rest[at[use]]
        return Codes(indices, rest)

    def make_batch(
        self,
        codes: Codes,
        ids: Tensor,
        dropped: Tensor,
        kept: Tensor,
        steps: Tensor,
        noise: Tensor,
        mistakes: Mistakes | None = None,
    ) -> Batch:
        every = np.arange(len(codes))
        if mistakes is None:
            lesson = lesson_of(self.hart.quantizer, codes, every)
        else:
            near = self.recipe.self_correction.near
            lesson = corrected_lesson(self.hart.quantizer, codes, every, mistakes, near)
        last = self.recipe.transformer.patch_nums[-1] ** 2
        return Batch(
            ids,
            dropped,
            drop_tokens(lesson.indices[..., None], kept, last)[..., 0],
            drop_tokens(lesson.inputs, kept, last),
            kept,
            drop_tokens(lesson.codes, kept, last),
            drop_tokens(lesson.residual, kept, last),
            steps,
            noise,
        )

    def after(self, session: TrainingSession, step: int) -> None:
        pass

    def state(self) -> State:
        return {}

    def load(self, state: State) -> None:
        pass

    def validation_batches(self) -> Iterator[Batch]:
        """Batches of validation with the first caption of each picture and nothing dropped; the same at every call."""
        config = self.recipe.transformer
        rows = spread(len(self.validation.codes), LOOK_PICTURES)
        last, draws, z = config.patch_nums[-1] ** 2, config.diffusion_batch_mul, self.hart.tokenizer_config.z_channels
        for number, part in enumerate(np.array_split(rows, -(-len(rows) // LOOK_BATCH))):
            codes = Codes(self.validation.codes.indices[part], self.validation.codes.rest[part])
            random = random_of(0, number, StepPurpose.DIFFUSION)
            yield self.make_batch(
                codes,
                self.validation.captions.of(part, np.zeros(len(part))),
                torch.zeros(len(part), dtype=torch.bool),
                torch.arange(last).expand(len(part), -1),
                torch.from_numpy(random.integers(0, 1000, (len(part), last, draws))),
                torch.from_numpy(random.standard_normal((len(part), last, draws, z), np.float32)),
            )

    @torch.no_grad()
    def figures(self) -> dict[str, float]:
        """Cross-entropy in nats a code and the share of codes that are the likeliest, over all and for each scale by
        its side; the residual's loss.
        """
        losses, right, residuals = [], [], []
        for batch in self.validation_batches():
            batch = batch.to(self.model.transformer.head.weight.device)
            logits, residual = self.model.predict(batch)
            losses.append(F.cross_entropy(logits.transpose(1, 2), batch.indices, reduction="none").cpu())
            right.append((logits.argmax(-1) == batch.indices).float().cpu())
            residuals.append(residual.cpu())
        figures = {"residual": float(torch.cat(residuals).mean())}
        sides = self.recipe.transformer.patch_nums
        for name, parts in (("cross_entropy", losses), ("right", right)):
            whole = torch.cat(parts)  # (pictures, N)
            figures[name] = float(whole.mean())
            scales = whole.mean(0).split([side * side for side in sides])
            figures |= {f"{name}_{side}": float(scale.mean()) for side, scale in zip(sides, scales, strict=True)}
        return figures

    @torch.no_grad()
    def sheet(self) -> Image.Image:
        """Pictures of validation, and below each what the model draws from its first caption, a row a seed."""
        rows = spread(len(self.validation.codes), SHEET_PICTURES)
        self.hart.transformer.load_state_dict(self.model.transformer.state_dict())
        self.hart.residual.load_state_dict(self.model.residual.state_dict())
        ids = self.validation.captions.of(rows, np.zeros(len(rows)))
        context, mask = (each.cpu() for each in self.model.text(ids.to(self.model.transformer.head.weight.device)))
        lines = [self.validation.images[rows]]
        lines += [draw_pictures(self.hart, context, mask, [seed] * len(rows), SHEET_SETTINGS) for seed in SHEET_SEEDS]
        return Image.fromarray(np.concatenate([np.concatenate(list(line), 1) for line in lines]))

    def publish(self, folder: Path, step: int) -> None:
        own: dict[str, Tensor] = dict(self.model.named_parameters())
        if self.session is not None:
            own |= self.session.average.own  # while the average is applied, the weights behind it
        average: dict[str, Tensor] = dict(self.model.named_parameters())
        for name, weights, words in (("ema_model", average, "moving average"), ("model", own, "latest")):
            state = {key: tensor for key, tensor in weights.items() if not key.startswith("text.")}
            raw, tensors = published_transformer(self.recipe.transformer, state)
            publish(folder / "llm", raw, tensors, {"steps": str(step), "weights": words}, name)
        if self.recipe.text.train or not (folder / "text_model" / "config.json").exists():
            publish_text(folder, self.text, {"steps": str(step), "weights": "moving average"})
        if not (folder / "tokenizer" / "config.json").exists():
            found_weights = find_weights(self.tokenizer_folder, TOKENIZER_WEIGHTS)
            for file in {*found_weights.files, found_weights.path, self.tokenizer_folder / "config.json"}:
                write_bytes(folder / "tokenizer" / file.name, file.read_bytes())
