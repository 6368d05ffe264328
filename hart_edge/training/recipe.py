"""What a run is, as data: frozen dataclasses <-> JSON. Two runs with equal recipes and data give equal weights.

In: a JSON file and `name=value` settings. Out: a recipe, every value checked. What may change from one session of a
run to the next (precision, threads, how often it writes) is not part of a recipe but of Habits (loop.py).
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hart_edge.training.errors import RecipeError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


@dataclass(frozen=True)
class Optimisation:
    """How weights are found: a cosine from learning_rate to final * learning_rate after a linear warm-up.

    optimizer: adam, or muon for the matrices of layers and Adam for everything else (optimizer.py).
    """

    steps: int
    batch: int = 8  # pictures a step, over all processes together
    learning_rate: float = 1e-3
    final: float = 0.02
    warmup: int = 200  # steps
    optimizer: str = "adam"
    betas: tuple[float, float] = (0.9, 0.99)  # of Adam
    clip: float = 1.0  # largest norm of a step's gradient
    average: float = 0.999  # decay of the moving average, which is what is published
    seed: int = 0

    def __post_init__(self) -> None:
        check(self, "steps batch", "at least 1", lambda v: v >= 1)
        check(self, "learning_rate clip", "above 0", lambda v: v > 0)
        check(self, "final average", "0 to 1", lambda v: 0 <= v <= 1)
        check(self, "optimizer", "adam or muon", lambda v: v in ("adam", "muon"))
        check(self, "betas", "two numbers from 0 to below 1", lambda v: all(0 <= beta < 1 for beta in v))
        check(self, "warmup", f"0 to below steps ({self.steps})", lambda v: 0 <= v < self.steps)
        check(self, "seed", "0 to 2**63 - 1", lambda v: 0 <= v < 2**63)


def check(
    config: Any,
    names: str,
    expected: str,
    holds: Callable[[Any], bool],
    part: str | None = None,
    remedy: str = "change the recipe",
) -> None:
    """Refuse the first of the fields `names` (separated by spaces) for which holds(value) is false.

    part: what the recipe calls the config (default: its class's name).
    """
    for name in names.split():
        if not holds(value := getattr(config, name)):
            part = part or type(config).__name__.lower()
            raise RecipeError(f"{part}.{name}: expected {expected}, found {value!r}; {remedy}")


def to_json(recipe: Any) -> dict[str, Any]:
    """A recipe as what json.loads would give back."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(recipe))))


def from_json(kind: type[R], raw: Any, where: str = "recipe") -> R:
    """The dataclass `kind` from a parsed JSON object; fields left out keep their defaults.

    Raises RecipeError for unknown names, wrong types and values that the dataclass refuses.
    """
    if not isinstance(raw, dict):
        raise RecipeError(f"{where}: expected an object, found {raw!r}; see docs/training.md for the fields")
    hints = typing.get_type_hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    if unknown := sorted(set(raw) - set(known)):
        raise RecipeError(f"{where}: expected the fields {', '.join(known)}, found {', '.join(unknown)}; remove it")
    values = {name: _value(hints[name], value, f"{where}.{name}") for name, value in raw.items()}
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise RecipeError(f"{where}: {str(error).split('__init__() ')[-1]}; add it to the recipe") from None
    except RecipeError:  # the dataclass's own refusal
        raise
    except ValueError as error:  # the configuration of a network that is defined elsewhere
        raise RecipeError(f"{where}.{error}; change the recipe") from None


def read_recipe(kind: type[R], base: R, file: Path | None = None, settings: Sequence[str] = ()) -> R:
    """A recipe: `base`, with the fields of a JSON file in place of its own, then with `group.name=value` settings."""
    raw = to_json(base)
    if file is not None:
        try:
            read = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"{file}: expected a recipe in JSON, found {error}; see docs/training.md") from None
        raw = _merged(raw, read, str(file))
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting}: expected GROUP.NAME=VALUE, as in optimisation.steps=1000")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        for key in reversed(name.strip().split(".")):
            value = {key: value}
        raw = _merged(raw, value, f"--set {name}")
    return from_json(kind, raw)


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The fields in which two recipes differ, as `name: one, other`."""
    found = []
    for key in sorted(set(one) | set(other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            found.append(f"{prefix}{key}: {a!r}, {b!r}")
    return found


def _merged(base: dict[str, Any], change: Any, where: str) -> dict[str, Any]:
    if not isinstance(change, dict):
        raise RecipeError(f"{where}: expected an object, found {change!r}; see docs/training.md for the fields")
    merged = dict(base)
    for key, value in change.items():
        old = base.get(key)
        merged[key] = _merged(old, value, f"{where}.{key}") if isinstance(old, dict) else value
    return merged


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast("type[DataclassInstance]", hint), value, where)
    if typing.get_origin(hint) is tuple:
        inner, *others = typing.get_args(hint)
        length = "" if others == [...] else f" of {1 + len(others)}"
        if not isinstance(value, list | tuple) or (length and len(value) != 1 + len(others)):
            raise RecipeError(f"{where}: expected a list{length}, found {value!r}; change the recipe")
        return tuple(_value(inner, item, where) for item in value)
    if isinstance(hint, types.UnionType):  # `int | None`
        inner = typing.get_args(hint)[0]
        return None if value is None else _value(inner, value, where)
    right = {
        int: type(value) is int,
        float: type(value) in (int, float) and math.isfinite(value),
        bool: type(value) is bool,
        str: type(value) is str,
    }
    if not right[hint]:
        raise RecipeError(f"{where}: expected {hint.__name__}, found {value!r}; change the recipe")
    return float(value) if hint is float else value
