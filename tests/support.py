"""What tests of a whole server share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from npc_server.app import App
from npc_server.client import Client, session
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


async def settled(client: Client, turn: str) -> list[Json]:
    """The events up to and with the ``scene.idle`` that names a turn.

    Raises:
        Refused: An error came, of whatever command.
    """
    events: list[Json] = []
    while not any(e["type"] == "scene.idle" and e.get("turn") == turn for e in events[-1:]):
        events += [event async for event in client.until_idle()]
    return events


async def said(client: Client, conversation: str, text: str, **fields: Any) -> list[Json]:
    """Say something and collect everything from the answer up to the ``scene.idle`` of it."""
    ack = await client.ask("say", conversation=conversation, text=text, **fields)
    return [ack, *await settled(client, ack["turn"])]


async def told(client: Client) -> list[Json]:
    """All that was sent to a client until now, and not taken in yet."""
    command = await client.send("ping")
    events: list[Json] = []
    while (event := await client.receive()).get("re") != command:
        events.append(event)
    return events


@asynccontextmanager
async def table(
    app: App, *players: str, npcs: Sequence[str] = ("bram", "ysolde"), **fields: Any
) -> AsyncIterator[tuple[str, list[Client]]]:
    """A conversation, and a session of each of some players in it; last the game's, a host."""
    async with AsyncExitStack() as stack:

        async def connected(player: str, role: str | None) -> Client:
            name = player.capitalize()
            about = session(app.address, player=player, name=name, role=role)
            return await stack.enter_async_context(about)

        clients = [await connected(player, "player") for player in players]
        cast = {} if "scene" in fields else {"npcs": list(npcs)}
        first = await clients[0].ask("conversation.open", **{"greet": "never", **cast, **fields})
        about = {"conversation": first["conversation"]}
        for client in clients[1:]:
            await client.ask("conversation.open", **about, invite=first["invite"])
        host = await connected("game", None)
        await host.ask("conversation.open", **about, player={"id": players[0]})
        for client in (*clients, host):
            await told(client)
        yield first["conversation"], [*clients, host]
        for client in (*clients, host):
            await told(client)  # Who has not read all that came closes slowly.


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
