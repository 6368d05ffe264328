"""What every traceable graph is: a module with a specification of its inputs and outputs, in order."""

from __future__ import annotations

import inspect

from torch import nn

from hart_edge.bundle.manifest import Dtype, TensorSpec

ROTARY = ("rope_cos", "rope_sin")  # of a scale's tokens


class GraphModule(nn.Module):
    """A module whose forward takes and returns tensors in the order of its specification."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    blocks = 1  # that are alike and follow one another
    fused = False  # whether attention is traced as ONNX Runtime's one operator (export/unconditional.py)

    @property
    def named_inputs(self) -> int:
        """How many inputs forward names; the others arrive in its *rest."""
        parameters = inspect.signature(self.forward).parameters.values()
        return sum(parameter.kind is not parameter.VAR_POSITIONAL for parameter in parameters)

    def first_block(self) -> GraphModule | None:
        """The same with only the first of its blocks, where it has more of them (export/stamp.py)."""
        return None


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, Dtype(dtype), shape)
