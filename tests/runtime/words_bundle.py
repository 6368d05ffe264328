"""The tiny bundle with a working prompt tokenizer, whose words are w1 to w31."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hart_edge.bundle.manifest import ComponentName, Dtype, Plan, Step, TensorSpec, parse, to_json
from hart_edge.bundle.plan import lifetimes
from tests.bundle.corrupt_bundles import relist
from tests.bundle.make_bundle import IDS, ONNX_DTYPES, TOKENS, file_entry, list_files, make_bundle


def make_words_bundle(folder: Path) -> Path:
    """Write the bundle of make_bundle.py into `folder`; the padding token is 0 and has no word."""
    make_bundle(folder)
    vocabulary = {"<pad>": 0, **{f"w{i}": i for i in range(1, IDS)}}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"}
    definition = {"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    relist(folder, "tokenizer.json")
    return folder


def add_context_step(folder: Path) -> Path:
    """Make the bundle more like one of a checkpoint: its text model leaves a mask too, and a step between it and the
    first scale reads context, mask and ids."""
    manifest = parse((folder / "manifest.json").read_bytes())
    text, *others = manifest.components
    ids, context = text.inputs[0], text.outputs[0]
    mask, joined = TensorSpec("context_mask", Dtype.BOOL, ids.shape), dataclasses.replace(context, name="joined")
    _add_mask(folder / text.file)
    file = folder / "graphs" / "context.onnx"
    inputs = (ids, context, mask)
    _write_graph(
        file,
        [
            helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["context_mask"], ["words"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["numbers", "words"], ["row"]),
            helper.make_node("Unsqueeze", ["row", "last"], ["column"]),
            helper.make_node("Add", ["context", "column"], ["joined"]),
        ],
        inputs,
        joined,
    )
    first, *later = manifest.plan.steps
    named = {each.name: each.name for each in inputs}
    steps = (
        dataclasses.replace(first, outputs={"context": "context", "context_mask": "context_mask"}),
        Step(ComponentName.CONTEXT, None, named, {"joined": "joined"}, False),
        *(dataclasses.replace(each, inputs=_renamed(each.inputs)) for each in later),
    )
    whole = manifest.plan.buffers["context"]
    buffers = {
        **manifest.plan.buffers,
        "joined": whole,
        "context_mask": dataclasses.replace(whole, dtype=Dtype.BOOL, shape=mask.shape, bytes_per_image=TOKENS),
    }
    spans = lifetimes(steps, buffers)
    placed = {
        name: dataclasses.replace(each, first=spans[name][0], last=spans[name][1]) for name, each in buffers.items()
    }
    component = dataclasses.replace(
        others[0],
        name=ComponentName.CONTEXT,
        file="graphs/context.onnx",
        parameters=0,
        bytes=file.stat().st_size,
        inputs=inputs,
        outputs=(joined,),
    )
    changed = dataclasses.replace(
        manifest,
        components=(dataclasses.replace(text, outputs=(context, mask)), component, *others),
        files={name: file_entry(folder / name) for name in list_files(folder)},
        plan=Plan(placed, steps),
    )
    (folder / "manifest.json").write_bytes(to_json(changed))
    return folder


def _renamed(inputs: dict[str, str]) -> dict[str, str]:
    return {tensor: "joined" if name == "context" else name for tensor, name in inputs.items()}


def _add_mask(file: Path) -> None:
    """An output of the text model that is true where there is a word."""
    model = onnx.load(file, load_external_data=False)
    model.graph.node.append(helper.make_node("Cast", ["input_ids"], ["context_mask"], to=TensorProto.BOOL))
    model.graph.output.append(helper.make_tensor_value_info("context_mask", TensorProto.BOOL, ["B", TOKENS]))
    onnx.save_model(model, file)


def _write_graph(file: Path, nodes: list[onnx.NodeProto], inputs: Sequence[TensorSpec], output: TensorSpec) -> None:
    infos = [
        helper.make_tensor_value_info(each.name, ONNX_DTYPES[each.dtype], each.shape) for each in (*inputs, output)
    ]
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    graph = helper.make_graph(nodes, file.stem, infos[:-1], infos[-1:], [last])
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), file)
