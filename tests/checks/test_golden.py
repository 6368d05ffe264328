"""Every golden record, and what hart_edge/checks/golden.py says when the model or the records are wrong."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from hart_edge.checks.golden import (
    EXACT,
    LATENT_TOLERANCE,
    LOGITS_TOLERANCE,
    RecordResult,
    check_reference,
    compare,
    guidance_of,
    read_records,
    record_reference,
)
from hart_edge.errors import CheckpointError
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.weight_files import read_tensors

GOLDEN = Path(__file__).parents[1] / "golden"
# Records that are inputs of the model, which are not compared.
INPUTS = re.compile(r"context|context_mask|teacher\.input|tok\.input|resnet\.[xtc]|residual\.noise\d")
LINE = re.compile(r"(\S+) +(\d\.\d{3}e[+-]\d\d)  tolerance (\de[+-]\d\d)  (ok|FAILED)")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A copy that a test may spoil"""
    return Path(shutil.copytree(GOLDEN / "plain", tmp_path / "plain"))


def edit_records(folder: Path, **changed: np.ndarray | None) -> None:
    records = read_records(folder) | {name.replace("__", "."): value for name, value in changed.items()}
    np.savez(folder / "golden.npz", **{name: value for name, value in records.items() if value is not None})


@pytest.mark.long
@pytest.mark.parametrize("name", ["adaln", "shared-adaln", "plain"])
def test_every_record(name: str) -> None:
    results = {result.name: result for result in check_reference(GOLDEN / name)}
    expected = {record for record in read_records(GOLDEN / name) if not INPUTS.fullmatch(record)}
    assert set(results) == expected
    assert [result.line() for result in results.values() if not result.ok] == []
    for record, result in results.items():
        if "indices" in record or record in ("context_position_ids", "residual.timesteps"):
            assert (result.error, result.tolerance) == (0, EXACT), record
        elif "logits" in record or record == "residual.condition":
            assert result.tolerance == LOGITS_TOLERANCE == 2e-4, record
        else:
            assert 0 < result.tolerance <= LATENT_TOLERANCE == 1e-4, record
    assert results["image"].error > 0  # two implementations never agree to the last bit, so something was compared


def test_records_of_a_checkpoint_are_made_and_met(plain: Path) -> None:
    """The names, types and shapes of the published implementation's; the reference meets its own to the last bit."""
    published = read_records(plain)
    with pytest.raises(CheckpointError, match=r"golden\.npz: expected no records, found some; move them away first"):
        record_reference(plain)
    (plain / "golden.npz").unlink()
    assert record_reference(plain) == len(published)
    made = read_records(plain)
    assert {name: (each.dtype, each.shape) for name, each in made.items()} == {
        name: (each.dtype, each.shape) for name, each in published.items()
    }
    assert {result.error for result in check_reference(plain)} == {0.0}
    assert sorted(path.name for path in plain.iterdir()) == ["golden.npz", "llm", "tokenizer"]


def test_guidance_is_read_from_the_record() -> None:
    records = read_records(GOLDEN / "plain")
    assert guidance_of(records, 5) == pytest.approx(4.5, abs=1e-6)
    assert float(records["residual.cfg"]) == pytest.approx(4.5 * 3 / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("result", "line"),
    [
        (RecordResult("image", 2.5e-6, 1e-4), "image                     2.500e-06  tolerance 1e-04  ok"),
        (RecordResult("stage0.logits", 3e-4, 2e-4), "stage0.logits             3.000e-04  tolerance 2e-04  FAILED"),
        (RecordResult("tok.indices1", 0, 0), "tok.indices1              0.000e+00  tolerance 0e+00  ok"),
        (RecordResult("tok.indices1", 2, 0), "tok.indices1              2.000e+00  tolerance 0e+00  FAILED"),
        (RecordResult("image", 1e-4, 1e-4), "image                     1.000e-04  tolerance 1e-04  ok"),
    ],
)
def test_result_line(result: RecordResult, line: str) -> None:
    assert result.line() == line
    assert LINE.fullmatch(line)
    assert result.ok == line.endswith("ok")


def test_not_a_number_fails() -> None:
    result = compare("image", np.array([0.5, np.nan]), {"image": np.array([0.5, 0.5])}, 1e-4)
    assert not result.ok
    assert result.line().endswith("FAILED")


def test_differing_indices_are_counted() -> None:
    records = {"stage1.indices": np.array([[1, 2, 3, 4]])}
    assert compare("stage1.indices", np.array([[1, 9, 3, 5]]), records, 1.0) == RecordResult("stage1.indices", 2, 0.0)


