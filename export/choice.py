"""Which form of INT8 a component takes on this machine: by measurement, on calls of the real loop.

In: a component's graph in each form that it could have. Out: a Choice. Integer kernels are worth their rounding only
where they are faster: which one is, and whether one is at all, depends on the CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calib.forms import Form
from engines.base import Session
from export.recording import Call

ROUNDS = 5
ENOUGH, LONG = 2.0, 30.0  # seconds after which three rounds will do, and one
NOISE = 1.03  # times that are nearer than this count as equal


@dataclass(frozen=True)
class Choice:
    """The form of a component and why it has it. seconds: of each form that was measured, for all calls together."""

    form: Form
    reason: str
    seconds: Mapping[Form, float]


def choose_form(sessions: Mapping[Form, Session], calls: Sequence[Call]) -> Choice:
    """The fastest form; of equals the first. sessions: in the order in which they are preferred."""
    if len(sessions) == 1:
        return Choice(next(iter(sessions)), "", {})
    seconds = measure(sessions, calls)
    fastest = min(seconds.values())
    form = next(form for form in sessions if seconds[form] <= NOISE * fastest)
    others = ", ".join(f"{other}: {1000 * seconds[other]:.1f} ms" for other in sessions if other is not form)
    return Choice(form, f"{1000 * seconds[form]:.1f} ms for the calls of a picture; {others}", seconds)


def measure(sessions: Mapping[Form, Session], calls: Sequence[Call]) -> dict[Form, float]:
    """Seconds for all calls, the median of rounds in which the forms take turns."""
    rounds: dict[Form, list[float]] = {form: [] for form in sessions}
    begin = time.perf_counter()
    for number in range(ROUNDS + 1):
        for form, session in sessions.items():
            started = time.perf_counter()
            for call in calls:
                session.run(call.inputs, list(call.outputs))
            rounds[form].append(time.perf_counter() - started)
        spent = time.perf_counter() - begin
        if (number >= 3 and spent > ENOUGH) or (number >= 1 and spent > LONG):
            break
    return {form: statistics.median(times[1:]) for form, times in rounds.items()}  # the first warms up
