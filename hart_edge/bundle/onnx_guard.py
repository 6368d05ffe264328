"""A look into an ONNX file before an engine library sees it: no foreign operators, no files but the bundle's.

In: a .onnx file, possibly hostile. Out: nothing, or a BundleError. It reads the protobuf wire format itself,
because the device has no onnx package, and steps over tensor data by its length, so that size hardly matters.
Where protobuf is lenient (unknown fields, a field given twice, odd wire types) this reader refuses: a check
can be bypassed wherever two readers understand a file differently. Source: onnx.proto, protobuf.dev "Encoding".
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from hart_edge.errors import BundleError

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
# What our exporters and quantisers write. EPContext is not among them: it names files for engines to open.
MICROSOFT_OPERATORS = frozenset(
    {
        "DequantizeLinear",
        "DynamicQuantizeMatMul",
        "FusedMatMul",
        "MatMulIntegerToFloat",
        "MatMulNBits",
        "MultiHeadAttention",
        "QGemm",
        "QLinearAdd",
        "QLinearConv",
        "QLinearMatMul",
        "QLinearMul",
        "QLinearSigmoid",
        "QLinearSoftmax",
        "QuantizeLinear",
    }
)
MOST_DEPTH = 64  # messages inside messages; a subgraph takes three
MOST_FIELDS = 5_000_000  # of all messages together; bounds the time that a hostile file can cost
MOST_TEXT = 4096  # bytes of a name that is looked at
EXTERNAL_KEYS = frozenset({"location", "offset", "length", "checksum"})

# Every message of onnx.proto that a model can hold: field number, kind, * where it may repeat.
# int: varint; f32, f64: fixed; raw: bytes that are stepped over; text: returned for a check; else a message.
_PROTO = """
Model       1 int, 2 raw, 3 raw, 4 raw, 5 int, 6 raw, 7 Graph, 8 Opset*, 14 Pair*, 20 Training*, 25 Function*,
            26 Device*
Graph       1 Node*, 2 raw, 5 Tensor*, 10 raw, 11 Value*, 12 Value*, 13 Value*, 14 Quantization*, 15 Sparse*,
            16 Pair*
Node        1 raw*, 2 raw*, 3 text, 4 text, 5 Attribute*, 6 raw, 7 text, 8 text, 9 Pair*, 10 NodeDevice*
Attribute   1 raw, 2 f32, 3 int, 4 raw, 5 Tensor, 6 Graph, 7 f32*, 8 int*, 9 raw*, 10 Tensor*, 11 Graph*,
            13 raw, 14 Type, 15 Type*, 20 int, 21 raw, 22 Sparse, 23 Sparse*
Tensor      1 int*, 2 int, 3 Segment, 4 f32*, 5 int*, 6 raw*, 7 int*, 8 text, 9 raw, 10 f64*, 11 int*, 12 raw,
            13 Pair*, 14 int, 16 Pair*
Sparse      1 Tensor, 2 Tensor, 3 int*
Segment     1 int, 2 int
Function    1 text, 4 raw*, 5 raw*, 6 raw*, 7 Node*, 8 raw, 9 Opset*, 10 text, 11 Attribute*, 12 Value*,
            13 text, 14 Pair*
