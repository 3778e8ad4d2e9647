"""JSON Schemas as llama.cpp's own grammars."""

from __future__ import annotations

from typing import Any

import pytest

from npc_server.engines.gbnf import COMMON, grammar


def root(schema: dict[str, Any]) -> str:
    whole = grammar(schema)
    assert whole.endswith(COMMON.strip())
    return whole.removesuffix(COMMON.strip()).strip().removeprefix("root ::= ")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({}, "value"),
        ({"type": "boolean", "title": "T"}, "boolean"),
        ({"type": ["null", "number"]}, "(null | number)"),
        ({"const": 'a"b'}, r'"\"a\\\"b\""'),
        ({"enum": ["é", 1]}, r'("\"é\"" | "1")'),
        ({"anyOf": [{"type": "null"}, True]}, "(null | value)"),
        ({"allOf": [{"type": "null"}]}, "null"),
        ({"type": "string", "maxLength": 9_000}, r'"\"" char{0,500} "\""'),
        ({"type": "string", "minLength": 2}, r'"\"" char{2,} "\""'),
        ({"type": "integer"}, "integer"),
        ({"type": "integer", "minimum": 0}, '("0" | [1-9] [0-9]{0,14})'),
        ({"type": "integer", "minimum": -1, "maximum": 1}, '("-1" | "0" | "1")'),
        ({"type": "array", "items": {"type": "null"}}, '"[" (null ("," null)*)? "]"'),
        ({"maxItems": 0}, '"["  "]"'),
        ({"type": "array", "minItems": 2, "maxItems": 3}, '"[" value ("," value){1,2} "]"'),
        ({"type": "object"}, "object"),
    ],
)
def test_each_kind_has_its_expression(schema: dict[str, Any], expected: str) -> None:
    """Values, lists with bounds, texts with lengths, alternatives."""
    assert root(schema) == expected


def test_optional_properties_leave_no_stray_comma() -> None:
    """In the schema's order: those that are required, and the others or not."""
    properties = {name: {"type": "null"} for name in "abc"}
    schema = {"type": "object", "properties": properties, "required": ["b"]}
    a, b, c = (rf'"\"{name}\"" ":" null' for name in "abc")
    assert root(schema) == f'"{{" ({a} "," {b} ("," {c})? | {b} ("," {c})?) "}}"'


def test_references_become_rules_of_their_own() -> None:
    """Also where a schema refers to itself."""
    schema = {
        "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
        "$ref": "#/$defs/tree",
    }
    assert root(schema).splitlines() == ["ref0", 'ref0 ::= "[" (ref0 ("," ref0)*)? "]"']


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "string", "minLength": 501},
        {"type": "integer", "minimum": 5},
        {"type": "number", "minimum": 5},
        {"type": "integer", "minimum": 0, "maximum": 5_000},
        {"type": "no such type"},
        {"not": {"type": "string"}},
        {"allOf": [{"type": "null"}, {"type": "null"}]},
        {"enum": []},
        {"type": "array", "items": False},
        {"type": "object", "properties": {}, "required": ["a"]},
        {"$ref": "#/$defs/none"},
        {"$ref": "elsewhere"},
        {"$ref": "#", "minimum": 3},
    ],
)
def test_what_cannot_be_kept_is_refused(schema: dict[str, Any]) -> None:
    """No reply is better than one that breaks the schema."""
    with pytest.raises(ValueError, match="The schema"):
        grammar(schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    """Deeper than anybody means it."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(100):
        schema = {"type": "array", "items": schema}
    with pytest.raises(ValueError, match="deeply"):
        grammar(schema)
