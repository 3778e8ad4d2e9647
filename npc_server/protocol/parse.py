"""From the bytes of a frame to a typed command, or to the error that tells what is wrong."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any, get_args

import orjson
from pydantic import ValidationError

from npc_server.config import Limits
from npc_server.errors import BadJson, BadMessage, NpcError, TooLarge, UnknownType
from npc_server.protocol.commands import COMMANDS, AnyCommand

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)

COMMAND_TYPES: tuple[str, ...] = tuple(
    get_args(model.model_fields["type"].annotation)[0]
    for model in get_args(get_args(AnyCommand)[0])
)


def parse(frame: bytes, limits: Limits) -> Any:
    """Read one frame.

    Args:
        frame: The bytes of a text frame.
        limits: How deep it may be nested and how long its text may be.

    Returns:
        One of the models of ``npc_server.protocol.commands``.

    Raises:
        BadJson: It is no JSON object, or is nested too deeply.
        UnknownType: Its ``type`` is not one of ours.
        BadMessage: A field is missing or wrong; the message names it.
        TooLarge: A text is over its limit.
    """
    if depth(frame, limits.json_depth) > limits.json_depth:
        raise BadJson(f"The frame is nested more than {limits.json_depth} deep. Flatten it.")
    try:
        command = COMMANDS.validate_json(frame)
    except ValidationError as error:
        raise _explain(error) from None
    text = getattr(command, "text", None)
    if text is not None and len(text) > limits.text_chars:
        raise TooLarge(
            f"The text has {len(text)} characters; {limits.text_chars} are allowed. Shorten it.",
            details={"limit": limits.text_chars, "length": len(text)},
        )
    return command


def command_id(frame: bytes) -> str | None:
    """The ``id`` of a frame that could not be parsed, to say which command an error is about."""
    try:
        raw = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return None
    found = raw.get("id") if isinstance(raw, dict) else None
    return found if isinstance(found, str) and 0 < len(found) <= 128 else None


def depth(frame: bytes, enough: int) -> int:
    """How deeply a JSON text is nested; a frame with few brackets is not looked at."""
    if frame.count(b"[") + frame.count(b"{") <= enough:
        return 0
    deepest = level = 0
    for token in _TOKENS.finditer(frame):
        if token[0] in b"[{":
            level += 1
            deepest = max(deepest, level)
        elif token[0] in b"]}":
            level -= 1
    return deepest


def _explain(error: ValidationError) -> NpcError:
    problem = error.errors(include_url=False)[0]
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "json_invalid":
        return BadJson(f"The frame is not valid JSON: {context.get('error')}.")
    if kind == "union_tag_not_found":
        return BadMessage('The frame has no \'type\'. Send an object such as {"type": "ping"}.')
    if kind == "union_tag_invalid":
        tag = str(context.get("tag"))[:64]
        near = get_close_matches(tag, COMMAND_TYPES, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else " /schema/npc.v1.json lists them all."
        return UnknownType(f"This server knows no command '{tag}'.{hint}")
    if kind in {"model_attributes_type", "model_type", "dict_type"} and len(problem["loc"]) == 0:
        return BadMessage("The frame is not a JSON object. Send an object with a 'type'.")
    command, *path = [str(part) for part in problem["loc"]] or ["frame"]
    field = ".".join(path) or command
    return BadMessage(
        f"In '{command}', field '{field}': {problem['msg']}.",
        details={"command": command, "field": field},
    )
