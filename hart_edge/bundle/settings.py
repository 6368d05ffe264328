"""How codes are drawn: the settings of a bundle, and what a caller may ask for in their place. Declared here alone.

The manifest's `sampling` and its ranges, the plan's buffers of kind setting, a checkpoint's sampling.json, the keywords
of generate() and the options of the command line follow from it. A further setting is a field of Sampling, its keyword
in Settings, an input of the tokens graph (export/token_graphs.py), a row of C's tables and of docs/bundle.md.
Speed is the one that is no number: it chooses among a bundle's plans.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal, TypedDict

from hart_edge.bundle.fields import choice, integer, number, refuse, show

Count = Annotated[int, integer(1, 2**20)]
Factor = Annotated[float, number(0, 1000)]


class Speed(StrEnum):
    """How much of a picture's arithmetic is done (docs/dial.md). A bundle always has the first."""

    EXACT = "exact"
    BALANCED = "balanced"
    FAST = "fast"


@dataclass(frozen=True)
class Range:
    """The numbers from low to high; above: without low itself. In a manifest's dataclass it is the reader."""

    low: float
    high: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high  # false for NaN

    def __call__(self, value: object, where: str) -> float:
        return float(number(self.low, self.high)(value, where))

    def __str__(self) -> str:
        low, high = (f"{bound:.6f}".rstrip("0").rstrip(".") for bound in (self.low, self.high))
        return f"above {low} and at most {high}" if self.above else f"{low} to {high}"


@dataclass(frozen=True)
class Setting:
    """What there is to say about a setting that a caller may change.

    meaning: for help texts, with `metavar` standing for the value; published: the default of a checkpoint that says
    nothing, None for a table, which follows from the scales (reference/sampling.py); asked: the range for a caller,
    where it is not the manifest's; note: the end of a refusal, {default} in it is the bundle's own value; words: what
    a bundle's card calls a switch that is on, and one that is off.
    """

    meaning: str
    metavar: str | None = None
    published: float | bool | Speed | None = None
    asked: Range | None = None
    note: str = ""
    words: tuple[str, str] = ("on", "off")


@dataclass(frozen=True)
class Sampling:
    """How a bundle draws codes: a value for all scales, or a table with one entry per scale."""

    cfg_scale: Annotated[float, Range(0, 100)] = field(
        metadata={
            "setting": Setting("guidance, 0 to 100", "X", 4.5, note="0 turns guidance off, the default is {default:g}")
        }
    )
    top_p: Annotated[float, Range(1e-6, 1)] = field(
        metadata={
            "setting": Setting(
                "choose among the likeliest codes that share a probability of P, above 0 to 1",
                "P",
                1.0,
                Range(0, 1, above=True),
                "1 keeps every candidate",
            )
        }
    )
    smooth: bool = field(
        metadata={
            "setting": Setting(
                "mix codes instead of choosing one", published=True, words=("smooth latents", "sampled latents")
            )
        }
    )
    top_k: tuple[Count, ...] = field(
        metadata={
            "setting": Setting("choose among the K likeliest codes", "K", note="1 always takes the likeliest code")
        }
    )
    guidance_ratio: tuple[Factor, ...]  # guidance of a scale is cfg_scale times this
    temperature: tuple[Annotated[float, number(1e-6, 1000)], ...]  # of the smooth mode
    speed: Annotated[Speed, choice(Speed)] = field(
        default=Speed.EXACT,
        metadata={
            "setting": Setting(
                "exact, or with less arithmetic balanced or fast, which draw other pictures (docs/dial.md)",
                "WORD",
                Speed.EXACT,
                note="the default is {default}",
            )
        },
    )

    @classmethod
    def keys_for(cls, given: Mapping[str, object]) -> frozenset[str]:
        """The keys that a bundle's settings have: those of before this one lack a speed."""
        return frozenset(cls.__dataclass_fields__) - (frozenset() if "speed" in given else {"speed"})


class Settings(TypedDict, total=False):
    """What a caller asks for: keywords of generate(), in the order of help texts. None takes the bundle's own."""

    cfg_scale: float | None
    top_k: int | None  # for every scale
    top_p: float | None
    smooth: bool | None
    speed: Speed | Literal["exact", "balanced", "fast"] | None


