"""Packing a checkpoint for shipping, and the shipped model."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from hart_edge.errors import CheckpointError
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.pack import main, pack
from hart_edge.reference.text_model import load_text_model
from hart_edge.reference.weight_files import read_tensors
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from tests.reference.tiny_hart import Tiny, tiny_checkpoint, tiny_context

SHIPPED = Path(__file__).parents[2] / "hart_edge" / "models" / "hart-emoji"


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    """A checkpoint as training writes it: raw weights beside the moving average, and keys that only training needs"""
    tiny = tiny_checkpoint(tmp_path / "trained", 1)
    llm, tokenizer = tiny.folder / "llm", tiny.folder / "tokenizer"
    state = {name: torch.from_numpy(value) for name, value in tiny.llm_state.items()}
    safetensors.torch.save_file({name: value + 1 for name, value in state.items()}, llm / "model.safetensors")
    state["lvl_1L"] = torch.zeros(1, 19, dtype=torch.int64)
    state["attn_bias_for_masking"] = torch.full((1, 1, 19, 19), -torch.inf)
    state["blocks.0.attn.zero_k_bias"] = torch.zeros(32)
    torch.save(state, llm / "ema_model.bin")
    (llm / "ema_model.safetensors").unlink()
    state = {name: torch.from_numpy(value) for name, value in tiny.tokenizer_state.items()}
    state |= {"disc.head.weight": torch.ones(5), "vae.quantize.ema_vocab_hit_SV": torch.ones(3, 40)}
    safetensors.torch.save_file(state, tokenizer / "model.safetensors")
    (tiny.folder / "README.md").write_text("# as trained", "utf-8")
    return tiny


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_and_their_contents(tiny: Tiny, tmp_path: Path) -> None:
    packed = tmp_path / "deep" / "packed"
    files = pack(tiny.folder, packed)
    expected = ["README.md", "llm/config.json", "llm/ema_model.safetensors", "tokenizer/config.json"]
    assert [file.path for file in files] == listing(packed) == [*expected, "tokenizer/model.safetensors"]
    assert all(file.size == (packed / file.path).stat().st_size for file in files)
    assert list(packed.parent.iterdir()) == [packed]  # no temporary folder is left
    for path, state in (("llm/ema_model", tiny.llm_state), ("tokenizer/model", tiny.tokenizer_state)):
        found = read_tensors(packed / f"{path}.safetensors")
        assert set(found) == set(state)
        for name, tensor in found.items():
            assert tensor.dtype == torch.float16
            np.testing.assert_array_equal(tensor.numpy(), state[name].astype(np.float16))


def test_configurations(tiny: Tiny, tmp_path: Path) -> None:
    pack(tiny.folder, tmp_path / "packed")
    for part, config in (("llm", tiny.llm), ("tokenizer", tiny.tokenizer)):
        found = json.loads((tmp_path / "packed" / part / "config.json").read_text("utf-8"))
        assert found == {key: value for key, value in config.items() if key != "vae_path"} | {"dtype": "float16"}


def test_the_packed_model_computes_the_same(tiny: Tiny, tmp_path: Path) -> None:
    pack(tiny.folder, tmp_path / "packed")
    context, mask = map(torch.from_numpy, tiny_context(tiny.llm, "right", (3, 6), seed=1))
    latents = torch.randn(2, 13, 8, generator=torch.Generator().manual_seed(2))
    models = [load_checkpoint(folder).model for folder in (tiny.folder, tmp_path / "packed")]
    before, after = (model.teacher_forced(latents, context, mask) for model in models)
    assert before.std() > 1
    assert 0 < (before - after).abs().max() < 0.05


def test_the_source_is_recorded(tiny: Tiny, tmp_path: Path) -> None:
    pack(tiny.folder, tmp_path / "packed")
    with safetensors.safe_open(tmp_path / "packed" / "llm" / "ema_model.safetensors", "pt") as file:
        found = file.metadata()
    digest = hashlib.sha256((tiny.folder / "llm" / "ema_model.bin").read_bytes()).hexdigest()
    assert found == {"format": "pt", "packed_from": "ema_model.bin", "packed_from_sha256": digest}


@pytest.mark.long
def test_packing_again_gives_the_same_bytes_and_keeps_the_readme(tiny: Tiny, tmp_path: Path) -> None:
    packed, again = tmp_path / "packed", tmp_path / "again"
    pack(tiny.folder, packed)
    assert (packed / "README.md").read_text("utf-8") == "# as trained"
    (packed / "README.md").write_text("# as shipped", "utf-8")
    (packed / "sampling.json").write_text('{"top_p": 0.5}', "utf-8")
    (packed / "LICENSE").write_text("MIT", "utf-8")
    (packed / "llm" / "left.bin").write_bytes(b"of an earlier version")
    pack(tiny.folder, packed)
    assert (packed / "README.md").read_text("utf-8") == "# as shipped"
    assert load_checkpoint(packed).sampling == {"top_p": 0.5} and (packed / "LICENSE").read_text("utf-8") == "MIT"
    assert "llm/left.bin" not in listing(packed)
    pack(packed, again)  # a packed checkpoint is a checkpoint
    for path, other in ((packed / "llm", again / "llm"), (packed / "tokenizer", again / "tokenizer")):
        assert (path / "config.json").read_bytes() == (other / "config.json").read_bytes()
        for name, tensor in read_tensors(next(path.glob("*.safetensors"))).items():
            assert torch.equal(tensor, read_tensors(next(other.glob("*.safetensors")))[name])


@pytest.mark.parametrize(("value", "shown"), [(65520.0, "65520"), (-1e6, "-1e+06"), (float("nan"), "nan")])
def test_values_beyond_fp16_are_refused(tiny: Tiny, tmp_path: Path, value: float, shown: str) -> None:
    path = tiny.folder / "llm" / "ema_model.bin"
    state = torch.load(path, weights_only=True)
    state["head.weight"][3, 5] = value
    torch.save(state, path)
    with pytest.raises(CheckpointError) as caught:
        pack(tiny.folder, tmp_path / "packed")
    assert str(caught.value) == (
        f"{path}: head.weight: expected values that FP16 holds (up to 65504), found {shown} "
        f"(1 of {40 * 32} do not fit); ship these weights in float32"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trained"]  # nothing was left behind


def test_the_largest_value_is_packed(tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.folder / "llm" / "ema_model.bin"
    state = torch.load(path, weights_only=True)
    state["head.weight"][3, 5] = 65519.0  # rounds down to 65504
    torch.save(state, path)
    pack(tiny.folder, tmp_path / "packed")
    assert load_checkpoint(tmp_path / "packed").model.transformer.head.weight[3, 5] == 65504


def test_a_failure_leaves_the_earlier_version(tiny: Tiny, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    pack(tiny.folder, packed)
    before = {name: (packed / name).read_bytes() for name in listing(packed)}
    (tiny.folder / "llm" / "ema_model.bin").unlink()
    with pytest.raises(
        CheckpointError, match=r"llm: no weights; expected one of ema_model\.safetensors, ema_model\.bin"
    ):
        pack(tiny.folder, packed)  # raw weights are not shipped
    assert {name: (packed / name).read_bytes() for name in listing(packed)} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["packed", "trained"]


def test_refused_destinations(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is the checkpoint to pack; choose another destination"):
        pack(tiny.folder, tiny.folder / "llm" / "..")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    expected = "expected nothing, or a packed checkpoint to replace, found thesis.tex; choose another destination"
    with pytest.raises(CheckpointError, match=expected):
        pack(tiny.folder, home)
    assert (home / "thesis.tex").read_text() == "years of work"
    with pytest.raises(CheckpointError, match="found a file; choose another destination"):
        pack(tiny.folder, home / "thesis.tex")


@pytest.mark.long
def test_the_text_model_is_packed_too(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED / "text_model", tiny.folder / "text_model")
    (tiny.folder / "text_model" / "prompt.txt").write_text("draw", "utf-8")
    pack(tiny.folder, tmp_path / "packed")
    names = ["config.json", "model.safetensors", "prompt.txt", "tokenizer.json", "tokenizer_config.json"]
    assert listing(tmp_path / "packed" / "text_model") == names
    packed, _ = load_text_model(tmp_path / "packed" / "text_model", 6, PromptTokenizer.padding_with)
    assert packed.instruction.shape == (1, 3)
    (tiny.folder / "text_model" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing; save the tokenizer with"):
        pack(tiny.folder, tmp_path / "packed")


def test_command_line(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packed = tmp_path / "packed"
    assert main([str(tiny.folder), str(packed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" MB  ")[1] for line in lines] == [*listing(packed), str(packed)]
    total = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
    assert lines[-1] == f"{total / 1e6:8.2f} MB  {packed}"
    assert main([str(tmp_path / "none"), str(packed)]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.split(":")[0]) == ("", "error")


def test_the_shipped_model() -> None:
    checkpoint = load_checkpoint(SHIPPED)
    assert checkpoint.has_text_model
    assert [path.name for path in checkpoint.read] == ["ema_model.safetensors", "model.safetensors"]
    assert checkpoint.model.image_size == 128
    assert checkpoint.model.patch_nums == (1, 2, 3, 4, 5, 6, 8)
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) < 40e6
    assert {"LICENSE", "README.md"} <= set(listing(SHIPPED))
    readme = (SHIPPED / "README.md").read_text("utf-8")
    for word in ("MIT", "Apache-2.0", "Fluent", "Noto", "emojibase", "hart-edge eval", "hart_edge.reference.pack"):
        assert word in readme
    assert not [path for path in SHIPPED.rglob("config.json") if "_name_or_path" in path.read_text("utf-8")]
    for path in SHIPPED.rglob("*.safetensors"):
        assert {tensor.dtype for tensor in read_tensors(path).values()} == {torch.float16}
