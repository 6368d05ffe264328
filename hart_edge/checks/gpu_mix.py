"""A bundle of INT8 engines without those that are slower than FP16: their places are taken by the FP16 engines.

In: two bundles of engines of one model and target. Out: a bundle, whole or not at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

from hart_edge.bundle.verify import Bundle
from hart_edge.bundle.writer import write_bundle
from hart_edge.errors import InputError


def mix(int8: Bundle, fp16: Bundle, graphs: Collection[str], out: Path) -> None:
    """Write `out`: int8 with the components `graphs` of fp16. Raises InputError where the two do not fit together."""
    if out.exists():
        raise InputError(f"--out {out}: expected a new name, found something there; name another folder")
    check_alike(int8, fp16, graphs)
    manifest = int8.manifest
    theirs = {str(each.name): each for each in fp16.manifest.components}
    sources = {name: int8 for name in manifest.files}
    components = []
    for component in manifest.components:
        if component.name in graphs:
            component = theirs[component.name]
            report = Path(component.file).with_suffix(".json").as_posix()
            sources[component.file] = fp16
            if report in fp16.manifest.files:
                sources[report] = fp16
        components.append(component)
    with write_bundle(out) as writer:
        for name, bundle in sources.items():
            writer.copy(bundle.path(name), name)
        writer.finish(dataclasses.replace(manifest, components=tuple(components)))


def check_alike(int8: Bundle, fp16: Bundle, graphs: Collection[str]) -> None:
    """Same target, same plan, and tensors of the same names, dtypes and shapes where a component is exchanged."""
    if int8.manifest.target != fp16.manifest.target or int8.manifest.plan != fp16.manifest.plan:
        raise InputError(
            "--against: expected FP16 engines of the same model for the same target, found another target or plan; "
            "build both from one checkpoint"
        )
    ours, theirs = ({str(each.name): each for each in bundle.manifest.components} for bundle in (int8, fp16))
    for name in graphs:
        if (ours[name].inputs, ours[name].outputs, ours[name].file) != (
            theirs[name].inputs, theirs[name].outputs, theirs[name].file,
        ):  # fmt: skip
            raise InputError(f"--against: {name} has other tensors in FP16 than in INT8; build both with this version")
