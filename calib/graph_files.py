"""Graphs on disk: weights inside the .onnx file, or beside it where one file cannot hold them."""

from __future__ import annotations

from pathlib import Path

import onnx

# protobuf holds less than 2 GiB in one message; what comes near goes to NAME.onnx.data.
EXTERNAL_FROM = 2**31 - 2**27


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of all initialisers."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def save_graph(model: onnx.ModelProto, path: Path, external_from: int = EXTERNAL_FROM) -> int:
    """Write a graph, its weights beside it when they are external_from bytes or more. Returns bytes written.

    The model is left without its weights when they went beside it.
    """
    if weight_bytes(model) < external_from:
        onnx.save_model(model, path)
        return path.stat().st_size
    data = path.with_name(path.name + ".data")
    onnx.save_model(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=data.name)
    return path.stat().st_size + data.stat().st_size
