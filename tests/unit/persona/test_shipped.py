"""The personas that come with the server are whole, and agree with each other."""

from __future__ import annotations

from pathlib import Path

import pytest
import regex
from jsonschema import Draft202012Validator

from npc_server.persona import Persona
from npc_server.persona.parse import parse

FOLDER = Path(__file__).parents[3] / "personas"
SHIPPED = {file.stem: parse(file.read_text(), file.name) for file in FOLDER.glob("*.yaml")}
VILLAGE = {"bram", "marta", "ysolde", "pip"}
LONGEST = 750
"""Characters of description, personality and speech: room for a small model's context."""


def everything(persona: Persona) -> str:
    """All that the author wrote, apart from ids, names of gestures and schemas."""
    return " ".join(
        [
            persona.description,
            persona.personality,
            persona.speech,
            persona.scenario or "",
            *persona.greetings,
            *persona.goals,
            *persona.fillers,
            *persona.refusals,
            *(example.npc for example in persona.examples),
            *(fact.text for fact in persona.knowledge),
            *(secret.text for secret in persona.secrets),
        ]
    )


def test_there_are_at_least_ten() -> None:
    """Ten or more, each under its own id, with names that differ."""
    assert len(SHIPPED) >= 10
    assert all(persona.id == stem for stem, persona in SHIPPED.items())
    assert len({persona.name for persona in SHIPPED.values()}) == len(SHIPPED)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_each_is_whole(name: str) -> None:
    """Everyone has a voice shown by examples, ways to begin, to win time and to refuse."""
    persona = SHIPPED[name]
    assert len(persona.examples) >= 3
    assert len(persona.greetings) >= 2
    assert len(persona.fillers) >= 3
    assert len(persona.refusals) >= 3
    assert persona.gestures
    assert persona.goals
    assert len(persona.description + persona.personality + persona.speech) <= LONGEST
    for action in persona.actions:
        Draft202012Validator.check_schema(action.arguments)


@pytest.mark.parametrize("name", [n for n, p in SHIPPED.items() if p.languages[0] == "ko"])
def test_koreans_speak_korean(name: str) -> None:
    """Four in five letters of a Korean persona are Hangul."""
    letters = regex.findall(r"\p{L}", everything(SHIPPED[name]))
    hangul = [letter for letter in letters if regex.match(r"\p{Hangul}", letter)]
    assert len(hangul) / len(letters) >= 0.8


def test_the_village_knows_itself() -> None:
    """The four of the village each have something to say of the other three."""
    for name in VILLAGE:
        assert {relation.npc for relation in SHIPPED[name].relations} == VILLAGE - {name}


def test_there_are_korean_personas_and_one_with_actions() -> None:
    """Three or more speak Korean first; the assistant acts, and asks before some of it."""
    assert len([p for p in SHIPPED.values() if p.languages[0] == "ko"]) >= 3
    assert {action.confirm for action in SHIPPED["nari"].actions} == {True, False}
