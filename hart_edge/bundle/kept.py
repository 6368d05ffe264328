"""What of a plan depends on the prompt alone: a runner may keep it for the next picture of the same prompt.

In: the plans of a bundle's speeds, which begin alike (speeds.py). Out: which steps, the buffers that they leave for
later ones, and how much memory a runner keeps. Guidance, seeds and all other settings come in behind the transformer's
first scale, so all of that scale is the prompt's.
"""

from __future__ import annotations

from collections.abc import Sequence

from hart_edge.bundle.plan import BufferKind, ComponentName, Plan

MOST_CONTEXTS = 16  # prompts whose contexts are kept; each has T * D numbers, 1.8 MB at the published size
MOST_BYTES = 2**26  # of first scales; the last prompt's is kept whatever it takes


def steps_of_text(plan: Plan) -> int:
    """How many of the first steps are the text model's: 1, or 0 in a bundle without one."""
    return int(plan.steps[0].graph is ComponentName.TEXT_MODEL)


def steps_of_prompt(plan: Plan) -> int:
    """How many of the first steps read neither a setting nor noise, nor what a step makes of them."""
    others = (BufferKind.SETTING, BufferKind.NOISE)
    for index, step in enumerate(plan.steps):
        if any(plan.buffers[name].kind in others for name in step.inputs.values()):
            return index
    return len(plan.steps)


def kept_names(plans: Sequence[Plan], steps: int) -> tuple[str, ...]:
    """The buffers that the first `steps` steps, which all plans have, leave for later ones of any of them; rows of
    caches among them."""
    names = (name for step in plans[0].steps[:steps] for name in step.outputs.values())
    return tuple(name for name in names if any(_last(plan, name) >= steps for plan in plans))


def kept_bytes(plans: Sequence[Plan], steps: int) -> int:
    """Bytes of these buffers, of one prompt."""
    return sum(plans[0].buffers[name].bytes_per_image for name in kept_names(plans, steps))


def most_first_scales(plans: Sequence[Plan]) -> int:
    """The number of prompts whose first scale is kept."""
    size = kept_bytes(plans, steps_of_prompt(plans[0]))
    return min(MOST_CONTEXTS, max(1, MOST_BYTES // max(size, 1)))


def memory_of_prompts(plans: Sequence[Plan], *, first_scales: bool) -> int:
    """Bytes of all that is kept of prompts, once as many have come. first_scales: whether these are kept."""
    contexts = MOST_CONTEXTS * kept_bytes(plans, steps_of_text(plans[0]))
    if not first_scales:
        return contexts
    return contexts + most_first_scales(plans) * kept_bytes(plans, steps_of_prompt(plans[0]))


def _last(plan: Plan, name: str) -> int:
    buffer = plan.buffers[name]
    return buffer.last if buffer.cache is None else plan.buffers[buffer.cache].last
