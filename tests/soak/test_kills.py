"""The worker is killed again and again while eight conversations go on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from processes import Served, Servers
from soak_progress import Progress
from support import Json, eventually, opened

from npc_server.client import Client, session

KILLS, CONVERSATIONS = 20, 8
PERSONA = """
id: ferryman
name: Old Tam
summary: A ferryman who has seen the river rise.
description: You row people over the river, and you tell them of it.
personality: Patient, and fond of company.
speech: Long, unhurried sentences.
sampling: {max_tokens: 40}
"""
QUIET = {
    "NPC_SEATS": "4",
    "NPC_LIMITS__MESSAGES_PER_SECOND": "10000",
    "NPC_PLAYER_QUOTA__TOKENS_PER_MINUTE": "100000000",
    "NPC_KEY_QUOTA__TOKENS_PER_MINUTE": "100000000",
}


@dataclass
class Heard:
    """What a player said that was acknowledged, and what it was answered."""

    said: list[str] = field(default_factory=list)
    replies: list[Json] = field(default_factory=list)


@dataclass
class Pulse:
    """What the conversations do since the worker was killed last.

    Attributes:
        replied: Whether the model has made a whole reply.
        speaking: Is set when it is in the middle of one after that.
    """

    replied: bool = False
    speaking: asyncio.Event = field(default_factory=asyncio.Event)

    async def beat(self) -> None:
        """Wait until a whole reply was made and the next one has begun; then begin anew."""
        await asyncio.wait_for(self.speaking.wait(), 120)
        self.replied = False
        self.speaking.clear()


@pytest.mark.parametrize("engine", ["llamacpp", "ctransformers"])
async def test_killed_workers_lose_nothing(
    engine: str, servers: Servers, smollm2: Path, progress: Progress, tmp_path: Path
) -> None:
    """20 kills: every say ends in reply.done, which begins with what was sent; all is kept."""
    personas = tmp_path / "personas"
    personas.mkdir()
    (personas / "ferryman.yaml").write_text(PERSONA, encoding="utf-8")
    flags = ["--engine", engine, "--model", str(smollm2), "--personas", str(personas)]
    served = servers.start(*flags, data=None, **QUIET)
    pulse, stop = Pulse(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        talks = [
            group.create_task(talk(served, number, pulse, stop)) for number in range(CONVERSATIONS)
        ]
        for _ in progress.left(KILLS):
            await pulse.beat()
            await kill(served)
        await pulse.beat()
        stop.set()
    for task in talks:
        assert task.result().replies


async def talk(served: Served, number: int, pulse: Pulse, stop: asyncio.Event) -> Heard:
    """Say one thing after the other until it is enough, then compare with the history."""
    heard = Heard()
    async with session(served.address, player=f"player-{number}") as client:
        conversation = await opened(client, npcs=["ferryman"])
        while not stop.is_set():
            await exchange(
                client, conversation, f"Player {number}, line {len(heard.said)}.", heard, pulse
            )
        kept = await history(client, conversation)
    assert [turn["text"] for turn in kept if turn["kind"] == "say"] == heard.said
    replies = {turn["turn"]: turn["text"] for turn in kept if turn["kind"] == "reply"}
    for done in heard.replies:
        assert replies.get(done["turn"], "") == done["text"]
    return heard


async def exchange(
    client: Client, conversation: str, text: str, heard: Heard, pulse: Pulse
) -> None:
    """One say and all that comes of it; a refused one is no turn, and is said again by the next."""
    command = await client.send("say", conversation=conversation, text=text)
    acked, sent = False, dict[str, str]()
    done: list[Json] = []
    while (event := await asyncio.wait_for(client.receive(), 180))["type"] != "scene.idle":
        if event["type"] == "error":
            assert event["re"] == command
            if acked:
                continue  # The reply failed, and is going to end.
            assert event["retryable"], event
            await asyncio.sleep(event.get("retry_after_ms", 200) / 1000)
            return
        if event["type"] == "ack" and event["re"] == command:
            acked = True
            heard.said.append(text)
        if event["type"] == "reply.delta":
            sent[event["turn"]] = sent.get(event["turn"], "") + event["text"]
            if pulse.replied:
                pulse.speaking.set()
        if event["type"] == "reply.done":
            done.append(event)
            pulse.replied = pulse.replied or event.get("degraded") != "canned"
            assert event["text"].startswith(sent.get(event["turn"], ""))
    assert len(done) == 1, f"{text!r} was answered by {done}"
    heard.replies += done


async def kill(served: Served) -> None:
    """SIGKILL the worker and wait until there is another."""
    old = served.worker()
    old.kill()

    async def replaced() -> bool:
        try:
            return served.worker().pid != old.pid
        except (StopIteration, psutil.NoSuchProcess):
            return False

    await eventually(replaced, 90)


async def history(client: Client, conversation: str) -> list[Json]:
    """Every turn that is kept, oldest first."""
    turns: list[Json] = []
    more = True
    while more:
        before = {"before": turns[0]["turn"]} if turns else {}
        page = await client.ask("history.get", conversation=conversation, limit=200, **before)
        turns = page["turns"] + turns
        more = page["more"]
    return turns
