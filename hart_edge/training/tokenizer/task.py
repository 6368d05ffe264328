"""The hybrid tokenizer as a task for the loop.

In: pictures (N, 16P, 16P, 3) uint8 and a recipe. Out: losses of a step, a codebook that stays in use, figures, sample
sheets, and tokenizer/ in the published layout.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hart_edge.evaluation.reconstruction import both_paths, counts_of, measure, spread, to_range
from hart_edge.training.checkpoints import State
from hart_edge.training.errors import TrainingError
from hart_edge.training.loop import TrainingSession
from hart_edge.training.order import StepPurpose, random_of
from hart_edge.training.tokenizer.codebook import CodeUse, distance_to, drawn, place, replace
from hart_edge.training.tokenizer.critic import Critic, critic_loss, frozen
from hart_edge.training.tokenizer.recipe import Reconstructed, Tokenizer, TokenizerRecipe, publish_tokenizer

CODEBOOK = "quantizer.codebook.weight"
PLACING_PICTURES = 256  # whose latents the codebook is placed on
LOOK_PICTURES = 128  # of validation, whose figures are taken while training
SHEET_PICTURES = 12


class TokenizerTask:
    """Task of the loop: the tokenizer on pictures (N, 16P, 16P, 3) uint8, validated on others.

    fingerprint: of the data (Task).
    """

    name = "tokenizer"

    def __init__(
        self, recipe: TokenizerRecipe, train: NDArray[np.uint8], validation: NDArray[np.uint8], fingerprint: str
    ) -> None:
        self.recipe, self.train, self.validation = recipe, train, validation
        self.examples, self.fingerprint = len(train), fingerprint
        self.shares: NDArray[np.float64] | None = None
        self.use = CodeUse(recipe.tokenizer.vocab_size, recipe.codebook.memory)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.optimisation.seed)
            self.model = Tokenizer(recipe)
            self.critic = Critic(recipe.adversarial) if recipe.adversarial.weight else None
        self.last: tuple[Tensor, Reconstructed] | None = None  # originals and reconstruction of the latest step

    def begin(self, session: TrainingSession) -> None:
        if self.critic is not None:
            self.critic.to(session.accelerator.device)
            adam = torch.optim.Adam(self.critic.parameters(), self.recipe.adversarial.learning_rate, (0.5, 0.9))
            self.synchronised_critic, self.critic_optimizer = session.accelerator.prepare(self.critic, adam)

    def losses(self, session: TrainingSession, rows: list[int], share: slice, step: int) -> dict[str, Tensor]:
        recipe, seed, device = self.recipe, self.recipe.optimisation.seed, session.accelerator.device
        if step == recipe.codebook.start:
            self.place_codes(session, step)
        mirrored = random_of(seed, step, StepPurpose.MIRROR).random(len(rows)) < 0.5
        images = [
            self.train[row][:, ::-1] if each else self.train[row] for row, each in zip(rows, mirrored, strict=True)
        ]
        originals = to_range(np.stack(images[share])).to(device)
        discrete = None
        if step < recipe.codebook.start:
            originals = F.avg_pool2d(originals, recipe.side // (recipe.early_side or recipe.side))
        else:
            drawn_paths = random_of(seed, step, StepPurpose.ALTERNATING).random(len(rows)) < recipe.alternating
            discrete = torch.from_numpy(drawn_paths[share]).to(device)
        critic = self.critic if step >= recipe.adversarial.start else None
        with session.accelerator.autocast(), frozen(critic):
            made = session.model(originals, discrete, critic)
        self.last = originals, made
        return made.terms

    def place_codes(self, session: TrainingSession, step: int) -> None:
        """The codebook's first values, from the latents of PLACING_PICTURES; the same in every process."""
        random = random_of(self.recipe.optimisation.seed, step, StepPurpose.CODEBOOK)
        rows = np.sort(random.choice(self.examples, min(PLACING_PICTURES, self.examples), replace=False))
        device, encode = session.accelerator.device, self.model.autoencoder.encode
        with torch.no_grad():
            batches = np.array_split(rows, math.ceil(len(rows) / 8))
            latents = [encode(to_range(self.train[batch]).to(device)) for batch in batches]
        place(self.model.quantizer, torch.cat(latents).float(), random)
        session.average.state[CODEBOOK].copy_(self.model.quantizer.codebook.weight)

    def after(self, session: TrainingSession, step: int) -> None:
        assert self.last is not None
        originals, made = self.last
        if made.indices:
            self.revive(session, made, step)
        if self.critic is not None and step >= self.recipe.adversarial.start:
            self.teach_critic(session, self.critic, originals, made.image, step)

    @torch.no_grad()
    def revive(self, session: TrainingSession, made: Reconstructed, step: int) -> None:
        """Count the codes chosen, and place those anew that nothing chooses."""
        care, codebook = self.recipe.codebook, self.model.quantizer.codebook.weight
        counts = counts_of(made.indices, len(codebook))
        self.use.note(session.accelerator.reduce(counts, "sum").cpu())
        if step % care.every or not len(dead := self.use.dead(care.dead_below)):
            return
        tokens = session.accelerator.gather(torch.cat(made.tokens, 1)).flatten(0, 1)
        chosen = session.accelerator.gather(torch.cat(made.indices, 1)).flatten()
        random = random_of(self.recipe.optimisation.seed, step, StepPurpose.CODEBOOK)
        new = drawn(tokens, len(dead), random, distance_to(self.model.quantizer, tokens, chosen))
        replace(codebook, dead, new, [session.average.state[CODEBOOK]], session.moments(codebook))
        self.use.revive(dead)

    def teach_critic(
        self, session: TrainingSession, critic: Critic, originals: Tensor, made: Tensor, step: int
    ) -> None:
        with session.accelerator.autocast():
            real, fake = self.synchronised_critic(torch.cat([originals, made])).float().chunk(2)
        session.accelerator.backward(critic_loss(real, fake))
        norm = session.accelerator.clip_grad_norm_(critic.parameters(), self.recipe.optimisation.clip)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"step {step}: expected finite gradients of the critic, found norm {float(norm)}; the state before it "
                "is kept: lower adversarial.learning_rate or adversarial.weight in a new run"
            )
        self.critic_optimizer.step()
        self.critic_optimizer.zero_grad()

    def state(self) -> State:
        state: State = {"use": self.use.use}
        if self.critic is not None:
            state |= {"critic": self.critic.state_dict(), "critic_optimizer": self.critic_optimizer.state_dict()}
        return state

    def load(self, state: State) -> None:
        self.use.use.copy_(state["use"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])

    def figures(self) -> dict[str, float]:
        pictures = self.validation[spread(len(self.validation), LOOK_PICTURES)]
        return measure(self.model.autoencoder, self.model.quantizer, pictures).figures()

    def sheet(self) -> Image.Image:
        """Three rows: originals, the continuous path, the discrete path."""
        pictures = self.validation[spread(len(self.validation), SHEET_PICTURES)]
        batches = both_paths(self.model.autoencoder, self.model.quantizer, pictures)
        rows = [torch.cat(row) for row in zip(*(batch[:3] for batch in batches), strict=True)]
        grid = torch.stack(rows).permute(0, 3, 1, 4, 2)  # (3, side, n, side, 3): row, y, picture, x, channel
        return Image.fromarray(grid.flatten(2, 3).flatten(0, 1).contiguous().numpy())

    def publish(self, folder: Path, step: int) -> None:
        publish_tokenizer(folder, self.recipe.tokenizer, self.model, {"training": f"{step} steps, moving average"})
