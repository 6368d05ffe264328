"""A tiny, complete bundle: two scales, 32 pixels, graphs of a few nodes that ONNX Runtime runs.

`make_bundle(folder)` writes it (5 graphs, weights beside one of them, a tokenizer, constants, settings,
noise), from the same dataclasses and `to_json` that the exporter uses. The numbers mean nothing; the shapes are
those of a model.
"""

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hart_edge.bundle.manifest import (
    FORMAT_VERSION,
    Buffer,
    BufferKind,
    Component,
    ComponentName,
    Constant,
    Distribution,
    Dtype,
    Engine,
    Engines,
    FileEntry,
    HardwareCompatibility,
    Instruction,
    Licence,
    Manifest,
    PaddingSide,
    Plan,
    Precision,
    Quality,
    Residual,
    ScaleQuality,
    Step,
    Target,
    TargetSpec,
    TensorSpec,
    Tokenizer,
    parse,
    to_json,
)
from hart_edge.bundle.plan import bytes_per_image, lifetimes
from hart_edge.bundle.settings import Sampling

PATCH_NUMS = (1, 2)
IMAGE = 16 * PATCH_NUMS[-1]
TOKENS, DIM, VOCAB, Z, IDS = 4, 8, 16, 4, 32
KEY = 32  # both branches together have 256 bytes, the alignment that engines need
ONNX_DTYPES = {
    Dtype.FLOAT32: TensorProto.FLOAT,
    Dtype.INT64: TensorProto.INT64,
    Dtype.UINT8: TensorProto.UINT8,
    Dtype.BOOL: TensorProto.BOOL,
}
F32 = Dtype.FLOAT32
EXACT, ROUGH = ScaleQuality(1.0, 0.0, 1.0, 0.0, 1.0, 0.0), ScaleQuality(0.9, 2.5, 0.75, 0.5, 0.5, 4.5)
QUALITY = Quality(8, (EXACT, ROUGH), 42.5)
Specs = tuple[TensorSpec, ...]


def make_bundle(folder: Path) -> Path:
    """Write the bundle into `folder` (created) and return it."""
    (folder / "graphs").mkdir(parents=True)
    constants = _write_constants(folder / "constants.bin")
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "WordLevel"}}))
    (folder / "README.md").write_text("# A tiny bundle\n")
    components = _write_graphs(folder)
    steps = _steps()
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name="tiny-2",
        precision=Precision.FP32,
        target=TargetSpec(Target.CPU, None),
        image_size=IMAGE,
        patch_nums=PATCH_NUMS,
        vocab_size=VOCAB,
        z_channels=Z,
        context_tokens=TOKENS,
        context_dim=DIM,
        tokenizer=Tokenizer("tokenizer.json", 0, PaddingSide.RIGHT, IDS, Instruction(3, "a" * 64)),
        sampling=Sampling(4.5, 1.0, False, (6, 3), (0.0, 0.5), (0.27, 0.2)),
        residual=Residual((0, 999), 3),
        components=components,
        files={name: file_entry(folder / name) for name in list_files(folder)},
        constants=constants,
        plan=Plan(_buffers(steps, constants), steps),
        calibration=None,
        quality=QUALITY,
        licences=(Licence("weights", "MIT", "nobody"),),
        tools={"onnx": onnx.__version__},
    )
    (folder / "manifest.json").write_bytes(to_json(manifest))
    return folder


def give_engines(folder: Path) -> None:
    """Turn the bundle into one of engines. A few bytes stand for each engine, so no library could open it."""
    manifest = parse((folder / "manifest.json").read_bytes())
    profiles: dict[ComponentName, tuple[int | None, ...]] = {}
    for step in manifest.plan.steps:
        profiles[step.graph] = (*profiles.get(step.graph, ()), step.scale)
    shutil.rmtree(folder / "graphs")
    (folder / "engines").mkdir()
    components = []
    for component in manifest.components:
        file = f"engines/{component.name}.engine"
        (folder / file).write_bytes(b"engine of " + component.name.encode())
        size, engine = (folder / file).stat().st_size, Engine(profiles[component.name])
        components.append(dataclasses.replace(component, file=file, bytes=size, engine=engine))
    compatibility = HardwareCompatibility.NONE
    engines = Engines("1.7.1.116", "linux-x86_64", ("sm_75", "sm_89"), compatibility, False, images_at_once=2)
    changed = dataclasses.replace(
        manifest,
        target=TargetSpec(Target.TENSORRT_RTX, engines),
        components=tuple(components),
        files={name: file_entry(folder / name) for name in list_files(folder)},
    )
    (folder / "manifest.json").write_bytes(to_json(changed))