_FIELDS = {each.name: each for each in dataclasses.fields(Sampling)}
_HINTS = typing.get_type_hints(Sampling, include_extras=True)

SETTINGS: Mapping[str, Setting] = {name: _FIELDS[name].metadata["setting"] for name in Settings.__annotations__}
SPEED = "speed"
NAMES = tuple(name for name in (*SETTINGS, *(each for each in _FIELDS if each not in SETTINGS)) if name != SPEED)
"""What a buffer of the plan may hold."""
PER_SCALE = frozenset(name for name, hint in _HINTS.items() if typing.get_origin(hint) is tuple)
DEFAULTS = tuple(name for name in _FIELDS if name in SETTINGS and name not in PER_SCALE)  # of sampling.json and builds


def kind(name: str) -> type[float] | type[int] | type[bool] | type[Speed]:
    """What a caller passes for a setting: a float, an int in place of a table's entries, a bool, or a word."""
    hint = typing.get_type_hints(Sampling)[name]
    found: type = typing.get_args(hint)[0] if name in PER_SCALE else hint
    return found


def range_of(name: str) -> Range:
    """The range of a number in the manifest."""
    found = typing.get_args(_HINTS[name])[1]
    assert isinstance(found, Range)  # asked for numbers alone
    return found


def read_name(value: object, where: str) -> str:
    """The name of a setting, in a buffer of the plan."""
    if not isinstance(value, str) or value not in NAMES:
        refuse(where, "one of " + ", ".join(NAMES), show(value))
    return value


def check_tables(sampling: Sampling, scales: int, vocab_size: int) -> None:
    """What the number of scales and of codes says about a manifest's tables. Raises BundleError."""
    for name in _FIELDS:
        if name in PER_SCALE and len(getattr(sampling, name)) != scales:
            refuse(f"sampling.{name}", f"{scales} entries, one per scale", f"{len(getattr(sampling, name))}")
    for index, top_k in enumerate(sampling.top_k):
        if top_k > vocab_size:
            refuse(f"sampling.top_k[{index}]", f"at most {vocab_size}, the vocab_size", f"{top_k}")


def refusal(name: str, value: object) -> str | None:
    """What is wrong with a default for a bundle, as in "expected 0 to 100, found 101"; None where it is right."""
    if kind(name) is bool:
        return None if isinstance(value, bool) else f"expected true or false, found {value!r}"
    if kind(name) is Speed:
        return None if value in tuple(Speed) else f"expected {', '.join(Speed)}, found {value!r}"
    allowed = range_of(name)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and value in allowed
    return None if fits else f"expected {allowed}, found {value!r}"


def published(tables: Mapping[str, tuple[float, ...]]) -> Sampling:
    """The settings of a checkpoint that says nothing, with these tables."""
    values: dict[str, Any] = {name: SETTINGS[name].published for name in DEFAULTS} | {**tables}
    return Sampling(**values)


def merged(own: Settings, asked: Settings) -> Settings:
    """What was asked for, and of the rest what there was."""
    both: dict[str, Any] = {**own, **{name: value for name, value in asked.items() if value is not None}}
    return typing.cast(Settings, both)


def over(own: Sampling, asked: Settings) -> Sampling:
    """A bundle's settings with what was asked for in their place, unchecked; one number fills a whole table."""
    changed: dict[str, Any] = {}
    for name, value in asked.items():
        if value is not None:
            changed[name] = (value,) * len(getattr(own, name)) if name in PER_SCALE else value
    if SPEED in changed:
        changed[SPEED] = Speed(changed[SPEED])
    return dataclasses.replace(own, **changed)


def in_words(sampling: Sampling) -> str:
    """What a caller may change, as a bundle's card has it: cfg_scale 4.5, top_k 600 300, top_p 1, smooth latents."""
    words = []
    for name, setting in SETTINGS.items():
        value = getattr(sampling, name)
        if isinstance(value, bool):
            words.append(setting.words[0 if value else 1])
        elif isinstance(value, Speed):
            words.append(f"{name} {value}")
        else:
            words.append(f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else f'{value:g}'}")
    return ", ".join(words)
