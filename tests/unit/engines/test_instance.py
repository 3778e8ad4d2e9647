"""The simplest value fits its schema."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from npc_server.engines.instance import minimal


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"const": 3}, 3),
        ({"enum": ["b", "a"]}, "b"),
        ({"anyOf": [{"type": "string", "minLength": 2}, {"type": "null"}]}, "xx"),
        ({"oneOf": [{"type": "boolean"}]}, False),
        ({"type": ["integer", "null"], "minimum": 2.5}, 3),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"type": "number", "maximum": -1.5}, -2),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "integer"}, 0),
        ({"type": "array", "items": {"type": "string"}, "minItems": 2}, ["", ""]),
        ({"type": "null"}, None),
        ({}, None),
        ({"type": "object", "required": ["a"], "properties": {"a": True, "b": {}}}, {"a": None}),
        ({"properties": {"a": {}}}, {}),
        (
            {"$ref": "#/$defs/one", "$defs": {"one": {"type": "object", "required": []}}},
            {},
        ),
    ],
)
def test_the_simplest_value(schema: dict[str, Any], value: Any) -> None:
    """Each kind of schema gives what is nearest to nothing, and it is valid."""
    assert minimal(schema) == value
    Draft202012Validator(schema).validate(value)


def test_what_has_no_simplest_value() -> None:
    """References to elsewhere, and endless ones, are errors."""
    with pytest.raises(ValueError, match="elsewhere"):
        minimal({"$ref": "https://example.org/schema"})
    with pytest.raises(ValueError, match="without end"):
        minimal({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})
