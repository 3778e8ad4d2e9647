"""A small Python client: enough to talk with an NPC from a program, a test or a terminal."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake
from websockets.typing import Subprotocol

from npc_server.errors import NpcError, SetupError
from npc_server.protocol import SUBPROTOCOL, VERSION

Json = dict[str, Any]


class Refused(NpcError):
    """The server answered with an error."""


class Client:
    """A session with a server. Events are plain dictionaries, as they came.

    Attributes:
        connection: What everything goes over.
        welcome: What the server answered to ``hello``.
    """

    def __init__(self, connection: ClientConnection) -> None:
        self.welcome: Json = {}
        self.connection = connection
        self._prefix = uuid.uuid4().hex
        self._numbers = itertools.count(1)

    async def send(self, type_: str, **fields: Any) -> str:
        """Send a command; returns its id."""
        command = f"{self._prefix}-{next(self._numbers)}"
        frame = {"type": type_, "id": command, **fields}
        await self.connection.send(orjson.dumps(frame), text=True)
        return command

    async def receive(self) -> Json:
        """The next event."""
        event: Json = orjson.loads(await self.connection.recv())
        return event

    async def ask(self, type_: str, **fields: Any) -> Json:
        """Send a command and wait for its own answer, leaving out what comes before.

        Raises:
            Refused: The server answered with an error.
        """
        command = await self.send(type_, **fields)
        while True:
            event = await self.receive()
            if event.get("re") == command and event["type"] != "turn":
                return _good(event)

    async def answer(
        self, action: Json, *, ok: bool, reason: str | None = None, result: Any = None
    ) -> str:
        """Tell what became of a ``reply.action`` that this session was to execute.

        Args:
            action: The event.
            ok: Whether it was done.
            reason: Why it was not, in words that the NPC can take up.
            result: What came of it, any short JSON.
        """
        told = {"ok": ok, "reason": reason, "result": result}
        return await self.send(
            "action.result", conversation=action["conversation"], call=action["call"], **told
        )

    async def until_idle(self) -> AsyncIterator[Json]:
        """The events up to and with the next ``scene.idle``.

        Raises:
            Refused: An error came, of whatever command.
        """
        while True:
            event = _good(await self.receive())
            yield event
            if event["type"] == "scene.idle":
                return


@asynccontextmanager
async def session(
    url: str,
    *,
    player: str = "player",
    name: str | None = None,
    token: str | None = None,
    world: str = "default",
    consent: Sequence[str] = (),
    role: str | None = None,
    resume: str | None = None,
    last: Mapping[str, int] | None = None,
) -> AsyncIterator[Client]:
    """Connect and say hello.

    Args:
        url: The server's WebSocket address.
        player: The player's id.
        name: What others call it; by default the id.
        token: An API key.
        world: The playthrough.
        consent: What the player allows, such as ``training``.
        role: ``player`` to hear only what the player hears, with a host's credential too.
        resume: The token of the session to go on with.
        last: By conversation, the newest ``seq`` that arrived.

    Raises:
        SetupError: Nobody listens there, or it is no npc-server.
        Refused: The server does not let this client in.
    """
    try:
        connection = await connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], max_size=None)
    except (OSError, InvalidHandshake) as error:
        raise SetupError(
            f"There is no npc-server at {url} ({error}). Start one with `npc-server serve`."
        ) from error
    async with connection:
        client = Client(connection)
        who = {"id": player, "name": name or player, "consent": list(consent)}
        about = {"name": "npc-server client"}
        client.welcome = await client.ask(
            "hello",
            protocol=VERSION,
            player=who,
            token=token,
            client=about,
            world=world,
            role=role,
            resume=resume,
            last=dict(last or {}),
        )
        yield client


def _good(event: Json) -> Json:
    if event["type"] == "error":
        raise Refused(event["message"], retry_after_ms=event.get("retry_after_ms"))
    return event
