"""How near the loop's results come to the reference's: logits per scale, and the picture.

In: every call of the transformer, tokens and decoder graphs with the reference's inputs and both outputs, as
compare.py shows them. Out: a Quality. Both transformers had the same inputs, the reference's KV cache among them, and
the reference's head turns their hidden states into logits, so a scale's figures are its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.bundle.manifest import Quality, ScaleQuality
from hart_edge.bundle.quality import psnr
from hart_edge.calib.select.logits import LogitError, compare_logits
from hart_edge.errors import ParityError
from hart_edge.export.graph_module import GraphModule


class QualityFigures:
    """Collects over all parity inputs, one image at a time. Call it with every call of the loop, in order."""

    def __init__(self, tokens: GraphModule, scales: int) -> None:
        """tokens: the reference's head, guidance and choice."""
        self.tokens = tokens
        self.unguided: list[list[LogitError]] = [[] for _ in range(scales)]  # per scale, an entry an image
        self.guided: list[list[LogitError]] = [[] for _ in range(scales)]
        self.pictures: list[float] = []  # mean square errors
        self._hidden: dict[str, NDArray[Any]] = {}

    def __call__(
        self,
        graph: str,
        scale: int | None,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        found: Mapping[str, NDArray[Any]],
    ) -> None:
        """inputs, outputs: the reference's; found: the exported graph's outputs, all of them finite."""
        if graph == "transformer":
            taken = {tensor.name for tensor in self.tokens.inputs} & set(found)
            self._hidden = {name: found[name].astype(np.float32, copy=False) for name in taken}
        elif graph == "tokens":
            assert scale is not None  # no plan calls it elsewhere
            self._add_logits(scale, inputs, torch.from_numpy(outputs["logits"]))
        elif graph == "decoder":
            difference = found["image"].astype(np.float64) - outputs["image"]
            self.pictures.append(float(np.square(difference).mean()))

    def _add_logits(self, scale: int, inputs: Mapping[str, NDArray[Any]], guided: Tensor) -> None:
        """inputs: of the reference's tokens graph, which shows the conditional logits where guidance is 0."""
        other = {**inputs, **self._hidden}
        unguided = {"cfg_scale": np.zeros_like(inputs["cfg_scale"])}
        for errors, expected, found in (
            (self.unguided, self._logits({**inputs, **unguided}), self._logits({**other, **unguided})),
            (self.guided, guided, self._logits(other)),
        ):
            if not found.isfinite().all():
                raise ParityError(
                    f"graph transformer, scale {scale}: its hidden states give logits that are not finite; nothing was "
                    "written. Try a higher --precision"
                )
            errors[scale].append(compare_logits(expected, found))

    def _logits(self, inputs: Mapping[str, NDArray[Any]]) -> Tensor:
        """(B, n, V), of the positions that predict codes"""
        with torch.no_grad():
            results = self.tokens(*(torch.from_numpy(inputs[tensor.name]) for tensor in self.tokens.inputs))
        names = [tensor.name for tensor in self.tokens.outputs]
        logits: Tensor = results[names.index("logits")]
        return logits

    def worst_input(self, scale: int | None) -> int:
        """The index of the parity input that a scale's logits, or the picture (None), come least near on."""
        errors = self.pictures if scale is None else [each.kl / each.tokens for each in self.unguided[scale]]
        return int(np.argmax(errors))

    def quality(self) -> Quality:
        scales = tuple(map(_summary, self.unguided, self.guided))
        return Quality(len(self.pictures), scales, psnr(max(self.pictures)))


def _summary(unguided: Sequence[LogitError], guided: Sequence[LogitError]) -> ScaleQuality:
    """Means over tokens. Rounding may take a cosine beyond 1 and a divergence below 0 by its last digit."""

    def mean(name: str, of: Sequence[LogitError]) -> float:
        return float(sum(getattr(each, name) for each in of)) / sum(each.tokens for each in of)

    return ScaleQuality(
        cosine=min(1.0, max(-1.0, mean("cosine", unguided))),
        largest_error=max(each.largest for each in unguided),
        top_1=mean("same", unguided),
        kl=max(0.0, mean("kl", unguided)),
        guided_top_1=mean("same", guided),
        guided_kl=max(0.0, mean("kl", guided)),
    )