Training    1 Graph, 2 Graph, 3 Pair*, 4 Pair*
Opset       1 text, 2 int
Pair        1 text, 2 text
Value       1 raw, 2 Type, 3 raw, 4 Pair*
Quantization 1 raw, 2 Pair*
Type        1 TensorType, 4 SequenceType, 5 MapType, 6 raw, 7 OpaqueType, 8 TensorType, 9 SequenceType
TensorType  1 int, 2 Shape
SequenceType 1 Type
MapType     1 int, 2 Type
OpaqueType  1 raw, 2 raw
Shape       1 Dimension*
Dimension   1 int, 2 raw, 3 raw
Device      1 raw, 2 int, 3 raw*
NodeDevice  1 raw, 2 Sharding*, 3 int
Sharding    1 raw, 2 int*, 3 DeviceGroup*, 4 ShardedDim*
DeviceGroup 1 int, 2 int*
ShardedDim  1 int, 2 SimpleShard*
SimpleShard 1 int, 2 raw, 3 int
"""
_WIRE = {"int": 0, "f64": 1, "f32": 5}  # everything else is length-delimited, wire type 2


class _Field(NamedTuple):
    kind: str
    repeated: bool
    wire: int


def _layouts() -> dict[str, dict[int, _Field]]:
    layouts: dict[str, dict[int, _Field]] = {}
    for name, fields in re.findall(r"^(\w+)\s+((?:[^\n]|\n )+)", _PROTO, re.M):
        pairs = [entry.split() for entry in fields.split(",")]
        layouts[name] = {
            int(number): _Field(kind.rstrip("*"), kind.endswith("*"), _WIRE.get(kind.rstrip("*"), 2))
            for number, kind in pairs
        }
    return layouts


_LAYOUTS = _layouts()


def check_graph(
    path: Path,
    *,
    allowed_external: Mapping[str, int],
    allowed_microsoft: frozenset[str] = MICROSOFT_OPERATORS,
) -> None:
    """Raise BundleError unless `path` is an ONNX model that may be given to an engine.

    allowed_external: files that tensors may lie in, relative to the graph's folder, with their bytes.
    allowed_microsoft: operators of the domain com.microsoft that nodes may name.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Guard(path, data, allowed_external, allowed_microsoft).check()
    except (OSError, ValueError) as error:  # ValueError: mmap of an empty file
        raise BundleError(f"{path}: expected an ONNX graph, found {error}; {REMEDY}") from error


REMEDY = "do not load it; rebuild the bundle with python -m export.build"


