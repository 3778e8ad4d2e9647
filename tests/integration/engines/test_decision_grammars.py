"""The engines' grammars take the schema of every decision."""

from __future__ import annotations

import json
from pathlib import Path

import llguidance
import pytest
import xllamacpp

from npc_server.persona import Persona
from npc_server.persona.parse import parse
from npc_server.prompt import decision_schema

FILES = sorted((Path(__file__).parents[3] / "personas").glob("*.yaml"))
ACTING = [p for p in (parse(f.read_text(), f.name) for f in FILES) if p.actions]


@pytest.mark.parametrize("persona", ACTING, ids=lambda persona: persona.id)
def test_a_decision_has_a_grammar(persona: Persona) -> None:
    """Llguidance and llama.cpp both compile it without a complaint."""
    schema = decision_schema(persona, persona.actions)
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
    assert llguidance.LLMatcher.validate_grammar(grammar) == ""
    rules = xllamacpp.json_schema_to_grammar(schema)
    assert all(action.name in rules for action in persona.actions)
