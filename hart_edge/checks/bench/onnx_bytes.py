"""An ONNX model of one product, as bytes: devices have no onnx, and the format is small (onnx.proto3).

In: the operator, its input and its weight. Out: what ONNX Runtime opens. A message is a sequence of fields, each a key
(number and wire type) and a variable-length integer, or a length and as many bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ELEMENTS = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6}  # TensorProto.DataType
IR_VERSION, OPSET = 8, 17


def product_model(operator: str, weight: NDArray[np.generic], rows: int, given: str, made: str) -> bytes:
    """y (rows, M) = operator(x (rows, K), weight (K, M)). given, made: element types of x and y, by numpy's names."""
    node = _text(1, "x") + _text(1, "w") + _text(2, "y") + _text(3, "product") + _text(4, operator)
    graph = (
        _field(1, node)
        + _text(2, "product")
        + _field(5, _tensor("w", weight))
        + _field(11, _value("x", given, (rows, weight.shape[0])))
        + _field(12, _value("y", made, (rows, weight.shape[1])))
    )
    opset = _text(1, "") + _number(2, OPSET)
    return _number(1, IR_VERSION) + _field(7, graph) + _field(8, opset)


def _tensor(name: str, array: NDArray[np.generic]) -> bytes:
    """TensorProto: dims, data_type, name, raw_data in little-endian order."""
    dims = b"".join(_number(1, size) for size in array.shape)
    raw = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return dims + _number(2, ELEMENTS[array.dtype.name]) + _text(8, name) + _field(9, raw)


def _value(name: str, element: str, shape: tuple[int, ...]) -> bytes:
    """ValueInfoProto with a TypeProto.Tensor."""
    dims = b"".join(_field(1, _number(1, size)) for size in shape)
    tensor = _number(1, ELEMENTS[element]) + _field(2, dims)
    return _text(1, name) + _field(2, _field(1, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _field(field, text.encode())


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes(found + bytes([value]))
