"""The tiny bundle without its text model: it takes a context (4, 8) and a mask (4,)."""

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Buffer, BufferKind, ComponentName, Dtype, TensorSpec, parse, to_json
from hart_edge.bundle.plan import bytes_per_image, lifetimes
from tests.bundle.make_bundle import TOKENS, file_entry, list_files, make_bundle

GRAPH = "graphs/transformer.onnx"


def make_context_bundle(folder: Path) -> Path:
    """Write the bundle of make_bundle.py into `folder`; its transformer multiplies the context by the mask."""
    make_bundle(folder)
    manifest = parse((folder / "manifest.json").read_bytes())
    for name in ("tokenizer.json", "graphs/text_model.onnx", "graphs/text_model.onnx.data"):
        (folder / name).unlink()
    _add_mask(folder / GRAPH)

    components = tuple(each for each in manifest.components if each.name != ComponentName.TEXT_MODEL)
    spec = TensorSpec("context_mask", Dtype.BOOL, ("B", TOKENS))
    components = tuple(
        replace(each, inputs=(*each.inputs, spec)) if each.name == ComponentName.TRANSFORMER else each
        for each in components
    )
    steps = tuple(
        replace(step, inputs={**step.inputs, "context_mask": "context_mask"})
        if step.graph == ComponentName.TRANSFORMER
        else step
        for step in manifest.plan.steps[1:]
    )
    buffers = dict(manifest.plan.buffers)
    buffers["context"] = replace(buffers["context"], kind=BufferKind.INPUT)
    size = bytes_per_image(Dtype.BOOL, ("B", TOKENS))
    buffers["context_mask"] = Buffer(BufferKind.INPUT, Dtype.BOOL, ("B", TOKENS), size, 0, 0)
    spans = lifetimes(steps, buffers)
    buffers = {n: replace(each, first=spans[n][0], last=spans[n][1]) for n, each in buffers.items() if n in spans}
    changed = replace(
        manifest,
        tokenizer=None,
        components=components,
        plan=replace(manifest.plan, buffers=buffers, steps=steps),
        files={name: file_entry(folder / name) for name in list_files(folder)},
    )
    (folder / "manifest.json").write_bytes(to_json(changed))
    return folder


def _add_mask(path: Path) -> None:
    model = onnx.load_model(path)
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["masked" if name == "context" else name for name in node.input]
    flags = helper.make_node("Cast", ["context_mask"], ["flags"], to=TensorProto.FLOAT)
    column = helper.make_node("Reshape", ["flags", "column_shape"], ["column"])  # (B, T, 1)
    masked = helper.make_node("Mul", ["context", "column"], ["masked"])
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([flags, column, masked, *kept])
    graph.initializer.append(helper.make_tensor("column_shape", TensorProto.INT64, [3], [0, TOKENS, 1]))
    graph.input.append(helper.make_tensor_value_info("context_mask", TensorProto.BOOL, ["B", TOKENS]))
    onnx.save_model(model, path)
