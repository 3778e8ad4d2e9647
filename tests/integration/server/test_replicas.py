"""Two servers on one Redis: the players of one conversation may be at either."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import yaml
from support import FAST, Json, of, until

from npc_server.app import App, running
from npc_server.client import Client, session
from npc_server.config import Settings
from npc_server.store import EmbeddedRedis

COUNTING = "One two three four five six seven eight nine ten eleven twelve."


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[tuple[App, App]]:
    """Two servers whose NPCs speak slowly, on one Redis."""
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump({"rules": [{"reply": COUNTING, "piece_ms": 60}]}))
    redis = EmbeddedRedis(tmp_path / "redis")
    url = await redis.start()
    try:
        async with AsyncExitStack() as stack:
            apps = []
            for name in ("a", "b"):
                settings = Settings(
                    port=0,
                    engine="scripted",
                    script=script,
                    data_dir=tmp_path / name,
                    redis_url=url,
                    limits=FAST,
                )
                apps.append(await stack.enter_async_context(running(settings)))
                await apps[-1].loading
            yield apps[0], apps[1]
    finally:
        await redis.stop()


async def both_in(ana: Client, ben: Client) -> str:
    """Ana opens a conversation at one server, and Ben comes in at the other."""
    opened = await ana.ask("conversation.open", npcs=["bram"], greet="never")
    about = {"conversation": opened["conversation"], "invite": opened["invite"]}
    await ben.ask("conversation.open", **about)
    return str(opened["conversation"])


async def reply(client: Client) -> tuple[str, Json]:
    """The joined deltas of the next reply, and its end."""
    text = ""
    async with asyncio.timeout(20):
        while True:
            event = await client.receive()
            if event["type"] == "reply.snapshot":
                text = event["text"]
            if event["type"] == "reply.delta":
                text += event["text"]
            if event["type"] == "reply.done":
                return text, event


async def test_both_hear_the_same(two: tuple[App, App]) -> None:
    """What is said at one server is heard at the other, to the character and in the same order."""
    a, b = two
    async with (
        session(a.address, player="ana", role="player") as ana,
        session(b.address, player="ben", role="player") as ben,
    ):
        conversation = await both_in(ana, ben)
        await ana.send("say", conversation=conversation, text="Bram, count!")
        assert (await until(ben, "turn"))["text"] == "Bram, count!"
        (here, ended), (there, told) = await asyncio.gather(reply(ana), reply(ben))
        assert here == ended["text"] == there == told["text"] == COUNTING
        assert ended["seq"] == told["seq"]
        await ben.send("say", conversation=conversation, text="And I?")
        assert (await until(ana, "turn"))["speaker"] == "ben"
        (here, ended), (there, told) = await asyncio.gather(reply(ana), reply(ben))
        assert here == there == ended["text"]


async def test_a_reply_is_cut_at_the_other_server(two: tuple[App, App]) -> None:
    """Ana hears Bram speak at one server and cuts him from the other: all agree what was said."""
    a, b = two
    async with (
        session(a.address, player="ana", role="player") as ana,
        session(b.address, player="ana", role="player") as elsewhere,
    ):
        opened = await ana.ask("conversation.open", npcs=["bram"], greet="never")
        conversation = opened["conversation"]
        await elsewhere.ask("conversation.open", conversation=conversation)
        await ana.send("say", conversation=conversation, text="Bram, count!")
        await until(elsewhere, "reply.delta")
        first = asyncio.create_task(reply(ana))
        await elsewhere.send("interrupt", conversation=conversation)
        text, done = await first
        assert done["finish"] == "interrupted"
        assert COUNTING.startswith(text)
        assert text == done["text"] != COUNTING
        history = await elsewhere.ask("history.get", conversation=conversation)
        assert history["turns"][-1]["text"] == text


async def test_a_dead_servers_reply_is_said_anew(two: tuple[App, App]) -> None:
    """The server that speaks falls silent; the other one says the reply anew, as attempt 2."""
    a, b = two
    async with (
        session(a.address, player="ana", role="player") as ana,
        session(b.address, player="ben", role="player") as ben,
    ):
        conversation = await both_in(ana, ben)
        await ana.send("say", conversation=conversation, text="Bram, count!")
        await until(ben, "reply.delta")
        (room,) = a.dialogue.rooms.all()
        assert room.live is not None
        for task in room.live.tasks:
            task.cancel()
        async with asyncio.timeout(10):
            started = await until(ben, "reply.started")
        assert started["attempt"] == 2
        text, done = await reply(ben)
        assert text.endswith(COUNTING)
        assert done["finish"] == "stop"
        history = await ben.ask("history.get", conversation=conversation)
        assert [turn["kind"] for turn in history["turns"]] == ["say", "reply"]
        assert of([done], "reply.done")[0]["turn"] == started["turn"]
