"""The optimisation profiles of a component: the shapes that the plan runs it at, one profile per scale."""

from __future__ import annotations

from collections.abc import Sequence

from hart_edge.bundle.manifest import Component, Manifest
from hart_edge.engines.base import Profile, Shape, Shapes
from hart_edge.errors import BuildError

Extents = Sequence[int | str]


def profiles_of(manifest: Manifest, component: Component, images_at_once: int) -> tuple[Profile, ...]:
    """Profiles in the order of the plan's steps; of a component that no step runs, one from its own description."""
    found: dict[int | None, Profile] = {}
    buffers = manifest.plan.buffers
    for step in manifest.plan.steps:
        if step.graph != component.name:
            continue
        shapes = {tensor: _shapes(buffers[name].shape, images_at_once) for tensor, name in step.inputs.items()}
        profile = Profile(step.scale, shapes)
        if found.setdefault(step.scale, profile) != profile:
            raise BuildError(
                f"{component.name}: the plan runs it at several shapes in scale {step.scale}, and an engine has one "
                "profile per scale; rebuild the bundle with this version"
            )
    if not found:
        for tensor in component.inputs:
            free = [size for size in tensor.shape if isinstance(size, str) and size not in ("B", "2B")]
            if free:
                raise BuildError(
                    f"{component.name}: no step of the plan runs it, and its input {tensor.name} leaves {free[0]} "
                    "open; rebuild the bundle with this version"
                )
        shapes = {tensor.name: _shapes(tensor.shape, images_at_once) for tensor in component.inputs}
        return (Profile(None, shapes),)
    return tuple(found.values())


def _shapes(extents: Extents, images_at_once: int) -> Shapes:
    return _shape(extents, 1), _shape(extents, 1), _shape(extents, images_at_once)


def _shape(extents: Extents, images: int) -> Shape:
    sizes = {"B": images, "2B": 2 * images}
    return tuple(sizes[size] if isinstance(size, str) else size for size in extents)
