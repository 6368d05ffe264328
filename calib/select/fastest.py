"""Which form of INT8 a component takes on this machine: by measurement, on calls of the real loop.

In: a component's graph in each form that it could have. Out: a Choice. Integer kernels are worth their rounding only
where they are faster: which one is, and whether one is at all, depends on the CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hart_edge.calib.scheme import Scheme
from hart_edge.engines.base import Arrays, Session
from hart_edge.export.parity.recording import Call

ROUNDS = 5
ENOUGH, LONG = 2.0, 15.0  # seconds after which three rounds will do, and one
CLEAR = 1.5  # how much longer a warm-up of more than ENOUGH takes where no rounds are needed
NOISE = 1.03  # times that are nearer than this count as equal


@dataclass(frozen=True)
class Candidate:
    """A component in a form that it could have, warmed up by a run of every call.

    error: of its outputs, as export/parity/compare.py measures it; seconds: of the warm-up.
    """

    form: Scheme
    session: Session
    error: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """The form of a component and why it has it: "" where nothing was compared."""

    form: Scheme
    reason: str


class NoCandidateError(Exception):
    """There was nothing to choose from."""


def choose_form(candidates: Iterable[Candidate], calls: Sequence[Call]) -> Choice:
    """The fastest form; of equals the one with the smallest error. Raises NoCandidateError where there is none.

    Each candidate takes turns with the best so far, and no others are alive, so an iterator that opens one at a time
    has two in memory. A long warm-up that is clearly longer than the other's stands for the rounds.
    """
    best: Candidate | None = None
    seconds: dict[Scheme, float] = {}
    for candidate in candidates:
        if best is None:
            best = candidate
            continue
        slow, quick = sorted((best.seconds, candidate.seconds), reverse=True)
        if slow > max(ENOUGH, CLEAR * quick):
            seconds = {best.form: best.seconds, candidate.form: candidate.seconds} | seconds
        else:
            seconds |= measure({best.form: best.session, candidate.form: candidate.session}, calls)
        best = better(best, candidate, seconds)
        del candidate
    if best is None:
        raise NoCandidateError
    if not seconds:
        return Choice(best.form, "")
    others = ", ".join(f"{form}: {1000 * each:.1f} ms" for form, each in seconds.items() if form is not best.form)
    return Choice(best.form, f"{1000 * seconds[best.form]:.1f} ms for the calls of a picture; {others}")


def better(one: Candidate, other: Candidate, seconds: Mapping[Scheme, float]) -> Candidate:
    """The faster of two, or the nearer one where the times are equal."""
    first, second = seconds[one.form], seconds[other.form]
    if max(first, second) <= NOISE * min(first, second):
        return one if one.error <= other.error else other
    return one if first < second else other


def measure(sessions: Mapping[Scheme, Session], calls: Sequence[Call]) -> dict[Scheme, float]:
    """Seconds for all calls, the median of rounds in which the forms take turns."""
    rounds: dict[Scheme, list[float]] = {form: [] for form in sessions}
    begin = time.perf_counter()
    for number in range(1, ROUNDS + 1):
        for form, session in sessions.items():
            rounds[form].append(sum(timed(session, call)[0] for call in calls))
        spent = time.perf_counter() - begin
        if spent > LONG or (number >= 3 and spent > ENOUGH):
            break
    return {form: statistics.median(times) for form, times in rounds.items()}


def timed(session: Session, call: Call) -> tuple[float, Arrays]:
    """Seconds of one call, and its outputs; reading what was recorded does not count."""
    inputs, outputs = call.inputs, call.wanted
    started = time.perf_counter()
    found = session.run(inputs, outputs)
    return time.perf_counter() - started, found
