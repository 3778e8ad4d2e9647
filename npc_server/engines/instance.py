"""The simplest value that fits a JSON Schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 32


def minimal(schema: Mapping[str, Any]) -> Any:
    """The simplest value that fits, of schemas that say what they want.

    Of choices the first counts, of numbers the one next to 0, and nothing is there that need not
    be. Reads ``const, enum, anyOf, oneOf, $ref`` within the schema, ``type`` and its bounds.

    Raises:
        ValueError: The schema refers elsewhere, or to itself without end.
    """
    return _minimal(schema, schema, 0)


def _minimal(schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise ValueError("the schema refers to itself without end")
    if not isinstance(schema, Mapping):
        return None
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return _minimal(_target(schema["$ref"], root), root, depth + 1)
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return _minimal(schema[choice][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    return _of_kind(kind if isinstance(kind, str) else kind[0], schema, root, depth)


def _of_kind(kind: str, schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            inner = schema.get("properties", {})
            needed = schema.get("required", ())
            return {name: _minimal(inner.get(name), root, depth + 1) for name in needed}
        case "array":
            item = schema.get("items")
            return [_minimal(item, root, depth + 1) for _ in range(schema.get("minItems", 0))]
        case "string":
            return "x" * schema.get("minLength", 0)
        case "integer" | "number":
            return _nearest_to_zero(schema)
        case "boolean":
            return False
    return None


def _nearest_to_zero(schema: Mapping[str, Any]) -> int:
    least, most = -math.inf, math.inf
    if "minimum" in schema:
        least = math.ceil(schema["minimum"])
    if "exclusiveMinimum" in schema:
        least = max(least, math.floor(schema["exclusiveMinimum"]) + 1)
    if "maximum" in schema:
        most = math.floor(schema["maximum"])
    if "exclusiveMaximum" in schema:
        most = min(most, math.ceil(schema["exclusiveMaximum"]) - 1)
    return int(min(max(0, least), most))


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    if not reference.startswith("#/"):
        raise ValueError(f"the schema refers elsewhere: {reference}")
    for name in reference[2:].split("/"):
        found = found[name]
    return found
