"""Divergence of logits per layer, and which layers a budget leaves out, against what can be computed by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

import hart_edge.export.parity.recording
from hart_edge.bundle.manifest import Dtype, TensorSpec
from hart_edge.calib.scheme import Scheme
from hart_edge.calib.select.sensitivity import (
    LogitsJudge,
    fewest_left_out,
    layer_name,
    layers_of,
    measure_layers,
)
from hart_edge.export.parity.recording import FIRST, MOST_IN_MEMORY, Recording
from tests.calib.make_graphs import linear_model

LAYERS = [("a", ("wa",)), ("b", ("wb", "wb2")), ("c", ("wc",)), ("d", ("wd",))]
SHIFTS = {"wa": 0.1, "wb": 0.2, "wb2": 0.2, "wc": 0.02, "wd": 0.01}


class Head:
    """logits = hidden: the first code's is what INT8 moves."""

    inputs = (TensorSpec("hidden", Dtype.FLOAT32, ("2B", "n", 16)), TensorSpec("cfg_scale", Dtype.FLOAT32, (1,)))

    def __call__(self, hidden: torch.Tensor, cfg_scale: torch.Tensor) -> tuple[torch.Tensor, ...]:
        assert not cfg_scale.any()
        return hidden, torch.zeros(1)


class Transformer:
    """hidden of the reference, with the first channel moved by every layer that INT8 is in."""

    def __init__(self, without: Collection[str]) -> None:
        self.shift = sum(shift for weight, shift in SHIFTS.items() if weight not in without)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Collection[str]) -> dict[str, np.ndarray]:
        hidden = inputs["x"].copy()
        hidden[..., 0] += self.shift
        return {"hidden": hidden}


def open_with(weights: Collection[str]) -> Transformer:
    return Transformer([weight for weight in SHIFTS if weight not in weights])


def record(folder: Path) -> Recording:
    recording = Recording(folder)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for tokens in (1, 4, 9):
            hidden = torch.randn(1, tokens, 16, generator=generator)
            recording("transformer", {"x": hidden, "past_key.0": torch.zeros(0, 1, 2, 8)}, {"hidden": hidden})
            recording("tokens", {"hidden": hidden, "cfg_scale": torch.ones(1)}, {"indices": torch.zeros(1)})
        recording.end_prompt()
    return recording


@pytest.fixture
def judge(tmp_path: Path) -> LogitsJudge:
    return LogitsJudge(record(tmp_path / "calls"), Head())


@pytest.mark.parametrize("most", [0, 500, MOST_IN_MEMORY])
def test_a_recording_gives_back_what_it_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """From memory, from files, or from both."""
    monkeypatch.setattr(hart_edge.export.parity.recording, "MOST_IN_MEMORY", most)
    recording = record(tmp_path / "calls")
    calls = recording.calls("transformer")
    assert [call.inputs["x"].shape for call in calls] == [(1, 1, 16), (1, 4, 16), (1, 9, 16)] * 2
    assert calls[0].inputs["past_key.0"].shape == (0, 1, 2, 8)
    assert np.array_equal(calls[2].inputs["x"], calls[2].outputs["hidden"])
    assert len(recording.calls("transformer", FIRST)) == len(recording.calls("tokens", FIRST)) == 3
    assert [call.wanted for call in calls] == [["hidden"]] * 6
    again = record(tmp_path / "again").calls("transformer")
    assert all(np.array_equal(one.inputs["x"], two.inputs["x"]) for one, two in zip(calls, again, strict=True))
    files = len(list((tmp_path / "calls").glob("*.npy")))
    assert (files > 0) == (most < MOST_IN_MEMORY)


