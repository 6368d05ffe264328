"""The moving average of the weights (EMA): what is validated and published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """average = d * average + (1 - d) * weights, with d = min(decay, (1 + step) / (10 + step)).

    The smaller decay of the first steps lets the average forget the random weights that it began with.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.own: dict[str, Tensor] = {}  # the module's own weights, while the average is applied
        self.state = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.state.values()), list(self.module.parameters()), weight)

    @contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The module with the averaged weights, in eval mode; its own weights come back at the end."""
        parameters = dict(self.module.named_parameters())
        self.own = {name: p.data for name, p in parameters.items()}
        training = self.module.training
        try:
            for name, p in parameters.items():
                p.data = self.state[name]
            yield self.module.eval()
        finally:
            for name, p in parameters.items():
                p.data = self.own[name]
            self.own = {}
            self.module.train(training)

    def load(self, state: dict[str, Tensor]) -> None:
        for name, tensor in self.state.items():
            tensor.copy_(state[name])
