"""Finishing: constants, tokenizer, costs, card and manifest beside the written graphs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import time

from hart_edge.bundle.card import NO_HINTS, describe_machine, read_hints, write_card
from hart_edge.bundle.costs import COSTS_FILE, to_json
from hart_edge.bundle.manifest import (
    FORMAT_VERSION,
    Calibration,
    Component,
    ComponentName,
    Instruction,
    Manifest,
    PaddingSide,
    Residual,
    TargetSpec,
    Tokenizer,
)
from hart_edge.bundle.settings import Speed
from hart_edge.bundle.writer import BundleWriter, bundle_name
from hart_edge.calib.calibrate.ranges import CalibratedRanges
from hart_edge.export.costs import count_costs
from hart_edge.export.plan_builder import with_dtypes
from hart_edge.export.stages.check import CheckResult
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.decide import DecideResult
from hart_edge.export.stages.int8_choice import Decision
from hart_edge.export.stages.read import Source
from hart_edge.export.stages.trace import TraceResult
from hart_edge.export.stages.write import WriteResult
from hart_edge.reference.text_model import TextModel

PACKAGES = (
    "hart-edge",
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "transformers",
    "tokenizers",
)  # stated in the manifest


def finish(
    context: BuildContext,
    writer: BundleWriter,
    traced: TraceResult,
    ranges: CalibratedRanges | None,
    decided: DecideResult,
    written: WriteResult,
    checked: CheckResult,
) -> Manifest:
    """Complete the bundle of a writer, whose folder holds nothing but the graphs, and return its manifest."""
    options, source = context.options, traced.source
    with context.step(f"writing {options.out}") as step:
        tokenizer = _copy_tokenizer(source, writer)
        calibration = None
        if ranges is not None:
            writer.write("calibration.json", ranges.to_json())
            calibration = Calibration(ranges.prompts, ranges.sha256())
        model = source.model
        timesteps = model.residual.schedule.timesteps
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            name=bundle_name(options.out, random=source.random),
            precision=options.precision,
            target=TargetSpec(options.target, None),
            image_size=model.image_size,
            patch_nums=model.patch_nums,
            vocab_size=model.tokenizer_config.vocab_size,
            z_channels=model.tokenizer_config.z_channels,
            context_tokens=model.config.context_token,
            context_dim=model.config.context_dim,
            tokenizer=tokenizer,
            sampling=traced.sampling,
            residual=Residual(timesteps, len(timesteps) + 1),
            components=components(traced, decided, written, checked),
            files={},
            constants=writer.constants(traced.constants),
            plan=with_dtypes(traced.plan, decided.specs),
            calibration=calibration,
            quality=checked.quality,
            licences=source.licences,
            tools=package_versions(),
            speeds={
                speed: with_dtypes(plan, decided.specs)
                for speed, plan in traced.plans.items()
                if speed is not Speed.EXACT
            }
            or None,
        )
        writer.write(COSTS_FILE, to_json(count_costs(manifest, writer.folder)))
        seconds = time.monotonic() - context.started
        hints = read_hints(source.folder) if source.folder else NO_HINTS
        card = write_card(manifest, describe_machine(), seconds, options.command, options.effective_limits, hints)
        manifest = writer.finish(manifest, card)
        step.size = sum(entry.bytes for entry in manifest.files.values())
    return manifest


def components(
    traced: TraceResult, decided: DecideResult, written: WriteResult, checked: CheckResult
) -> tuple[Component, ...]:
    """The manifest's entries of all graphs."""
    return tuple(
        Component(
            ComponentName(name),
            f"graphs/{name}.onnx",
            decision.scheme.precision,
            str(decision.scheme),
            traced.parameters[name],
            written.sizes[name],
            checked.worst[name].error,
            checked.worst[name].tensor,
            decided.inputs[name],
            decided.outputs[name],
            _reason(name, decision, checked),
            tuple(sorted(decision.excluded | decision.weight_only)),
        )
        for name, decision in decided.decisions.items()
    )


def _reason(name: str, decision: Decision, checked: CheckResult) -> str:
    """Why a component has its scheme; of a 4-bit text model, how near it comes."""
    figures = checked.contexts if name == ComponentName.TEXT_MODEL else None
    return "; ".join(filter(None, (decision.reason, "" if figures is None else figures.in_words())))


def _copy_tokenizer(source: Source, writer: BundleWriter) -> Tokenizer | None:
    """Copy the prompt tokenizer of a checkpoint that has one, and describe it."""
    if source.tokenizer is None or source.text is None or source.tokenizer_file is None:
        return None
    writer.copy(source.tokenizer_file, "tokenizer.json")
    return Tokenizer(
        "tokenizer.json",
        source.tokenizer.pad_token_id,
        PaddingSide(source.tokenizer.padding_side),
        source.text.embeddings,
        instruction_of(source.text),
    )


def instruction_of(text: TextModel) -> Instruction | None:
    """What the manifest says of the instruction; None where there is none."""
    tokens = text.instruction.shape[1]
    return Instruction(tokens, hashlib.sha256(text.instruction_text.encode()).hexdigest()) if tokens else None


def package_versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # hart-edge itself, run from a tree that is not installed
            continue
    return found
