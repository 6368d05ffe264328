"""`python -m export.build`: a checkpoint becomes a bundle.

    checkpoint -> reference -> graphs -> (calibration -> ranges) -> forms -> parity -> bundle

Every graph is held against the reference twice, as traced and in its final form, before anything takes its name.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from calib.collect import RangeCollector
from calib.forms import Form, form_of
from calib.graph_files import EXTERNAL_FROM, save_graph, weight_bytes
from calib.prompts import FIRST_SEED, read_prompts
from calib.quantize import apply_form
from calib.ranges import CalibratedRanges, hash_files, read_ranges
from engines.registry import library
from export.bundle import list_files, staged_folder, write_constants
from export.card import write_card
from export.graphs import GraphModule, build_graphs
from export.onnx_export import export_graph
from export.parity import ParityCheck, check_call, require_observed, walk
from export.plan import build_plan
from hart_edge.model.checkpoint import Checkpoint, load_checkpoint
from hart_edge.model.sampling import DEFAULT_CFG_SCALE, default_top_k, guidance_ramp, smooth_temperatures
from runtime.errors import BuildError, CheckpointError
from runtime.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    Calibration,
    Component,
    ComponentName,
    Licence,
    Manifest,
    PaddingSide,
    Precision,
    Residual,
    Sampling,
    Setting,
    Target,
    TargetSpec,
    Tokenizer,
    to_json,
)

SHIPPED_MODEL = Path(__file__).resolve().parent.parent / "hart_edge" / "models" / "hart-emoji"
PARITY_PROMPTS = ("a blue circle", "woman astronaut: dark skin tone")  # not among the calibration prompts
PARITY_SEED = 1
MOST_GUIDANCE = 100.0  # what the manifest allows
TOOLS = ("hart-edge", "torch", "onnx", "onnxscript", "onnxruntime", "transformers")


@dataclass(frozen=True)
class BuildOptions:
    """What to build. contexts: (N, T, D) and (N, T) arrays for a checkpoint without a text model."""

    checkpoint: Path
    out: Path
    precision: Precision = Precision.INT8
    target: Target = Target.CPU
    cfg_scale: float = DEFAULT_CFG_SCALE
    prompts: Path | None = None
    contexts: Path | None = None
    ranges: Path | None = None
    external_from: int = EXTERNAL_FROM
    command: str = "python -m export.build"

    def __post_init__(self) -> None:
        if not 0 <= self.cfg_scale <= MOST_GUIDANCE:  # false for NaN as well
            raise BuildError(f"cfg_scale: expected 0 to {MOST_GUIDANCE:g}, found {self.cfg_scale!r}")


@dataclass(frozen=True)
class StepDone:
    """One finished step of a build. size: bytes that it wrote or read, None where that says nothing."""

    label: str
    seconds: float
    size: int | None


Progress = Callable[[str | StepDone], None]  # a label when a step begins, a StepDone when it has ended


@dataclass
class _Step:
    size: int | None = None


@dataclass
class Builder:
    """The state of one build."""

    options: BuildOptions
    progress: Progress
    started: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.library = library(self.options.target)
        found = self.library.availability()
        if not found.usable:
            raise BuildError(f"target {self.options.target} cannot be checked on this machine: {found.detail}")

    def build(self) -> Manifest:
        with staged_folder(self.options.out) as folder:
            scratch = folder / "scratch"
            scratch.mkdir()
            (folder / "graphs").mkdir()
            self._read()
            self.plan, constants = build_plan(self.model, self.graphs)
            self.constants = constants
            self._trace(scratch)
            self._check("as traced", scratch, dict.fromkeys(self.graphs, Precision.FP32))
            ranges = self._ranges(scratch)
            forms = {name: form_of(name, self.options.precision, self.options.target) for name in self.graphs}
            sizes = self._write_forms(scratch, folder / "graphs", forms, ranges)
            shutil.rmtree(scratch)
            precisions = {name: form.precision for name, form in forms.items()}
            check = self._check(f"at {self.options.precision}", folder / "graphs", precisions)
            components = tuple(
                Component(
                    ComponentName(name),
                    f"graphs/{name}.onnx",
                    forms[name].precision,
                    str(forms[name]),
                    self.parameters[name],
                    sizes[name],
                    check.worst[name].error,
                    check.worst[name].tensor,
                    graph.inputs,
                    graph.outputs,
                )
                for name, graph in self.graphs.items()
            )
            return self._finish(folder, components, ranges)

    @contextmanager
    def _step(self, label: str) -> Iterator[_Step]:
        self.progress(label)
        begin, step = time.monotonic(), _Step()
        yield step
        self.progress(StepDone(label, time.monotonic() - begin, step.size))

    def _read(self) -> None:
        with self._step(f"reading {self.options.checkpoint}") as step:
            self.checkpoint: Checkpoint = load_checkpoint(self.options.checkpoint)
            self.model = self.checkpoint.model
            weights = list(self.checkpoint.read)
            text_model, self.tokenizer = None, None
            if self.checkpoint.has_text_model:
                from hart_edge.model.text import load_text_model

                folder = self.options.checkpoint / "text_model"
                text_model, self.tokenizer = load_text_model(folder, self.model.config.context_token)
                weights += sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin"))
            self.weights_sha256 = hash_files(weights)
            self.graphs: Mapping[str, GraphModule] = build_graphs(self.model, text_model)
            step.size = sum(path.stat().st_size for path in weights)
            # What the caller may have got wrong is found here, before minutes of tracing.
            self.licences = read_licences(self.options.checkpoint)
            self.ranges, self.calibration_inputs = None, []
            if self.options.precision is Precision.INT8:
                if self.options.ranges is not None:
                    self.ranges = read_ranges(self.options.ranges, self.weights_sha256)
                else:
                    self.calibration_inputs = self._calibration_inputs()
        scales, vocab_size = len(self.model.patch_nums), self.model.tokenizer_config.vocab_size
        self.sampling = Sampling(
            self.options.cfg_scale,
            1.0,
            True,
            tuple(default_top_k(scales, vocab_size)),
            tuple(guidance_ramp(scales)),
            tuple(smooth_temperatures(scales)),
        )

    def _trace(self, folder: Path) -> None:
        self.parameters = {}
        for name, graph in self.graphs.items():
            with self._step(f"tracing {name}") as step:
                model = export_graph(graph)
                self.parameters[name] = weight_bytes(model) // 4
                step.size = save_graph(model, folder / f"{name}.onnx", self.options.external_from)

    def _walk(self, inputs: Mapping[str, Tensor], seed: int, observe: Callable[..., None]) -> Tensor:
        values = {
            Setting.CFG_SCALE: [self.sampling.cfg_scale],
            Setting.TOP_P: [self.sampling.top_p],
            Setting.SMOOTH: [float(self.sampling.smooth)],
            Setting.TOP_K: self.sampling.top_k,
            Setting.GUIDANCE_RATIO: self.sampling.guidance_ratio,
            Setting.TEMPERATURE: self.sampling.temperature,
        }
        return walk(self.plan, self.graphs, self.constants, values, inputs, [seed], observe)

    def _check(self, label: str, folder: Path, precisions: Mapping[str, Precision]) -> ParityCheck:
        """Hold every graph of a folder against the reference."""
        with self._step(f"comparing every graph with the reference, {label}"):
            sessions = {name: self.library.open(folder / f"{name}.onnx") for name in self.graphs}
            check = ParityCheck(sessions, precisions)
            for inputs in self._parity_inputs():
                image = self._walk(inputs, PARITY_SEED, check)
                check_call(check, self.graphs["encoder"], [image * 2 - 1])
            require_observed(check)
        return check

    def _parity_inputs(self) -> list[dict[str, Tensor]]:
        if self.tokenizer is not None:
            return [{"input_ids": torch.from_numpy(self.tokenizer.encode(prompt))} for prompt in PARITY_PROMPTS]
        config = self.model.config
        generator = torch.Generator().manual_seed(PARITY_SEED)
        context = torch.randn(1, config.context_token, config.context_dim, generator=generator)
        mask = torch.arange(config.context_token)[None] < max(1, config.context_token // 2)
        return [{"context": context, "context_mask": mask}]

    def _ranges(self, folder: Path) -> CalibratedRanges | None:
        """The ranges of INT8: read before, or collected by running the real loop."""
        if self.options.precision is not Precision.INT8 or self.ranges is not None:
            return self.ranges
        inputs = self.calibration_inputs
        forms = {name: form_of(name, Precision.INT8, self.options.target) for name in self.graphs}
        models = {name: onnx.load(folder / f"{name}.onnx") for name in self.graphs}
        with (
            self._step(f"calibrating on {len(inputs)} prompts"),
            RangeCollector(models, forms, self.library, folder / "observed") as collector,
        ):
            del models
            for index, one in enumerate(inputs):

                def observe(graph: str, feeds: dict[str, Tensor], _: dict[str, Tensor]) -> None:
                    collector(graph, {name: tensor.numpy() for name, tensor in feeds.items()})

                self._walk(one, FIRST_SEED + index, observe)
                collector.end_prompt()
            return CalibratedRanges(self.weights_sha256, collector.prompts, collector.ranges())

    def _calibration_inputs(self) -> list[dict[str, Tensor]]:
        if self.tokenizer is not None:
            prompts = read_prompts(self.options.prompts)
            return [{"input_ids": torch.from_numpy(self.tokenizer.encode(prompt))} for prompt in prompts]
        if self.options.contexts is None:
            raise BuildError(
                f"{self.options.checkpoint}: INT8 is calibrated on prompts, and this checkpoint has no text_model/; "
                "name a file with --contexts (npz with context (N, T, D) and context_mask (N, T)), or build at fp16"
            )
        return read_contexts(self.options.contexts, self.model.config.context_token, self.model.config.context_dim)

    def _write_forms(
        self, source: Path, destination: Path, forms: Mapping[str, Form], ranges: CalibratedRanges | None
    ) -> dict[str, int]:
        sizes = {}
        with self._step(f"writing graphs at {self.options.precision}") as step:
            for name, form in forms.items():
                own = ranges.graphs.get(name, {}) if ranges else {}
                model = apply_form(onnx.load(source / f"{name}.onnx"), form, own)
                sizes[name] = save_graph(model, destination / f"{name}.onnx", self.options.external_from)
            step.size = sum(sizes.values())
        return sizes

    def _finish(self, folder: Path, components: tuple[Component, ...], ranges: CalibratedRanges | None) -> Manifest:
        """Constants, tokenizer, card and manifest."""
        with self._step(f"writing {self.options.out}") as step:
            config = self.model.config
            tokenizer = None
            if self.tokenizer is not None:
                shutil.copyfile(self.options.checkpoint / "text_model" / "tokenizer.json", folder / "tokenizer.json")
                side = PaddingSide(self.tokenizer.padding_side)
                tokenizer = Tokenizer("tokenizer.json", self.tokenizer.pad_token_id, side)
            calibration = None
            if ranges is not None:
                (folder / "calibration.json").write_bytes(ranges.to_json())
                calibration = Calibration(ranges.prompts, ranges.sha256())
            timesteps = self.model.residual.schedule.timesteps
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                name=bundle_name(self.options.out),
                precision=self.options.precision,
                target=TargetSpec(self.options.target, None),
                image_size=self.model.image_size,
                patch_nums=self.model.patch_nums,
                vocab_size=self.model.tokenizer_config.vocab_size,
                z_channels=self.model.tokenizer_config.z_channels,
                context_tokens=config.context_token,
                context_dim=config.context_dim,
                tokenizer=tokenizer,
                sampling=self.sampling,
                residual=Residual(timesteps, len(timesteps) + 1),
                components=components,
                files={},
                constants=write_constants(folder, self.constants),
                plan=self.plan,
                calibration=calibration,
                licences=self.licences,
                tools=tool_versions(),
            )
            seconds = time.monotonic() - self.started
            card = write_card(manifest, describe_machine(), seconds, self.options.command)
            (folder / "README.md").write_text(card, encoding="utf-8")
            manifest = dataclasses.replace(manifest, files=list_files(folder))
            (folder / MANIFEST_FILE).write_bytes(to_json(manifest))
            step.size = sum(entry.bytes for entry in manifest.files.values())
        return manifest


def build(options: BuildOptions, progress: Progress = lambda _: None) -> Manifest:
    """Build a bundle under options.out and return its manifest.

    Raises CheckpointError, ParityError, BuildError or EngineError; then nothing is left under options.out, and what
    was there before is still there.
    """
    return Builder(options, progress).build()


def read_contexts(path: Path, tokens: int, dim: int) -> list[dict[str, Tensor]]:
    """Contexts of an npz file, one dictionary of plan inputs each."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            context, mask = archive["context"].astype(np.float32), archive["context_mask"].astype(bool)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise BuildError(
            f"{path}: not an npz with context and context_mask ({error}); write one with numpy.savez"
        ) from None
    if context.ndim != 3 or context.shape[1:] != (tokens, dim) or mask.shape != context.shape[:2] or not len(context):
        raise BuildError(
            f"{path}: expected context (N, {tokens}, {dim}) and context_mask (N, {tokens}), found {context.shape} and "
            f"{mask.shape}; use the text model that the transformer was trained with"
        )
    return [
        {"context": torch.from_numpy(c[None]), "context_mask": torch.from_numpy(m[None])}
        for c, m in zip(context, mask, strict=True)
    ]


def read_licences(checkpoint: Path) -> tuple[Licence, ...]:
    """The checkpoint's licences.json: a list of {"part", "spdx", "attribution"}; nothing if there is none."""
    path = checkpoint / "licences.json"
    if not path.is_file():
        return ()
    try:
        licences = tuple(Licence(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(value, str) for licence in licences for value in vars(licence).values()):
            raise TypeError("every value is a string")
        return licences
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: expected a list of part, spdx and attribution ({error}); mend it") from None


def bundle_name(out: Path) -> str:
    """A manifest name from the folder's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", out.name).lstrip("._-")[:100] or "bundle"


def tool_versions() -> dict[str, str]:
    found = {}
    for package in TOOLS:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # hart-edge itself, run from a tree that is not installed
            continue
    return found


def describe_machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    from export.cli import main

    raise SystemExit(main())
