"""Ways to spoil the bundle of make_bundle.py, as data: what to do to the folder, and what the refusal must say.

FILES: edits of the folder. GRAPHS: edits of an .onnx file whose listed size and hash are right, so that only its
content can be refused. CORRUPTIONS: all of them and those of the manifest. The readers of Python and C are tested.
"""

import os
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from tests.bundle.corrupt_manifests import BYTES, CONSISTENCY, STRUCTURE, Corruption, Edit, put
from tests.bundle.make_bundle import file_entry

# Edits of the folder.


def truncate(name: str) -> Edit:
    def edit(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-1])

    return edit


def alter(name: str) -> Edit:
    """Flip one bit; the size stays."""

    def edit(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return edit


def remove(name: str) -> Edit:
    return lambda folder: (folder / name).unlink()


def link_out(name: str) -> Edit:
    """Move a file or folder out of the bundle and leave a link to it."""

    def edit(folder: Path) -> None:
        outside = folder.parent / "outside"
        outside.mkdir(exist_ok=True)
        (folder / name).rename(outside / name)
        (folder / name).symlink_to(outside / name)

    return edit


def _pipe(folder: Path) -> None:
    (folder / "README.md").unlink()
    os.mkfifo(folder / "README.md")


def _folder_for_file(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").mkdir()


def _loop(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("README.md")


def _dangling(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/nonexistent/README.md")


def _false_blobs(folder: Path) -> None:
    """A `blobs` folder beside the bundle does not allow links: the bundle is in no `snapshots` folder."""
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir()
    (folder / "README.md").rename(blobs / "00")
    (folder / "README.md").symlink_to(blobs / "00")


def _false_snapshot(folder: Path) -> None:
    """A folder `snapshots` without `blobs` beside it is no cache, even if another folder is called blobs."""
    blobs = folder.parent / "snapshots" / "0123abcd" / "blobs"
    blobs.mkdir(parents=True)
    (folder / "README.md").rename(blobs / "00")
    (folder / "README.md").symlink_to(blobs / "00")


FILES = (
    Corruption("no_manifest", remove("manifest.json"), "expected a bundle with manifest.json, found none; build"),
    Corruption("file_missing", remove("constants.bin"), "constants.bin: expected a file of 320 bytes, found none"),
    Corruption("file_truncated", truncate("tokenizer.json"), "tokenizer.json: expected 50 bytes, found 49; copy"),
    Corruption("file_altered", alter("README.md"), "README.md: expected sha256 4cc72c0b90fc..., found"),
    Corruption("weights_altered", alter("graphs/text_model.onnx.data"), "onnx.data: expected sha256"),
    Corruption("link_out", link_out("README.md"), "README.md: expected a file inside the bundle, found a link"),
    Corruption("manifest_link_out", link_out("manifest.json"), "manifest.json: expected a file inside the"),
    Corruption("folder_link_out", link_out("graphs"), "expected a file inside the bundle, found a link that"),
    Corruption("link_to_false_blobs", _false_blobs, "README.md: expected a file inside the bundle, found a link"),
    Corruption("link_to_false_snapshot", _false_snapshot, "README.md: expected a file inside the bundle, found a link"),
    Corruption("link_loop", _loop, "README.md: expected a file, found"),
    Corruption("link_dangling", _dangling, "README.md: expected a file of 16 bytes, found none"),
    Corruption("pipe", _pipe, "README.md: expected a regular file, found something else"),
    Corruption("folder_for_file", _folder_for_file, "README.md: expected a regular file, found something else"),
)


# Edits of a graph. The manifest lists the spoilt file's size and hash.


def relist(folder: Path, name: str) -> None:
    entry = file_entry(folder / name)
    put("files", name, value={"bytes": entry.bytes, "sha256": entry.sha256})(folder)


def graph_bytes(change: Callable[[bytes], bytes], name: str = "graphs/decoder.onnx") -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        relist(folder, name)

    return edit


def graph_edit(change: Callable[[onnx.ModelProto], None], name: str = "graphs/decoder.onnx") -> Edit:
    def spoil(data: bytes) -> bytes:
        model = onnx.ModelProto.FromString(data)
        change(model)
        return model.SerializeToString()

    return graph_bytes(spoil, name)


def external(**entries: str) -> Edit:
    """Set keys of the external data of the table of text_model; an empty value removes the key."""

    def change(model: onnx.ModelProto) -> None:
        set_external(model.graph.initializer[0], **entries)

    return graph_edit(change, "graphs/text_model.onnx")


def set_external(tensor: TensorProto, **entries: str) -> None:
    known = {pair.key: pair.value for pair in tensor.external_data} | entries
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in known.items():
        if value:
            tensor.external_data.add(key=key, value=value)


def stray_tensor() -> TensorProto:
    tensor = TensorProto(data_type=TensorProto.FLOAT, dims=[1], name="stray")
    set_external(tensor, location="../../secret", offset="0", length="4")
    return tensor


def _tensor_attribute(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=stray_tensor()))


def _subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [stray_tensor()])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def _subgraph_operator(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([helper.make_node("Evil", [], ["e"], domain="evil")], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))


def _function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Evil", [], ["e"], domain="evil")]
    model.functions.append(helper.make_function("ai.onnx", "F", [], ["e"], body, [helper.make_opsetid("", 18)]))


def _function_domain(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("evil", "F", [], [], [], [helper.make_opsetid("", 18)]))


def _sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=stray_tensor())


def _training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.initializer.append(stray_tensor())


def _deep(model: onnx.ModelProto) -> None:
    """30 subgraphs inside one another are 90 messages, within what protobuf itself still reads."""
    inner = helper.make_graph([], "innermost", [], [])
    for _ in range(30):
        inner = helper.make_graph([helper.make_node("If", [], [], then_branch=inner)], "around", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner))


