"""Graphs on disk: weights inside the .onnx file, or beside it where they are many.

While a bundle is built every graph has its weights beside it, and they are read one by one: a graph of 2.7 GB is
rewritten without ever being whole in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_model

# Bytes from which on weights go to NAME.onnx.data. ONNX Runtime maps that file into memory, while it holds weights that
# lie in a graph twice as it loads them; and a protobuf message has to be smaller than 2 GiB.
EXTERNAL_FROM = 2**25


def read_graph(path: Path) -> onnx.ModelProto:
    """A graph without the weights that lie beside it."""
    return onnx.load(path, load_external_data=False)


def read_tensor(tensor: onnx.TensorProto, folder: Path) -> NDArray[Any]:
    """The values of one tensor of a graph in `folder`, whether they lie in the graph or beside it."""
    return numpy_helper.to_array(tensor, str(folder))


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initialisers, in the graph and beside it."""
    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )


def save_graph(model: onnx.ModelProto, path: Path, folder: Path, external_from: int = EXTERNAL_FROM) -> int:
    """Write a graph, with its weights beside it if they are external_from bytes or more. Returns bytes written.

    folder: of the weights that lie outside the model. Weights that are written beside the graph leave the model.
    """
    load_external_data_for_model(model, str(folder))
    if weight_bytes(model) < external_from:
        onnx.save_model(model, path)
        return path.stat().st_size
    data = _save_beside(model, path)
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)


@contextmanager
def graph_file(model: onnx.ModelProto, path: Path) -> Iterator[Path]:
    """A graph in a file that exists within the `with` block. Weights inside the model move to the file.

    path: in the folder of the weights that lie outside the model, which stay where they are.
    """
    data = _save_beside(model, path)
    try:
        yield path
    finally:
        for each in (path, data):
            each.unlink(missing_ok=True)


def _save_beside(model: onnx.ModelProto, path: Path) -> Path:
    """Write a graph, and the weights inside it to a file beside it. Returns that file, which may not exist."""
    data = path.with_name(path.name + ".data")
    data.unlink(missing_ok=True)  # onnx would append
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
    if data.exists():
        data.chmod(path.stat().st_mode)  # onnx makes it readable for its owner only
    return data
