"""Build one engine in a process of its own: `python -m hart_edge.engines.tensorrt.worker`, which builder.py starts.

In: a job as JSON on standard input. Out: an engine file, and events on standard output, a JSON object a line: progress,
then a report or an error. A process per engine gives back all its memory when it ends, can be killed at any time, and
a crash inside the library is an error of that engine, not of the whole build.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hart_edge.bundle.limits import peak_memory
from hart_edge.engines.tensorrt.report import inspected_layers, read_layers, report
from hart_edge.errors import BuildError
from hart_edge.runtime.allocator import map_large_blocks

NEWS = 0.1  # seconds between the steps that are told; a phase has thousands


def main() -> int:
    job = json.load(sys.stdin)
    map_large_blocks()  # a quarter of the peak: the builder's copies of large weights
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")  # what the library prints goes elsewhere
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def emit(**event: Any) -> None:
        print(json.dumps(event), file=events, flush=True)

    try:
        emit(report=build(job, emit))
        return 0
    except BuildError as error:
        emit(error=str(error))
        return 1
    except MemoryError:
        emit(error=f"{job['component']}: not enough memory; close other programs or build on a larger machine")
        return 1


def build(job: dict[str, Any], emit: Any) -> dict[str, Any]:
    """Build the engine of a job and return its report. Raises BuildError with the library's reason."""
    trt = importlib.import_module(job["module"])
    name, begin = job["component"], time.monotonic()
    idle = peak_memory()
    recorder = _recorder(trt)
    builder = trt.Builder(recorder)
    network = builder.create_network(_network_flags(trt, name))
    emit(phase="parsing", done=0, total=1)
    parser = trt.OnnxParser(network, recorder)
    if not parser.parse_from_file(job["graph"]):
        raise BuildError(f"{name}: {_parser_error(parser, trt)}")
    parsed = network.num_layers
    emit(phase="parsing", done=1, total=1)
    config = builder.create_builder_config()
    _configure(trt, builder, network, config, job)
    config.progress_monitor = _monitor(trt, emit)
    out = Path(job["out"])
    _write_engine(trt, builder, network, config, recorder, out, name)
    _save_timing_cache(config, job)
    size = out.stat().st_size
    layers = read_layers(recorder.lines) or _inspect(trt, recorder, out)
    told = report(recorder.lines, layers)
    lost = [node for node in told["nodes"] if node["fate"] == "lost"]
    if lost and layers:
        first = f"{lost[0]['name']} ({lost[0]['operator']})"
        raise BuildError(f"{name}: {len(lost)} ONNX nodes are in no layer of the engine, as {first}; please report it")
    return {
        "component": name,
        "version": trt.__version__,
        "engine_bytes": size,
        "seconds": round(time.monotonic() - begin, 2),
        "process_peak_bytes": peak_memory() - idle,
        "network_layers": parsed,
        **told,
    }


def _recorder(trt: Any) -> Any:
    """A logger that keeps every line: the report is made from them."""

    class Recorder(trt.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, line: str) -> None:
            self.lines.append(line)
            if severity <= trt.ILogger.ERROR:
                self.errors.append(line)

    return Recorder()


def _monitor(trt: Any, emit: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            super().__init__()
            self.totals: dict[str, int] = {}
            self.said = 0.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.totals[phase] = steps
            emit(phase=phase, done=0, total=steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if time.monotonic() - self.said >= NEWS:
                self.said = time.monotonic()
                emit(phase=phase, done=step + 1, total=self.totals.get(phase, step + 1))
            return True

        def phase_finish(self, phase: str) -> None:
            emit(phase=phase, done=self.totals.get(phase, 1), total=self.totals.pop(phase, 1))

    return Monitor()


def _network_flags(trt: Any, name: str) -> int:
    """Strong typing: precision is what the graph says. TensorRT 11 has no other way and may have no flag for it."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    if flag is None and int(trt.__version__.split(".")[0]) < 11:
        raise BuildError(f"{name}: {trt.__name__} {trt.__version__} has no strongly typed networks; use 10.x or 11.x")
    return 0 if flag is None else 1 << int(flag)


def _parser_error(parser: Any, trt: Any) -> str:
    said = f"the parser of {trt.__name__} {trt.__version__} refused the graph"
    if not parser.num_errors:
        return f"{said} without a reason; is the file whole?"
    error = parser.get_error(0)
    return f"{said} at node {error.node_name()} ({error.node_operator()}): {error.desc()}"


def _configure(trt: Any, builder: Any, network: Any, config: Any, job: dict[str, Any]) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if job["workspace"] is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job["workspace"])
    if job["compute_capabilities"]:
        config.num_compute_capabilities = len(job["compute_capabilities"])
        for index, capability in enumerate(job["compute_capabilities"]):
            config.set_compute_capability(getattr(trt.ComputeCapability, capability), index)
    if job["version_compatible"]:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if job["hardware_compatibility"] != "NONE":
        level = getattr(trt.HardwareCompatibilityLevel, job["hardware_compatibility"], None)
        if level is None:
            raise BuildError(f"{trt.__name__} {trt.__version__} knows no {job['hardware_compatibility']}; update it")
        config.hardware_compatibility_level = level
    if job["timing_cache"] is not None:
        path = Path(job["timing_cache"])
        cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    inputs = {network.get_input(index).name: network.get_input(index) for index in range(network.num_inputs)}
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        if inputs.keys() != shapes.keys():
            takes, feeds = ", ".join(inputs), ", ".join(shapes)
            raise BuildError(f"{job['component']}: the graph takes {takes}, the plan feeds {feeds}; rebuild the bundle")
        for tensor, (low, likely, high) in shapes.items():
            if inputs[tensor].is_shape_tensor:
                raise BuildError(f"{job['component']}: input {tensor} decides shapes; profiles here hold sizes only")
            profile.set_shape(tensor, low, likely, high)
        config.add_optimization_profile(profile)


def _write_engine(trt: Any, builder: Any, network: Any, config: Any, recorder: Any, out: Path, name: str) -> None:
    """Straight to the file where the library can, so that the engine is in memory once."""
    with out.open("wb") as file:
        if hasattr(builder, "build_serialized_network_to_stream"):

            class Writer(trt.IStreamWriter):  # type: ignore[misc]  # the library has no types
                def __init__(self) -> None:
                    super().__init__()

                def write(self, data: bytes) -> int:
                    return file.write(data)

            done = builder.build_serialized_network_to_stream(network, config, Writer())
        else:
            engine = builder.build_serialized_network(network, config)
            done = engine is not None
            if done:
                file.write(engine)
        file.flush()
        os.fsync(file.fileno())
    if not done or not out.stat().st_size:
        told = [line for line in recorder.errors if "catchCudaError" not in line]  # no driver: no matter for a builder
        reason = (told or recorder.errors or ["it gave no reason"])[-1]
        raise BuildError(f"{name}: {trt.__name__} {trt.__version__} built no engine: {reason[:600]}")


def _save_timing_cache(config: Any, job: dict[str, Any]) -> None:
    cache = config.get_timing_cache() if job["timing_cache"] is not None else None
    if cache is not None:
        path = Path(job["timing_cache"])
        part = path.with_name(path.name + ".part")
        part.write_bytes(cache.serialize())
        part.replace(path)


def _inspect(trt: Any, recorder: Any, out: Path) -> list[Any]:
    """The layers by the engine inspector, which needs a GPU; none without one."""
    engine = trt.Runtime(recorder).deserialize_cuda_engine(out.read_bytes())
    if engine is None:
        return []
    return inspected_layers(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))


if __name__ == "__main__":
    raise SystemExit(main())
