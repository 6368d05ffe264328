"""`python -m export.build`: a checkpoint becomes a bundle.

    checkpoint -> reference -> graphs -> (calibration -> ranges) -> schemes -> parity -> bundle

Every graph is held against the reference twice, as traced and in its final scheme, before anything takes its name.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from hart_edge.bundle.card import describe_machine, write_card
from hart_edge.bundle.manifest import (
    FORMAT_VERSION,
    Calibration,
    Component,
    ComponentName,
    Manifest,
    PaddingSide,
    Precision,
    Quality,
    Residual,
    TargetSpec,
    Tokenizer,
)
from hart_edge.bundle.memory import cache_peak
from hart_edge.bundle.writer import BundleWriter, bundle_name, write_bundle
from hart_edge.calib.calibrate.overflow import OverflowWatch
from hart_edge.calib.calibrate.prompts import FIRST_SEED
from hart_edge.calib.calibrate.ranges import CalibratedRanges, read_ranges
from hart_edge.calib.graph_files import read_graph, save_graph, weight_bytes
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.rewrite.fp16 import tensors_in_fp16
from hart_edge.calib.rewrite.kv_cache import FP16_CACHE_FROM
from hart_edge.calib.scheme import Scheme, scheme_of, specs_in
from hart_edge.engines.registry import REGISTRY, Registry
from hart_edge.errors import BuildError
from hart_edge.export.onnx_export import export_graph
from hart_edge.export.options import BuildOptions, Progress, StepDone
from hart_edge.export.parity.recording import Recording
from hart_edge.export.parity.stage import ParityStage
from hart_edge.export.plan_builder import build_plan, with_dtypes
from hart_edge.export.stages.calibrate import by_arrays, calibrate
from hart_edge.export.stages.decide import Decision, Int8Stage, weights_like
from hart_edge.export.stages.engines import build_for_engines
from hart_edge.export.stages.read import PARITY_SEED, Inputs, random_source, read_source
from hart_edge.export.tensorrt_lint.lint import require_clean
from hart_edge.export.walk import Execute, by_reference, walk
from hart_edge.reference.presets import SHIPPED_MODEL

__all__ = ["SHIPPED_MODEL", "BuildOptions", "Builder", "StepDone", "build", "bundle_name"]

OVERFLOW_PROMPTS = 4
# Bytes of a fp16's attention scores at the last scale from which a CPU gets ONNX Runtime's attention, which holds none.
# 0.7B has 24 MB at 256 pixels, where what it saves at the last scale it loses at the first; 250 MB at 512, and 3.8 GB
# at 1024 (benchmarks.attention).
FUSED_FROM = 2**27
TOOLS = ("hart-edge", "torch", "onnx", "onnxscript", "onnxruntime", "transformers")


@dataclass
class _Step:
    size: int | None = None


@dataclass
class Builder:
    """The state of one build."""

    options: BuildOptions
    progress: Progress
    registry: Registry = REGISTRY
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.entry, self.library = self.registry[self.options.target], self.registry.library(self.options.target)
        found = self.library.availability()
        if not found.usable:
            raise BuildError(f"target {self.options.target} cannot be checked on this machine: {found.detail}")

    def build(self) -> Manifest:
        """Build a bundle of graphs under options.out and return its manifest."""
        with write_bundle(self.options.out) as writer:
            folder = writer.folder
            scratch = folder / "scratch"
            scratch.mkdir()
            (folder / "graphs").mkdir()
            self.prepare(scratch)
            recording = self.record(scratch / "calls")
            parity = ParityStage(self.source, self.plan, recording, self.library, scratch)
            with self._step("comparing every graph with the reference, as traced"):
                parity.check_traced()
            ranges = self._ranges(scratch)
            options = self.options
            architectures = options.engines.architectures
            schemes = {
                name: scheme_of(name, options.precision, self.entry.graphs, architectures) for name in self.graphs
            }
            decisions = self._decide(scratch, schemes, ranges, recording)
            schemes = {name: decision.scheme for name, decision in decisions.items()}
            fp16 = self.fp16_cache
            inputs = {
                name: specs_in(graph.inputs, schemes[name], fp16_cache=fp16) for name, graph in self.graphs.items()
            }
            outputs = {
                name: specs_in(graph.outputs, schemes[name], fp16_cache=fp16) for name, graph in self.graphs.items()
            }
            wide = self._wide(scratch, schemes)
            sizes = self._write_graphs(scratch, folder / "graphs", decisions, ranges, wide)
            with self._step(f"comparing every graph with the reference, at {options.precision}"):
                worst, quality = parity.check_final(folder / "graphs", schemes, inputs, options.held_to)
            shutil.rmtree(scratch)
            self.plan = with_dtypes(self.plan, {name: (*inputs[name], *outputs[name]) for name in self.graphs})
            components = tuple(
                Component(
                    ComponentName(name),
                    f"graphs/{name}.onnx",
                    schemes[name].precision,
                    str(schemes[name]),
                    self.parameters[name],
                    sizes[name],
                    worst[name].error,
                    worst[name].tensor,
                    inputs[name],
                    outputs[name],
                    decisions[name].reason,
                    tuple(sorted(decisions[name].excluded | decisions[name].weight_only)),
                )
                for name in self.graphs
            )
            return self._finish(writer, components, ranges, quality)

    def prepare(self, scratch: Path) -> None:
        """Read the checkpoint, plan the loop and leave the traced graphs in an empty folder."""
        self._read()
        config = self.source.model.config
        score_bytes = 4 * config.num_heads * config.scale_tokens[-1] * sum(config.scale_tokens)
        self.graphs["transformer"].fused = self.entry.graphs.fused_attention and score_bytes >= FUSED_FROM
        self.plan, self.constants = build_plan(self.source.model, self.graphs)
        # Whether the KV cache is FP16 though the arithmetic around it is float32.
        self.fp16_cache = self.options.precision is Precision.INT8 and cache_peak(self.plan) >= FP16_CACHE_FROM
        self._trace(scratch)

    def calibrate(self, scratch: Path) -> CalibratedRanges:
        """The ranges of options.checkpoint alone; its graphs are left in an empty folder."""
        self.prepare(scratch)
        self.source.let_go()
        ranges = self._ranges(scratch)
        assert ranges is not None  # of precision int8
        return ranges

    @contextmanager
    def _step(self, label: str) -> Iterator[_Step]:
        self.progress(label)
        begin, step = time.monotonic(), _Step()
        yield step
        self.progress(StepDone(label, time.monotonic() - begin, step.size))

    def _read(self) -> None:
        options = self.options
        with self._step(f"reading {options.checkpoint}") as step:
            preset = isinstance(options.checkpoint, str)
            self.source = random_source(options.checkpoint) if preset else read_source(options.checkpoint)
            self.graphs = self.source.graphs
            self.sampling = self.source.sampling(options.settings)
            self.ranges: CalibratedRanges | None = None
            self.calibration_inputs: list[Inputs] = []
            if options.precision is Precision.INT8:
                if options.ranges is not None:
                    self.ranges = read_ranges(options.ranges, self.source.weights_sha256)
                else:
                    self.calibration_inputs = self.source.calibration_inputs(options.prompts, options.contexts)
            step.size = self.source.weight_bytes

    def _trace(self, folder: Path) -> None:
        self.parameters = {}
        for name, graph in self.graphs.items():
            with self._step(f"tracing {name}") as step:
                path = folder / f"{name}.onnx"
                export_graph(graph, path)
                step.size = weight_bytes(read_graph(path))
                self.parameters[name] = step.size // 4

    def walk(self, inputs: Inputs, seed: int, execute: Execute) -> Tensor:
        """Execute the plan with the settings of the build. Returns the image."""
        return walk(self.plan, execute, self.constants, self.sampling, inputs, [seed])

    def record(self, folder: Path) -> Recording:
        """Run the reference on the parity prompts, the only time that it is, and let go of most of its weights.

        folder: for the recording; it is made.
        """
        recording, given = Recording(folder), self.source.parity_inputs()
        reference = by_reference(self.graphs, recording)
        with self._step(f"running the reference on {len(given)} prompts"):
            for inputs in given:
                image = self.walk(inputs, PARITY_SEED, reference)
                encoder = self.graphs["encoder"]
                reference("encoder", {"image": image * 2 - 1}, [tensor.name for tensor in encoder.outputs])
                recording.end_prompt()
        self.source.let_go()
        return recording

    def _ranges(self, folder: Path) -> CalibratedRanges | None:
        """The ranges of INT8: read before, or collected by running the real loop."""
        if self.options.precision is not Precision.INT8 or self.ranges is not None:
            return self.ranges
        inputs = self.calibration_inputs
        with self._step(f"calibrating on {len(inputs)} prompts"):
            return calibrate(self.source, folder, inputs, self.walk, self.library, self.options.range_rule)

    def _decide(
        self, scratch: Path, schemes: Mapping[str, Scheme], ranges: CalibratedRanges | None, recording: Recording
    ) -> dict[str, Decision]:
        """What every component becomes. At INT8 that is measured, unless a scheme was asked for."""
        options = self.options
        kept = weights_like({name: scratch / f"{name}.onnx" for name in schemes}, options.excluded)
        decisions = {name: Decision(scheme, "", kept[name]) for name, scheme in schemes.items()}
        if ranges is None:
            return decisions
        with self._step("choosing INT8 schemes"):
            limits = options.layers_held_to if self.source.tokenizer is not None else None  # else logits mean nothing
            stage = Int8Stage(
                scratch,
                self.graphs,
                ranges,
                self.library,
                self._say,
                random=self.source.random,
                fp16_cache=self.fp16_cache,
            )
            return stage.decide(decisions, options.int8_scheme, recording, limits)

    def _say(self, line: str) -> None:
        self.progress(StepDone(line, 0.0, None))

    def _wide(self, folder: Path, schemes: Mapping[str, Scheme]) -> dict[str, frozenset[str]]:
        """Tensors that FP16 may not hold, because the loop brings them near its largest number."""
        fp16 = [name for name, scheme in schemes.items() if scheme.fp16_activations]
        if not fp16:
            return {}
        paths = {name: folder / f"{name}.onnx" for name in self.graphs}
        inputs = (self.calibration_inputs or self.source.parity_inputs())[:OVERFLOW_PROMPTS]
        with self._step(f"looking for overflow of FP16 on {len(inputs)} prompts"):
            tensors = {}
            for name in fp16:
                tensors[name] = tensors_in_fp16(apply_scheme(read_graph(paths[name]), Scheme.FLOAT16, {}, folder))
            with OverflowWatch(paths, tensors, self.library) as watch:
                for index, one in enumerate(inputs):
                    image = self.walk(one, FIRST_SEED + index, by_arrays(watch))
                    watch("encoder", {"image": (image * 2 - 1).numpy()})
                wide = watch.wide()
        for name, tensors_of in wide.items():
            if tensors_of:
                self.progress(StepDone(f"{name}: {', '.join(sorted(tensors_of))} stay in float32", 0.0, None))
        return wide

    def _write_graphs(
        self,
        source: Path,
        destination: Path,
        decisions: Mapping[str, Decision],
        ranges: CalibratedRanges | None,
        wide: Mapping[str, frozenset[str]],
    ) -> dict[str, int]:
        sizes = {}
        with self._step(f"writing graphs at {self.options.precision}") as step:
            for name, decision in decisions.items():
                own = ranges.graphs.get(name, {}) if ranges else {}
                graph = read_graph(source / f"{name}.onnx")
                model = apply_scheme(
                    graph,
                    decision.scheme,
                    own,
                    source,
                    wide.get(name, frozenset()),
                    decision.excluded,
                    decision.weight_only,
                    fp16_cache=self.fp16_cache,
                )
                path = destination / f"{name}.onnx"
                sizes[name] = save_graph(model, path, source, self.options.external_from)
                if self.entry.graphs.tensorrt_parser:
                    require_clean(path)
            step.size = sum(sizes.values())
        return sizes

    def _finish(
        self,
        writer: BundleWriter,
        components: tuple[Component, ...],
        ranges: CalibratedRanges | None,
        quality: Quality,
    ) -> Manifest:
        """Constants, tokenizer, card and manifest."""
        with self._step(f"writing {self.options.out}") as step:
            model, prompts = self.source.model, self.source.tokenizer
            tokenizer = None
            if prompts is not None:
                assert self.source.folder is not None  # only a folder has a text model
                writer.copy(self.source.folder / "text_model" / "tokenizer.json", "tokenizer.json")
                tokenizer = Tokenizer("tokenizer.json", prompts.pad_token_id, PaddingSide(prompts.padding_side))
            calibration = None
            if ranges is not None:
                writer.write("calibration.json", ranges.to_json())
                calibration = Calibration(ranges.prompts, ranges.sha256())
            timesteps = model.residual.schedule.timesteps
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                name=bundle_name(self.options.out, random=self.source.random),
                precision=self.options.precision,
                target=TargetSpec(self.options.target, None),
                image_size=model.image_size,
                patch_nums=model.patch_nums,
                vocab_size=model.tokenizer_config.vocab_size,
                z_channels=model.tokenizer_config.z_channels,
                context_tokens=model.config.context_token,
                context_dim=model.config.context_dim,
                tokenizer=tokenizer,
                sampling=self.sampling,
                residual=Residual(timesteps, len(timesteps) + 1),
                components=components,
                files={},
                constants=writer.constants(self.constants),
                plan=self.plan,
                calibration=calibration,
                quality=quality,
                licences=self.source.licences,
                tools=tool_versions(),
            )
            seconds = time.monotonic() - self.started
            card = write_card(manifest, describe_machine(), seconds, self.options.command, self.options.held_to)
            manifest = writer.finish(manifest, card)
            step.size = sum(entry.bytes for entry in manifest.files.values())
        return manifest


def build(options: BuildOptions, progress: Progress = lambda _: None, registry: Registry = REGISTRY) -> Manifest:
    """Build a bundle under options.out and return its manifest. registry: the engine libraries that may be used.

    Raises CheckpointError, ParityError, BuildError or EngineError; then nothing is left under options.out, and what
    was there before is still there.
    """

    def build_graphs(graphs: BuildOptions) -> Manifest:
        return Builder(graphs, progress, registry).build()

    builder = registry[options.target].builder
    if builder is None:
        return build_graphs(options)
    name = bundle_name(options.out, random=isinstance(options.checkpoint, str))
    return build_for_engines(options, builder, progress, build_graphs, name, describe_machine())


def tool_versions() -> dict[str, str]:
    found = {}
    for package in TOOLS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # hart-edge itself, run from a tree that is not installed
            continue
    return found
