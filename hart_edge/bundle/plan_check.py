"""A plan against its graphs and constants: BundleError unless every step can run with what the steps before it left.

In: a plan as fields.py has read it, every value allowed by itself. This file checks what the values say about each
other; docs/bundle.md lists it under "A plan is consistent".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from hart_edge.bundle.fields import below, refuse, show
from hart_edge.bundle.plan import (
    MOST_BYTES,
    Buffer,
    BufferKind,
    Component,
    ComponentName,
    Constant,
    Dtype,
    Plan,
    Step,
    TensorSpec,
    bytes_per_image,
    lifetimes,
)
from hart_edge.bundle.settings import PER_SCALE


def check_plan(
    plan: Plan,
    components: Sequence[Component],
    constants: Mapping[str, Constant],
    scales: int,
    image_size: int,
    root: str = "plan",
) -> None:
    """Raise BundleError unless every step can run with what the steps before it left. Shapes agree too.

    root: the JSON path of the plan.
    """
    for name, buffer in plan.buffers.items():
        _check_buffer(below(f"{root}.buffers", name), buffer, constants, scales)
    for name, buffer in plan.buffers.items():
        if buffer.kind is BufferKind.ROWS:
            _check_rows(below(f"{root}.buffers", name), buffer, plan.buffers)
    callers = {name for name, buffer in plan.buffers.items() if buffer.kind is BufferKind.INPUT}
    if callers not in ({"input_ids"}, {"context", "context_mask"}):
        found = ", ".join(sorted(callers)) or "none"
        refuse(f"{root}.buffers", "the inputs input_ids, or context and context_mask", show(found))
    graphs = {component.name: component for component in components}
    written: set[str] = set()
    rows: dict[str, int] = {}
    ended = 0
    for index, step in enumerate(plan.steps):
        where = f"{root}.steps[{index}]"
        _check_step(where, step, graphs, plan.buffers, written, rows, scales)
        if step.ends_scale:
            if step.scale != ended:
                refuse(f"{where}.ends_scale", f"scale {ended} to end next", f"scale {show(step.scale)}")
            if f"f_hat.{ended}" not in written:
                refuse(f"{where}.ends_scale", f"the value f_hat.{ended} to be written by now", "none")
            ended += 1
    if ended != scales:
        refuse(f"{root}.steps", f"{scales} steps with ends_scale, one per scale", f"{ended}")
    _check_results(plan, written, scales, image_size, root)
    _check_lifetimes(plan, root)


def _check_lifetimes(plan: Plan, root: str) -> None:
    spans = lifetimes(plan.steps, plan.buffers)
    for name, buffer in plan.buffers.items():
        where = below(f"{root}.buffers", name)
        if name not in spans:
            refuse(where, "a buffer that a step reads or writes", "none that does")
        for key, expected, found in zip(("first", "last"), spans[name], (buffer.first, buffer.last), strict=True):
            if expected != found:
                refuse(f"{where}.{key}", f"{expected}, the {key} step that touches it", f"{found}")


def _check_buffer(where: str, buffer: Buffer, constants: Mapping[str, Constant], scales: int) -> None:
    size = bytes_per_image(buffer.dtype, buffer.shape)
    if size > MOST_BYTES:
        refuse(f"{where}.shape", f"at most {MOST_BYTES} bytes per image", f"{size}")
    if buffer.bytes_per_image != size:
        refuse(f"{where}.bytes_per_image", f"{size}, the size at B = 1", f"{buffer.bytes_per_image}")
    if buffer.scale is not None and buffer.scale >= scales:
        refuse(f"{where}.scale", f"an integer from 0 to {scales - 1}", f"{buffer.scale}")
    if buffer.kind is BufferKind.SETTING and buffer.shape != (1,):
        refuse(f"{where}.shape", "[1] for a setting", f"{list(buffer.shape)}")
    if buffer.kind is BufferKind.SETTING and (buffer.scale is not None) != (buffer.setting in PER_SCALE):
        expected_scale = "a scale" if buffer.setting in PER_SCALE else "null"
        refuse(f"{where}.scale", f"{expected_scale} for {buffer.setting}", show(buffer.scale))
    if buffer.kind is BufferKind.NOISE and buffer.scale is None:
        refuse(f"{where}.scale", "a scale for noise", "null")
    if buffer.kind is BufferKind.NOISE and buffer.dtype is not Dtype.FLOAT32:
        refuse(f"{where}.dtype", "float32 for noise", show(buffer.dtype))
    counted = buffer.shape and isinstance(buffer.shape[0], int)
    if buffer.kind in (BufferKind.CACHE, BufferKind.ROWS) and not counted:
        refuse(f"{where}.shape", f"a number of rows on axis 0 of {buffer.kind}", f"{list(buffer.shape)}")
    if buffer.kind is BufferKind.CONSTANT:
        source = constants.get(buffer.constant or "")
        if source is None:
            refuse(f"{where}.constant", "a name in constants", show(buffer.constant))
        if (source.dtype, source.shape) != (buffer.dtype, buffer.shape):
            expected_form = f"{source.dtype} {list(source.shape)} as in constants"
            refuse(where, expected_form, f"{buffer.dtype} {list(buffer.shape)}")


def _check_rows(where: str, buffer: Buffer, buffers: Mapping[str, Buffer]) -> None:
    """A range of rows lies in its cache."""
    cache = buffers.get(buffer.cache or "")
    if cache is None or cache.kind is not BufferKind.CACHE:
        refuse(f"{where}.cache", "the name of a buffer of kind cache", show(buffer.cache))
    if (cache.dtype, cache.shape[1:]) != (buffer.dtype, buffer.shape[1:]):
        expected_rows = f"rows of {cache.dtype} {list(cache.shape[1:])} as in {show(buffer.cache)}"
        refuse(where, expected_rows, f"{buffer.dtype} {list(buffer.shape[1:])}")
    if buffer.end > cache.end:
        within = f"rows within the {cache.end} of {show(buffer.cache)}"
        refuse(f"{where}.start", within, f"rows {buffer.start} to {buffer.end}")


def _check_step(
    where: str,
    step: Step,
    graphs: Mapping[ComponentName, Component],
    buffers: Mapping[str, Buffer],
    written: set[str],
    rows: dict[str, int],
    scales: int,
) -> None:
    """Check one step; add its outputs to `written`, and to `rows`, which says how many a cache holds."""
    component = graphs.get(step.graph)
    if component is None:
        refuse(f"{where}.graph", "the name of a component", show(step.graph))
    if step.scale is not None and step.scale >= scales:
        refuse(f"{where}.scale", f"an integer from 0 to {scales - 1}", f"{step.scale}")
    symbols: dict[str, int | str] = {}
    for tensor, name, at in _wired(f"{where}.inputs", step.inputs, component.inputs, buffers):
        if buffers[name].kind is BufferKind.VALUE and name not in written:
            refuse(at, "a buffer that an earlier step wrote", show(name))
        if buffers[name].kind is BufferKind.CACHE:
            refuse(at, "rows of a cache", show(f"{name} of kind {buffers[name].kind}"))
        if buffers[name].kind is BufferKind.ROWS:
            cache, end = buffers[name].cache or "", buffers[name].end
            if end > rows.get(cache, 0):
                expected = f"rows that earlier steps wrote, {rows.get(cache, 0)} of {show(cache)}"
                refuse(at, expected, f"{show(name)}, which ends at {end}")
        _check_tensor(at, tensor, name, buffers[name], symbols)
    for spec in component.inputs:
        if spec.name not in step.inputs:
            refuse(f"{where}.inputs", f"every input of {step.graph}", f"no {show(spec.name)}")
    for tensor, name, at in _wired(f"{where}.outputs", step.outputs, component.outputs, buffers):
        if buffers[name].kind is BufferKind.ROWS:
            cache, start = buffers[name].cache or "", buffers[name].start
            if start != rows.get(cache, 0):
                expected = f"rows from {rows.get(cache, 0)} of {show(cache)} on, the first that nothing wrote"
                refuse(at, expected, f"{show(name)} from {start} on")
            rows[cache] = buffers[name].end
        elif buffers[name].kind is not BufferKind.VALUE:
            refuse(at, "a buffer of kind value or rows", show(f"{name} of kind {buffers[name].kind}"))
        elif name in written:
            refuse(at, "a buffer that nothing wrote before", show(name))
        else:
            written.add(name)
        _check_tensor(at, tensor, name, buffers[name], symbols)


def _wired(
    where: str, pairs: Mapping[str, str], specs: Sequence[TensorSpec], buffers: Mapping[str, Buffer]
) -> Iterator[tuple[TensorSpec, str, str]]:
    """The tensor, the buffer's name and the JSON path of every pair in a step's inputs or outputs."""
    known = {spec.name: spec for spec in specs}
    for tensor, name in pairs.items():
        at = below(where, tensor)
        if tensor not in known:
            refuse(where, "tensors of the component: " + ", ".join(known)[:200], show(tensor))
        if name not in buffers:
            refuse(at, "the name of a buffer", show(name))
        yield known[tensor], name, at


def _check_tensor(at: str, tensor: TensorSpec, name: str, buffer: Buffer, symbols: dict[str, int | str]) -> None:
    """A buffer has the dtype and shape of its tensor; a symbol means the same extent throughout a step."""
    if tensor.dtype is not buffer.dtype:
        refuse(at, f"a buffer of {tensor.dtype}", f"{show(name)} of {buffer.dtype}")
    if len(tensor.shape) != len(buffer.shape):
        refuse(at, f"a buffer of {len(tensor.shape)} dimensions", f"{show(name)} of {len(buffer.shape)}")
    for axis, (size, given) in enumerate(zip(tensor.shape, buffer.shape, strict=True)):
        expected = symbols.setdefault(size, given) if isinstance(size, str) else size
        if expected != given:
            refuse(at, f"extent {show(expected)} on axis {axis}", f"{show(name)} with {show(given)}")


def _check_results(plan: Plan, written: set[str], scales: int, image_size: int, root: str) -> None:
    """The last step decodes the last f_hat, and could decode any other: previews do."""
    wanted = {
        "pixels": (Dtype.UINT8, ("B", image_size, image_size, 3)),
        "finite": (Dtype.BOOL, ("B",)),
    }
    final = f"f_hat.{scales - 1}"
    for scale in range(scales):
        wanted[f"f_hat.{scale}"] = (Dtype.FLOAT32, plan.buffers[final].shape)
    for name, (dtype, shape) in wanted.items():
        if name not in written:
            refuse(f"{root}.steps", f"a step that writes {name}", "none")
        buffer = plan.buffers[name]
        if (buffer.dtype, buffer.shape) != (dtype, shape):
            refuse(f"{root}.buffers.{name}", f"{dtype} {list(shape)}", f"{buffer.dtype} {list(buffer.shape)}")
    where, step = f"{root}.steps[{len(plan.steps) - 1}]", plan.steps[-1]
    if step.graph is not ComponentName.DECODER or step.inputs != {"f_hat": final}:
        refuse(where, f"the decoder with {final} as f_hat, its only input, to be last", show(step.graph))
    for name in ("pixels", "finite"):
        if step.outputs.get(name) != name:
            refuse(below(f"{where}.outputs", name), show(name), show(step.outputs.get(name)))
