"""JSON Schemas for tests: some of every kind, at random."""

from __future__ import annotations

from typing import Any

import numpy as np

Schema = dict[str, Any]


def random_schema(chance: np.random.Generator, depth: int = 3) -> Schema:
    """A schema that some text satisfies."""
    kinds = ["string", "bounded", "enum", "integer", "number", "boolean", "null", "date"]
    if depth:
        kinds += ["object"] * 5 + ["array"] * 2 + ["any"]
    match str(chance.choice(kinds)):
        case "bounded":
            least = int(chance.integers(0, 6))
            return {"type": "string", "minLength": least, "maxLength": least + 5}
        case "enum":
            return {"enum": ["joy", "sad\nness", "기쁨", 4, None][: int(chance.integers(1, 6))]}
        case "integer":
            least = int(chance.integers(-500, 500))
            return {"type": "integer", "minimum": least, "maximum": least + 20}
        case "date":
            return {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"}
        case "object":
            return _object(chance, depth)
        case "array":
            least = int(chance.integers(0, 3))
            items = random_schema(chance, depth - 1)
            return {"type": "array", "items": items, "minItems": least, "maxItems": least + 3}
        case "any":
            return {"anyOf": [random_schema(chance, depth - 1) for _ in range(2)]}
        case plain:
            return {"type": plain}


def _object(chance: np.random.Generator, depth: int) -> Schema:
    names = ["emotion", "action", "대상", 'a "quoted" name', "n"][: int(chance.integers(1, 6))]
    return {
        "type": "object",
        "properties": {name: random_schema(chance, depth - 1) for name in names},
        "required": [name for name in names if chance.random() < 0.6],
        "additionalProperties": False,
    }
