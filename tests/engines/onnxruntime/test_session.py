"""Outputs of a graph that nobody asks for: what blocks leave is written to one place."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Target
from hart_edge.engines.onnxruntime.library import OnnxRuntimeLibrary
from hart_edge.engines.onnxruntime.session import OnnxRuntimeSession

BLOCKS = 3


@pytest.fixture
def session(tmp_path: Path) -> OnnxRuntimeSession:
    """Blocks that leave a key and a value of what the block before made, and make their quotient."""
    nodes, before, outputs = [], "x", []
    for block in range(BLOCKS):
        key, value, after = f"key.{block}", f"value.{block}", f"x.{block}.after"
        nodes += [
            helper.make_node("Exp", [before], [key]),
            helper.make_node("Abs", [before], [value]),
            helper.make_node("Div", [value, key], [after]),
        ]
        outputs += [key, value]
        before = after
    x, *found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", before, *outputs))
    nodes.append(helper.make_node("NonZero", ["x"], ["places"]))
    found.append(helper.make_tensor_value_info("places", TensorProto.INT64, [2, None]))  # of a size that none foresees
    graph = helper.make_graph(nodes, "blocks", [x], found)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "blocks.onnx")
    return OnnxRuntimeLibrary(Target.CPU).open(tmp_path / "blocks.onnx")


def test_what_blocks_leave_unread_shares_a_place(session: OnnxRuntimeSession) -> None:
    x, last = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2), f"x.{BLOCKS - 1}.after"
    every = session.run({"x": x})
    assert len(every) == 2 * BLOCKS + 2
    assert np.array_equal(session.run({"x": x}, [last])[last], every[last])
    some = session.run({"x": x.T.copy().T}, ["key.1", "places", last])  # an input that is not contiguous
    assert some.keys() == {"key.1", "places", last}
    assert all(np.array_equal(some[name], every[name]) for name in some)
    into = {last: np.empty((4, 2), np.float32)}
    session.run_into({"x": x}, into)
    assert np.array_equal(into[last], every[last])
    unread = session._unread({"x": x}, ["key.1", last])
    assert unread.keys() == every.keys() - {"key.1", "places", last}
    addresses = {name: array.ctypes.data for name, array in unread.items()}
    assert addresses["key.0"] == addresses["key.2"] != addresses["value.0"] == addresses["value.1"]
    assert {array.shape for array in unread.values()} == {(4, 2)}
