"""Run a bundle's engines with TensorRT or TensorRT-RTX: prompt tensors in, a picture out, all of it on the device.

Every tensor of the plan has its place in one block of device memory (hart_edge/bundle/program.py), so graphs hand their
results on without a copy, and addresses and shapes are set once. There is one stream; the steps of a scale become one
CUDA graph at the second picture. The host uploads noise and settings, and downloads pixels. What the text model made of
a prompt that is known is uploaded too, and its step, a group of its own, left out.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from hart_edge.bundle.plan import BufferKind, Component, Step
from hart_edge.bundle.program import Group, Place, is_upload, make_program, size_of
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.forks import keep_forever
from hart_edge.engines.tensorrt.capture import Captures
from hart_edge.engines.tensorrt.compatibility import check_machine, require_engines
from hart_edge.engines.tensorrt.cuda import Cuda, Device, not_enough_memory
from hart_edge.engines.tensorrt.library import TensorRT
from hart_edge.errors import EngineError
from hart_edge.runtime.loop import Array, Fill, Known


class TensorRTRunner:
    """Engines are opened when they first run, and stay, or with low_memory go after their last step."""

    def __init__(self, bundle: Bundle, *, low_memory: bool = False) -> None:
        """Raises EngineError where this machine cannot run the bundle, with the reason."""
        manifest = bundle.manifest
        self.library = TensorRT(manifest.target.name, require_engines(manifest.target).version)
        self.cuda = Cuda(self.library.facts.extra)
        self.device: Device = self.cuda.device()
        check_machine(manifest.target, self.library.version, self.device.architecture)
        self.program = make_program(manifest.plan, manifest.components)
        self.low_memory = low_memory
        self._bundle = bundle
        self._components = {str(each.name): each for each in manifest.components}
        self._engines: dict[str, Any] = {}
        self._contexts: dict[int, Any] = {}  # of the plan's steps
        self._spare: dict[tuple[str, int], Any] = {}  # (graph, profile): for host arrays
        self._hosted: dict[str, Array] = {}  # of the plan's buffers: what TensorRT reads on the processor
        self._captures = Captures(self.cuda)
        self._scratch, self._scratch_size = 0, 0
        self._owned: set[int] = set()  # addresses that end with the runner
        weakref.finalize(self, release, self.cuda, self._owned).atexit = False  # the driver may be gone by then
        self._check_memory()
        self._block = self.cuda.allocate(self.program.size, "the plan's buffers")
        self._owned.add(self._block)
        self._fill_resident()

    def __del__(self, keep: Callable[[object], None] = keep_forever) -> None:
        if "cuda" in vars(self) and not self.cuda.home.is_this():
            keep(vars(self))

    def begin(self, fill: Fill, known: Known | None = None, wanted: frozenset[str] = frozenset()) -> TensorRTPass:
        """A picture to be drawn; fill makes the arrays of inputs, settings and noise.

        known: of the text model's step, which then need not run; wanted: that step's buffers, which can be read until
        the end.
        """
        self.cuda.require_home()
        return TensorRTPass(self, fill, known, wanted)

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Compute `outputs` in place from host arrays: for previews and checks. Copies in and out."""
        self.cuda.require_home()
        engine, component = self._engine(graph), self._components[graph]
        context = self._spare_context(graph, self._profile(component, self._scale(graph, inputs)))
        self.library.shape_inputs(context, {name: array.shape for name, array in inputs.items()}, graph)
        addresses: dict[str, int] = {}
        try:
            for name, array in inputs.items():
                addresses[name] = self.cuda.allocate(max(array.nbytes, 1), f"{graph}: {name}")
                self.cuda.upload(addresses[name], array)
                on_host = self.library.on_host(engine, name)
                self._bind(context, name, array.ctypes.data if on_host else addresses[name], graph)
            for tensor in component.outputs:  # an engine writes all of them
                shape = tuple(context.get_tensor_shape(tensor.name))
                if tensor.name in outputs and outputs[tensor.name].shape != shape:
                    raise EngineError(f"{graph}: {tensor.name} is {shape}, found {outputs[tensor.name].shape} for it")
                size = max(size_of(tensor.dtype, shape), 1)
                addresses[tensor.name] = self.cuda.allocate(size, f"{graph}: {tensor.name}")
                self._bind(context, tensor.name, addresses[tensor.name], graph)
            self._enqueue(context, graph)
            for name, array in outputs.items():
                self.cuda.download(addresses[name], array)
        finally:
            self.cuda.synchronize()
            for address in addresses.values():
                self.cuda.free(address)

    def load(self) -> None:
        """Open every engine of the plan and set its contexts up, instead of at the first picture."""
        for group in self.program.groups:
            self._prepare(group)

    def memory(self) -> dict[str, int]:
        """Bytes on the device: of the plan's buffers and of the activations that all contexts share."""
        return {"buffers": self.program.size, "activations": self._scratch_size}

    def captured(self) -> list[int | None]:
        """Scales whose steps are one CUDA graph by now; None for what stands before or behind the scales."""
        return [self.program.groups[number].scale for number in self._captures.numbers()]

    def run_group(self, number: int, fill: Fill) -> None:
        """Enqueue a group's uploads and steps. Nothing is waited for."""
        self.cuda.require_home()
        group = self.program.groups[number]
        self.upload(group, fill)
        self._execute(number, group)
        if self.low_memory:
            self._unload(group)

    def upload(self, group: Group, fill: Fill) -> None:
        """Enqueue what the host fills for a group."""
        self._prepare(group)
        for name in group.uploads:
            self._upload(name, fill(name, self.program.plan.buffers[name]))

    def restore(self, known: Known, fill: Fill) -> None:
        """Enqueue what the groups that need not run leave for the others: what is known, and of what the host fills for
        them the part that is read later."""
        self.cuda.require_home()
        for name, array in known.values.items():
            self._upload(name, array)
        for group in self.program.groups:
            if group.last >= known.steps:
                break
            for name in group.uploads:
                buffer = self.program.plan.buffers[name]
                if buffer.last >= known.steps:
                    self._upload(name, fill(name, buffer))
            if self.low_memory:
                self._unload(group)

    def run_step(self, index: int) -> None:
        """Enqueue one step of a group that is uploaded; places are shared, so steps must come in their order."""
        self._enqueue(self._contexts[index], self._label(index))

    def read(self, name: str) -> Array:
        """A copy of a buffer; waits until what was enqueued is done."""
        place = self.program.places[name]
        array = np.empty(place.shape, place.dtype.value)
        self.cuda.download(self._block + place.offset, array)
        return array

    def steps(self, group: Group) -> list[Step]:
        return list(self.program.plan.steps[group.first : group.last + 1])

    def _upload(self, name: str, array: Array) -> None:
        place = self.program.places[name]
        array = check_array(name, array, place)
        self.cuda.upload(self._block + place.offset, array)
        if name in self._hosted:
            self._hosted[name][...] = array

    def _execute(self, number: int, group: Group) -> None:
        indices = range(group.first, group.last + 1)

        def enqueue() -> None:
            for index in indices:
                self.run_step(index)

        def allowed() -> bool:
            read = {name for step in self.steps(group) for name in step.inputs.values()}
            if self.low_memory or any(
                is_upload(self.program.plan.buffers[name]) for name in read & self._hosted.keys()
            ):
                return False  # engines go after their last step; a graph would hold the values of this picture
            return all(self.library.capturable(self._contexts[index], self.cuda.handle) for index in indices)

        self._captures.run(number, f"scale {group.scale}", enqueue, allowed)

    def _prepare(self, group: Group) -> None:
        """Engines, and per step a context whose shapes and addresses are set."""
        for index in range(group.first, group.last + 1):
            if index in self._contexts:
                continue
            step = self.program.plan.steps[index]
            engine, component = self._engine(step.graph), self._components[step.graph]
            context = self._context(step.graph, self._profile(component, step.scale), self._label(index))
            tensors = self.program.tensors(index)
            self.library.shape_inputs(context, {name: tensors[name].shape for name in step.inputs}, self._label(index))
            for name, place in tensors.items():
                address = self._block + place.offset
                if name in step.inputs and self.library.on_host(engine, name):
                    address = self._host_value(self._label(index), name, step.inputs[name]).ctypes.data
                self._bind(context, name, address, self._label(index))
            for tensor in component.outputs:
                found = tuple(context.get_tensor_shape(tensor.name))
                if found != tensors[tensor.name].shape:
                    raise EngineError(
                        f"{self._label(index)}: the plan expects {tensor.name} of {tensors[tensor.name].shape}, found "
                        f"{found} in the engine; rebuild the bundle"
                    )
            self._contexts[index] = context

    def _host_value(self, what: str, tensor: str, name: str) -> Array:
        buffer, place = self.program.plan.buffers[name], self.program.places[name]
        if buffer.kind in (BufferKind.VALUE, BufferKind.ROWS):
            raise EngineError(
                f"{what}: a shape depends on {tensor!r}, which another engine computes; rebuild the bundle"
            )
        if name not in self._hosted:
            self._hosted[name] = array = np.zeros(place.shape, place.dtype.value)
            if buffer.constant is not None:
                array[...] = self._bundle.constant(buffer.constant)
            elif is_upload(buffer):  # maybe for an earlier group
                self.cuda.download(self._block + place.offset, array)
        return self._hosted[name]

    def _engine(self, graph: str) -> Any:
        if graph not in self._engines:
            component = self._components[graph]
            free = self.cuda.free_memory()
            if free < component.bytes:
                raise not_enough_memory(f"the engine of {graph}", component.bytes, free)
            with self._bundle.opened(component.file) as path:
                engine = self.library.open(path)
            specs = {each.name: each.dtype.value for each in (*component.inputs, *component.outputs)}
            self.library.check_tensors(engine, specs, graph)
            self._engines[graph] = engine
            assert component.engine is not None  # check_machine refuses bundles without engines
            self._grow(max(self.library.activation_size(engine, i) for i in range(len(component.engine.profiles))))
        return self._engines[graph]

    def _context(self, graph: str, profile: int, what: str) -> Any:
        context = self.library.context(self._engine(graph), profile, self.cuda.handle, what)
        context.set_device_memory(self._scratch, self._scratch_size)
        return context

    def _spare_context(self, graph: str, profile: int) -> Any:
        """For `run`: kept, because TensorRT-RTX compiles kernels for every context."""
        if (graph, profile) not in self._spare:
            self._spare[graph, profile] = self._context(graph, profile, graph)
        return self._spare[graph, profile]

    def _grow(self, size: int) -> None:
        """One block of activations for all contexts, because only one of them runs at a time."""
        if size <= self._scratch_size:
            return
        self.cuda.synchronize()
        self._captures.drop()
        if self._scratch_size:
            self._owned.discard(self._scratch)
            self.cuda.free(self._scratch)
            self._scratch = self._scratch_size = 0
        self._scratch = self.cuda.allocate(size, "activations")
        self._scratch_size = size
        self._owned.add(self._scratch)
        for context in (*self._contexts.values(), *self._spare.values()):
            context.set_device_memory(self._scratch, size)

    def _unload(self, group: Group) -> None:
        """Close the engines that no later step of the picture runs."""
        later = {str(step.graph) for step in self.program.plan.steps[group.last + 1 :]}
        gone = [graph for graph in self._engines if graph not in later]
        if gone:
            self.cuda.synchronize()
        for index in [i for i in self._contexts if self.program.plan.steps[i].graph in gone]:
            del self._contexts[index]
        for key in [key for key in self._spare if key[0] in gone]:
            del self._spare[key]
        for graph in gone:
            del self._engines[graph]

    def _check_memory(self) -> None:
        """Before anything is allocated: buffers and engines must fit. Activations are known when engines are open."""
        sizes = {str(step.graph): self._components[step.graph].bytes for step in self.program.plan.steps}
        engines = max(sizes.values()) if self.low_memory else sum(sizes.values())
        free = self.cuda.free_memory()
        if free < engines + self.program.size:
            raise not_enough_memory("engines and buffers", engines + self.program.size, free)

    def _fill_resident(self) -> None:
        for name in self.program.resident:
            buffer, place = self.program.plan.buffers[name], self.program.places[name]
            if buffer.constant is None:
                self.cuda.clear(self._block + place.offset, place.size)
            else:
                self.cuda.upload(
                    self._block + place.offset, np.ascontiguousarray(self._bundle.constant(buffer.constant))
                )

    def _bind(self, context: Any, name: str, address: int, what: str) -> None:
        if not context.set_tensor_address(name, address):
            raise EngineError(f"{what}: the engine has no tensor {name!r}; rebuild the bundle")

    def _enqueue(self, context: Any, what: str) -> None:
        if not context.execute_async_v3(self.cuda.handle):
            product = self.library.facts.product
            raise EngineError(f"{what}: {product} failed while running ({self.library.last_error()})")

    def _label(self, index: int) -> str:
        step = self.program.plan.steps[index]
        return str(step.graph) if step.scale is None else f"{step.graph}, scale {step.scale}"

    def _scale(self, graph: str, inputs: Mapping[str, Array]) -> int | None:
        """The scale whose step takes arrays of these shapes; None where no step does."""
        for index, step in enumerate(self.program.plan.steps):
            if step.graph == graph:
                tensors = self.program.tensors(index)
                if all(tensors[name].shape == array.shape for name, array in inputs.items()):
                    return step.scale
        return None

    @staticmethod
    def _profile(component: Component, scale: int | None) -> int:
        assert component.engine is not None  # check_machine refuses bundles without engines
        profiles = component.engine.profiles
        if scale not in profiles:
            raise EngineError(f"{component.name}: expected a profile for scale {scale}, found {list(profiles)}")
        return profiles.index(scale)


