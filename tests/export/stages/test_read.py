"""What a build reads before it traces anything, and its messages for input that cannot be used."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hart_edge.bundle.manifest import Precision
from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.errors import BuildError, CheckpointError
from hart_edge.export.chain import build
from hart_edge.export.options import BuildOptions, StepDone
from hart_edge.export.stages.read import check_excluded, random_source, read_contexts, read_licences, require_fit
from hart_edge.reference.presets import SHIPPED_MODEL, TextShape
from tests.export.small_checkpoint import small_configs


def write_npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "not an npz with context and context_mask .*No such file"),
        (lambda path: path.write_bytes(b""), "not an npz"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "not an npz"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "not an npz"),
        (lambda path: write_npz(path, context=np.zeros((1, 12, 48))), "not an npz .*context_mask"),
        (lambda path: write_npz(path, context=np.array([{}]), context_mask=np.zeros((1, 12))), "not an npz"),
        (
            lambda path: write_npz(path, context=np.zeros((2, 12, 40)), context_mask=np.ones((2, 12))),
            r"expected context \(N, 12, 48\) and context_mask \(N, 12\), found \(2, 12, 40\) and \(2, 12\)",
        ),
        (
            lambda path: write_npz(path, context=np.zeros((0, 12, 48)), context_mask=np.ones((0, 12))),
            r"found \(0, 12, 48\)",
        ),
    ],
)
def test_malformed_context_files(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "contexts.npz"
    make(path)
    with pytest.raises(BuildError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_contexts(path, 12, 48)


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"not readable as UTF-8 text \(.*No such file"),
        (b"", "expected at least one prompt, found none; write one a line"),
        (b"# nothing but remarks\n\n   \n", "expected at least one prompt, found none"),
        ("ein hübscher Fuchs".encode("latin-1"), r"not readable as UTF-8 text \(.*; name a file with one prompt a"),
    ],
)
def test_malformed_prompt_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    labels: list[str | StepDone] = []
    with pytest.raises(BuildError, match=f"^{re.escape(str(path))}: {message}"):
        build(BuildOptions(SHIPPED_MODEL, tmp_path / "bundle", prompts=path), labels.append)
    assert not [label for label in labels if "tracing" in str(label)]
    assert not (tmp_path / "bundle").exists()


def test_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa fox\r\n\n# remark\n  ein hübscher Fuchs  \n".encode())
    assert read_prompts(path) == ["a fox", "ein hübscher Fuchs"]


@pytest.mark.parametrize(
    "content",
    ["{", '{"part": "x"}', '[{"part": "x"}]', '[{"part": "x", "spdx": 3, "attribution": "y"}]', "[1]", "null", "\xff"],
)
def test_malformed_licences(tmp_path: Path, content: str) -> None:
    (tmp_path / "licences.json").write_bytes(content.encode("latin-1"))
    message = r"/licences\.json: expected a list of part, spdx and attribution \(.+\); mend it$"
    with pytest.raises(CheckpointError, match=message):
        read_licences(tmp_path)


def test_licences_are_read(tmp_path: Path) -> None:
    assert read_licences(tmp_path) == ()
    (tmp_path / "licences.json").write_text('[{"part": "weights", "spdx": "MIT", "attribution": "Zoë"}]', "utf-8")
    assert [vars(licence) for licence in read_licences(tmp_path)] == [
        {"part": "weights", "spdx": "MIT", "attribution": "Zoë"}
    ]


def test_missing_checkpoint(tmp_path: Path) -> None:
    messages = {"absent": "no such checkpoint folder", "empty": r"parts tokenizer/ and llm/ .*, found nothing"}
    for name, message in messages.items():
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        with pytest.raises(CheckpointError, match=message):
            build(BuildOptions(folder, tmp_path / "bundle", Precision.FP32))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_a_preset_is_the_same_weights_every_time() -> None:
    state = torch.random.get_rng_state()
    first, again = random_source("tiny", small_configs), random_source("tiny", small_configs)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.weights_sha256 == again.weights_sha256
    weights = first.model.state_dict()
    assert all(torch.equal(weights[name], tensor) for name, tensor in again.model.state_dict().items())
    assert first.weight_bytes == sum(tensor.nbytes for tensor in first.model.parameters())


def test_a_preset_needs_no_contexts() -> None:
    source = random_source("tiny", small_configs)
    assert source.random and source.tokenizer is None and source.licences == ()
    (given,) = source.calibration_inputs(None, None)
    assert given["context"].shape == (1, 12, 48) and given["context_mask"].sum() == 6


def test_weights_that_the_head_does_not_need_are_freed() -> None:
    source = random_source("tiny", small_configs)
    before = {name: tensor.clone() for name, tensor in source.model.state_dict().items()}
    source.free_weights()
    left = source.model.state_dict()
    gone = {name for name in before if name.startswith("transformer.blocks.")}
    assert {name for name in before if not left[name].numel()} == gone
    assert all(torch.equal(before[name], left[name]) for name in before.keys() - gone)


def test_unknown_preset() -> None:
    with pytest.raises(BuildError, match=r"^preset: expected one of hart-0\.7b-256, .*, found 'hart-7b'$"):
        random_source("hart-7b")


def test_a_large_text_model_wants_a_word_on_its_instruction(tmp_path: Path) -> None:
    config: Any = SimpleNamespace(context_dim=1536)
    large: Any = SimpleNamespace(
        model=SimpleNamespace(config=SimpleNamespace(hidden_size=1536)),
        parameters=lambda: [SimpleNamespace(numel=lambda: 10**9)],
        instruction_text="",
    )
    with pytest.raises(CheckpointError) as caught:
        require_fit(large, config, tmp_path)
    for phrase in ("expected prompt.txt, the instruction", "1.0 billion parameters", "--no-instruction"):
        assert phrase in str(caught.value)
    require_fit(large, config, tmp_path, "")
    large.instruction_text = "draw"
    require_fit(large, config, tmp_path)
    config.context_dim = 192
    with pytest.raises(
        CheckpointError, match=r"expected hidden_size 192, the context_dim of llm/config\.json, found 1536"
    ):
        require_fit(large, config, tmp_path)


def test_a_preset_with_a_text_model() -> None:
    shape = TextShape(layers=2, heads=3, key_value_heads=1, mlp=64, vocabulary=2048, instruction_tokens=7)
    source, again = (random_source("tiny", small_configs, shape) for _ in range(2))
    assert source.random and source.text is not None and not source.has_likely_codes
    assert source.text.instruction.shape == (1, 7)
    one, other = source.text.model.state_dict(), again.text.model.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert next(iter(source.graphs)) == "text_model"
    (given,) = source.parity_inputs()
    assert given["input_ids"].shape == (1, 12)
    bare = random_source("tiny", small_configs, shape, "")
    assert bare.text is not None and bare.text.instruction.shape == (1, 0)
    assert {name for name, *_ in source.weights()} >= {"text_model.embed_tokens.weight", "transformer.head.weight"}


def test_patterns_of_weights_are_checked_before_anything_is_traced() -> None:
    graphs = random_source("small", small_configs).graphs
    check_excluded(graphs, ["transformer.blocks.0.*", "transformer.head.weight.T", "*.conv1"])
    with pytest.raises(BuildError, match=r"^--exclude nothing\.\*: no weight has a name like this; they are like \w+"):
        check_excluded(graphs, ["transformer.*", "nothing.*"])
