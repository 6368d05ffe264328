"""Divergence of logits per layer, and how many layers are excluded from INT8, compared with results by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hart_edge.bundle.manifest import Dtype, TensorSpec
from hart_edge.calib.scheme import Scheme
from hart_edge.calib.select.sensitivity import (
    LogitsJudge,
    fewest_left_out,
    layer_name,
    layers_of,
    measure_layers,
)
from tests.calib.make_graphs import linear_model

LAYERS = [("a", ("wa",)), ("b", ("wb", "wb2")), ("c", ("wc",)), ("d", ("wd",))]
SHIFTS = {"wa": 0.1, "wb": 0.2, "wb2": 0.2, "wc": 0.02, "wd": 0.01}


class Head:
    """Returns the hidden states as logits, so that a shift of the first channel shifts the first code's."""

    inputs = (TensorSpec("hidden", Dtype.FLOAT32, ("2B", "n", 16)), TensorSpec("cfg_scale", Dtype.FLOAT32, (1,)))

    def __call__(self, hidden: torch.Tensor, cfg_scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert not cfg_scale.any()
        return hidden, torch.zeros(1)


class Transformer:
    """Returns the reference's hidden states, with the first channel shifted by every layer that is in INT8."""

    def __init__(self, without: Collection[str]) -> None:
        self.shift = sum(shift for weight, shift in SHIFTS.items() if weight not in without)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Collection[str]) -> dict[str, np.ndarray]:
        hidden = inputs["x"].copy()
        hidden[..., 0] += self.shift
        return {"hidden": hidden}


def open_with(weights: Collection[str]) -> Transformer:
    return Transformer([weight for weight in SHIFTS if weight not in weights])


@dataclass(frozen=True)
class Call:
    inputs: dict[str, np.ndarray]
    wanted: list[str]


def calls() -> tuple[list[Call], list[Call]]:
    """Calls of the transformer and of the head, for two prompts of three scales."""
    generator = torch.Generator().manual_seed(0)
    hidden = [torch.randn(1, tokens, 16, generator=generator).numpy() for tokens in (1, 4, 9) * 2]
    heads = [Call({"hidden": each, "cfg_scale": np.ones(1, np.float32)}, ["indices"]) for each in hidden]
    return [Call({"x": each}, ["hidden"]) for each in hidden], heads


@pytest.fixture
def judge() -> LogitsJudge:
    return LogitsJudge(*calls(), 3, Head())


def test_scales_are_those_of_all_prompts_together(judge: LogitsJudge) -> None:
    whole, first = (judge.errors(Transformer(()), first_prompt=flag) for flag in (False, True))
    assert [scale.tokens for scale in whole] == [2, 8, 18]
    assert [scale.tokens for scale in first] == [1, 4, 9]
    assert all(scale.kl > 0 for scale in whole)
    exact = judge.errors(Transformer(SHIFTS))
    assert [(scale.same, scale.largest, scale.kl) for scale in exact] == [(2, 0, 0), (8, 0, 0), (18, 0, 0)]


def test_each_layer_is_measured_by_itself_and_sorted_by_sensitivity(judge: LogitsJudge) -> None:
    said: list[tuple[int, int, str]] = []
    found = measure_layers(LAYERS, open_with, judge, lambda *at: said.append(at))
    assert [layer.name for layer in found] == ["b", "a", "c", "d"]
    assert said[1] == (2, 4, "b")
    alone = judge.errors(Transformer([w for w in SHIFTS if w not in ("wb", "wb2")]), first_prompt=True)
    assert found[0].kl == pytest.approx(np.mean([scale.kl / scale.tokens for scale in alone]))
    assert found[0].kl > 10 * found[1].kl > 0  # roughly the square of the shift


@pytest.mark.parametrize("enough", [0, 1, 2, 3, 4, 9])
def test_no_more_layers_are_excluded_than_needed(judge: LogitsJudge, enough: int) -> None:
    layers = measure_layers(LAYERS, open_with, judge, lambda *_: None)
    order = [{"wb", "wb2"}, {"wa"}, {"wc"}, {"wd"}]
    asked: list[set[str]] = []

    def open_without(weights: Collection[str]) -> Transformer:
        asked.append(set(weights))
        return Transformer(weights)

    found = fewest_left_out(layers, open_without, lambda session: len(asked[-1] & {"wb", "wa", "wc", "wd"}) >= enough)
    assert [layer.name for layer in found] == ["b", "a", "c", "d"][:enough]
    assert all(weights == set().union(*order[: len(weights & {"wb", "wa", "wc", "wd"})]) for weights in asked)
    assert len(asked) <= 3


def test_names_of_layers() -> None:
    block = "transformer.blocks.3.mlp"
    assert layer_name([f"{block}.down.weight.T"]) == "blocks.3.mlp.down"
    assert layer_name([f"{block}.gate.weight.T", f"{block}.up.weight.T"]) == "blocks.3.mlp.gate+up"
    assert layers_of(linear_model(), Scheme.U8S8) == [("first", ("first",)), ("second", ("second",))]
