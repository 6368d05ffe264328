"""States and published weights on disk: written atomically, limited in number, refused with a message if unfit."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from hart_edge.reference.config import TokenizerConfig, read_tokenizer_config
from hart_edge.training.checkpoints import check_state, load_state, save_state, states, write_atomically
from hart_edge.training.errors import TrainingError
from hart_edge.training.recipe import to_json
from hart_edge.training.tokenizer.recipe import Tokenizer, open_tokenizer, publish_tokenizer
from tests.training.tokenizer.tiny_tokenizer import CONFIG, RECIPE


def test_a_state_comes_back(tmp_path: Path) -> None:
    file = save_state(tmp_path, 7, {"weights": torch.arange(3), "recipe": {"batch": 4}}, keep=2)
    assert file == tmp_path / "state" / "step-00000007.pt"
    state = load_state(file)
    assert state["step"] == 7 and state["recipe"] == {"batch": 4} and state["weights"].tolist() == [0, 1, 2]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 200):
        save_state(tmp_path, step, {}, keep=2)
    assert [file.name for file in states(tmp_path)] == ["step-00000015.pt", "step-00000200.pt"]


@pytest.mark.parametrize("size", [3, 10**6])  # found full at the end, and while it is written
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, size: int) -> None:
    kept = save_state(tmp_path, 1, {"weights": torch.ones(3)}, keep=2)
    (tmp_path / "state" / ".step-00000002.pt.part").symlink_to("/dev/full")
    with pytest.raises(TrainingError) as caught:
        save_state(tmp_path, 2, {"weights": torch.zeros(size)}, keep=1)
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/state/step-00000002.pt: could not be written (")
    assert told.endswith("); what was there before is unchanged: make room on the disk and use --resume")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["step-00000001.pt"]
    assert load_state(kept)["weights"].tolist() == [1, 1, 1]


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match=r"File exists.*: make the folder writable and use --resume$"):
        save_state(tmp_path, 2, {}, keep=1)


def test_an_interrupted_write_leaves_no_state(tmp_path: Path) -> None:
    """A kill in the middle leaves a file with a temporary name, which the next write of that step replaces."""
    save_state(tmp_path, 1, {}, keep=2)
    (tmp_path / "state" / ".step-00000002.pt.part").write_bytes(b"half")
    assert [file.name for file in states(tmp_path)] == ["step-00000001.pt"]
    save_state(tmp_path, 2, {}, keep=2)
    assert sorted(os.listdir(tmp_path / "state")) == ["step-00000001.pt", "step-00000002.pt"]


@pytest.mark.parametrize("contents", [b"", b"PK\x03\x04 not a zip file", b"\x80\x02K\x01."])
def test_a_file_that_is_no_state(tmp_path: Path, contents: bytes) -> None:
    file = tmp_path / "step-00000001.pt"
    file.write_bytes(contents)
    with pytest.raises(TrainingError) as caught:
        load_state(file)
    assert str(caught.value).startswith(f"{file}: expected the state of a run, found an unreadable file (")
    assert str(caught.value).endswith("delete it, and --resume takes the one before")


def test_a_state_runs_no_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    file = tmp_path / "step-00000001.pt"
    torch.save({"format": 1, "step": 1, "model": Harmful()}, file)
    with pytest.raises(TrainingError, match="found an unreadable file"):
        load_state(file)
    assert not (tmp_path / "harm").exists()


def test_another_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "step-00000001.pt"
    torch.save({"format": 2}, file)
    with pytest.raises(TrainingError, match="expected format 1, found 2"):
        load_state(file)


# What a run may resume from.


def test_the_recipe_of_a_state_is_compared_with_that_of_the_run() -> None:
    state = {"recipe": to_json(RECIPE), "fingerprint": "data"}
    check_state(Path("a.pt"), state, RECIPE, "data")
    with pytest.raises(TrainingError) as caught:
        check_state(Path("a.pt"), state, dataclasses.replace(RECIPE, alternating=0.25), "data")
    assert str(caught.value) == (
        "a.pt: expected the recipe of the run, found other values (then, now):\n  alternating: 0.5, 0.25\n"
        "use the recipe of the run, or begin another with --out and --init"
    )
    with pytest.raises(TrainingError, match="expected the examples of the run, found others"):
        check_state(Path("a.pt"), state, RECIPE, "other data")


def test_a_field_that_the_state_does_not_know_yet_counts_as_its_default() -> None:
    then = to_json(RECIPE)
    del then["adversarial"], then["optimisation"]["clip"]
    check_state(Path("a.pt"), {"recipe": then, "fingerprint": "data"}, RECIPE, "data")


# What a run publishes.


@pytest.mark.parametrize(
    "phi", [{"share_quant_resi": 4}, {"share_quant_resi": 1}, {"share_quant_resi": 0}, {"quant_resi": 0.0}]
)
def test_a_published_tokenizer_is_read_back(tmp_path: Path, phi: dict[str, float]) -> None:
    config = dataclasses.replace(CONFIG, **phi)
    model = Tokenizer(dataclasses.replace(RECIPE, tokenizer=config))
    publish_tokenizer(tmp_path, config, model, {"steps": "3"})
    raw = json.loads((tmp_path / "tokenizer" / "config.json").read_text("utf-8"))
    assert read_tokenizer_config(raw) == config
    found, expected = open_tokenizer(tmp_path / "tokenizer").state_dict(), model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_published_config_has_the_published_keys(tmp_path: Path) -> None:
    config = TokenizerConfig((1, 2), 16, z_channels=4, ch=32)
    publish_tokenizer(tmp_path, config, Tokenizer(dataclasses.replace(RECIPE, tokenizer=config)), {})
    raw = json.loads((tmp_path / "tokenizer" / "config.json").read_text("utf-8"))
    assert raw["v_patch_nums"] == [1, 2] and raw["model_type"] == "hart_autoencoder_with_disc"
    assert "norm_groups" not in raw  # our own key, written only where it is not the published 32


def test_write_atomically_replaces(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "file"
    for contents in (b"one", b"two"):
        write_atomically(file, lambda stream, contents=contents: stream.write(contents))
    assert file.read_bytes() == b"two" and os.listdir(file.parent) == ["file"]
