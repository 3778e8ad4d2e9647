"""What an NPC decides: how it is asked, what of an answer counts, and what is told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from npc_server.conversation.model import Act, Member, Turn
from npc_server.engines.instance import minimal
from npc_server.persona.model import Action, Persona
from npc_server.prompt import (
    ActionOutcome,
    Decision,
    Message,
    PromptInput,
    decision_messages,
    decision_schema,
    gather,
    instructed,
    lay_out,
    read_decision,
    speaking_messages,
    texts_to_count,
)
from npc_server.prompt.decision import LIST_ITEMS, STRING_CHARS

GIVE = Action(
    name="give_item",
    description="Hand [over] something.",
    arguments={
        "type": "object",
        "properties": {
            "item": {"enum": ["knife", "nails"]},
            "count": {"type": "integer", "minimum": 1, "maximum": 9, "multipleOf": 2},
        },
        "required": ["item"],
        "additionalProperties": False,
    },
    confirm=True,
)
WAVE = Action(name="open_door", description="Open the door.")
PERSONA = Persona(
    id="bram",
    name="Bram",
    summary="s",
    description="d",
    personality="p",
    speech="t",
    expressions=("neutral", "happy"),
    gestures=("nod",),
    actions=(GIVE, WAVE),
)
ACTIONS = PERSONA.actions
PROMPT = (Message("system", "You are Bram."), Message("user", "A knife?"))
GIVES = {
    "emotion": "happy",
    "intensity": 3,
    "gesture": "nod",
    "action": "give_item",
    "args": {"item": "knife"},
}


def read(answer: Any) -> Decision:
    return read_decision(json.dumps(answer), PERSONA, ACTIONS)


def test_the_schema_is_flat_and_ordered() -> None:
    """Each action is one alternative, nothing first; keys stand in one order and no other may."""
    schema = decision_schema(PERSONA, ACTIONS)
    Draft202012Validator.check_schema(schema)
    nothing, give, door = schema["anyOf"]
    assert list(nothing["properties"]) == ["emotion", "intensity", "gesture", "action"]
    assert list(give["properties"]) == [*nothing["properties"], "args"]
    assert "args" not in door["properties"]
    assert all(option["additionalProperties"] is False for option in schema["anyOf"])
    assert minimal(schema) == {
        "emotion": "neutral",
        "intensity": 1,
        "gesture": "none",
        "action": "none",
    }


def test_without_gestures_none_is_asked_for() -> None:
    """A persona without gestures saves the tokens."""
    still = PERSONA.model_copy(update={"gestures": ()})
    assert "gesture" not in decision_schema(still, ACTIONS)["anyOf"][0]["properties"]


def test_the_schema_says_what_grammars_can_say() -> None:
    """Choices, bounds and sizes stay or are set; what grammars do not know is left out."""
    free = Action(
        name="note",
        description="d",
        arguments={
            "type": "object",
            "properties": {
                "text": {"type": "string", "maxLength": 1000, "pattern": "^a"},
                "tags": {"type": "array", "items": {"const": 1}, "uniqueItems": True},
                "place": {"oneOf": [{"type": "null"}, {"type": ["number", "boolean"]}]},
                "inner": {"type": "object", "properties": {"a": True}, "required": ["a", "b"]},
                "least": {"type": "string", "minLength": 2},
                "some": {"type": "array", "minItems": 1},
            },
        },
    )
    (_, option) = decision_schema(PERSONA, [free])["anyOf"]
    assert option["properties"]["args"]["properties"] == {
        "text": {"type": "string", "maxLength": STRING_CHARS},
        "tags": {"type": "array", "items": {"const": 1}, "maxItems": LIST_ITEMS},
        "place": {
            "anyOf": [{"type": "null"}, {"anyOf": [{"type": "number"}, {"type": "boolean"}]}]
        },
        "inner": {
            "type": "object",
            "properties": {"a": {"type": "string", "maxLength": STRING_CHARS}},
            "required": ["a"],
            "additionalProperties": False,
        },
        "least": {"type": "string", "minLength": 2, "maxLength": STRING_CHARS},
        "some": {
            "type": "array",
            "items": {"type": "string", "maxLength": STRING_CHARS},
            "minItems": 1,
            "maxItems": LIST_ITEMS,
        },
    }


def test_the_question_is_put_behind_everything() -> None:
    """The prompt stays as it is, to the character, and the question follows it."""
    asked = decision_messages(PROMPT, PERSONA, ACTIONS)
    assert asked[:-1] == PROMPT[:-1]
    assert asked[-1].text.startswith("A knife?\n[Before you speak")
    assert "- give_item: Hand (over) something. args: item: knife | nails; count?: integer 1-9" in (
        asked[-1].text
    )
    assert "- open_door: Open the door.\n" in asked[-1].text
    assert "Schema" not in asked[-1].text
    again = decision_messages(PROMPT, PERSONA, ACTIONS, spelled=True, problem="it was [odd]")
    assert again[-1].text.startswith(asked[-1].text)
    assert '"const":"give_item"' in again[-1].text
    assert again[-1].text.endswith("since it was (odd). Answer again.]")


def test_koreans_are_asked_in_korean() -> None:
    """The wording is that of the persona's first language."""
    korean = PERSONA.model_copy(update={"languages": ("ko",)})
    assert "말하기 전에" in decision_messages(PROMPT, korean, ACTIONS)[-1].text
    told = speaking_messages(PROMPT, korean, read(GIVES), ActionOutcome(ok=False, reason="없음"))
    assert "거절됨: 없음" in told[-1].text


