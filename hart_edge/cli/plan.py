"""`hart-edge plan BUNDLE --memory 8GiB`: what a bundle takes while it runs and is built, and whether it fits."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hart_edge.bundle.limits import Memory, process_memory
from hart_edge.bundle.memory import MARGIN, Activations, Constants, Forecast, advice, fits, forecast, is_close
from hart_edge.bundle.settings import Settings, Speed
from hart_edge.bundle.verify import Bundle, open_bundle
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.costs import costs_of
from hart_edge.cli.progress import StatusLine
from hart_edge.cli.tables import table
from hart_edge.cli.values import bytes_of
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BundleError, InputError
from hart_edge.runtime.settings import check_settings
from hart_edge.units import binary_size as size

HEAD, BUILD = ("component", "weights", "activations", "most at"), "its build"
SCALES = ("scale", "weights", "activations", "keys and values", "buffers", "in all")
NUMBERS = frozenset({*HEAD[1:3], BUILD, *SCALES[1:]})
NOTES = (
    "weights: held while a graph is open. activations: the most that lies between its nodes at a time, at the scale",
    "that `most at` names, or before or after all scales where it names none.",
)
BUILD_NOTE = "its build: the most while the component's engine is built, which a process of its own does."
SCALE_NOTES = (
    "Each line is the worst moment of a scale, or of the steps before or after all scales. weights: of all graphs",
    "that are open then. keys and values: the cache, part of the buffers. buffers: all that graphs hand on, with",
    "--low-memory on a CPU what they have written so far.",
)


def add(commands: Commands) -> None:
    p = new_command(
        commands,
        "plan",
        "Say how much memory a bundle takes while it runs and is built; exit 1 if it does not fit.",
        run,
    )
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    p.add_argument(
        "--memory",
        type=bytes_of,
        metavar="SIZE",
        help="what the device has free: 8GiB, 512MiB, 4GB (default: what a process may take here, in a container its "
        "limit)",
    )
    p.add_argument("--low-memory", action="store_true", help="plan for generate --low-memory")
    p.add_argument("--speed", choices=[*map(str, Speed)], help="plan for generate --speed (default: the bundle's own)")
    p.add_argument(
        "--workspace",
        type=bytes_of,
        default=0,
        metavar="SIZE",
        help="scratch memory that the engine builder may use (default: 0)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(a: argparse.Namespace, here: Callable[[], Memory] = process_memory) -> int:
    """here: tells the memory that a process may take on this machine."""
    memory, source = free_memory(a.memory, here)
    bundle = open_bundle(a.bundle)
    asked = Settings(speed=a.speed)
    speed = check_settings(bundle.manifest.sampling, asked, speeds=bundle.manifest.plans).speed
    with StatusLine() as bar:
        bar.say("reading what the steps take")
        constants, activations = read(bundle, speed)
    rules = REGISTRY[bundle.manifest.target.name].memory
    further = {"workspace": a.workspace, "speed": speed}
    usual, low = (
        forecast(bundle.manifest, rules, constants, activations, low_memory=low_memory, **further)
        for low_memory in (False, True)
    )
    chosen = low if a.low_memory else usual
    changes = advice(bundle.manifest, chosen, low, memory)
    if a.json:
        found = {
            "bundle": str(bundle.folder),
            "memory": memory,
            "memory_source": source,
            "low_memory": a.low_memory,
            "speed": speed,
            "fits": chosen.peak <= memory,
        }
        told = dataclasses.asdict(chosen)
        if not has_engines(bundle):
            told["build"] = None
            told["components"] = [{**each, "build": None} for each in told["components"]]
        print(json.dumps({**found, **told, "changes": changes}, indent=1))
    else:
        print("\n".join(as_text(bundle, chosen, memory, source, changes)))
    return 0 if chosen.peak <= memory else 1


def has_engines(bundle: Bundle) -> bool:
    """Whether engines are built for the bundle's target; else its graphs are run as they are."""
    return REGISTRY[bundle.manifest.target.name].builder is not None


