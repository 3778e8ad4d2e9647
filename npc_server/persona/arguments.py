"""What the JSON Schema of an action's arguments may look like, and whether arguments fit it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

MAX_DEPTH = 12
MAX_PARTS = 400

# Anywhere, for a property may be called `default`, and a reference to it would be followed.
_ELSEWHERE = frozenset(
    ("$ref", "$dynamicRef", "$recursiveRef", "$id", "$schema", "$anchor", "$dynamicAnchor")
)

Path = tuple[str | int, ...]


def schema_problem(schema: Mapping[str, Any]) -> tuple[Path, str] | None:
    """What is wrong with a schema of arguments: where in it, and what was expected."""
    if schema.get("type") != "object":
        return (), "'arguments' must be a JSON Schema with `type: object`"
    for count, (path, value) in enumerate(_walk(schema, ())):
        if count >= MAX_PARTS or len(path) > MAX_DEPTH:
            return path, (f"is too large: {MAX_PARTS} values, nested {MAX_DEPTH} deep, are allowed")
        if path and path[-1] in _ELSEWHERE:
            return path, "cannot point elsewhere: write the whole schema here"
        if not _is_json(value):
            return path, "is nothing that JSON knows: put it in quotes"
    try:
        Draft202012Validator.check_schema(
            dict(schema), format_checker=Draft202012Validator.FORMAT_CHECKER
        )
    except SchemaError as error:
        return tuple(error.absolute_path), f"is no JSON Schema: {error.message}"
    return None


def argument_problem(schema: Mapping[str, Any], arguments: object) -> str | None:
    """Why arguments do not fit their schema; ``None`` where they do."""
    try:
        found = next(Draft202012Validator(dict(schema)).iter_errors(arguments), None)
    except (ArithmeticError, RecursionError, re.error) as error:
        return f"cannot be checked: {error}"
    if found is None:
        return None
    place = ".".join(str(part) for part in found.absolute_path)
    return f"{place}: {found.message}" if place else found.message


def _walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if len(path) > MAX_DEPTH:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _walk(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _walk(inner, (*path, index))


def _is_json(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int | Mapping | list)
