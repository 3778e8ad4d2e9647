"""What an NPC decides before it speaks: what it feels and shows, and whether it acts.

The question stands behind everything else in the last user message, and so does what came of it: a
model that has read the conversation finds it cached both times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from npc_server.persona.arguments import argument_problem
from npc_server.persona.model import Action, Persona
from npc_server.prompt.messages import Message
from npc_server.prompt.phrases import Phrases, phrases_for
from npc_server.prompt.plain import plain
from npc_server.protocol.emotion import Emotion
from npc_server.protocol.text import cut

NONE = "none"
INTENSITIES: Mapping[int, float] = {1: 0.2, 2: 0.5, 3: 0.8}
"""What a model writes, in one token, and how strong that is."""

MAX_ANSWER = 8_192
"""Code points of an answer that are looked at."""

STRING_CHARS = 160
LIST_ITEMS = 8
"""The longest strings and lists that a model is asked for, where a schema allows longer ones."""

ARGUMENTS_SHOWN = 160
REASON_SHOWN = 160
"""Code points of arguments, and of what the game said, that a note tells."""

_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


@dataclass(frozen=True, slots=True)
class Decision:
    """What an NPC decided.

    Attributes:
        emotion: What it shows; ``None`` where the answer could not be used.
        intensity: How strongly, from 0 to 1.
        gesture: One of the persona's, if any.
        action: The name of one of the persona's, if any.
        args: Its arguments; they fit the declared schema.
        problem: Why the answer, or a part of it, could not be used.
    """

    emotion: Emotion | None = None
    intensity: float = 0.0
    gesture: str | None = None
    action: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ActionOutcome:
    """What became of an action.

    Attributes:
        ok: Whether the game did it.
        reason: Why it did not, in its words; ``timeout`` where it said nothing.
        result: What it told of it, any JSON.
    """

    ok: bool
    reason: str | None = None
    result: Any = None


def decision_schema(persona: Persona, actions: Sequence[Action]) -> dict[str, Any]:
    """The JSON Schema of a decision, for engines that hold a reply to it.

    It is flat, with its keys in a fixed order, and each action is one alternative: ``none`` comes
    first. Of what an author declared it keeps what grammars can say; ``read_decision`` checks the
    rest.
    """
    return {"anyOf": [_alternative(persona, action) for action in (None, *actions)]}


def decision_messages(
    messages: Sequence[Message],
    persona: Persona,
    actions: Sequence[Action],
    *,
    spelled: bool = False,
    problem: str | None = None,
) -> tuple[Message, ...]:
    """The prompt, with the question at the end of its last message.

    Args:
        messages: The prompt for speaking; it ends with a user message.
        persona: Who decides.
        actions: What it may do now.
        spelled: Whether to spell the schema out, for engines that cannot hold a reply to it.
        problem: What was wrong with the answer before, if it is asked again.
    """
    question = decision_question(persona, actions, spelled=spelled)
    if problem is not None:
        again = phrases_for(persona.languages[0]).decide_again
        question += "\n" + again.format(problem=_shortened(problem, REASON_SHOWN))
    return append_note(messages, question)


def decision_question(persona: Persona, actions: Sequence[Action], *, spelled: bool = False) -> str:
    """What is asked: the actions with their arguments, and for what form of answer."""
    say = phrases_for(persona.languages[0])
    lines = [say.decide, *(_described(action) for action in actions), say.decide_answer]
    if spelled:
        schema = orjson.dumps(decision_schema(persona, actions)).decode()
        lines.append(say.decide_schema.format(schema=schema))
    return "\n".join(lines)


def read_decision(text: str, persona: Persona, actions: Sequence[Action]) -> Decision:
    """A decision from a model's answer; what of it cannot be used is left out. Never raises."""
    answer = _object_in(text)
    if answer is None:
        return Decision(problem="it is not one JSON object")
    if answer.get("emotion") not in persona.expressions:
        return Decision(problem=f"'emotion' must be one of {', '.join(persona.expressions)}")
    gesture = answer.get("gesture")
    level = answer.get("intensity")
    felt = Decision(
        emotion=answer["emotion"],
        intensity=INTENSITIES.get(level, INTENSITIES[2]) if isinstance(level, int) else 0.5,
        gesture=gesture if gesture in persona.gestures else None,
    )
    name = answer.get("action", NONE)
    if name == NONE:
        return felt
    action = next((action for action in actions if action.name == name), None)
    if action is None:
        known = ", ".join((NONE, *(action.name for action in actions)))
        return replace(felt, problem=f"'action' must be one of {known}")
    args = answer.get("args", {})
    problem = argument_problem(action.arguments, args)
    if problem is not None:
        return replace(felt, problem=f"'args' of {name}: {problem}")
    return replace(felt, action=action.name, args=args)


def speaking_messages(
    messages: Sequence[Message], persona: Persona, decision: Decision, outcome: ActionOutcome
) -> tuple[Message, ...]:
    """The prompt, with what the NPC just did at the end of its last message.

    Args:
        messages: The prompt; it ends with a user message.
        persona: Who did it.
        decision: What it did; without an action the prompt stays as it is.
        outcome: Whether that worked. What the game tells of it is data.
    """
    if decision.action is None:
        return tuple(messages)
    say = phrases_for(persona.languages[0])
    notes = [deed_note(decision.action, decision.args, say, ok=outcome.ok, reason=outcome.reason)]
    if outcome.ok and outcome.result is not None:
        told = _shortened(_value(outcome.result), REASON_SHOWN)
        notes.append(f"[{say.act_result.format(result=told)}]")
    return append_note(messages, "\n".join((*notes, say.act_speak)))


