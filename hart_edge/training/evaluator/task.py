"""The evaluator as a task for the loop.

In: pictures and captions of the training split, pictures of validation, a recipe. Out: losses of a step, figures on
validation, sheets, and evaluator/ with its hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hart_edge.data.pictures import Pictures, read_pictures
from hart_edge.evaluation.evaluator import FORMAT, Evaluator, digest_of
from hart_edge.evaluation.reconstruction import spread, to_range
from hart_edge.evaluation.retrieval import retrieval
from hart_edge.training.captions import Captions, Text, make_text, may_be_mirrored, publish_text
from hart_edge.training.checkpoints import State, publish
from hart_edge.training.evaluator.recipe import EvaluatorRecipe, contrastive, moved
from hart_edge.training.loop import TrainingSession
from hart_edge.training.order import StepPurpose, random_of

log = logging.getLogger(__name__)

SHEET_PICTURES = 12
SHEET_ROWS = 2  # of what a caption finds
LOOK_BATCH = 64


class EvaluatorTask:
    """Task of the loop: both towers on pictures (side of the recipe) with captions."""

    name = "evaluator"

    def __init__(self, recipe: EvaluatorRecipe, train: Pictures, validation: Pictures) -> None:
        self.recipe, self.train, self.validation = recipe, train, validation
        self.examples = len(train)
        self.shares: NDArray[np.float64] | None = None
        config = recipe.evaluator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.optimisation.seed)
            captions = (caption for own in train.captions for caption in own)
            self.text = make_text(recipe.text, config.text_width, config.tokens, captions)
            self.model = Evaluator(config, self.text.model)
        self.captions, self.judged = (
            Captions(self.text.tokenizer, each.captions, each.names) for each in (train, validation)
        )
        self.mirrorable = np.array([may_be_mirrored(own) for own in train.captions])
        self.fingerprint = fingerprint_of(train)

    def begin(self, session: TrainingSession) -> None:
        pass

    def losses(self, session: TrainingSession, rows: list[int], share: slice, step: int) -> dict[str, Tensor]:
        accelerator, count = session.accelerator, session.accelerator.num_processes
        images, ids = self.batch(np.array(rows), step)
        device = accelerator.device
        with accelerator.autocast():
            pictures, captions, scale = session.model(images[share].to(device), ids[share].to(device))
        if count > 1:
            pictures, captions = (with_others(accelerator, each, share) for each in (pictures, captions))
        return contrastive(pictures, captions, scale, ids.to(device))

    def batch(self, rows: NDArray[np.int64], step: int) -> tuple[Tensor, Tensor]:
        """The pictures of a step, mirrored and moved, (B, 3, side, side) in [-1, 1]; one caption of each, (B, T)."""
        seed, shift = self.recipe.optimisation.seed, self.recipe.shift
        which = random_of(seed, step, StepPurpose.CAPTION).random(len(rows))
        random = random_of(seed, step, StepPurpose.MIRROR)
        mirrored = (random.random(len(rows)) < self.recipe.mirror) & self.mirrorable[rows]
        by = random.integers(-shift, shift + 1, (len(rows), 2))
        images = self.train.images[rows]
        images[mirrored] = images[mirrored][:, :, ::-1]
        return to_range(moved(images, by)), self.captions.of(rows, which)

    def after(self, session: TrainingSession, step: int) -> None:
        pass

    def state(self) -> State:
        return {}

    def load(self, state: State) -> None:
        pass

    @torch.no_grad()
    def embed_validation(self) -> tuple[Tensor, Tensor]:
        """Unit vectors (N, E) of validation's pictures and of their first captions."""
        device = self.model.log_scale.device
        pictures, captions = [], []
        for first in range(0, len(self.validation), LOOK_BATCH):
            rows = np.arange(first, min(first + LOOK_BATCH, len(self.validation)))
            ids = self.judged.of(rows, np.zeros(len(rows)))
            a, b, _ = self.model(to_range(self.validation.images[rows]).to(device), ids.to(device))
            pictures.append(a.cpu())
            captions.append(b.cpu())
        return torch.cat(pictures), torch.cat(captions)

    def figures(self) -> dict[str, float]:
        """R@1 and R@5 of validation's pictures among a hundred of its captions, and the loss over all of them."""
        pictures, captions = self.embed_validation()
        found = retrieval(pictures, captions)
        ids = self.judged.of(np.arange(len(pictures)), np.zeros(len(pictures)))
        loss = contrastive(pictures, captions, self.model.log_scale.detach().cpu().exp(), ids)["loss"]
        return {"loss": float(loss), **{f"retrieval_{k}": value for k, value in found.at.items()}}

    def sheet(self) -> Image.Image:
        """Pictures of validation, and below each those that its caption finds among all of them, the closest first."""
        pictures, captions = self.embed_validation()
        rows = spread(len(self.validation), SHEET_PICTURES)
        closest = (captions[rows] @ pictures.T).topk(min(SHEET_ROWS, len(pictures))).indices.T.numpy()
        lines = [self.validation.images[line] for line in (rows, *closest)]
        return Image.fromarray(np.concatenate([np.concatenate(list(line), 1) for line in lines]))

    def publish(self, folder: Path, step: int) -> None:
        metadata = {"steps": str(step), "weights": "moving average", "data": self.fingerprint}
        publish_evaluator(folder, self.model, self.text, metadata)


def publish_evaluator(folder: Path, model: Evaluator, text: Text, metadata: dict[str, str]) -> None:
    """Write FOLDER/evaluator/ for open_evaluator: config.json with the hash, model.safetensors, text_model/."""
    folder = folder / "evaluator"
    publish_text(folder, text, metadata)
    config = {"format": FORMAT, **asdict(model.config), "sha256": digest_of(model, text.files["tokenizer.json"])}
    tensors = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("text.")}
    publish(folder, config, tensors, {"format": "pt", **metadata})


def with_others(accelerator: Accelerator, own: Tensor, share: slice) -> Tensor:
    """This process's rows (n, E) among those of all (B, E), in the order of the batch.

    Only the own rows have a gradient, and every process has the whole loss; averaging gradients over the processes
    would make it too small by their number, so it is multiplied by it here.
    """
    if own.requires_grad:
        own.register_hook(lambda gradient: gradient * accelerator.num_processes)
    whole = accelerator.gather(own.detach())
    return torch.cat([whole[: share.start], own, whole[share.stop :]])


def set_up(accelerator: Accelerator, recipe: EvaluatorRecipe, data: Path) -> EvaluatorTask:
    """The task of a run. data: with train/ and validation/. Raises HartEdgeError."""
    with accelerator.main_process_first():  # the main process decodes them, and the others read its cache
        train, validation = (read_pictures(data / part, recipe.evaluator.side) for part in ("train", "validation"))
    log.info("%d pictures to train on, %d to validate on, %d px", len(train), len(validation), recipe.evaluator.side)
    task = EvaluatorTask(recipe, train, validation)
    log.info("%d of %d pictures may be mirrored, by their captions", task.mirrorable.sum(), len(train))
    return task


def fingerprint_of(pictures: Pictures) -> str:
    """SHA-256 of pictures and captions."""
    digest = hashlib.sha256(json.dumps([pictures.images.shape, pictures.captions]).encode())
    digest.update(np.ascontiguousarray(pictures.images).data)
    return digest.hexdigest()
