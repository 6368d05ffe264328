"""Quality figures compared with a naive computation in numpy, token by token."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.bundle.manifest import Quality
from hart_edge.bundle.settings import Settings
from hart_edge.errors import ParityError
from hart_edge.export.graph_module import GraphModule, spec
from hart_edge.export.graphs import build_graphs
from hart_edge.export.parity.quality import QualityFigures
from hart_edge.reference.sampling import guide
from tests.calib.select.naive_logits import naive
from tests.export.reference_walk import tiny_inputs, tiny_model, walk_plan

Array = NDArray[np.float64]


class Tokens(GraphModule):
    """A head of one matrix, and guidance. Unless `apart`, `hidden` has the unconditional branch too."""

    name = "tokens"

    def __init__(self, apart: bool) -> None:
        super().__init__()
        names = ["hidden", *(["null_hidden"] if apart else []), "positions", "cfg_scale"]
        self.inputs = tuple(spec(name, "n") for name in names)
        self.outputs = (spec("indices", "n"), spec("logits", "n"))
        self.head = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 7)))

    def forward(self, hidden: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        *null, positions, cfg_scale = rest
        both = torch.cat([hidden.index_select(1, positions), *null]) if null else hidden.index_select(1, positions)
        logits = guide(*(both.double() @ self.head).chunk(2), cfg_scale)
        return logits.argmax(-1), logits


@pytest.mark.parametrize("apart", [False, True])
def test_guided_and_unguided_figures_of_predicting_positions(apart: bool) -> None:
    """Five tokens of which only the last predicts, as at scale 0; with the branches in one input or in two."""
    tokens, dice, positions = Tokens(apart), np.random.default_rng(5), np.array([4])
    figures = QualityFigures(tokens, 1)
    kept: list[tuple[Array, Array]] = []
    for _ in range(20):
        expected = dice.standard_normal((2, 5, 4))
        found = (expected + 0.2 * dice.standard_normal(expected.shape)).astype(np.float32)
        inputs = {"positions": positions, "cfg_scale": np.array([3.0], np.float32)}
        if apart:  # the transformer does not compute the unconditional branch
            inputs |= {"hidden": expected[:1], "null_hidden": expected[1:, 4:]}
            made = {"hidden": found[:1]}
            found[1] = expected[1]
        else:
            inputs |= {"hidden": expected}
            made = {"hidden": found}
        logits = tokens(*(torch.from_numpy(inputs[tensor.name]) for tensor in tokens.inputs))[1].numpy()
        figures("transformer", 0, {}, {}, {**made, "present_key.0": found})
        figures("tokens", 0, inputs, {"logits": logits}, {})
        kept.append((expected[:, 4].astype(np.float64), found[:, 4].astype(np.float64)))
    figures(
        "decoder",
        None,
        {},
        {"image": np.zeros((1, 3, 2, 2), np.float32)},
        {"image": np.zeros((1, 3, 2, 2), np.float32)},
    )
    head = tokens.head.numpy()
    alone = [np.stack([pair[side][0] @ head for pair in kept]) for side in (0, 1)]
    guided = [np.stack([4 * pair[side][0] @ head - 3 * pair[side][1] @ head for pair in kept]) for side in (0, 1)]
    (scale,) = figures.quality().scales
    assert (scale.cosine, scale.largest_error, scale.top_1, scale.kl) == pytest.approx(naive(*alone), rel=1e-5)
    assert (scale.guided_top_1, scale.guided_kl) == pytest.approx(naive(*guided)[2:], rel=1e-4)
    assert scale.guided_kl > 3 * scale.kl > 0  # guidance amplifies differences
    worst = [naive(expected[:1] @ head, found[:1] @ head)[3] for expected, found in kept]
    assert figures.worst_input(0) == int(np.argmax(worst))


def walked(folder: Path, noise: float) -> tuple[Quality, list[tuple[Array, Array]]]:
    """Figures of a tiny model with noise in its hidden states, and the naive logits per scale."""
    model = tiny_model(folder, 3)
    tokens = build_graphs(model, None)["tokens"]
    figures, dice = QualityFigures(tokens, len(model.patch_nums)), np.random.default_rng(1)
    logits: list[tuple[Array, Array]] = []
    kept: dict[str, NDArray] = {}

    def head(hidden: NDArray, inputs: Mapping[str, NDArray]) -> Array:
        """The head on the conditional branch: RMS norm, modulation, one matrix."""
        x = hidden[0][inputs["positions"]].astype(np.float64)
        scale, shift = inputs["head_modulation"][0].astype(np.float64)
        norm, last = model.transformer.head_norm.norm, model.transformer.head
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + norm.eps) * norm.weight.numpy()
        return (x * (1 + scale) + shift) @ last.weight.numpy().T.astype(np.float64) + last.bias.numpy()

    def observe(graph: str, inputs: Mapping[str, NDArray], outputs: Mapping[str, NDArray]) -> None:
        found = dict(outputs)
        if graph == "transformer":
            found["hidden"] = found["hidden"] + noise * dice.standard_normal(found["hidden"].shape).astype(np.float32)
            kept.update(expected=outputs["hidden"], found=found["hidden"])
        if graph == "tokens":
            logits.append((head(kept["expected"], inputs), head(kept["found"], inputs)))
        if graph == "decoder":
            found["image"] = found["image"] + np.float32(noise)
        figures(graph, len(logits) - 1 if graph == "tokens" else None, inputs, outputs, found)

    walk_plan(model, tiny_inputs(model, (4,)), [7], Settings(), observe)
    return figures.quality(), logits


def test_figures_of_a_whole_walk(tmp_path: Path) -> None:
    quality, logits = walked(tmp_path, 0.5)
    assert quality.prompts == 1 and len(quality.scales) == len(logits) > 2
    for scale, pair in zip(quality.scales, logits, strict=True):
        expected = naive(*pair)
        assert (scale.cosine, scale.largest_error, scale.top_1) == pytest.approx(expected[:3], rel=1e-4)
        assert scale.kl == pytest.approx(expected[3], rel=1e-2)
    assert sum(scale.top_1 < 1 for scale in quality.scales) > 0
    assert quality.decoder_psnr == pytest.approx(-20 * math.log10(0.5), abs=1e-4)  # 6.02 dB


def test_exact_graphs_have_exact_figures(tmp_path: Path) -> None:
    quality, _ = walked(tmp_path, 0.0)
    for scale in quality.scales:
        assert (scale.largest_error, scale.top_1, scale.kl, scale.guided_top_1) == (0, 1, 0, 1)
        assert scale.cosine == pytest.approx(1, abs=1e-12) and scale.cosine <= 1 and scale.guided_kl < 1e-10
    assert quality.decoder_psnr is None


def test_logits_that_are_not_finite_are_refused() -> None:
    tokens = Tokens(apart=False)
    figures = QualityFigures(tokens, 1)
    inputs = {"positions": np.array([0]), "cfg_scale": np.ones(1, np.float32), "hidden": np.ones((2, 1, 4))}
    figures("transformer", 0, {}, {}, {"hidden": np.full((2, 1, 4), np.inf, np.float32)})
    with pytest.raises(
        ParityError, match=r"^graph transformer, scale 0: its hidden states give logits that are not fi"
    ):
        figures("tokens", 0, inputs, {"logits": np.ones((1, 1, 7), np.float32)}, {})