def test_arguments_are_described_in_few_words() -> None:
    """Constants, choices of types, descriptions and free values all have a short form."""
    properties = {
        "a": {"const": 3},
        "b": {"type": ["string", "null"], "description": "When"},
        "c": True,
        "d": {},
    }
    action = Action(
        name="x", description="d", arguments={"type": "object", "properties": properties}
    )
    asked = decision_messages(PROMPT, PERSONA, [action])[-1].text
    assert "args: a?: 3; b?: string | null (When); c?: any; d?: any" in asked


def test_a_good_answer_is_a_decision() -> None:
    """Emotion, strength, gesture, action and arguments come out, whatever stands around them."""
    expected = Decision("happy", 0.8, "nod", "give_item", {"item": "knife"})
    assert read(GIVES) == expected
    fenced = f"Sure!\n```json\n{json.dumps(GIVES)}\n```"
    assert read_decision(fenced, PERSONA, ACTIONS) == expected
    door = read({**GIVES, "action": "open_door"} | {"args": {}})
    assert (door.action, door.args, door.problem) == ("open_door", {}, None)


@pytest.mark.parametrize(
    ("change", "kept", "problem"),
    [
        ({"action": "none"}, "happy", None),
        ({"gesture": "dance", "action": "none"}, "happy", None),
        ({"intensity": "very", "action": "none"}, "happy", None),
        ({"intensity": 7, "action": "none"}, "happy", None),
        ({"emotion": "angry"}, None, "'emotion'"),
        ({"action": "fly"}, "happy", "'action' must be one of none, give_item"),
        ({"args": {"item": "moon"}}, "happy", "item: 'moon' is not one of"),
        ({"args": {"item": "knife", "count": 3}}, "happy", "multiple of 2"),
        ({"args": []}, "happy", "object"),
        ({"args": {"item": "knife", "price": 1}}, "happy", "price"),
    ],
)
def test_what_cannot_be_used_is_left_out(
    change: dict[str, Any], kept: str | None, problem: str | None
) -> None:
    """A wrong part takes the action with it and is told; the feeling stays where it is good."""
    found = read({**GIVES, **change})
    assert (found.action, found.args, found.emotion) == (None, {}, kept)
    assert (problem or "") in (found.problem or "")
    assert (problem is None) == (found.problem is None)


