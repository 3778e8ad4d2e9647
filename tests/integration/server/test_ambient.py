"""NPCs left to themselves: inside their budget, without going round in circles, and giving way."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from support import Json, Start, of, said, table, told, until

from npc_server.app import App
from npc_server.client import Client
from npc_server.clock import Clock
from npc_server.conversation.model import Conversation
from npc_server.reply.repetition import MOST, loops_in, overlap

FAST = 100
"""So many times faster does the server's time go by."""

FOUR = ("bram", "ysolde", "pip", "vesper")
WHO = ("The miller", "My cousin", "That mule", "The ferryman", "Some pedlar", "Our priest")
DID = (
    "sold hens",
    "lost boots",
    "fell asleep",
    "found coins",
    "told lies",
    "sang hymns",
    "ate figs",
)
WHERE = (
    *("by moonlight.", "in town!", "under carts.", "on Sunday.", "near Yarrow.", "at sea."),
    "for fun.",
)
VARIED = [
    f"{who} {did} {WHERE[(n + m) % len(WHERE)]}"
    for n, did in enumerate(DID)
    for m, who in enumerate(WHO)
]
SAME = "The mill wheel turns and turns, and nobody ever comes to oil it."
OTHER = "I hear that creaking all night long, and so does my neighbour."


def fast() -> Clock:
    """A clock that goes ``FAST`` times as fast as the real one."""
    began, wall = time.monotonic(), time.time_ns() // 1_000_000

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds / FAST)

    return Clock(
        wall_ms=lambda: wall + round((time.monotonic() - began) * FAST * 1000),
        monotonic=lambda: began + (time.monotonic() - began) * FAST,
        sleep=sleep,
    )


def state(app: App) -> Conversation:
    (room,) = app.dialogue.rooms.all()
    return room.state


async def listened(client: Client, minutes: float) -> list[Json]:
    """What a client hears in so many minutes of the server's time."""
    await asyncio.sleep(minutes * 60 / FAST)
    return await told(client)


def spoken_in(events: list[Json]) -> list[str]:
    return [event["text"] for event in of(events, "reply.done") if event["text"]]


@pytest.mark.parametrize(
    "replies",
    [
        VARIED,
        [SAME],
        [SAME, OTHER],
        [f"Ysolde! {SAME}", f"Bram! {OTHER}", f"Well, {SAME}", f"Pip! {SAME} {OTHER}"],
        ["Round and round and round and round and round and round and round we go."],
        ["Aye."],
        ["물레방아가 밤새도록 돌고 또 도는데 아무도 기름을 치러 오지 않네."],
    ],
)
async def test_four_npcs_left_alone(start: Start, replies: list[str]) -> None:
    """Five minutes: no minute has more than their budget, and no line says what one before said.

    An engine that would repeat itself for ever gets no further than its first lines.
    """
    script = {"rules": [{"reply": replies}]}
    async with (
        start(script, clock=fast()) as app,
        table(app, "minsu", npcs=FOUR) as (conversation, (minsu, host)),
    ):
        await host.ask("conversation.set", conversation=conversation, ambient="on")
        await told(minsu)
        events = await listened(minsu, 5)
        while len(of(events, "reply.done")) < 6:
            events += await listened(minsu, 1)  # On a machine that is busy with something else.
        await host.ask("conversation.set", conversation=conversation, ambient="off")
        unasked, budget = state(app).unasked, state(app).around.ambient.per_minute
        for first, last in zip(unasked, unasked[budget:], strict=False):
            assert last - first >= 60_000
        assert abs(len(of(events, "reply.started")) - len(unasked)) <= 1
        spoken = spoken_in(events)
        for n, text in enumerate(spoken):
            assert not loops_in(text)
            earlier = spoken[max(0, n - 8) : n]
            assert text not in earlier
            assert not earlier or overlap(text, *earlier) < MOST
        if replies is VARIED:
            speaking = [e["speaker"] for e in of(events, "reply.started")]
            assert len(set(speaking)) >= 3
            assert not all(one == other for one, other in pairwise(speaking))
        else:
            assert len(set(spoken)) <= 2 * len(replies)
            assert len(spoken) < len(of(events, "reply.done"))
            silent = [e for e in of(events, "reply.done") if not e["text"]]
            assert {e["finish"] for e in silent} == {"cancelled"}
        assert {e["finish"] for e in of(events, "reply.done")} <= {"stop", "cancelled"}


async def test_they_stop_when_a_player_speaks(start: Start) -> None:
    """Within one token: after the ack at most one more delta comes; the player is answered next."""
    talk = {"reply": " ".join(f"{w} and {w}ish." for w in "abcdefghijklmnopqrstuvw"), "times": 1}
    script = {"rules": [{**talk, "piece_ms": 30}, {"reply": VARIED}]}
    async with (
        start(script, clock=fast()) as app,
        table(app, "minsu", npcs=FOUR) as (conversation, (minsu, host)),
    ):
        await host.ask("conversation.set", conversation=conversation, ambient="on")
        started = await until(minsu, "reply.started")
        assert started["to"]
        assert "minsu" not in started["to"]
        await until(minsu, "reply.sentence")
        command = await minsu.send("say", conversation=conversation, text="Pip, quiet, please!")
        await until(minsu, "ack", re=command)
        after: list[Json] = []
        while not of(after, "reply.started"):
            after.append(await minsu.receive())
        assert len(of(after, "reply.delta")) <= 1
        assert [e["finish"] for e in of(after, "reply.done")] == ["interrupted"]
        answer = after[-1]
        assert (answer["speaker"], answer["to"]) == ("pip", ["minsu"])
        assert answer["answers"] == of(after, "turn")[0]["turn"]
        await host.ask("conversation.set", conversation=conversation, ambient="off")


async def test_they_are_silent_where_they_are_told_so(start: Start) -> None:
    """Nobody begins while it is off, in a cutscene, or while a player types."""
    script = {"rules": [{"reply": VARIED}]}
    async with (
        start(script, clock=fast()) as app,
        table(app, "minsu", npcs=FOUR) as (conversation, (minsu, host)),
    ):
        about = {"conversation": conversation}
        assert await listened(minsu, 1.5) == []
        await host.ask("conversation.set", **about, ambient="on", hold=True)
        assert of(await listened(minsu, 1.5), "reply.started") == []
        await host.ask("conversation.set", **about, hold=False)
        await until(minsu, "reply.done")
        await host.ask("conversation.set", **about, ambient="off")
        await listened(minsu, 0.5)
        assert of(await listened(minsu, 1.5), "reply.started") == []
        assert of(await said(minsu, conversation, "Pip, why so silent?"), "reply.done")


async def test_nobody_talks_to_an_empty_room(start: Start) -> None:
    """With no one to listen, nothing is made; whoever comes back finds nothing new."""
    script = {"rules": [{"reply": VARIED}]}
    async with (
        start(script, clock=fast()) as app,
        table(app, "minsu", npcs=FOUR) as (conversation, (minsu, host)),
    ):
        about = {"conversation": conversation}
        await host.ask("conversation.set", **about, ambient="on")
        await until(minsu, "reply.done")
        await host.ask("conversation.close", **about, player="minsu")
        asked = len(app.engine.requests)  # type: ignore[attr-defined]
        await asyncio.sleep(90 / FAST)
        assert len(app.engine.requests) == asked  # type: ignore[attr-defined]
        await minsu.ask("conversation.open", **about)
        await until(minsu, "reply.started")
        await host.ask("conversation.set", **about, player="minsu", ambient="off")
