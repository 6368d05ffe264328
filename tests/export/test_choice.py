"""The fastest form by a clock that only the sessions move."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

import export.choice
from calib.forms import Form
from export.choice import NOISE, ROUNDS, choose_form
from export.recording import Call

CALLS = [Call({"x": np.zeros(1)}, {"y": np.zeros(1)})] * 3


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed:
    """A session whose runs take given seconds, one after another, and the last ever after."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self.clock, self.seconds, self.runs = clock, list(seconds), 0

    def run(self, inputs: Mapping[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
        assert list(inputs) == ["x"] and outputs == ["y"]
        self.clock.now += self.seconds[min(self.runs, len(self.seconds) - 1)]
        self.runs += 1
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(export.choice, "time", clock)
    return clock


def test_the_fastest(clock: Clock) -> None:
    sessions = {Form.U8S8: Timed(clock, 0.030), Form.DYNAMIC: Timed(clock, 0.020), Form.INT8_WEIGHTS: Timed(clock, 0.1)}
    choice = choose_form(sessions, CALLS)
    assert choice.form is Form.DYNAMIC
    assert choice.seconds == pytest.approx({Form.U8S8: 0.09, Form.DYNAMIC: 0.06, Form.INT8_WEIGHTS: 0.3})
    assert choice.reason == (
        "60.0 ms for the calls of a picture; static U8S8 Q/DQ: 90.0 ms, "
        "INT8 weights per channel, float32 arithmetic: 300.0 ms"
    )


def test_of_equals_the_first(clock: Clock) -> None:
    """A time within the noise is no reason, one beyond it is."""
    for slower, wanted in ((0.99 * NOISE, Form.U8S8), (1.01 * NOISE, Form.INT8_WEIGHTS)):
        sessions = {Form.U8S8: Timed(clock, slower), Form.INT8_WEIGHTS: Timed(clock, 1.0)}
        assert choose_form(sessions, CALLS).form is wanted


def test_the_median_of_rounds_after_the_first(clock: Clock) -> None:
    """Neither a slow first run nor one interruption decides."""
    quick = Timed(clock, 9, 0.01, 0.01, 0.01, 0.01, 0.01, 9, *[0.01] * 50)
    sessions = {Form.INT8_WEIGHTS: Timed(clock, 0.02), Form.U8S8: quick}
    assert choose_form(sessions, CALLS[:1]).form is Form.U8S8


def test_few_rounds_where_a_round_is_long(clock: Clock) -> None:
    endless, slow, quick = (Timed(clock, seconds) for seconds in (100.0, 1.0, 0.001))
    choose_form({Form.U8S8: endless, Form.INT8_WEIGHTS: endless}, CALLS[:1])
    choose_form({Form.U8S8: slow, Form.INT8_WEIGHTS: slow}, CALLS[:1])
    choose_form({Form.U8S8: quick, Form.INT8_WEIGHTS: quick}, CALLS[:1])
    assert endless.runs == 2 * 2 and slow.runs == 2 * 4 and quick.runs == 2 * (ROUNDS + 1)


def test_one_form_is_not_measured(clock: Clock) -> None:
    session = Timed(clock, 1.0)
    assert choose_form({Form.INT8_WEIGHTS: session}, CALLS).form is Form.INT8_WEIGHTS
    assert session.runs == 0