def narrow_rows(plan: Plan, width: int) -> Plan:
    """The plan with keys of another width than the graphs have."""
    rows = {name: each for name, each in plan.buffers.items() if each.kind in (BufferKind.CACHE, BufferKind.ROWS)}
    changed = {name: dataclasses.replace(each, shape=(each.shape[0], "2B", width)) for name, each in rows.items()}
    return dataclasses.replace(plan, buffers=plan.buffers | changed)


def list_files(folder: Path) -> list[str]:
    """Names of all files of a bundle except its manifest, as the manifest lists them."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name != "manifest.json")


def file_entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())


def _write_constants(path: Path) -> dict[str, Constant]:
    """level.s (1, tokens, DIM) and up.s (P*P, tokens) for both scales, each on a multiple of 64 bytes."""
    random = np.random.default_rng(0)
    constants, data = {}, b""
    for scale, side in enumerate(PATCH_NUMS):
        for name, shape in ((f"level.{scale}", (1, side**2, DIM)), (f"up.{scale}", (4, side**2))):
            data += bytes(-len(data) % 64)
            constants[name] = Constant(F32, shape, len(data))
            data += random.standard_normal(shape).astype("<f4").tobytes()
    path.write_bytes(data)
    return constants


def _write_graphs(folder: Path) -> tuple[Component, ...]:
    random = np.random.default_rng(1)

    def weight(name: str, *shape: int, scale: float = 1.0) -> Any:
        return numpy_helper.from_array((scale * random.standard_normal(shape)).astype(np.float32), name)

    def ints(name: str, *values: int) -> Any:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    node = helper.make_node
    uint8 = TensorProto.UINT8
    return (
        _graph(
            folder,
            ComponentName.TEXT_MODEL,
            [node("Gather", ["table", "input_ids"], ["context"])],
            (TensorSpec("input_ids", Dtype.INT64, ("B", TOKENS)),),
            (TensorSpec("context", F32, ("B", TOKENS, DIM)),),
            [weight("table", IDS, DIM)],
            external=True,
        ),
        _graph(
            folder,
            ComponentName.TRANSFORMER,
            [
                node("Sub", ["context", "context"], ["nothing"]),
                node("Concat", ["context", "nothing"], ["doubled"], axis=0),
                node("ReduceMean", ["doubled", "one"], ["pooled"], keepdims=1),
                node("Add", ["pooled", "level"], ["own"]),
                node("MatMul", ["own", "project"], ["projected"]),
                node("Transpose", ["projected"], ["key.0"], perm=[1, 0, 2]),
                node("Concat", ["past_key.0", "key.0"], ["keys"], axis=0),
                node("ReduceMean", ["keys", "zero"], ["mean"], keepdims=1),
                node("Transpose", ["mean"], ["seen"], perm=[1, 0, 2]),
                node("MatMul", ["seen", "join"], ["attended"]),
                node("Add", ["own", "attended"], ["hidden"]),
                node("FusedMatMul", ["hidden", "head"], ["logits"], domain="com.microsoft"),
            ],
            (
                TensorSpec("context", F32, ("B", TOKENS, DIM)),
                TensorSpec("level", F32, (1, "n", DIM)),
                TensorSpec("past_key.0", F32, ("N", "2B", KEY)),
            ),
            (TensorSpec("logits", F32, ("2B", "n", VOCAB)), TensorSpec("key.0", F32, ("n", "2B", KEY))),
            [
                weight("head", DIM, VOCAB),
                weight("project", DIM, KEY),
                weight("join", KEY, DIM, scale=0.02),
                ints("zero", 0),
                ints("one", 1),
            ],
        ),
        _graph(
            folder,
            ComponentName.TOKENS,
            [
                node("Split", ["logits"], ["with", "without"], axis=0, num_outputs=2),
                node("Sub", ["with", "without"], ["difference"]),
                node("Mul", ["difference", "cfg_scale"], ["guidance"]),
                node("Add", ["with", "guidance"], ["guided"]),
                node("TopK", ["guided", "top_k"], ["largest", "places"], axis=-1),
                node("ReduceMin", ["largest", "last"], ["least"], keepdims=1),
                node("Add", ["guided", "uniform"], ["noisy"]),
                node("Sub", ["noisy", "least"], ["margin"]),
                node("Softmax", ["margin"], ["chances"], axis=-1),
                node("MatMul", ["chances", "codebook"], ["latent"]),
            ],
            (
                TensorSpec("logits", F32, ("2B", "n", VOCAB)),
                TensorSpec("uniform", F32, ("B", "n", VOCAB)),
                TensorSpec("cfg_scale", F32, (1,)),
                TensorSpec("top_k", Dtype.INT64, (1,)),
            ),
            (TensorSpec("latent", F32, ("B", "n", Z)),),
            [weight("codebook", VOCAB, Z), ints("last", -1)],
        ),
        _graph(
            folder,
            ComponentName.LATENT,
            [
                node("MatMul", ["up", "latent"], ["upsampled"]),  # (B, P*P, Z)
                node("Transpose", ["upsampled"], ["channels_first"], perm=[0, 2, 1]),
                node("Reshape", ["channels_first", "square"], ["delta"]),  # (B, Z, P, P)
                node("Add", ["f_hat_before", "delta"], ["f_hat"]),
            ],
            (
                TensorSpec("latent", F32, ("B", "n", Z)),
                TensorSpec("up", F32, (4, "n")),
                TensorSpec("f_hat_before", F32, ("B", Z, 2, 2)),
            ),
            (TensorSpec("f_hat", F32, ("B", Z, 2, 2)),),
            [ints("square", 0, Z, 2, 2)],
        ),
        _graph(
            folder,
            ComponentName.DECODER,
            [
                node("IsNaN", ["f_hat"], ["is_nan"]),
                node("Cast", ["is_nan"], ["nans"], to=TensorProto.FLOAT),
                node("ReduceMax", ["nans", "rest"], ["any_nan"], keepdims=0),
                node("Less", ["any_nan", "half"], ["finite"]),
                node("Slice", ["f_hat", "zero", "three", "one"], ["rgb"]),
                node("Resize", ["rgb", "", "factors"], ["large"], mode="nearest"),
                node("Sigmoid", ["large"], ["bounded"]),
                node("Mul", ["bounded", "white"], ["levels"]),
                node("Transpose", ["levels"], ["channels_last"], perm=[0, 2, 3, 1]),
                node("Cast", ["channels_last"], ["pixels"], to=uint8),
            ],
            (TensorSpec("f_hat", F32, ("B", Z, 2, 2)),),
            (
                TensorSpec("pixels", Dtype.UINT8, ("B", IMAGE, IMAGE, 3)),
                TensorSpec("finite", Dtype.BOOL, ("B",)),
            ),
            [
                *(ints("zero", 0), ints("three", 3), ints("one", 1), ints("rest", 1, 2, 3)),
                numpy_helper.from_array(np.array([1, 1, 16, 16], np.float32), "factors"),
                numpy_helper.from_array(np.float32(255), "white"),
                numpy_helper.from_array(np.float32(0.5), "half"),
            ],
        ),
    )


def _graph(
    folder: Path,
    name: ComponentName,
    nodes: list[Any],
    inputs: Specs,
    outputs: Specs,
    weights: list[Any],
    external: bool = False,
) -> Component:
    """Write graphs/NAME.onnx and describe it."""

    def infos(specs: Specs) -> list[Any]:
        return [helper.make_tensor_value_info(s.name, ONNX_DTYPES[s.dtype], s.shape) for s in specs]

    graph = helper.make_graph(nodes, name, infos(inputs), infos(outputs), weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    file = f"graphs/{name}.onnx"
    details: dict[str, Any] = {"location": f"{name}.onnx.data", "size_threshold": 0} if external else {}
    onnx.save_model(model, folder / file, save_as_external_data=external, **details)
    parameters = sum(int(np.prod(each.dims)) for each in weights)
    size = sum((folder / path).stat().st_size for path in list_files(folder) if path.startswith(file))
    return Component(name, file, Precision.FP32, "plain", parameters, size, 0.0, "", inputs, outputs, "", ())


def _steps() -> tuple[Step, ...]:
    steps = [Step(ComponentName.TEXT_MODEL, None, {"input_ids": "input_ids"}, {"context": "context"}, False)]
    before = "nothing"
    for scale in range(len(PATCH_NUMS)):
        hidden = {"context": "context", "level": f"level.{scale}", "past_key.0": f"past_key.0.{scale}"}
        made = {"logits": f"logits.{scale}", "key.0": f"key.0.{scale}"}
        steps.append(Step(ComponentName.TRANSFORMER, scale, hidden, made, False))
        choice = {
            "logits": f"logits.{scale}",
            "uniform": f"uniform.{scale}",
            "cfg_scale": "cfg_scale",
            "top_k": f"top_k.{scale}",
        }
        steps.append(Step(ComponentName.TOKENS, scale, choice, {"latent": f"latent.{scale}"}, False))
        update = {"latent": f"latent.{scale}", "up": f"up.{scale}", "f_hat_before": before}
        before = f"f_hat.{scale}"
        steps.append(Step(ComponentName.LATENT, scale, update, {"f_hat": before}, True))
    results = {"pixels": "pixels", "finite": "finite"}
    return (*steps, Step(ComponentName.DECODER, None, {"f_hat": before}, results, False))


def _buffers(steps: tuple[Step, ...], constants: dict[str, Constant]) -> dict[str, Buffer]:
    buffers: dict[str, Buffer] = {}

    def add(name: str, kind: BufferKind, dtype: Dtype, *shape: int | str, **further: Any) -> None:
        size = bytes_per_image(dtype, shape)
        buffers[name] = Buffer(kind, dtype, shape, size, 0, 0, **further)

    add("input_ids", BufferKind.INPUT, Dtype.INT64, "B", TOKENS)
    add("context", BufferKind.VALUE, F32, "B", TOKENS, DIM)
    add("cfg_scale", BufferKind.SETTING, F32, 1, setting="cfg_scale")
    add("nothing", BufferKind.ZERO, F32, "B", Z, 2, 2)
    add("key.0", BufferKind.CACHE, F32, sum(side**2 for side in PATCH_NUMS), "2B", KEY)
    cached = 0
    for scale, side in enumerate(PATCH_NUMS):
        for name, start, count in ((f"past_key.0.{scale}", 0, cached), (f"key.0.{scale}", cached, side**2)):
            add(name, BufferKind.ROWS, F32, count, "2B", KEY, cache="key.0", start=start)
        cached += side**2
        for name in (f"level.{scale}", f"up.{scale}"):
            add(name, BufferKind.CONSTANT, F32, *constants[name].shape, constant=name)
        noise = {"distribution": Distribution.UNIFORM, "purpose": 0, "scale": scale}
        add(f"uniform.{scale}", BufferKind.NOISE, F32, "B", side**2, VOCAB, **noise)
        add(f"top_k.{scale}", BufferKind.SETTING, Dtype.INT64, 1, setting="top_k", scale=scale)
        add(f"logits.{scale}", BufferKind.VALUE, F32, "2B", side**2, VOCAB)
        add(f"latent.{scale}", BufferKind.VALUE, F32, "B", side**2, Z)
        add(f"f_hat.{scale}", BufferKind.VALUE, F32, "B", Z, 2, 2)
    add("pixels", BufferKind.VALUE, Dtype.UINT8, "B", IMAGE, IMAGE, 3)
    add("finite", BufferKind.VALUE, Dtype.BOOL, "B")
    spans = lifetimes(steps, buffers)
    return {
        name: dataclasses.replace(each, first=spans[name][0], last=spans[name][1]) for name, each in buffers.items()
    }


def make_no_bundle(folder: Path, kind: str) -> tuple[Path, str]:
    """Make a folder or a file that is no bundle; return it, and the pattern of the error for writing over it."""
    out = folder / "holiday"
    if kind == "folder":
        out.mkdir()
        (out / "photo.jpg").write_bytes(b"mine")
    else:
        out.write_bytes(b"mine")
    return out, rf"^{re.escape(str(out))}: exists and is not a bundle, so it is left alone; choose another --out"
