"""A portable bundle becomes a bundle of engines: what `hart-edge engines` and export.build do, on host or device.

In: the folder of a bundle of graphs, verified, with its manifest. Out: the folder of docs/bundle.md with an engine and
a report per component. Engines are made one at a time in a hidden folder beside the result, each taking its name when
it is whole, so a build that was interrupted goes on with the first engine that is missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hart_edge.bundle.card import CARD_FILE
from hart_edge.bundle.costs import COSTS_FILE
from hart_edge.bundle.files import sha256_of
from hart_edge.bundle.limits import available_memory
from hart_edge.bundle.manifest import (
    Component,
    Engine,
    Engines,
    Manifest,
    Target,
    TargetSpec,
)
from hart_edge.bundle.memory import require_build_memory
from hart_edge.bundle.writer import BundleWriter, require_free, write_bundle
from hart_edge.engines.base import EngineBuilder, EngineSettings, Profile, Watch
from hart_edge.engines.machine import host_platform
from hart_edge.engines.profiles import profiles_of
from hart_edge.errors import BuildError


@dataclass(frozen=True)
class EngineDone:
    """One finished engine. again: it was there already, from a build that was interrupted."""

    component: str
    seconds: float
    bytes: int
    again: bool


@dataclass(frozen=True)
class EngineJob:
    """What to make of a bundle. folder and manifest: of the portable bundle; card: writes the result's README.md."""

    folder: Path
    manifest: Manifest
    target: Target
    out: Path
    name: str
    settings: EngineSettings
    card: Callable[[Manifest, float], str]


def check_portable(manifest: Manifest, target: Target, settings: EngineSettings, builder: EngineBuilder) -> None:
    """Raise BuildError for a bundle that cannot become one of engines for these GPUs. settings: as prepared."""
    found = manifest.target
    if found.engines is not None:
        raise BuildError(
            f"{manifest.name}: it holds engines already, for {', '.join(found.engines.architectures)}; name the "
            "portable bundle that they were made from"
        )
    if found.name is not target:
        raise BuildError(
            f"{manifest.name}: its graphs were written for target {found.name}, and engines for {target} are made of "
            f"graphs for {target}; build it with python -m export.build --target {target}"
        )
    builder.check_graphs(manifest, settings)


def build_engines(
    job: EngineJob,
    builder: EngineBuilder,
    watch: Watch,
    done: Callable[[EngineDone], None],
    free_memory: Callable[[], int | None] = available_memory,
) -> Manifest:
    """Make the engines and the bundle around them; returns its manifest. settings: as the builder prepared them.

    free_memory: tells the bytes that can be allocated on this machine, None where the system does not say.
    Raises BuildError; finished engines are then kept for the next try, and nothing is under job.out that was not there.
    """
    begin, version = time.monotonic(), builder.version()
    check_portable(job.manifest, job.target, job.settings, builder)
    require_build_memory(job.manifest.components, free_memory(), job.settings.workspace or 0)
    require_free(job.out)
    with write_bundle(job.out, resume=True) as writer:
        (writer.folder / "engines").mkdir(exist_ok=True)
        components = []
        for component in job.manifest.components:
            profiles = profiles_of(job.manifest, component, job.settings.images_at_once)
            size = _engine(job, builder, writer.folder, component, profiles, version, watch, done)
            engine = Engine(tuple(profile.scale for profile in profiles))
            components.append(replace(component, file=f"engines/{component.name}.engine", bytes=size, engine=engine))
        return _finish(job, writer, tuple(components), version, time.monotonic() - begin)


def _engine(
    job: EngineJob,
    builder: EngineBuilder,
    staging: Path,
    component: Component,
    profiles: tuple[Profile, ...],
    version: str,
    watch: Watch,
    done: Callable[[EngineDone], None],
) -> int:
    """Make one engine, unless the very same one is there; returns its bytes."""
    begin = time.monotonic()
    out, noted = staging / f"engines/{component.name}.engine", staging / f"engines/{component.name}.json"
    key = _key(job, component, profiles, version)
    before = _read_report(noted)
    if before.get("key") == key and out.is_file() and sha256_of(out) == before.get("engine_sha256"):
        size = out.stat().st_size
        done(EngineDone(component.name, 0.0, size, again=True))
        return size
    noted.unlink(missing_ok=True)
    out.unlink(missing_ok=True)
    report = builder.build(job.folder / component.file, profiles, job.settings, out, watch)
    report |= {"key": key, "engine_sha256": sha256_of(out), "scheme": component.scheme}
    part = noted.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    part.replace(noted)
    done(EngineDone(component.name, time.monotonic() - begin, report["engine_bytes"], again=False))
    return int(report["engine_bytes"])


def _key(job: EngineJob, component: Component, profiles: tuple[Profile, ...], version: str) -> str:
    """What an engine depends on, as a hash: the graph and its weights, the shapes, the settings and the library."""
    inside = {name: entry.sha256 for name, entry in job.manifest.files.items() if name.startswith(component.file)}
    settings = {name: str(value) for name, value in asdict(job.settings).items() if name != "timing_cache"}
    shapes = [[profile.scale, {name: list(s) for name, s in profile.shapes.items()}] for profile in profiles]
    content = [job.target, version, host_platform(), inside, shapes, settings]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _finish(
    job: EngineJob, writer: BundleWriter, components: tuple[Component, ...], version: str, seconds: float
) -> Manifest:
    """Everything of a bundle but its engines, the manifest last."""
    graphs = {name for name in job.manifest.files for each in job.manifest.components if name.startswith(each.file)}
    wanted = {f"engines/{each.name}.{kind}" for each in components for kind in ("engine", "json")}
    for name in set(job.manifest.files) - graphs - {CARD_FILE, COSTS_FILE}:  # an engine's report has its own
        writer.copy(job.folder / name, name)
        wanted.add(name)
    settings = job.settings
    engines = Engines(
        version,
        host_platform(),
        settings.architectures,
        settings.hardware_compatibility,
        settings.version_compatible,
        settings.images_at_once,
    )
    manifest = replace(
        job.manifest,
        name=job.name,
        target=TargetSpec(job.target, engines),
        components=components,
        files={},
        tools={**job.manifest.tools, str(job.target): version},
    )
    writer.keep_only(wanted)
    return writer.finish(manifest, job.card(manifest, seconds))


def engine_reports(folder: Path, manifest: Manifest) -> Mapping[str, dict[str, Any]]:
    """The build report of every engine of a bundle, by component."""
    return {str(each.name): _read_report(folder / f"engines/{each.name}.json") for each in manifest.components}