def add_node(operator: str, domain: str) -> Edit:
    return graph_edit(lambda model: model.graph.node.append(helper.make_node(operator, [], [], domain=domain)))


def add_opset(domain: str) -> Edit:
    return graph_edit(lambda model: model.opset_import.append(helper.make_opsetid(domain, 1)))


NODE_TWICE = b"\x0a\x0c" + b"\x22\x03Add" + b"\x22\x05Other"  # NodeProto with two op_type
OUTSIDE = "in a file of manifest.json beside the graph, found "
GRAPHS = (
    Corruption("external_up", external(location="../secret"), OUTSIDE + "'../secret'"),
    Corruption("external_absolute", external(location="/etc/passwd"), OUTSIDE + "'/etc/passwd'"),
    Corruption("external_other_spelling", external(location="./text_model.onnx.data"), OUTSIDE + "'./text_"),
    Corruption("external_in_memory", external(location="*/_ORT_MEM_ADDR_/*"), OUTSIDE + "'*/_ORT_MEM"),
    Corruption("external_nowhere", external(location=""), OUTSIDE + "''"),
    Corruption("external_beyond", external(offset="64"), "within the 1024 bytes of text_model.onnx.data, found"),
    Corruption("external_no_length", external(length=""), "a number as length of tensor 'table', found ''"),
    Corruption("external_negative", external(offset="-64"), "a number as offset of tensor 'table', found '-64'"),
    Corruption("external_strange_key", external(prepacked="x"), "by location, offset and length, found ['len"),
    Corruption("external_in_attribute", graph_edit(_tensor_attribute), OUTSIDE + "'../../secret'"),
    Corruption("external_in_subgraph", graph_edit(_subgraph), OUTSIDE + "'../../secret'"),
    Corruption("external_sparse", graph_edit(_sparse), OUTSIDE + "'../../secret'"),
    Corruption("external_training", graph_edit(_training), OUTSIDE + "'../../secret'"),
    Corruption("operator_foreign", add_node("Evil", "evil"), "found the domain 'evil' in node '' ('Evil')"),
    Corruption("operator_in_subgraph", graph_edit(_subgraph_operator), "found the domain 'evil' in node"),
    Corruption("operator_in_function", graph_edit(_function), "found the domain 'evil' in node"),
    Corruption("operator_python", add_node("PyOp", "com.microsoft.extensions"), "'com.microsoft.extensions' in"),
    Corruption("function_foreign", graph_edit(_function_domain), "the domain 'evil' in function 'F'"),
    Corruption("opset_foreign", add_opset("evil"), "found the domain 'evil' in opset_import"),
    Corruption("ep_context", add_node("EPContext", "com.microsoft"), "operator of com.microsoft, found 'EPContext'"),
    Corruption("deep", graph_edit(_deep), "at most 64 messages inside one another, found more"),
    Corruption("truncated", graph_bytes(lambda data: data[:-1]), "truncated at byte"),
    Corruption("empty", graph_bytes(lambda data: b""), "decoder.onnx: expected an ONNX graph, found"),
    Corruption("no_graph", graph_bytes(lambda data: b"\x08\x09"), "a model with a graph, found none"),
    Corruption("no_opset", graph_edit(lambda model: model.ClearField("opset_import")), "a model with opset_import"),
    Corruption("not_protobuf", graph_bytes(lambda data: b"<html>" + data), "protobuf, found wire type"),
    Corruption("field_unknown", graph_bytes(lambda data: data + b"\xf8\x07\x01"), "found field 127 at byte"),
    Corruption("graph_twice", graph_bytes(lambda data: data + b"\x3a\x00"), "field 7 of Model once, found it twice"),
    Corruption("operator_twice", graph_bytes(lambda data: b"\x3a\x0e" + NODE_TWICE), "field 4 of Node once"),
    Corruption("wire_type", graph_bytes(lambda data: data + b"\x0d\0\0\0\0"), "found wire type 5 at byte"),
    Corruption("group", graph_bytes(lambda data: data + b"\x0b\x0c"), "found wire type 3 at byte"),
    Corruption("number_endless", graph_bytes(lambda data: data + b"\x08" + b"\xff" * 11), "a broken or truncated"),
    Corruption("length_absurd", graph_bytes(lambda data: data + b"\x12" + b"\xff" * 9 + b"\x01"), "bytes missing"),
    Corruption("name_not_utf8", graph_bytes(lambda data: b"\x3a\x05\x0a\x03\x22\x01\xff" + data), "names in UTF-8"),
    Corruption("ort_format", graph_bytes(lambda data: b"\x12\x06\0\0ORTM" + data), "the mark of an ORT-format"),
)  # fmt: skip

CORRUPTIONS = {
    f"{group}-{each.name}": each
    for group, members in {
        "structure": STRUCTURE,
        "consistency": CONSISTENCY,
        "bytes": BYTES,
        "files": FILES,
        "graphs": GRAPHS,
    }.items()
    for each in members
}