@pytest.mark.long
@pytest.mark.parametrize(
    ("part", "tensor", "failing", "passing"),
    [
        ("llm/ema_model.bin", "head.bias", "teacher.logits", "tok.latent"),
        ("llm/ema_model.bin", "blocks.1.attn.v_bias", "stage0.logits", "resnet.y"),
        ("llm/ema_model.bin", "diffloss.net.final_layer.linear.bias", "resnet.y", "stage4.logits"),
        ("tokenizer/model.safetensors", "vae.quant_conv.bias", "tok.latent", "teacher.logits"),
        ("tokenizer/model.safetensors", "vae.post_quant_conv.weight", "image", "residual.sample"),
        ("tokenizer/model.safetensors", "vae.quantize.quant_resi.qresi_ls.1.weight", "stage1.f_hat", "stage0.f_hat"),
    ],
)
def test_a_perturbed_weight_fails(plain: Path, part: str, tensor: str, failing: str, passing: str) -> None:
    state = read_tensors(plain / part)
    state = {name: value.clone() for name, value in state.items()}
    state[tensor].view(-1)[0] += 0.05
    if part.endswith(".bin"):
        torch.save(state, plain / part)
    else:
        safetensors.torch.save_file(state, plain / part)
    results = {result.name: result for result in check_reference(plain)}
    assert not results[failing].ok
    assert results[failing].line().endswith("FAILED")
    assert results[passing].ok


def test_the_raw_weights_would_fail(plain: Path) -> None:
    (plain / "llm" / "ema_model.bin").unlink()  # model.safetensors is left, with the raw weights
    assert load_checkpoint(plain).read[0].name == "model.safetensors"
    assert not all(result.ok for result in check_reference(plain))


@pytest.mark.long
@pytest.mark.parametrize("record", ["context", "residual.noise3", "teacher.input", "resnet.c"])
def test_a_missing_input_record(plain: Path, record: str) -> None:
    edit_records(plain, **{record.replace(".", "__"): None})
    with pytest.raises(CheckpointError, match=rf"golden\.npz: record '{re.escape(record)}' is missing; found context"):
        list(check_reference(plain))


@pytest.mark.long
@pytest.mark.parametrize("record", ["stage2.logits", "image", "residual.cfg", "tok.rest"])
def test_a_missing_output_record(plain: Path, record: str) -> None:
    edit_records(plain, **{record.replace(".", "__"): None})
    with pytest.raises(CheckpointError, match=rf"record '{re.escape(record)}' is missing"):
        list(check_reference(plain))


@pytest.mark.long
def test_a_misshapen_record(plain: Path) -> None:
    edit_records(plain, tok__latent=np.zeros((2, 32, 7, 6), np.float32))
    message = r"tok\.latent: the record has shape \(2, 32, 7, 6\), the model computes \(2, 32, 7, 7\)"
    with pytest.raises(CheckpointError, match=message):
        list(check_reference(plain))


def test_records_of_another_checkpoint(plain: Path) -> None:
    shutil.copy(GOLDEN / "adaln/golden.npz", plain)
    message = (
        r"^golden\.npz: context: expected the shape \(N, 10, 56\) of the model in .*, found \(2, 12, 48\): they are"
    )
    with pytest.raises(CheckpointError, match=message):
        list(check_reference(plain))


def test_records_that_the_model_cannot_read(plain: Path) -> None:
    edit_records(plain, residual__cfg=np.zeros(3, np.float32))
    with pytest.raises(
        CheckpointError, match=r"cannot be read by this model \(TypeError: .*\); make them with hart-edge"
    ):
        list(check_reference(plain))


def test_no_record_file(plain: Path) -> None:
    (plain / "golden.npz").unlink()
    with pytest.raises(CheckpointError, match=r"golden\.npz: missing; expected the golden records beside tokenizer/"):
        list(check_reference(plain))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "middle"])
def test_a_corrupt_record_file(plain: Path, damage: str) -> None:
    path = plain / "golden.npz"
    whole = path.read_bytes()
    middle = whole[:100] + bytes(5000) + whole[5100:]
    path.write_bytes({"cut": whole[:5000], "empty": b"", "text": b"not an archive", "middle": middle}[damage])
    with pytest.raises(CheckpointError, match=r"golden\.npz: not a readable record file \(.+\); copy it again"):
        list(check_reference(plain))


def test_a_pickled_record_is_not_read(plain: Path) -> None:
    edit_records(plain, image=np.array([{"an": "object"}], dtype=object))
    with pytest.raises(CheckpointError, match=r"not a readable record file \(Object arrays cannot be loaded"):
        list(check_reference(plain))
