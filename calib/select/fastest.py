"""Which INT8 scheme a component takes on this machine: by measurement, on calls of the real loop.

In: a component's graph in each scheme that it could have. Out: a Choice. Integer kernels are worth their rounding only
where they are faster: whether any of them is, and which, depends on the CPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hart_edge.calib.scheme import Scheme
from hart_edge.calib.select.calls import RecordedCall
from hart_edge.engines.base import Arrays, Session

ROUNDS = 5
ENOUGH, LONG = 2.0, 15.0  # seconds after which three rounds will do, and after which one will
CLEAR = 1.5  # ratio of two warm-ups, the longer above ENOUGH, from which on no rounds are needed
NOISE = 1.03  # times whose ratio is below this count as equal
WORTH = 1.2  # the same where the faster scheme costs what a user may see

Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Candidate:
    """A component in a scheme that it could have, warmed up by a run of every call.

    error: of its outputs against the reference's; seconds: of the warm-up.
    """

    scheme: Scheme
    session: Session
    error: float
    seconds: float


@dataclass(frozen=True)
class Choice:
    """The scheme of a component, and the times that speak for it: "" where nothing was compared."""

    scheme: Scheme
    reason: str


class NoCandidateError(Exception):
    """No candidate was given."""


def choose_scheme(
    candidates: Iterable[Candidate],
    calls: Sequence[RecordedCall],
    clock: Clock = time.perf_counter,
    *,
    equal: float = NOISE,
) -> Choice:
    """The fastest scheme; of equals the one with the smallest error. Raises NoCandidateError where there is none.

    equal: the ratio of two times below which they count as equal.

    Each candidate takes turns with the best so far and all others are dropped, so an iterator that opens candidates as
    they are asked for keeps two in memory. No rounds are run where one warm-up was long, and clearly longer.
    """
    best: Candidate | None = None
    seconds: dict[Scheme, float] = {}
    for candidate in candidates:
        if best is None:
            best = candidate
            continue
        slow, quick = sorted((best.seconds, candidate.seconds), reverse=True)
        if slow > max(ENOUGH, CLEAR * quick):
            seconds = {best.scheme: best.seconds, candidate.scheme: candidate.seconds} | seconds
        else:
            seconds |= measure({best.scheme: best.session, candidate.scheme: candidate.session}, calls, clock)
        best = better(best, candidate, seconds, equal)
        del candidate
    if best is None:
        raise NoCandidateError
    if not seconds:
        return Choice(best.scheme, "")
    others = ", ".join(
        f"{scheme}: {1000 * each:.1f} ms" for scheme, each in seconds.items() if scheme is not best.scheme
    )
    return Choice(best.scheme, f"{1000 * seconds[best.scheme]:.1f} ms for the calls of a picture; {others}")


def better(one: Candidate, other: Candidate, seconds: Mapping[Scheme, float], equal: float = NOISE) -> Candidate:
    """The faster of two, or the one with the smaller error where the times are equal."""
    first, second = seconds[one.scheme], seconds[other.scheme]
    if max(first, second) <= equal * min(first, second):
        return one if one.error <= other.error else other
    return one if first < second else other


def measure(sessions: Mapping[Scheme, Session], calls: Sequence[RecordedCall], clock: Clock) -> dict[Scheme, float]:
    """Seconds for all calls: the median of rounds in which the schemes take turns."""
    rounds: dict[Scheme, list[float]] = {scheme: [] for scheme in sessions}
    begin = clock()
    for number in range(1, ROUNDS + 1):
        for scheme, session in sessions.items():
            rounds[scheme].append(sum(timed(session, call, clock)[0] for call in calls))
        spent = clock() - begin
        if spent > LONG or (number >= 3 and spent > ENOUGH):
            break
    return {scheme: statistics.median(times) for scheme, times in rounds.items()}


def timed(session: Session, call: RecordedCall, clock: Clock = time.perf_counter) -> tuple[float, Arrays]:
    """Seconds that one call takes, and its outputs. Reading the recorded inputs does not count."""
    inputs, outputs = call.inputs, call.wanted
    started = clock()
    found = session.run(inputs, outputs)
    return clock() - started, found
