"""What a caller asks for, checked against a bundle: settings of hart_edge/bundle/settings.py, and seeds.

In: what the user passed, None meaning the bundle's own. Out: a Sampling, whose values become the plan's buffers.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.plan import Buffer
from hart_edge.bundle.settings import SETTINGS, SPEED, Sampling, Settings, Speed, kind, over, range_of
from hart_edge.errors import InputError
from hart_edge.runtime.random import check_seed

F = TypeVar("F", bound=Callable[..., Any])


def check_settings(
    sampling: Sampling, asked: Settings, *, most: int | None = None, speeds: Collection[Speed] = (Speed.EXACT,)
) -> Sampling:
    """How to draw: what was asked for in place of a bundle's own settings. Raises InputError.

    most: the largest number that may take the place of a table's entries; None: the largest of the table. speeds: those
    that the bundle has.
    """
    checked: dict[str, float | bool | Speed] = {}
    for name, value in asked.items():
        if name not in SETTINGS:
            raise TypeError(f"got an unexpected keyword argument {name!r}; settings are {', '.join(SETTINGS)}")
        if value is not None and name == SPEED:
            checked[name] = _check_speed(value, speeds)
        elif value is not None:
            checked[name] = _check(sampling, name, value, most)
    return over(sampling, typing.cast(Settings, checked))


def _check(sampling: Sampling, name: str, value: object, most: int | None) -> float | bool:
    setting, own = SETTINGS[name], getattr(sampling, name)
    if kind(name) is bool:
        if not isinstance(value, bool | np.bool_):
            raise InputError(f"{name}: expected True, False or None, found {value!r}")
        return bool(value)
    number: float
    if kind(name) is int:
        largest = max(own) if most is None else most
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"{name}: expected an integer from 1 to {largest}, found {value!r}")
        number, allowed, fits = int(value), f"1 to {largest}", 1 <= value <= largest
    else:
        number, among = _number(name, value), setting.asked or range_of(name)
        allowed, fits = str(among), number in among
    if not fits:
        raise InputError(f"{name}: expected {allowed}, found {value!r}; {setting.note.format(default=own)}")
    return number


def _check_speed(value: object, speeds: Collection[Speed]) -> Speed:
    if not isinstance(value, str) or value not in tuple(Speed):
        raise InputError(f"{SPEED}: expected {', '.join(Speed)}, found {value!r}")
    if value not in speeds:
        raise InputError(
            f"{SPEED}: expected {', '.join(speeds)}, which is what this bundle has, found {str(value)!r}; bundles for "
            "cpu and cuda have all of them: build it again"
        )
    return Speed(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"{name}: expected a number, found {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond 1e308
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{name}: expected a finite number, found {value!r}")
    return number


def setting_value(sampling: Sampling, buffer: Buffer) -> NDArray[Any]:
    """The array of a buffer of kind setting: shape (1,)."""
    assert buffer.setting is not None  # the manifest's reader has checked it
    value = getattr(sampling, buffer.setting)
    return np.array([value[buffer.scale or 0] if isinstance(value, tuple) else value], buffer.dtype.value)


def check_seeds(seed: object, count: int) -> list[int]:
    """One seed per image: an integer serves all of them, a list must have one for each."""
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        if len(seed) != count:
            raise InputError(f"seed: expected one seed for each of {count} prompts, found {len(seed)}")
        return [check_seed(one) for one in seed]
    return [check_seed(seed)] * count


def explained(function: F) -> F:
    """For a function of **settings: help() and inspect.signature() show every keyword, and {settings} in its
    docstring becomes what they mean."""
    hints = typing.get_type_hints(Settings)
    signature = inspect.signature(function)
    parameters = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[name])
        for name in SETTINGS
    ]
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # PEP 362
    if function.__doc__ is not None:  # None under python -OO
        texts = (f"{name}{'=' + each.metavar if each.metavar else ''}: {each.meaning}"
                 for name, each in SETTINGS.items())  # fmt: skip
        function.__doc__ = inspect.cleandoc(function.__doc__).replace("{settings}", "\n".join(texts))
    return function
