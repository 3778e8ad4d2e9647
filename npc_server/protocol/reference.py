"""The protocol's JSON Schema and its reference page, both made from the models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import models_json_schema

from npc_server.errors import NpcError
from npc_server.protocol.commands import AnyCommand
from npc_server.protocol.events import AnyEvent, DurableEvent

CLOSE_CODES: dict[int, str] = {
    1000: "normal",
    1001: "going away",
    1002: "the frame broke the WebSocket protocol",
    1007: "a text frame was not UTF-8",
    1009: "a frame was too big",
    1012: "the server restarts; come back",
    4400: "bad handshake",
    4401: "unauthorized",
    4403: "forbidden",
    4408: "no `hello` came in time, or nothing for too long",
    4409: "replaced by a newer connection of the same session",
    4429: "too much or too slow",
    4503: "overloaded, or without its store; come back",
}


def commands() -> tuple[type[BaseModel], ...]:
    """The models of all commands."""
    return get_args(get_args(AnyCommand)[0])


def events() -> tuple[type[BaseModel], ...]:
    """The models of all events."""
    return get_args(get_args(AnyEvent)[0])


def tag(model: type[BaseModel]) -> str:
    """The ``type`` of a command or event."""
    return str(get_args(model.model_fields["type"].annotation)[0])


def json_schema() -> dict[str, Any]:
    """One JSON Schema of every frame: ``$defs/command`` and ``$defs/event`` are the two sides."""
    sides = {"command": commands(), "event": events()}
    modes = [(m, "validation") for m in commands()] + [(m, "serialization") for m in events()]
    references, schema = models_json_schema(modes, ref_template="#/$defs/{model}")  # type: ignore[arg-type]
    definitions = schema["$defs"]
    for side, models in sides.items():
        mode = "validation" if side == "command" else "serialization"
        definitions[side] = {"oneOf": [references[(m, mode)] for m in models]}  # type: ignore[index]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "npc.v1",
        "description": "Every frame of the npc.v1 WebSocket protocol.",
        "anyOf": [{"$ref": "#/$defs/command"}, {"$ref": "#/$defs/event"}],
        "$defs": definitions,
    }


def markdown() -> str:
    """The reference page of the protocol."""
    parts = [
        "# The npc.v1 protocol",
        "",
        "Made from the models in `npc_server/protocol/` by `make docs`. One WebSocket, subprotocol",
        "`npc.v1`; each text frame is one JSON object. `docs/concepts/protocol.md` tells the story",
        "behind the tables. The same as a JSON Schema: `/schema/npc.v1.json`.",
        "",
        "## Commands (client to server)",
        *(line for model in commands() for line in _section(model)),
        "",
        "## Events (server to client)",
        "",
        "Durable events carry `seq`, are kept, and come again after a reconnect.",
        *(line for model in events() for line in _section(model)),
        "",
        "## Errors",
        "",
        "| code | meaning | may be sent again |",
        "|---|---|---|",
        *(
            f"| `{e.code}` | {_first_line(e)} | {'yes' if e.retryable else 'no'} |"
            for e in _errors()
        ),
        "",
        "## Close codes",
        "",
        "| code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in CLOSE_CODES.items()),
        "",
    ]
    return "\n".join(parts)


def _errors() -> Iterable[type[NpcError]]:
    seen: dict[str, type[NpcError]] = {}
    for error in NpcError.__subclasses__():
        seen.setdefault(error.code, error)
    return sorted(seen.values(), key=lambda error: error.code)


def _first_line(thing: type) -> str:
    return (thing.__doc__ or "").strip().splitlines()[0]


def _section(model: type[BaseModel]) -> Iterable[str]:
    durable = " (durable)" if issubclass(model, DurableEvent) else ""
    yield from ("", f"### `{tag(model)}`{durable}", "", _first_line(model), "")
    yield from ("| field | type | needed | meaning |", "|---|---|---|---|")
    for name, field in model.model_fields.items():
        if name != "type":
            needed = "yes" if field.is_required() else ""
            yield f"| `{name}` | {_type(field)} | {needed} | {field.description or ''} |"


def _type(field: FieldInfo) -> str:
    class One(BaseModel):
        value: field.annotation  # type: ignore[name-defined]

    schema = One.model_json_schema()["properties"]["value"]
    return _name(schema).replace("|", "\\|")


def _name(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " | ".join(_name(option) for option in schema["anyOf"] if option != {"type": "null"})
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "enum" in schema:
        return " | ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        return f"[{_name(schema.get('items', {}))}]"
    return str(schema.get("type", "any"))
