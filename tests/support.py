"""What tests of a whole server share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import yaml

from npc_server.app import App
from npc_server.client import Client
from npc_server.config import Limits
from npc_server.library import builtin_personas

Json = dict[str, Any]
Start = Callable[..., AbstractAsyncContextManager[App]]
FAST = Limits(messages_per_second=100_000, message_burst=100_000, signals_per_second=100_000)


ACTIONS: list[Json] = [
    {
        "name": "give_item",
        "description": "Hand over something from the smithy, once it is paid for or well earned.",
        "confirm": True,
        "arguments": {
            "type": "object",
            "properties": {
                "item": {"enum": ["knife", "horseshoe", "nails", "hinge", "lantern"]},
                "count": {"type": "integer", "minimum": 1, "maximum": 20},
            },
            "required": ["item", "count"],
            "additionalProperties": False,
        },
    },
    {
        "name": "take_coin",
        "description": "Take the silver that the visitor agreed to pay.",
        "confirm": True,
        "arguments": {
            "type": "object",
            "properties": {"silver": {"type": "integer", "minimum": 1, "maximum": 100}},
            "required": ["silver"],
            "additionalProperties": False,
        },
    },
]


def acting_smith(folder: Path) -> Path:
    """A folder of personas with a Bram who can also act in the game."""
    shipped = yaml.safe_load((builtin_personas() / "bram.yaml").read_text(encoding="utf-8"))
    folder.mkdir()
    (folder / "bram.yaml").write_text(
        yaml.safe_dump({**shipped, "actions": ACTIONS}, allow_unicode=True), encoding="utf-8"
    )
    return folder


async def opened(client: Client, **fields: Any) -> str:
    """Open a conversation with Bram, without a greeting unless asked for."""
    event = await client.ask("conversation.open", **{"npcs": ["bram"], "greet": "never", **fields})
    return str(event["conversation"])


async def reply_to(client: Client, conversation: str, text: str) -> list[Json]:
    """Say something and collect everything up to ``scene.idle``."""
    await client.send("say", conversation=conversation, text=text)
    return [event async for event in client.until_idle()]


def of(events: list[Json], *types: str) -> list[Json]:
    """The events of some types."""
    return [event for event in events if event["type"] in types]


async def until(client: Client, type_: str, **fields: Any) -> Json:
    """The next event of a type with these fields; the rest is dropped."""
    while True:
        event = await client.receive()
        if event["type"] == type_ and fields.items() <= event.items():
            return event


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something holds, looking often.

    Raises:
        TimeoutError: It did not in time.
    """
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.01)
