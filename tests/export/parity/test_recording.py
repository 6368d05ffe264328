"""What the reference made is given back as it was: in order, by graph, from memory or from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hart_edge.export.parity.recording import FIRST, MOST_IN_MEMORY, Recording


def record(folder: Path, most: int = MOST_IN_MEMORY) -> Recording:
    recording = Recording(folder, most)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        for tokens in (1, 4, 9):
            hidden = torch.randn(1, tokens, 16, generator=generator)
            recording("transformer", {"x": hidden, "past_key.0": torch.zeros(0, 1, 2, 8)}, {"hidden": hidden})
            recording("tokens", {"hidden": hidden, "cfg_scale": torch.ones(1)}, {"indices": torch.zeros(1)})
        recording.end_prompt()
    return recording


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
def test_a_cache_is_kept_once(tmp_path: Path, most: int) -> None:
    """What each scale read and wrote comes back, from a file of the whole that is as large as the cache alone."""
    recording = Recording(tmp_path / "calls", most)
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