def free_memory(asked: int | None, here: Callable[[], Memory]) -> tuple[int, str]:
    """Bytes to plan for, and where that number is from; "" for the user's own."""
    if asked is not None:
        return asked, ""
    found = here()
    if found.available is None:
        raise InputError("expected --memory SIZE, found none, and this system does not say what is free; name it")
    if found.limit is None or found.total is None:
        return found.available, "free here"
    return found.available, f"free here, under {found.limit} of {size(found.total)}"


def read(bundle: Bundle, speed: Speed) -> tuple[dict[str, Constants], Activations]:
    """Weights and nodes by component, and bytes of activations by component and scale."""
    if bundle.manifest.target.engines is not None:
        return read_reports(bundle)
    costs = costs_of(bundle)
    constants = {str(each.name): Constants(each.bytes) for each in bundle.manifest.components}
    constants |= {each.graph: Constants(each.weights, each.nodes) for each in costs.graphs}
    return constants, {(each.graph, each.scale): each.activations for each in costs.at(speed)}


def read_reports(bundle: Bundle) -> tuple[dict[str, Constants], Activations]:
    """For engines: the file holds the weights, and the builder's report beside it tells the activations."""
    m = bundle.manifest
    constants = {str(each.name): Constants(each.bytes) for each in m.components}
    activations: dict[tuple[str, int | None], int] = {}
    for step in m.plan.steps:
        name = f"engines/{step.graph}.json"
        if name not in m.files:
            raise BundleError(
                f"{bundle.folder}: expected the builder's report {name}, found none, so the engine's activations are "
                "not known; plan with the bundle of graphs that the engines were made from"
            )
        report: dict[str, Any] = json.loads(bundle.path(name).read_bytes())
        engine = next(each.engine for each in m.components if each.name == step.graph)
        assert engine is not None  # a bundle of engines, by its manifest
        reported: list[int] = report.get("activation_bytes") or [0]
        each_profile = len(reported) == len(engine.profiles)  # else the builder told one number for all
        activations[str(step.graph), step.scale] = (
            reported[engine.profiles.index(step.scale)] if each_profile else max(reported)
        )
    return constants, activations


def as_text(bundle: Bundle, found: Forecast, memory: int, source: str, changes: list[str]) -> list[str]:
    """The lines that a person reads."""
    engines = has_engines(bundle)
    parts = [
        (each.name, size(each.weights), size(each.activations), "" if each.scale is None else str(each.scale),
         *([size(each.build)] if engines else []))
        for each in found.components
    ]  # fmt: skip
    first = next(number for number, each in enumerate(found.scales) if each.scale is not None)
    scales = [
        (str(each.scale) if each.scale is not None else "before" if number < first else "after", size(each.weights),
         size(each.activations), size(each.cache), size(each.buffers), size(each.total))
        for number, each in enumerate(found.scales)
    ]  # fmt: skip
    verdict = "fits" if found.peak <= memory else "does not fit"
    given = f"{size(memory)}{source and f' ({source})'}"
    doubt = f"; the peak may be {100 * MARGIN:.0f} % higher than this forecast" if is_close(found.peak, memory) else ""
    basis = "measured" if found.measured else "assumed: no such device has been measured"
    return [
        f"{bundle.folder}: peak {size(found.peak)}, which {verdict} into {given}{doubt}",
        "",
        *table((*HEAD, BUILD) if engines else HEAD, parts, NUMBERS),
        *NOTES,
        *([BUILD_NOTE] if engines else []),
        "",
        *table(SCALES, scales, NUMBERS),
        *SCALE_NOTES,
        f"in all: weights, activations and buffers, with process and libraries {size(found.process)} ({basis}) and",
        f"what is kept of earlier prompts, {size(found.prompts)} at most.",
        *([f"building engines: {size(found.build)} at most, {fits(found.build, memory)}"] if engines else []),
        *(f"change: {each}" for each in changes),
    ]
