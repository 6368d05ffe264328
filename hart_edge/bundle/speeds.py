"""The plans of a bundle's speeds beside the exact one, and what they must share with it.

In: plans that plan_check.py has passed. Out: BundleError where a further plan does not begin as the exact one does:
what a runner keeps of a prompt (kept.py) serves every speed.
"""

from __future__ import annotations

from collections.abc import Mapping

from hart_edge.bundle.fields import choice, refuse, show
from hart_edge.bundle.kept import steps_of_prompt
from hart_edge.bundle.plan import Buffer, Plan
from hart_edge.bundle.settings import Sampling, Speed

_read_speed = choice(Speed)


def further_speed(value: object, where: str) -> Speed:
    """A key of the manifest's `speeds`: any speed but the exact one, which every bundle has as its `plan`."""
    speed: Speed = _read_speed(value, where)
    if speed is Speed.EXACT:
        refuse(where, "one of " + ", ".join(each for each in Speed if each is not Speed.EXACT), show(value))
    return speed


def check_speeds(sampling: Sampling, plan: Plan, further: Mapping[Speed, Plan]) -> None:
    """Raise BundleError unless the default is there, and every plan does for a prompt what the exact one does."""
    if sampling.speed is not Speed.EXACT and sampling.speed not in further:
        refuse("sampling.speed", "exact, or a speed of speeds", show(sampling.speed))
    count = steps_of_prompt(plan)
    for speed, other in further.items():
        where = f"speeds.{speed}"
        if other.steps[:count] != plan.steps[:count] or steps_of_prompt(other) != count:
            refuse(f"{where}.steps", f"the first {count} steps of plan, which depend on the prompt alone", "others")
        for step in plan.steps[:count]:
            for name in step.outputs.values():
                if _form(other.buffers[name]) != _form(plan.buffers[name]):
                    refuse(f"{where}.buffers", f"{show(name)} as in plan", "another one")


def _form(buffer: Buffer) -> tuple[object, ...]:
    return buffer.kind, buffer.dtype, buffer.shape, buffer.start
