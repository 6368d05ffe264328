"""The check of ONNX files: its table against the onnx package, what it accepts, and how long it takes."""

import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hart_edge.bundle.onnx_guard import _LAYOUTS, MICROSOFT_OPERATORS, check_graph
from hart_edge.errors import BundleError
from tests.bundle.corrupt_bundles import GRAPHS, set_external
from tests.bundle.make_bundle import make_bundle

WIRE_TYPES = {1: 1, 2: 5, 9: 2, 11: 2, 12: 2}  # of protobuf's field types; every other one is a varint


def model_of(*nodes: Any, **graph: Any) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph([*nodes], "g", [], [], **graph))


def save(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_the_table_is_that_of_the_onnx_package() -> None:
    """Every field of every message that a model can reach: number, repetition, wire type, message."""
    seen: dict[str, str] = {}

    def compare(message: Any, name: str) -> None:
        if message.full_name in seen:
            assert _LAYOUTS[seen[message.full_name]] == _LAYOUTS[name]
            return
        seen[message.full_name] = name
        assert set(_LAYOUTS[name]) == {field.number for field in message.fields}, message.full_name
        for field in message.fields:
            ours = _LAYOUTS[name][field.number]
            assert (ours.repeated, ours.wire) == (field.is_repeated, WIRE_TYPES.get(field.type, 0)), field.full_name
            assert (field.message_type is not None) == (ours.kind in _LAYOUTS), field.full_name
            if field.message_type is not None:
                compare(field.message_type, ours.kind)

    compare(onnx.ModelProto.DESCRIPTOR, "Model")
    assert len(seen) > 25


def test_every_kind_of_content_is_accepted(tmp_path: Path) -> None:
    """Packed and raw numbers, strings, sparse tensors, subgraphs, functions, types, metadata, external data."""
    inner = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "inner", [], [])
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("indices", TensorProto.INT64, [1], [2]),
        [4],
    )
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    set_external(outside, location="w.bin", offset="16", length="16", checksum="aa")
    model = model_of(
        helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner),
        helper.make_node("Constant", [], ["e"], sparse_value=sparse),
        helper.make_node("Constant", [], ["f"], value_floats=[1.0, 2.0], doc_string="x" * 5000),
        helper.make_node("Constant", [], ["g"], value_strings=["a", "b"]),
        *(helper.make_node(each, ["a"], ["b"], domain="com.microsoft") for each in sorted(MICROSOFT_OPERATORS)),
        initializer=[
            outside,
            numpy_helper.from_array(np.arange(6, dtype=np.int64), "raw"),
            helper.make_tensor("packed", TensorProto.INT64, [2], [1, -1]),
            helper.make_tensor("doubles", TensorProto.DOUBLE, [2], [1.0, 2.0]),
            helper.make_tensor("strings", TensorProto.STRING, [2], [b"a", b"b"]),
        ],
        value_info=[
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["2B", 3]),
            helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1]),
        ],
        sparse_initializer=[sparse],
    )
    model.functions.append(
        helper.make_function("ai.onnx", "F", ["a"], ["b"], [inner.node[0]], [helper.make_opsetid("", 18)])
    )
    helper.set_model_props(model, {"key": "value" * 2000})
    check_graph(save(model, tmp_path), allowed_external={"w.bin": 32})
    with pytest.raises(BundleError, match=r"within the 31 bytes of w\.bin, found bytes 16 to 32"):
        check_graph(save(model, tmp_path), allowed_external={"w.bin": 31})


def test_the_caller_chooses_the_allowed_operators(tmp_path: Path) -> None:
    path = save(model_of(helper.make_node("FastGelu", ["a"], ["b"], "gelu", domain="com.microsoft")), tmp_path)
    with pytest.raises(BundleError, match=r"known operator of com\.microsoft, found 'FastGelu' in node 'gelu'; do not"):
        check_graph(path, allowed_external={})
    check_graph(path, allowed_external={}, allowed_microsoft=frozenset({"FastGelu"}))


def test_a_refusal_names_the_graph(tmp_path: Path) -> None:
    path = save(model_of(helper.make_node("Evil", [], [], domain="evil\x1b[2J")), tmp_path)
    with pytest.raises(BundleError) as refusal:
        check_graph(path, allowed_external={})
    assert str(refusal.value).startswith(f"{path}: expected operators of ai.onnx and com.microsoft, found the domain")
    assert "\x1b" not in str(refusal.value)
    with pytest.raises(BundleError, match=r"absent\.onnx: expected an ONNX graph, found .*No such file"):
        check_graph(tmp_path / "absent.onnx", allowed_external={})


@pytest.mark.long
def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A cut at any byte raises no other exception, and is accepted only where the rest is a complete model itself."""
    whole = make_bundle(tmp_path / "tiny") / "graphs" / "transformer.onnx"
    data, cut = whole.read_bytes(), tmp_path / "cut.onnx"
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        try:
            check_graph(cut, allowed_external={})
        except BundleError:
            continue
        onnx.ModelProto.FromString(data[:length])


@pytest.mark.long
def test_random_damage_is_never_another_exception(tmp_path: Path) -> None:
    """Damaged bytes that the guard accepts, protobuf must be able to read too."""
    source = (make_bundle(tmp_path / "tiny") / "graphs" / "tokens.onnx").read_bytes()
    damaged, dice, refused = tmp_path / "damaged.onnx", random.Random(7), 0
    for _ in range(2000):
        data = bytearray(source)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        damaged.write_bytes(data)
        try:
            check_graph(damaged, allowed_external={})
        except BundleError:
            refused += 1
    assert refused > 500


@pytest.mark.long
def test_tensor_data_is_skipped(tmp_path: Path) -> None:
    """120 MB of weights and 2,000 nodes take far less time than reading them byte by byte would."""
    weights = [numpy_helper.from_array(np.zeros((3_000_000,), np.float32), f"w{i}") for i in range(10)]
    nodes = [helper.make_node("Add", [f"x{i}", "w0"], [f"x{i + 1}"], name=f"n{i}") for i in range(2000)]
    path = save(model_of(*nodes, initializer=weights), tmp_path)
    start = time.perf_counter()
    check_graph(path, allowed_external={})
    assert time.perf_counter() - start < 2


def test_the_spoilt_graphs_are_many() -> None:
    """test_verify.py opens a bundle with each of them."""
    assert len(GRAPHS) >= 30