class TensorRTPass:
    """One picture."""

    def __init__(self, runner: TensorRTRunner, fill: Fill, known: Known | None, wanted: frozenset[str]) -> None:
        self._runner, self._fill, self._known, self._wanted = runner, fill, known, wanted
        self._taken: dict[str, Array] = {}  # what is wanted, before other buffers take its place

    def scales(self) -> Iterator[int]:
        """Enqueue group after group; yields the number of each scale when its end is enqueued."""
        runner, begin = self._runner, 0
        if self._known is not None:
            runner.restore(self._known, self._fill)
            begin = self._known.steps
        for number, group in enumerate(runner.program.groups):
            if group.last < begin:
                continue
            runner.run_group(number, self._fill)
            written = {name for step in runner.steps(group) for name in step.outputs.values()}
            self._taken |= {name: runner.read(name) for name in self._wanted & written}
            if group.ends_scale:
                assert group.scale is not None  # the manifest's reader has checked it
                yield group.scale

    def read(self, name: str) -> Array:
        return self._taken[name] if name in self._taken else self._runner.read(name)


def release(cuda: Cuda, addresses: set[int]) -> None:
    """Give back what a runner owned, once nothing uses it any more."""
    if not cuda.home.is_this():
        return
    cuda.synchronize()
    for address in addresses:
        cuda.free(address)


def check_array(name: str, array: Array, place: Place) -> Array:
    """What is uploaded has the size of its place: an address knows no bounds."""
    if array.shape != place.shape or array.dtype != np.dtype(place.dtype.value):
        raise EngineError(f"{name}: expected {place.dtype} {place.shape}, found {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)
