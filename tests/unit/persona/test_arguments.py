"""Arguments that do not fit are told in a few words, and none can do harm."""

from __future__ import annotations

from typing import Any

import pytest

from npc_server.persona.arguments import argument_problem

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"n": {"multipleOf": 0.1}, "deep": {"type": "array"}},
    "required": ["n"],
}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"n": 0.5}, None),
        ({}, "'n' is a required property"),
        ({"n": 1, "deep": 2}, "deep: 2 is not of type 'array'"),
        ({"n": 10**400}, "cannot be checked"),
    ],
)
def test_what_does_not_fit(arguments: dict[str, Any], problem: str | None) -> None:
    """The first problem is named with its place; numbers beyond all bounds are one too."""
    found = argument_problem(SCHEMA, arguments)
    assert found == problem or (problem is not None and found is not None and problem in found)