class _Guard:
    """One walk over one file."""

    def __init__(self, path: Path, data: mmap.mmap, external: Mapping[str, int], microsoft: frozenset[str]) -> None:
        self.path, self.data, self.external, self.microsoft = path, data, external, microsoft
        self.fields = 0

    def check(self) -> None:
        if self.data[4:8] == b"ORTM":  # ONNX Runtime would take the file for its own format, whatever its name
            self.refuse("an ONNX graph", "the mark of an ORT-format model")
        model = self.walk("Model", 0, len(self.data), 0)
        if 7 not in model:
            self.refuse("a model with a graph", "none")
        if 8 not in model:
            self.refuse("a model with opset_import", "none")

    def refuse(self, expected: str, found: str) -> NoReturn:
        raise BundleError(f"{self.path}: expected {expected}, found {found}; {REMEDY}")

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """The varint at byte `at` and the byte after it."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value < 2**64:
                    return value, at
                break
        self.refuse("complete protobuf", f"a broken or truncated number at byte {at}")

    def walk(self, message: str, start: int, end: int, depth: int) -> dict[int, Any]:
        """Check the message in bytes start to end. Returns what `examine` looks at, by field number."""
        if depth > MOST_DEPTH:
            self.refuse(f"at most {MOST_DEPTH} messages inside one another", "more")
        layout = _LAYOUTS[message]
        found: dict[int, Any] = {}
        at = start
        while at < end:
            self.fields += 1
            if self.fields > MOST_FIELDS:
                self.refuse(f"at most {MOST_FIELDS} protobuf fields", "more")
            begin = at
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            field = layout.get(number)
            if field is None:
                self.refuse(f"fields of onnx.proto in {message}", f"field {number} at byte {begin}")
            kind, repeated, natural = field
            if wire == 2:
                length, at = self.varint(at, end)
                if length > end - at:
                    self.refuse("complete protobuf", f"{message} truncated at byte {at}: {length} bytes missing")
                if natural == 2:
                    value = self.content(kind, at, at + length, depth)
                elif repeated:  # packed numbers
                    if natural != 0 and length % (4 if natural == 5 else 8):
                        self.refuse("complete protobuf", f"packed numbers of {length} bytes at byte {begin}")
                    value = None
                else:
                    self.refuse("complete protobuf", f"wire type {wire} at byte {begin}")
                at += length
            elif wire != natural:
                self.refuse("complete protobuf", f"wire type {wire} at byte {begin}")
            elif wire == 0:
                value, at = self.varint(at, end)
            else:
                at += 4 if wire == 5 else 8
                if at > end:
                    self.refuse("complete protobuf", f"{message} truncated at byte {begin}")
                value = None
            if not repeated:
                if number in found:  # protobuf takes the last or merges; this check would see one of them
                    self.refuse(f"field {number} of {message} once", f"it twice at byte {begin}")
                found[number] = value
            elif kind == "Pair":
                found.setdefault(number, []).append(value)
            else:
                found[number] = True
        self.examine(message, found)
        return found

    def content(self, kind: str, start: int, end: int, depth: int) -> Any:
        """A length-delimited field: nothing for raw, bytes for text, else the walked message."""
        if kind == "raw":
            return None
        if kind != "text":
            return self.walk(kind, start, end, depth + 1)
        return bytes(self.data[start : min(end, start + MOST_TEXT + 1)])

    def examine(self, message: str, found: dict[int, Any]) -> None:
        """Apply the rules for one message whose fields have been read."""
        if message == "Node":
            self.examine_node(self.text(found, 4), self.text(found, 7), self.text(found, 3))
        elif message == "Opset":
            self.examine_domain(self.text(found, 1), "opset_import")
        elif message == "Function":
            self.examine_domain(self.text(found, 10), f"function {self.text(found, 1)!r}")
        elif message == "Tensor":
            self.examine_tensor(found)

    def text(self, found: dict[int, Any], number: int) -> str:
        value: bytes = found.get(number, b"")
        try:
            decoded = value.decode("utf-8")
        except UnicodeDecodeError:
            self.refuse("names in UTF-8", repr(value[:40]))
        if len(value) > MOST_TEXT:
            self.refuse(f"names of at most {MOST_TEXT} bytes", f"a longer one: {decoded[:40]!r}")
        return decoded

    def examine_domain(self, domain: str, owner: str) -> None:
        if domain not in DOMAINS:
            self.refuse("operators of ai.onnx and com.microsoft", f"the domain {domain[:100]!r} in {owner[:100]}")

    def examine_node(self, operator: str, domain: str, name: str) -> None:
        self.examine_domain(domain, f"node {name[:60]!r} ({operator[:60]!r})")
        if domain == "com.microsoft" and operator not in self.microsoft:
            self.refuse("a known operator of com.microsoft", f"{operator[:100]!r} in node {name[:60]!r}")

    def examine_tensor(self, found: dict[int, Any]) -> None:
        """External data: a listed file, by exactly its name, and bytes that lie inside it."""
        location, pairs = found.get(14, 0), found.get(13, [])
        if location not in (0, 1):
            self.refuse("data_location 0 or 1", f"{location}")
        if not pairs and location == 0:
            return
        tensor = f"tensor {self.text(found, 8)[:60]!r}"
        entries = {self.text(pair, 1): self.text(pair, 2) for pair in pairs}
        if location == 0 or len(entries) != len(pairs) or not entries.keys() <= EXTERNAL_KEYS:
            self.refuse(f"external data of {tensor} by location, offset and length", f"{sorted(entries)!s:.100}")
        file = entries.get("location", "")
        # ONNX Runtime takes some names for addresses in memory; matching whole names excludes them.
        if file not in self.external:
            self.refuse(f"external data of {tensor} in a file of manifest.json beside the graph", f"{file[:100]!r}")
        numbers = []
        for key, default in (("offset", "0"), ("length", "")):
            value = entries.get(key, default)
            if not re.fullmatch(r"[0-9]{1,19}", value):
                self.refuse(f"a number as {key} of {tensor}", f"{value[:40]!r}")
            numbers.append(int(value))
        if sum(numbers) > self.external[file]:
            found_end = f"bytes {numbers[0]} to {sum(numbers)}"
            self.refuse(f"external data of {tensor} within the {self.external[file]} bytes of {file}", found_end)