def instructed(
    messages: Sequence[Message], persona: Persona, instructions: str
) -> tuple[Message, ...]:
    """The prompt, with what the game wants the reply to be about; its text is data."""
    wording = phrases_for(persona.languages[0]).instructed
    return append_note(messages, f"[{wording.format(text=plain(instructions))}]")


def deed_note(
    action: str,
    args: Mapping[str, Any],
    say: Phrases,
    *,
    ok: bool | None,
    reason: str | None,
    name: str | None = None,
) -> str:
    """One line about what an NPC did: about itself, or about another of that name."""
    given = ", ".join(f"{key}: {_value(value)}" for key, value in args.items())
    shown = _shortened(given, ARGUMENTS_SHOWN)
    deed = action.replace("_", " ") + (f" ({shown})" if shown else "")
    if ok is False:
        wording = say.act_refused if name is None else say.act_refused_other
        told = _shortened(reason or "", REASON_SHOWN) or "?"
        return f"[{wording.format(name=name, deed=deed, reason=told)}]"
    wording = say.act_done if name is None else say.act_done_other
    return f"[{wording.format(name=name, deed=deed)}]"


def append_note(messages: Sequence[Message], note: str) -> tuple[Message, ...]:
    """The messages with a text of ours behind the last one, which is the user's."""
    *before, last = messages
    return (*before, replace(last, text=f"{last.text}\n{note}"))


def _alternative(persona: Persona, action: Action | None) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "emotion": {"enum": list(persona.expressions)},
        "intensity": {"enum": list(INTENSITIES)},
    }
    if persona.gestures:
        properties["gesture"] = {"enum": [NONE, *persona.gestures]}
    properties["action"] = {"const": action.name if action else NONE}
    if action and action.arguments.get("properties"):
        properties["args"] = _sayable(action.arguments)
    return _closed(properties, list(properties))


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _sayable(schema: Any) -> dict[str, Any]:
    """Of a schema, what the grammars of every engine can hold a model to."""
    if not isinstance(schema, Mapping):
        return {"type": "string", "maxLength": STRING_CHARS}
    for fixed in ("const", "enum"):
        if fixed in schema:
            return {fixed: schema[fixed]}
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return {"anyOf": [_sayable(option) for option in schema[choice]]}
    kind = schema.get("type", "string")
    if isinstance(kind, list):
        return {"anyOf": [_sayable({**schema, "type": one}) for one in kind]}
    return {"type": kind, **dict(_bounds(kind, schema))}


def _bounds(kind: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if kind in {"integer", "number"}:
        yield from ((name, schema[name]) for name in _NUMBERS if name in schema)
    elif kind == "string":
        least = schema.get("minLength", 0)
        if least:
            yield "minLength", least
        yield "maxLength", max(least, min(schema.get("maxLength", STRING_CHARS), STRING_CHARS))
    elif kind == "array":
        least = schema.get("minItems", 0)
        yield "items", _sayable(schema.get("items"))
        if least:
            yield "minItems", least
        yield "maxItems", max(least, min(schema.get("maxItems", LIST_ITEMS), LIST_ITEMS))
    elif kind == "object":
        properties = schema.get("properties", {})
        required = [name for name in properties if name in schema.get("required", ())]
        inner = {name: _sayable(value) for name, value in properties.items()}
        yield from (
            (key, value) for key, value in _closed(inner, required).items() if key != "type"
        )


def _described(action: Action) -> str:
    properties = action.arguments.get("properties", {})
    needed = action.arguments.get("required", ())
    args = "; ".join(
        f"{name}{'' if name in needed else '?'}: {_kind(value)}"
        for name, value in properties.items()
    )
    return f"- {action.name}: {plain(action.description)}" + (f" args: {args}" if args else "")


def _kind(schema: Any) -> str:
    """What an argument may be, in a few words."""
    if not isinstance(schema, Mapping):
        return "any"
    if "const" in schema:
        return _value(schema["const"])
    if "enum" in schema:
        return " | ".join(_value(value) for value in schema["enum"])
    kind = schema.get("type", "any")
    words = kind if isinstance(kind, str) else " | ".join(kind)
    if "minimum" in schema and "maximum" in schema:
        words += f" {schema['minimum']}-{schema['maximum']}"
    about = schema.get("description")
    return f"{words} ({plain(about)})" if about else words


def _value(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _object_in(text: str) -> dict[str, Any] | None:
    """The JSON object in an answer, whatever stands around it."""
    if len(text) > MAX_ANSWER:
        return None
    start, end = text.find("{"), text.rfind("}")
    try:
        found = orjson.loads(text[start : end + 1]) if 0 <= start < end else None
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _shortened(text: str, length: int) -> str:
    short = plain(text)
    return short if len(short) <= length else cut(short, length - 1) + "…"
