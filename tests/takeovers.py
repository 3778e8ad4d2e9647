"""Two server processes on one Redis, of which one is killed in mid-reply, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import yaml
from following import Story
from processes import Served, Servers
from support import Json, of
from websockets.exceptions import ConnectionClosed

from npc_server.client import Client, session

REPLY = "One two three four five six seven eight nine ten eleven twelve thirteen fourteen."
CONVERSATION = "river"


@dataclass
class Two:
    """Two servers, and what two players were told by them.

    Attributes:
        servers: Starts them.
        url: Of the Redis that they share.
        folder: For their data.
        story: What the player was told who speaks, at the server that is killed.
        listener: What the other player was told, who listens at the other server.
        said: By turn, what was said and acknowledged.
        seconds: After each kill, how long the reply was silent.
    """

    servers: Servers
    url: str
    folder: Path
    story: Story = field(default_factory=Story)
    listener: Story = field(default_factory=Story)
    said: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    _running: dict[str, Served] = field(default_factory=dict)
    _token: str | None = None
    _invite: str | None = None

    async def kill(self, number: int) -> None:
        """Speak at one server, kill it in mid-reply, and hear the reply out at the other one.

        The other player listens at the other server all the while. Every third time the server
        dies about when it commits, so that the player cannot know whether it was heard.
        """
        chance = Random(number)
        doomed, other = ("one", "two") if number % 2 else ("two", "one")
        address, refuge = await self._address(doomed), await self._address(other)
        text, command = f"This is number {number}.", f"say-{number}"
        async with self._coming_in(refuge, "jiwoo", self.listener) as jiwoo:
            hearing = asyncio.create_task(_hear(jiwoo, self.listener))
            async with self._connected(address) as minsu:
                await minsu.send("say", id=command, conversation=CONVERSATION, text=text)
                if number % 3 == 2:
                    await asyncio.sleep(chance.random() * 0.02)
                else:
                    await self._until(minsu, "reply.delta")
                    await asyncio.sleep(chance.random())
                await asyncio.to_thread(self._running.pop(doomed).stop, signal.SIGKILL)
                died = time.monotonic()
                with contextlib.suppress(ConnectionClosed):
                    await self._until(minsu, "never")
                self.story.broke()
            async with self._connected(refuge) as minsu, asyncio.timeout(30):
                await minsu.send("say", id=command, conversation=CONVERSATION, text=text)
                await self._until(minsu, "ack", re=command)
                turn = self._turn_of(command)
                self.said[turn] = text
                heard = 0.0
                while not self._settled(self.story, turn):
                    await self._take(minsu)
                    if not heard and self._answered(turn):
                        heard = time.monotonic()
                self.seconds.append(heard - died)
                while not self._settled(self.listener, turn):
                    await asyncio.sleep(0.01)
            hearing.cancel()
        assert self.listener.done[self._reply_to(turn)]["text"] == REPLY
        assert self.story.done[self._reply_to(turn)]["text"] == REPLY

    async def check(self) -> None:
        """Nothing acknowledged is lost, and every say has one reply, once in the history."""
        async with session(await self._address("one"), player="minsu", role="player") as client:
            await client.ask("conversation.open", conversation=CONVERSATION)
            page = await client.ask("history.get", conversation=CONVERSATION, limit=200)
        turns = page["turns"]
        assert not page["more"]
        assert {t["turn"]: t["text"] for t in turns if t["kind"] == "say"} == self.said
        assert [t["kind"] for t in turns] == ["say", "reply"] * len(self.said)
        assert [t["text"] for t in turns[1::2]] == [REPLY] * len(self.said)
        assert len({t["turn"] for t in turns}) == len(turns)
        started = of(self.listener.durable, "reply.started")
        assert max(event["attempt"] for event in started) == 2

    async def _address(self, name: str) -> str:
        if name not in self._running:
            script = self.folder / "script.yaml"
            script.write_text(yaml.safe_dump({"rules": [{"reply": REPLY, "piece_ms": 100}]}))
            data = self.folder / name
            data.mkdir(exist_ok=True)
            settings = {"NPC_REDIS_URL": self.url, "NPC_SCRIPT": str(script)}
            self._running[name] = await asyncio.to_thread(
                lambda: self.servers.start("--engine", "scripted", data=data, **settings)
            )
        return self._running[name].address

    @asynccontextmanager
    async def _connected(self, address: str) -> AsyncIterator[Client]:
        """The player who speaks, with what it missed."""
        last = {CONVERSATION: self.story.last}
        async with session(
            address, player="minsu", role="player", resume=self._token, last=last
        ) as client:
            self._token = client.welcome["resume"]
            if not client.welcome["resumed"]:
                event = await client.ask(
                    "conversation.open",
                    conversation=CONVERSATION,
                    npcs=["bram"],
                    greet="never",
                    since=self.story.last,
                )
                self._invite = event["invite"]
                self.story.take(event)
            command = await client.send("ping")
            await self._until(client, "pong", re=command)
            self.story.caught_up()
            yield client

    @asynccontextmanager
    async def _coming_in(self, address: str, player: str, story: Story) -> AsyncIterator[Client]:
        """A player who opens the conversation anew, where it is there already."""
        if self._invite is None:
            async with self._connected(address):
                pass
        async with session(address, player=player, role="player") as client:
            event = await client.ask(
                "conversation.open",
                conversation=CONVERSATION,
                invite=self._invite,
                since=story.last,
            )
            story.broke()
            story.take(event)
            story.caught_up()
            yield client

    async def _until(self, client: Client, type_: str, **fields: str) -> None:
        while True:
            event = await self._take(client)
            if event["type"] == type_ and fields.items() <= event.items():
                return

    async def _take(self, client: Client) -> Json:
        event = await client.receive()
        assert event["type"] != "error" or event["retryable"], event
        self.story.take(event)
        return event

    def _turn_of(self, command: str) -> str:
        (turn,) = (e["turn"] for e in of(self.story.durable, "turn") if e.get("re") == command)
        return str(turn)

    def _reply_to(self, turn: str) -> str:
        started = of(self.story.durable, "reply.started")
        return next(str(e["turn"]) for e in reversed(started) if e.get("answers") == turn)

    def _answered(self, turn: str) -> bool:
        started = of(self.story.durable, "reply.started")
        begun = [e for e in started if e.get("answers") == turn and e["attempt"] == 2]
        return bool(begun and self.story.texts.get(begun[0]["turn"])) or turn in self.story.done

    def _settled(self, story: Story, turn: str) -> bool:
        return any(e["turn"] == turn for e in of(story.durable, "scene.idle"))


async def _hear(client: Client, story: Story) -> None:
    with contextlib.suppress(ConnectionClosed):
        while True:
            story.take(await client.receive())
