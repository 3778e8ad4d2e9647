"""A player whose connection breaks again and again, and the check of what it was told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

from following import Story
from support import FAST, Json
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from npc_server.app import App
from npc_server.client import Client, Refused, session
from npc_server.protocol import SUBPROTOCOL, VERSION

REPLY = "Well now, {}. The river rose by the mill, and all of us went to look at it."
SCRIPT: Json = {
    "rules": [
        {"reply": [REPLY.format(n) for n in range(50)], "piece": "char", "piece_ms": 2},
    ]
}

TORN = b'\x81\xfe\x01\x00mask{"type":"say",'
"""The beginning of a frame of 256 bytes."""


def comes_back(
    address: str, client: Client, last: Mapping[str, int]
) -> AbstractAsyncContextManager[Client]:
    """Minsu's session as a player, gone on with over a new connection.

    Args:
        address: Of the server, which may be another one.
        client: Whose connection broke.
        last: By conversation, the newest ``seq`` that arrived.
    """
    return session(
        address, player="minsu", role="player", resume=client.welcome["resume"], last=last
    )


def abort(client: Client) -> None:
    """Let a connection break, as a network does."""
    client.connection.transport.abort()


def limits() -> Json:
    """Settings under which nothing else comes between."""
    many = {"tokens_per_minute": 10**9}
    return {"limits": FAST, "player_quota": many, "key_quota": many}


@dataclass
class Player:
    """Talks with Bram over a connection that breaks.

    Attributes:
        address: Of the server.
        chance: From what everything is drawn.
        player: Its id.
        conversation: The id of the conversation.
        story: What it was told.
        said: By command, what it said and the server acknowledged.
        broken: How often the connection broke.
        resumed: How often the session went on.
    """

    address: str
    chance: Random
    player: str = "minsu"
    conversation: str = "river"
    story: Story = field(default_factory=Story)
    said: dict[str, str] = field(default_factory=dict)
    broken: int = 0
    resumed: int = 0
    _token: str | None = None
    _pending: tuple[str, Json] | None = None
    _idle: bool = True
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    async def play(self, breaks: int) -> None:
        """Talk until the connection has broken so often, and then until all is settled."""
        while True:
            with contextlib.suppress(ConnectionClosed):
                async with self._connected() as client:
                    if self.broken == breaks:
                        await self._settle(client)
                        return
                    await self._until_it_breaks(client)
            self.broken += 1
            self.story.broke()
            if self.chance.random() < 0.15:
                await self._break_the_handshake()

    async def _break_the_handshake(self) -> None:
        """Use the token up, without ever knowing the next one."""
        hello = {"type": "hello", "id": "h", "protocol": VERSION, "role": "player"}
        about = {"player": {"id": self.player}, "resume": self._token}
        connection = await connect(self.address, subprotocols=[Subprotocol(SUBPROTOCOL)])
        await connection.send(json.dumps({**hello, **about}))
        await asyncio.sleep(self.chance.random() * 0.01)
        connection.transport.abort()
        await connection.wait_closed()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        last = {self.conversation: self.story.last} if self.story.last else {}
        about: dict[str, Any] = {
            "role": "player",
            "resume": self._token,
            "last": last,
        }
        async with session(self.address, player=self.player, **about) as client:
            self._token = client.welcome["resume"]
            self.resumed += client.welcome["resumed"]
            if not client.welcome["resumed"] or not self.story.last:
                event = await client.ask(
                    "conversation.open",
                    conversation=self.conversation,
                    npcs=["bram"],
                    greet="never",
                    since=self.story.last,
                )
                self.story.take(event)
            await self._catch_up(client)
            yield client

    async def _catch_up(self, client: Client) -> None:
        command = await client.send("ping")
        while (event := await client.receive()).get("re") != command:
            self._take(event)
        self.story.caught_up()
        if self._pending is not None:
            # Nobody knows whether it was taken in: the same id is not carried out twice.
            command, fields = self._pending
            await client.send(id=command, **fields)

    async def _until_it_breaks(self, client: Client) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            hearing = group.create_task(self._hear(client))
            moment = self.chance.choice([0, 0.001, 0.05, 0.1, 0.2, 0.3])
            acting = group.create_task(self._act(client))
            await asyncio.sleep(moment * self.chance.random() * 2)
            if self.chance.random() < 0.3:
                client.connection.transport.write(TORN)
            abort(client)
            acting.cancel()
            with contextlib.suppress(ConnectionClosed):
                await hearing

    async def _hear(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._take(await client.receive())

    async def _act(self, client: Client) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.chance.random() * 0.1)
                if self.chance.random() < 0.25:
                    await client.send("interrupt", conversation=self.conversation)
                elif self._pending is None and (self._idle or self.chance.random() < 0.3):
                    await self._say(client)

    async def _say(self, client: Client) -> None:
        text = f"What about number {next(self._numbers)}?"
        fields = {"type_": "say", "conversation": self.conversation, "text": text}
        self._pending = (f"{self.player}-{text}", fields)
        self._idle = False
        await client.send(id=self._pending[0], **fields)

    async def _settle(self, client: Client) -> None:
        """Say a last thing and hear everything out."""
        async with asyncio.timeout(60):
            while self._pending is not None:
                self._take(await client.receive())
            await self._say(client)
            command = self._awaited()
            while not self._is_settled(command):
                self._take(await client.receive())

    def _awaited(self) -> str:
        """The id of the command that is not acknowledged yet."""
        return self._pending[0] if self._pending else ""

    def _is_settled(self, command: str) -> bool:
        turns = {e["turn"] for e in self.story.durable if e.get("re") == command and "turn" in e}
        settled = {e.get("turn") for e in self.story.durable if e["type"] == "scene.idle"}
        return bool(turns) and turns <= settled

    def _take(self, event: Json) -> None:
        self.story.take(event)
        if event["type"] == "scene.idle":
            self._idle = True
        if event["type"] == "error":
            raise Refused(f"{event}")
        if event["type"] == "ack" and self._pending and event["re"] == self._pending[0]:
            self.said[event["turn"]] = self._pending[1]["text"]
            self._pending = None


async def check(app: App, player: Player) -> None:
    """Compare what a player was told with what is kept.

    Every event that is kept for it was told, once and in order; every say that was acknowledged is
    there once, was settled once, and every reply is in the history as it was told.
    """
    story = player.story
    ref = f":{player.player}"
    kept = await app.store.events_after("default", player.conversation, 0, 100_000)
    mine = [(e.seq, e.event["type"]) for e in kept if ref in e.audience]
    told = [(event["seq"], event["type"]) for event in story.durable]
    assert told == mine
    assert not story.resets
    turns = [e for e in story.durable if e["type"] == "turn"]
    assert {e["turn"]: e["text"] for e in turns} == player.said
    idle = [e["turn"] for e in story.durable if e["type"] == "scene.idle"]
    assert sorted(idle) == sorted(player.said)
    state = await app.store.load("default", player.conversation)
    assert state is not None
    history = await app.store.turns_at("default", player.conversation, range(state.next))
    replies = {turn.id: turn.text for turn in history if turn.kind == "reply"}
    assert replies.keys() == story.done.keys()
    for turn, text in replies.items():
        assert story.done[turn]["text"].startswith(text)
    assert story.exact > len(replies) // 3
