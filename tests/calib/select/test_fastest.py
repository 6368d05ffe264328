"""The choice of the fastest scheme, with a fake clock that only the sessions advance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pytest

from hart_edge.calib.scheme import Scheme
from hart_edge.calib.select.fastest import NOISE, ROUNDS, WORTH, Candidate, Choice, NoCandidateError, choose_scheme


@dataclass(frozen=True)
class Call:
    inputs: dict[str, np.ndarray]
    wanted: list[str]


CALLS = [Call({"x": np.zeros(1)}, ["y"])] * 3


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Timed:
    """A session whose runs take the given seconds in turn, and then the last value for ever."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.clock, self.seconds, self.runs = clock, list(seconds), 0

    def run(self, inputs: Mapping[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
        assert list(inputs) == ["x"] and outputs == ["y"]
        self.clock.now += self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1
        return {}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def choose(
    clock: Clock,
    sessions: Mapping[Scheme, Timed],
    count: int = 3,
    errors: Mapping[Scheme, float] = MappingProxyType({}),
    warm_ups: Mapping[Scheme, float] = MappingProxyType({}),
) -> Choice:
    candidates = (
        Candidate(scheme, each, errors.get(scheme, 0.1), warm_ups.get(scheme, 0.0)) for scheme, each in sessions.items()
    )
    return choose_scheme(candidates, CALLS[:count], clock)


def test_the_fastest_scheme_is_chosen(clock: Clock) -> None:
    sessions = {
        Scheme.U8S8: Timed(clock, 0.030),
        Scheme.DYNAMIC: Timed(clock, 0.020),
        Scheme.INT8_WEIGHTS: Timed(clock, 0.1),
    }
    choice = choose(clock, sessions)
    assert choice.scheme is Scheme.DYNAMIC
    assert choice.reason == (
        "60.0 ms for the calls of a picture; static U8S8 Q/DQ: 90.0 ms, "
        "INT8 weights per channel, float32 arithmetic: 300.0 ms"
    )
    assert sessions[Scheme.DYNAMIC].runs == 2 * sessions[Scheme.U8S8].runs == 2 * sessions[Scheme.INT8_WEIGHTS].runs


def test_among_equally_fast_schemes_the_smaller_error_wins(clock: Clock) -> None:
    """A difference of time within the noise does not decide, a larger one does."""
    for slower, errors, wanted in (
        (0.99 * NOISE, (0.1, 0.2), Scheme.U8S8),
        (0.99 * NOISE, (0.1, 0.1), Scheme.U8S8),
        (0.99 * NOISE, (0.2, 0.1), Scheme.INT8_WEIGHTS),
        (1.01 * NOISE, (0.1, 0.2), Scheme.INT8_WEIGHTS),
        (0.99 / NOISE, (0.2, 0.1), Scheme.U8S8),
    ):
        sessions = {Scheme.U8S8: Timed(clock, slower), Scheme.INT8_WEIGHTS: Timed(clock, 1.0)}
        assert choose(clock, sessions, errors=dict(zip(sessions, errors, strict=True))).scheme is wanted


def test_a_scheme_that_costs_quality_has_to_be_worth_it(clock: Clock) -> None:
    for slower, wanted in ((0.99 * WORTH, Scheme.INT8_WEIGHTS), (1.01 * WORTH, Scheme.U8S8_CHANNELS)):
        sessions = {Scheme.INT8_WEIGHTS: Timed(clock, slower), Scheme.U8S8_CHANNELS: Timed(clock, 1.0)}
        candidates = [
            Candidate(scheme, each, error, 1.0)
            for (scheme, each), error in zip(sessions.items(), (0.1, 0.2), strict=True)
        ]
        assert choose_scheme(candidates, CALLS, clock, equal=WORTH).scheme is wanted


def test_two_are_open_at_a_time(clock: Clock) -> None:
    """The slower one is dropped before the next one is opened."""
    alive: set[Scheme] = set()

    class Open(Timed):
        def __init__(self, scheme: Scheme, seconds: float) -> None:
            super().__init__(clock, seconds)
            self.scheme = scheme
            alive.add(scheme)

        def __del__(self) -> None:
            alive.discard(self.scheme)

    counts = []

    def opened(scheme: Scheme) -> Candidate:
        counts.append(len(alive))
        return Candidate(scheme, Open(scheme, 1.0 if scheme is Scheme.DYNAMIC else 2.0), 0.1, 0.0)

    schemes = (Scheme.U8S8, Scheme.DYNAMIC, Scheme.INT8_WEIGHTS, Scheme.FLOAT32)
    assert choose_scheme(map(opened, schemes), CALLS, clock).scheme is Scheme.DYNAMIC
    assert counts == [0, 1, 1, 1]


def test_the_median_of_rounds(clock: Clock) -> None:
    """A single interruption does not decide."""
    quick = Timed(clock, 0.01, 0.01, 9, *[0.01] * 50)
    sessions = {Scheme.INT8_WEIGHTS: Timed(clock, 0.02), Scheme.U8S8: quick}
    assert choose(clock, sessions, 1).scheme is Scheme.U8S8


def test_few_rounds_where_a_round_is_long(clock: Clock) -> None:
    endless, slow, quick = (Timed(clock, seconds) for seconds in (100.0, 1.0, 0.001))
    for session in (endless, slow, quick):
        choose(clock, {Scheme.U8S8: session, Scheme.INT8_WEIGHTS: session}, 1)
    assert endless.runs == 2 and slow.runs == 2 * 3 and quick.runs == 2 * ROUNDS


def test_a_clear_difference_of_warm_ups_needs_no_rounds(clock: Clock) -> None:
    """Short warm-ups are measured again, since a first run does more work than later ones."""
    for warm_ups, rounds in (((24.0, 12.0), 0), ((16.0, 12.0), 1), ((1.9, 0.1), 1)):
        sessions = {Scheme.INT8_WEIGHTS: Timed(clock, 30.0), Scheme.U8S8: Timed(clock, 29.0)}
        choice = choose(clock, sessions, 1, warm_ups=dict(zip(sessions, warm_ups, strict=True)))
        assert choice.scheme is Scheme.U8S8
        assert [session.runs for session in sessions.values()] == [rounds, rounds]
        assert choice.reason.startswith("12000.0 ms" if rounds == 0 else "29000.0 ms")


def test_a_measured_time_is_kept_next_to_a_warm_up(clock: Clock) -> None:
    sessions = {scheme: Timed(clock, 3.0) for scheme in (Scheme.DYNAMIC, Scheme.U8S8, Scheme.INT8_WEIGHTS)}
    errors, warm_ups = {Scheme.U8S8: 0.01}, {Scheme.DYNAMIC: 4.0, Scheme.U8S8: 4.0, Scheme.INT8_WEIGHTS: 9.0}
    choice = choose(clock, sessions, 1, errors, warm_ups)
    assert choice.scheme is Scheme.U8S8
    assert choice.reason.startswith("3000.0 ms") and "9000.0 ms" in choice.reason


def test_a_single_scheme_is_not_measured(clock: Clock) -> None:
    session = Timed(clock, 1.0)
    assert choose(clock, {Scheme.INT8_WEIGHTS: session}) == Choice(Scheme.INT8_WEIGHTS, "")
    assert session.runs == 0
    with pytest.raises(NoCandidateError):
        choose(clock, {})