@pytest.mark.parametrize("text", ["", "Aye.", "[1]", "{", "}{", "{]}", '{"a": NaN}', "{}" * 5000])
def test_what_is_no_answer(text: str) -> None:
    """Talk, lists, halves and floods give a decision to do nothing, with its reason."""
    assert read_decision(text, PERSONA, ACTIONS).action is None
    assert read_decision(text, PERSONA, ACTIONS).problem


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "emotion": st.sampled_from(["happy", "angry"]) | JSON,
        "intensity": st.integers(0, 4) | JSON,
        "gesture": st.sampled_from(["nod", "none"]) | JSON,
        "action": st.sampled_from(["give_item", "open_door", "none"]) | JSON,
        "args": JSON
        | st.fixed_dictionaries(
            {"item": st.sampled_from(["knife", "nails", "moon"])}, optional={"count": JSON}
        ),
    },
)


@given(
    st.text() | ANSWERS.map(json.dumps) | st.tuples(ANSWERS.map(json.dumps), st.text()).map("".join)
)
def test_no_answer_brings_invalid_arguments(text: str) -> None:
    """Whatever a model writes, reading it never raises, and arguments fit what was declared."""
    found = read_decision(text, PERSONA, ACTIONS)
    assert 0 <= found.intensity <= 1
    assert found.emotion in {None, *PERSONA.expressions}
    assert found.gesture in {None, *PERSONA.gestures}
    if found.action is not None:
        action = next(action for action in ACTIONS if action.name == found.action)
        Draft202012Validator(action.arguments).validate(found.args)


@given(st.text(), st.text())
def test_the_games_words_stay_data(reason: str, result: str) -> None:
    """Reason and result are one line each, bounded, without brackets of their own."""
    for outcome in (
        ActionOutcome(ok=False, reason=reason),
        ActionOutcome(ok=True, result=result),
    ):
        told = speaking_messages(PROMPT, PERSONA, read(GIVES), outcome)
        assert told[:-1] == PROMPT[:-1]
        head, *lines = told[-1].text.split("\n")
        assert head == PROMPT[-1].text
        for line in lines:
            assert (line[0], line[-1]) == ("[", "]")
            assert not {"[", "]"} & set(line[1:-1])
            assert len(line) < 300


def test_without_an_action_nothing_is_told() -> None:
    """Who only feels something speaks from the prompt as it is."""
    felt = read({**GIVES, "action": "none"})
    assert speaking_messages(PROMPT, PERSONA, felt, ActionOutcome(ok=True)) == PROMPT


def test_instructions_are_a_hint() -> None:
    """What the game wants stands in brackets behind the prompt, as data."""
    told = instructed(PROMPT, PERSONA, "Be [very]\nscared.")
    assert told[-1].text == "A knife?\n[What matters now: Be (very) scared.]"


BRAM = Member("bram", "npc", "Bram", "bram")
ANNA = Member("anna", "player", "Anna", "k:anna")
MARTA = Member("marta", "npc", "Marta", "marta")


def acted(*acts: Act, text: str = "Here.") -> Turn:
    return Turn("1", 1, "reply", "bram", ("anna",), (), text, 0, actions=acts)


def history(*turns: Turn, speaker: Member = BRAM) -> tuple[Message, ...]:
    made = PromptInput(PERSONA, speaker, (BRAM, ANNA, MARTA), turns)
    material = gather(made)
    return lay_out(material, 10_000, dict.fromkeys(texts_to_count(material), 1)).messages[1:]


def test_later_prompts_know_what_was_done() -> None:
    """A deed is a line in brackets before the words: its own to the NPC, Bram's to the others."""
    say = Turn("0", 0, "say", "anna", (), (), "A knife?", 0)
    done = Act("c", "give_item", {"item": "knife"}, True, 9, True)
    refused = Act("d", "open_door", {}, False, 9, False, "it [sticks]")
    mine = history(say, acted(done, refused))
    assert mine[0].text == (
        "Anna: A knife?\n[You did this: give item (item: knife).]\n"
        "[You tried this: open door. It was refused: it (sticks).]"
    )
    assert mine[1] == Message("assistant", "Here.")
    (theirs,) = history(say, acted(done), speaker=MARTA)
    assert theirs.text == ("Anna: A knife?\n[Bram did this: give item (item: knife).]\nBram: Here.")
    (wordless,) = history(say, acted(done, text=""), speaker=MARTA)
    assert wordless.text.endswith("(item: knife).]")
