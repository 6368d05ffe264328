"""A recording of the reference's calls returns them unchanged: in order, by graph, from memory or from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hart_edge.export.parity.recording import FIRST, MOST_IN_MEMORY, Recorder, Recording


def record(folder: Path, most: int = MOST_IN_MEMORY) -> Recording:
    recorder, dice = Recorder(folder, most), np.random.default_rng(0)
    for _ in range(2):
        for tokens in (1, 4, 9):
            hidden = dice.standard_normal((1, tokens, 16), np.float32)
            past = np.zeros((0, 1, 2, 8), np.float32)
            recorder("transformer", {"x": hidden, "past_key.0": past}, {"hidden": hidden})
            cfg_scale = np.ones(1, np.float32)
            recorder("tokens", {"hidden": hidden, "cfg_scale": cfg_scale}, {"indices": np.zeros(1, np.int64)})
        recorder.end_prompt()
    return recorder.recording()


@pytest.mark.parametrize("most", [0, 500, MOST_IN_MEMORY])
def test_a_recording_gives_back_what_it_saw(tmp_path: Path, most: int) -> None:
    """From memory, from files, or from both."""
    recording = record(tmp_path / "calls", most)
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
def test_a_cache_is_stored_once(tmp_path: Path, most: int) -> None:
    """Each scale's reads and writes of the cache come back, from a file no larger than one cache."""
    recorder, dice = Recorder(tmp_path / "calls", most), np.random.default_rng(0)
    seen, wrote = [], []
    for _ in range(2):
        cache, rows = np.zeros((18, 2, 3, 8), np.float32), 0
        for tokens in (5, 4, 9):
            past, new = cache[:rows], cache[rows : rows + tokens]
            new[...] = dice.standard_normal(new.shape)
            recorder("transformer", {"past_null_key.0": past}, {"null_key.0": new})
            seen.append(past.copy())
            wrote.append(new.copy())
            rows += tokens
        recorder.end_prompt()
        cache[:] = np.nan  # the loop reuses its memory
    calls = recorder.recording().calls("transformer")
    for call, array in zip(calls, seen, strict=True):
        assert np.array_equal(call.inputs["past_null_key.0"], array)
    for call, array in zip(calls, wrote, strict=True):
        assert call.wanted == ["null_key.0"]
        assert np.array_equal(call.outputs["null_key.0"], array)
    files = sorted(np.load(path).shape for path in (tmp_path / "calls").glob("*.npy"))
    assert files == ([] if most else [(tokens, 2, 3, 8) for tokens in (4, 4, 5, 5, 9, 9, 9, 9)])


def test_a_recording_is_shown_in_order(tmp_path: Path) -> None:
    recording = record(tmp_path / "calls")
    seen: list[tuple[str, Mapping[str, np.ndarray], Mapping[str, np.ndarray]]] = []
    recording.show(lambda *call: seen.append(call))
    assert [graph for graph, _, _ in seen] == ["transformer", "tokens"] * 6
    assert all(np.array_equal(inputs["x"], outputs["hidden"]) for _, inputs, outputs in seen[::2])
    first: list[str] = []
    recording.show(lambda graph, *_: first.append(graph), FIRST)
    assert first == ["transformer", "tokens"] * 3