@pytest.mark.parametrize("most", [0, MOST_IN_MEMORY])
def test_a_cache_is_kept_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """What each scale read and wrote comes back, from a file of the whole that is as large as the cache alone."""
    monkeypatch.setattr(hart_edge.export.parity.recording, "MOST_IN_MEMORY", most)
    recording = Recording(tmp_path / "calls")
    seen, wrote = [], []
    for _ in range(2):
        cache, held = torch.zeros(18, 2, 3, 8), 0
        for tokens in (5, 4, 9):
            past, new = cache[:held], torch.randn(tokens, 2, 3, 8)
            recording("transformer", {"past_null_key.0": past}, {"null_key.0": new})
            seen.append(past.clone())
            wrote.append(new)
            cache[held : held + tokens] = new
            held += tokens
        recording.end_prompt()
    calls = recording.calls("transformer")
    for call, tensor in zip(calls, seen, strict=True):
        assert np.array_equal(call.inputs["past_null_key.0"], tensor.numpy())
    for call, tensor in zip(calls, wrote, strict=True):
        assert call.wanted == ["null_key.0"]
        assert np.array_equal(call.outputs["null_key.0"], tensor.numpy())
    files = sorted(np.load(path).shape for path in (tmp_path / "calls").glob("*.npy"))
    assert files == ([] if most else [(tokens, 2, 3, 8) for tokens in (4, 4, 5, 5, 9, 9, 9, 9)])


def test_a_recording_is_shown_in_order(tmp_path: Path) -> None:
    recording = record(tmp_path / "calls")
    seen: list[tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    recording.show(lambda *call: seen.append(call))
    assert [graph for graph, _, _ in seen] == ["transformer", "tokens"] * 6
    assert all(torch.equal(inputs["x"], outputs["hidden"]) for _, inputs, outputs in seen[::2])
    first: list[str] = []
    recording.show(lambda graph, *_: first.append(graph), FIRST)
    assert first == ["transformer", "tokens"] * 3


def test_scales_are_those_of_all_prompts_together(judge: LogitsJudge) -> None:
    whole, first = (judge.errors(Transformer(()), first_prompt=flag) for flag in (False, True))
    assert [scale.tokens for scale in whole] == [2, 8, 18]
    assert [scale.tokens for scale in first] == [1, 4, 9]
    assert all(scale.kl > 0 for scale in whole)
    exact = judge.errors(Transformer(SHIFTS))
    assert [(scale.same, scale.largest, scale.kl) for scale in exact] == [(2, 0, 0), (8, 0, 0), (18, 0, 0)]


def test_every_layer_alone_the_most_sensitive_first(judge: LogitsJudge) -> None:
    said: list[str] = []
    found = measure_layers(LAYERS, open_with, judge, said.append)
    assert [layer.name for layer in found] == ["b", "a", "c", "d"]
    assert said[1] == "layer 2 of 4: b"
    alone = judge.errors(Transformer([w for w in SHIFTS if w not in ("wb", "wb2")]), first_prompt=True)
    assert found[0].kl == pytest.approx(np.mean([scale.kl / scale.tokens for scale in alone]))
    assert found[0].kl > 10 * found[1].kl > 0  # the square of the shift, nearly


@pytest.mark.parametrize("enough", [0, 1, 2, 3, 4, 9])
def test_as_few_layers_are_kept_as_are_enough(judge: LogitsJudge, enough: int) -> None:
    layers = measure_layers(LAYERS, open_with, judge, lambda _: None)
    order = [{"wb", "wb2"}, {"wa"}, {"wc"}, {"wd"}]
    asked: list[set[str]] = []

    def open_without(weights: Collection[str]) -> Transformer:
        asked.append(set(weights))
        return Transformer(weights)

    kept = fewest_left_out(layers, open_without, lambda session: len(asked[-1] & {"wb", "wa", "wc", "wd"}) >= enough)
    assert [layer.name for layer in kept] == ["b", "a", "c", "d"][:enough]
    assert all(weights == set().union(*order[: len(weights & {"wb", "wa", "wc", "wd"})]) for weights in asked)
    assert len(asked) <= 3


def test_names_of_layers() -> None:
    block = "transformer.blocks.3.mlp"
    assert layer_name([f"{block}.down.weight.T"]) == "blocks.3.mlp.down"
    assert layer_name([f"{block}.gate.weight.T", f"{block}.up.weight.T"]) == "blocks.3.mlp.gate+up"
    assert layers_of(linear_model(), Scheme.U8S8) == [("first", ("first",)), ("second", ("second",))]
