"""Files of the evaluator: they are read back as written, hashed, and refused where they were altered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from hart_edge.errors import CheckpointError
from hart_edge.evaluation.evaluate import stacked
from hart_edge.evaluation.evaluator import open_evaluator
from tests.training.evaluator import tiny_evaluator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_evaluator.task().publish(tmp_path, 3)
    return tmp_path / "evaluator"


def test_an_evaluator_read_back_gives_the_same_features(folder: Path) -> None:
    task, judge = tiny_evaluator.task(), open_evaluator(folder)
    pictures, captions = task.model.eval() and task.embed_validation()
    images = stacked(list(task.validation.images))
    prompts = [own[0] for own in task.validation.captions]
    assert torch.allclose(judge.embed_pictures(images), pictures, atol=1e-5)
    assert torch.allclose(judge.embed_prompts(prompts), captions, atol=1e-5)
    assert judge.sha256 == json.loads((folder / "config.json").read_text("utf-8"))["sha256"]
    assert judge.model.features(images).shape == (8, 16)


def test_pictures_of_another_side_are_resized(folder: Path) -> None:
    judge, images = open_evaluator(folder), stacked(list(tiny_evaluator.pictures(3).images))
    larger = images.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert judge.model.seen(larger).shape == (3, 3, 32, 32)
    assert torch.allclose(judge.model.features(larger), judge.model.features(images), atol=0.1)


def test_the_hash_is_of_weights_and_tokenizer(folder: Path) -> None:
    first = open_evaluator(folder).sha256
    tiny_evaluator.task().publish(folder.parent, 9)  # other metadata, the same weights
    assert open_evaluator(folder).sha256 == first
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights["log_scale"] += 1
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=f"expected weights of sha256 {first[:16]}, found .*copy the folder again"
    ):
        open_evaluator(folder)


def test_files_that_are_no_evaluator_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"found the run that made it; name {tmp_path}/evaluator"):
        open_evaluator(tmp_path)
    with pytest.raises(CheckpointError, match=r"nowhere/config.json: missing"):
        open_evaluator(tmp_path / "nowhere")
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    safetensors.torch.save_file({**weights, "image_embed.bias": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"image_embed.bias: expected shape \(8,\), found \(3,\)"):
        open_evaluator(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "format": 2}), "utf-8")
    with pytest.raises(CheckpointError, match="expected format 1 with a sha256, found another file"):
        open_evaluator(folder)
