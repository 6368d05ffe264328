"""JSON bodies, checked against the schemas that the OpenAPI document shows: one declaration serves both.

In: bytes of a client. Out: a dictionary whose known fields are what their schemas say, or a RefusedError. The schemas
use the part of JSON Schema that `fault` knows: type, enum, minimum, exclusiveMinimum, maximum, minLength, maxLength,
pattern (of the whole text), items, properties; and of a body additionalProperties, where it is false.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hart_edge.server.answers import RefusedError

Schema = Mapping[str, Any]
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
SHOWN = 60  # characters of a value in a message


def parse_object(data: bytes, schema: Schema) -> dict[str, Any]:
    """The object in a body; fields that are null count as left out. Those that the schema does not know stay as they
    are, or are refused where it has no additionalProperties.

    Raises RefusedError with status 400, which names the field.
    """
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        words = "nesting without end" if isinstance(error, RecursionError) else str(error)[:200]
        raise RefusedError(400, f"expected a JSON object in UTF-8, found something else ({words})") from error
    if not isinstance(value, dict):
        raise RefusedError(400, f"expected a JSON object, found {_shown(value)}")
    given = {name: each for name, each in value.items() if each is not None}
    properties: Mapping[str, Schema] = schema["properties"]
    unknown = [] if schema.get("additionalProperties", True) else [name for name in value if name not in properties]
    if unknown:
        raise RefusedError(400, _unknown(unknown[0], [*properties]), param=unknown[0][:SHOWN])
    for name in schema.get("required", ()):
        if name not in given:
            raise RefusedError(400, f"{name}: expected a value, found none", param=name)
    for name, each in given.items():
        if name in properties and (found := fault(each, properties[name])):
            raise RefusedError(400, f"{name}: {found}", param=name)
    return given


def fault(value: Any, schema: Schema) -> str | None:
    """What is wrong with a value, as in "expected 1 to 10, found 11"; None where it fits."""
    if "anyOf" in schema:
        faults = [fault(value, each) for each in schema["anyOf"]]
        return None if None in faults else faults[0]
    kinds = TYPES[schema["type"]]
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        article = "an" if schema["type"][0] in "aeiou" else "a"
        return f"expected {article} {schema['type']}, found {_shown(value)}"
    if "enum" in schema and value not in schema["enum"]:
        return f"expected one of {', '.join(map(str, schema['enum']))}, found {_shown(value)}"
    if isinstance(value, str):
        return _text_fault(value, schema)
    if isinstance(value, list) and "items" in schema:
        return next(filter(None, (fault(each, schema["items"]) for each in value)), None)
    if isinstance(value, dict):
        known = {
            name: each for name, each in value.items() if name in schema.get("properties", {}) and each is not None
        }
        inner = ((name, fault(each, schema["properties"][name])) for name, each in known.items())
        return next((f"{name}: {found}" for name, found in inner if found), None)
    return _number_fault(value, schema)


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name[:SHOWN].lower(), known, 1)
    remedy = f"did you mean {near[0]}?" if near else "leave it out"
    return f"{name[:SHOWN]}: expected one of {', '.join(known)}, found another field; {remedy}"


def _text_fault(value: str, schema: Schema) -> str | None:
    least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    if not least <= len(value) <= most:
        return f"expected {least} to {most:,} characters, found {len(value):,}"
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        return f"expected {schema['description']}, found {_shown(value)}"
    return None


def _number_fault(value: Any, schema: Schema) -> str | None:
    if isinstance(value, bool):
        return None
    low, above, high = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    if (
        (low is not None and value < low)
        or (above is not None and value <= above)
        or (high is not None and value > high)
    ):
        lowest = f"at least {low}" if above is None else f"above {above:g}"
        bounds = f"{low} to {high}" if low is not None and high is not None else f"{lowest} and at most {high}"
        return f"expected {bounds}, found {value}"
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
