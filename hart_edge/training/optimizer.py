"""What updates the weights: Adam for all of them, or Muon for the matrices of a model's layers and Adam for the rest.

In: a model and the recipe's optimisation. Out: a torch optimiser. Source: Muon (Jordan et al. 2024), with the scale of
Moonlight (Liu et al. 2025), by which one learning rate suits both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.optim import Adam, Muon, Optimizer

from hart_edge.training.recipe import Optimisation


def make_optimizer(model: nn.Module, o: Optimisation) -> Optimizer:
    """The optimiser of a recipe over all parameters of a model."""
    if o.optimizer == "adam":
        return Adam(model.parameters(), o.learning_rate, o.betas, fused=True)
    return MuonAndAdam(model, o)


def layer_matrices(model: nn.Module) -> list[nn.Parameter]:
    """Weights of the linear maps inside of repeated layers (anything below an nn.ModuleList), in the model's order.

    So neither embeddings nor heads, whose rows are codes and words of their own and which Muon does not suit.
    """
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    linear = [module for layers in lists for module in layers.modules() if isinstance(module, nn.Linear)]
    inside = {module.weight for module in linear}
    return [parameter for parameter in model.parameters() if parameter in inside]


class MuonAndAdam(Optimizer):
    """Two optimisers that are stepped, saved and loaded as one.

    What torch keeps in attributes is put together from the parts here, hence the four overrides that mypy refuses.
    """

    def __init__(self, model: nn.Module, o: Optimisation) -> None:
        matrices = layer_matrices(model)
        chosen = set(matrices)
        others = [parameter for parameter in model.parameters() if parameter not in chosen]
        self.parts: list[Optimizer] = [Adam(others, o.learning_rate, o.betas, fused=True)] if others else []
        if matrices:
            muon = Muon(matrices, o.learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
            self.parts.append(muon)

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, Any]:  # type: ignore[override]
        return {parameter: state for part in self.parts for parameter, state in part.state.items()}

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
