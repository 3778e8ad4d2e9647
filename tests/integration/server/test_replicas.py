"""Several servers on one Redis: players of one conversation are at different ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from disconnects import abort, comes_back
from following import Story
from redis.asyncio import Redis
from support import Json, Start, acting_smith, eventually, of, opened, until
from websockets.exceptions import ConnectionClosed

from npc_server import replies, rooms
from npc_server.app import App
from npc_server.client import Client, session
from npc_server.store import EmbeddedRedis

_SPOKEN = {"reply.delta", "reply.sentence", "reply.emotion"}
COUNTING = "One two three four five six seven eight nine ten eleven twelve."
SLOW = {"rules": [{"reply": COUNTING, "piece_ms": 60}]}


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    """A Redis that several servers share."""
    redis = EmbeddedRedis(tmp_path / "redis")
    yield await redis.start()
    await redis.stop()


@pytest.fixture
def pair(start: Start, redis_url: str, tmp_path: Path) -> Any:
    """Start two servers, here and there."""

    @asynccontextmanager
    async def begin(script: Json | None = None, **settings: Any) -> AsyncIterator[tuple[App, App]]:
        shared = {"redis_url": redis_url, **settings}
        async with (
            start(script, watched=False, data_dir=tmp_path / "here", **shared) as here,
            start(script, data_dir=tmp_path / "there", **shared) as there,
        ):
            yield here, there

    return begin


@dataclass
class Ear:
    """A session, and all that it heard of one conversation."""

    client: Client
    conversation: str
    story: Story = field(default_factory=Story)
    events: list[Json] = field(default_factory=list)

    async def until(self, type_: str, **fields: Any) -> Json:
        """Hear everything up to an event of a type with these fields."""
        async with asyncio.timeout(20):
            while True:
                event = await self.client.receive()
                assert event["type"] != "error", event
                self.events.append(event)
                self.story.take(event)
                if event["type"] == type_ and fields.items() <= event.items():
                    return event

    async def say(self, text: str, **fields: Any) -> str:
        """Say something; its turn's id."""
        command = await self.client.send("say", conversation=self.conversation, text=text, **fields)
        return str((await self.until("ack", re=command))["turn"])

    async def quiet(self) -> list[Json]:
        """What comes without anything being done: all that is on its way by now."""
        command, before = await self.client.send("ping"), len(self.events)
        await self.until("pong", re=command)
        return self.events[before:-1]


@asynccontextmanager
async def two(
    here: App, there: App, players: tuple[str, str] = ("minsu", "jiwoo"), **opening: Any
) -> AsyncIterator[tuple[Ear, Ear]]:
    """Two players of one conversation, one at each server; the same one twice if so named."""
    async with (
        session(here.address, player=players[0], role="player") as one,
        session(there.address, player=players[1], role="player") as other,
    ):
        first = await one.ask(
            "conversation.open", **{"npcs": ["bram"], "greet": "never", **opening}
        )
        second = await other.ask(
            "conversation.open", conversation=first["conversation"], invite=first["invite"]
        )
        ears = Ear(one, first["conversation"]), Ear(other, first["conversation"])
        ears[0].story.take(first)
        ears[1].story.take(second)
        await settled(here, there, first["conversation"])
        for ear in ears:
            await ear.quiet()
        yield ears


async def settled(here: App, there: App, conversation: str) -> None:
    """Wait until both servers know the same of a conversation, and both listen to it."""

    async def same() -> bool:
        rooms = [app.dialogue.rooms.known("default", conversation) for app in (here, there)]
        state = await here.store.load("default", conversation)
        return all(
            room is not None and state is not None and room.state.revision == state.revision
            for room in rooms
        )

    await eventually(same)


def heard(ear: Ear, turn: str) -> str:
    """The deltas of a reply, joined."""
    deltas = of(ear.events, "reply.delta")
    return "".join(event["text"] for event in deltas if event["turn"] == turn)


async def test_both_hear_everything(pair: Any) -> None:
    """Turns, deltas and ends reach the player at the other server; deltas make up the text."""
    async with pair(SLOW) as (here, there), two(here, there) as (minsu, jiwoo):
        turn = await minsu.say("Count!")
        for ear in (minsu, jiwoo):
            await ear.until("scene.idle", turn=turn)
            assert of(ear.events, "turn")[0]["text"] == "Count!"
            (done,) = of(ear.events, "reply.done")
            assert heard(ear, done["turn"]) == done["text"] == COUNTING
        assert len(of(jiwoo.events, "reply.delta")) > 1
        answered = await jiwoo.say("And you, Bram?")
        for ear in (minsu, jiwoo):
            await ear.until("scene.idle", turn=answered)
            assert ear.story.exact == 2
        assert minsu.story.last == jiwoo.story.last
        shown = [of(ear.events, "reply.sentence", "reply.emotion") for ear in (minsu, jiwoo)]
        assert shown[0] == shown[1]
        assert len(of(shown[0], "reply.sentence")) == len(of(shown[0], "reply.emotion")) == 2
        first = next(e["type"] for e in jiwoo.events if e["type"] in _SPOKEN)
        assert first == "reply.emotion"


async def test_a_short_reply_is_relayed_whole(pair: Any) -> None:
    """A reply that is over before any of it was kept has its deltas at the other server too."""
    script = {"rules": [{"reply": "Quick as a cat."}]}
    async with pair(script) as (here, there), two(here, there) as (minsu, jiwoo):
        for number in range(3):
            turn = await minsu.say(f"Quick, {number}!")
            await jiwoo.until("scene.idle", turn=turn)
            (*_, done) = of(jiwoo.events, "reply.done")
            assert heard(jiwoo, done["turn"]) == done["text"]
        assert jiwoo.story.exact == 3


async def test_whispers_stay_whispers(pair: Any) -> None:
    """What is whispered at one server, and its answer, is not told at the other."""
    async with pair(SLOW) as (here, there), two(here, there) as (minsu, jiwoo):
        turn = await minsu.say("The key is under the mat.", whisper=True, to=["bram"])
        await minsu.until("scene.idle", turn=turn)
        await settled(here, there, minsu.conversation)
        assert await jiwoo.quiet() == []
        loud = await minsu.say("Aloud again.")
        await jiwoo.until("scene.idle", turn=loud)
        assert all("key" not in str(event) for event in jiwoo.events)
        assert turn not in {event.get("turn") for event in jiwoo.events}


async def test_a_player_cuts_the_reply_of_the_other_server(pair: Any) -> None:
    """Who interrupts elsewhere cuts to what it heard; all know the same text of it."""
    async with (
        pair(SLOW) as (here, there),
        two(here, there, ("minsu", "minsu")) as (mouth, hand),
    ):
        await mouth.say("Count!")
        delta = await hand.until("reply.delta")
        while len(heard(hand, delta["turn"])) < 8:
            await hand.until("reply.delta")
        await hand.client.send("interrupt", conversation=hand.conversation, heard_chars=7)
        for ear in (mouth, hand):
            await ear.until("scene.idle")
            (done,) = of(ear.events, "reply.done")
            assert done["finish"] == "interrupted"
            assert heard(ear, done["turn"]) == done["text"]
            assert COUNTING.startswith(done["text"])
            assert done["text"] != COUNTING
            assert of(ear.events, "reply.heard")[0]["heard"] == 7
        history = await hand.client.ask("history.get", conversation=hand.conversation)
        assert [t["text"] for t in history["turns"]] == ["Count!", "One two"]
        turn = await hand.say("Go on, then.")
        await mouth.until("scene.idle", turn=turn)
        await hand.until("scene.idle", turn=turn)
        assert mouth.story.exact == hand.story.exact == 2


async def test_who_speaks_elsewhere_cuts_what_is_said_to_it(pair: Any) -> None:
    """A say at the other server ends the reply and is answered; nothing is told twice."""
    async with (
        pair(SLOW) as (here, there),
        two(here, there, ("minsu", "minsu")) as (mouth, hand),
    ):
        await mouth.say("Count!")
        await hand.until("reply.delta")
        turn = await hand.say("Stop! Something else.")
        for ear in (mouth, hand):
            await ear.until("scene.idle", turn=turn)
            first, second = of(ear.events, "reply.done")
            assert (first["finish"], second["finish"]) == ("interrupted", "stop")
            assert heard(ear, first["turn"]) == first["text"]
            assert heard(ear, second["turn"]) == second["text"] == COUNTING


async def test_who_speaks_to_somebody_else_waits(pair: Any) -> None:
    """A say elsewhere does not cut what is said to another player: it is answered after that."""
    async with pair(SLOW) as (here, there), two(here, there) as (minsu, jiwoo):
        first = await minsu.say("Count!")
        await jiwoo.until("reply.delta")
        second = await jiwoo.say("And I?")
        for ear in (minsu, jiwoo):
            await ear.until("scene.idle", turn=second)
            done = of(ear.events, "reply.done")
            assert [event["finish"] for event in done] == ["stop", "stop"]
            idle = [event["turn"] for event in of(ear.events, "scene.idle")]
            assert idle == [first, second]
            assert ear.story.exact == 2
        reply = of(jiwoo.events, "reply.started")[-1]
        assert (reply["to"], reply["answers"]) == (["jiwoo"], second)


async def test_what_was_set_elsewhere_is_known(pair: Any) -> None:
    """Facts, moods and the cast that a host sets at one server are in the other's next prompt."""
    async with (
        pair() as (here, there),
        two(here, there) as (minsu, jiwoo),
        session(there.address, player="minsu") as host,
    ):
        about = {"conversation": minsu.conversation}
        await host.ask("conversation.open", **about)
        await host.ask("context.set", facts={"weather": "a canary storm"}, **about)
        await host.ask("npc.set", member="bram", mood="in a heron mood", **about)
        await host.ask("conversation.join", npc="mina", **about)
        await settled(here, there, minsu.conversation)
        turn = await minsu.say("Bram, how are you?")
        await minsu.until("scene.idle", turn=turn)
        await jiwoo.until("scene.idle", turn=turn)
        prompt = str(here.engine.requests[-1].messages)
        assert "a canary storm" in prompt
        assert "in a heron mood" in prompt
        assert "mina" in str(of(minsu.events, "cast.changed"))


async def test_going_back_elsewhere_is_seen(pair: Any) -> None:
    """Regenerate, rewind and load at one server are told and known at the other."""
    script = {"rules": [{"reply": ["First words.", "Second words.", "Third words."]}]}
    async with (
        pair(script) as (here, there),
        two(here, there) as (minsu, jiwoo),
        session(there.address, player="minsu") as host,
    ):
        about = {"conversation": minsu.conversation}
        first = await minsu.say("Hello.")
        (done,) = [await ear.until("reply.done") for ear in (minsu, jiwoo)][:1]
        await jiwoo.until("scene.idle", turn=first)
        await settled(here, there, minsu.conversation)
        await host.ask("checkpoint.save", name="dawn")
        await host.ask("regenerate", turn=done["turn"], **about)
        again = await minsu.until("reply.done")
        assert (heard(minsu, again["turn"]), minsu.story.exact) == (again["text"], 2)
        await settled(here, there, minsu.conversation)
        await host.ask("rewind", to_turn=first, **about)
        reset = await minsu.until("conversation.reset")
        assert [turn["text"] for turn in reset["tail"]] == ["Hello."]
        await settled(here, there, minsu.conversation)
        later = await minsu.say("A heron flew by.")
        await minsu.until("scene.idle", turn=later)
        await settled(here, there, minsu.conversation)
        await host.ask("checkpoint.load", name="dawn")
        reset = await minsu.until("conversation.reset")
        assert [turn["text"] for turn in reset["tail"]] == ["Hello.", done["text"]]
        last = await minsu.say("And now?")
        await minsu.until("scene.idle", turn=last)
        assert "heron" not in str(here.engine.requests[-1].messages)
        await jiwoo.until("scene.idle", turn=last)


async def test_a_load_elsewhere_ends_what_is_being_said(pair: Any) -> None:
    """A load at one server while the other speaks: the reply is no more, at both."""
    async with (
        pair(SLOW) as (here, there),
        two(here, there) as (minsu, jiwoo),
        session(there.address, player="minsu") as host,
    ):
        await host.ask("checkpoint.save", name="before")
        await minsu.say("Count!")
        await minsu.until("reply.delta")
        await host.ask("checkpoint.load", name="before")
        for ear in (minsu, jiwoo):
            reset = await ear.until("conversation.reset")
            assert reset["tail"] == []
        await settled(here, there, minsu.conversation)
        await minsu.quiet()
        turn = await minsu.say("Again!")
        for ear in (minsu, jiwoo):
            await ear.until("scene.idle", turn=turn)
            (done,) = of(ear.events, "reply.done")
            assert heard(ear, done["turn"]).endswith(done["text"])
            assert ear.story.exact == 1


async def test_a_conversation_that_is_deleted_elsewhere_is_closed(pair: Any) -> None:
    """What is forgotten or not in a loaded save is closed at every server."""
    async with (
        pair(SLOW) as (here, there),
        session(there.address, player="minsu") as host,
    ):
        await host.ask("checkpoint.save", name="empty")
        async with two(here, there) as (minsu, jiwoo):
            await minsu.say("Count!")
            await minsu.until("reply.delta")
            await host.ask("checkpoint.load", name="empty")
            await minsu.until("conversation.closed")
            await jiwoo.until("conversation.closed")
            assert here.dialogue.rooms.known("default", minsu.conversation) is None
            assert there.dialogue.rooms.known("default", minsu.conversation) is None
        assert (await host.ask("player.export"))["parts"] == 1


async def test_lost_wakes_are_caught_up(pair: Any, redis_url: str) -> None:
    """While the servers hear nothing of each other, much is said; all of it is told in the end."""
    async with (
        pair(SLOW) as (here, there),
        two(here, there) as (minsu, jiwoo),
        Redis.from_url(redis_url) as redis,
    ):
        for _ in range(3):
            turn = await minsu.say("Count!")
            await minsu.until("reply.delta")
            assert await redis.client_kill_filter(_type="pubsub") >= 2
            await minsu.until("scene.idle", turn=turn)
            await jiwoo.until("scene.idle", turn=turn)
        assert minsu.story.exact == jiwoo.story.exact == 3
        assert minsu.story.last == jiwoo.story.last


async def test_many_missed_events_are_replaced(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server missed more than is kept, its players are told the conversation anew."""
    monkeypatch.setattr(rooms, "TAIL_EVENTS", 3)
    script = {"rules": [{"reply": "Quick as a cat."}]}
    async with pair(script) as (here, there), two(here, there) as (minsu, jiwoo):
        room = there.dialogue.rooms.known("default", jiwoo.conversation)
        assert room is not None
        async with room.lock:
            for number in range(3):
                turn = await minsu.say(f"Quick, {number}!")
                await minsu.until("scene.idle", turn=turn)
        reset = await jiwoo.until("conversation.reset")
        assert reset["seq"] == minsu.story.last
        assert [t["text"] for t in reset["tail"]][::2] == ["Quick, 0!", "Quick, 1!", "Quick, 2!"]
        turn = await minsu.say("And on.")
        await jiwoo.until("scene.idle", turn=turn)


async def test_a_session_moves_to_another_server(pair: Any) -> None:
    """Who comes back at another server hears the reply go on there, to its end."""
    long = {"rules": [{"reply": COUNTING * 3, "piece_ms": 150}]}
    async with pair(long) as (here, there):
        async with session(here.address, player="minsu", role="player") as client:
            conversation = await opened(client)
            await client.send("say", conversation=conversation, text="Count!")
            begun = await until(client, "reply.started")
            await until(client, "reply.delta")
            abort(client)
        async with comes_back(there.address, client, {conversation: begun["seq"]}) as again:
            assert again.welcome["resumed"]
            ear = Ear(again, conversation)
            done = await ear.until("reply.done")
            snapshot = of(ear.events, "reply.snapshot")[0]
            assert snapshot["text"] + heard(ear, done["turn"]) == done["text"]
            assert (done["finish"], done["text"]) == ("stop", COUNTING * 3)
            assert not of(ear.events, "reply.started")


async def test_a_session_is_at_one_server(pair: Any) -> None:
    """The older connection at another server is closed with its next command."""
    who = partial(session, player="minsu", role="player")
    async with pair() as (here, there), who(here.address) as older:
        await opened(older)
        token = older.welcome["resume"]
        async with who(there.address, resume=token) as newer:
            assert newer.welcome["resumed"]
            await opened(older)
            with pytest.raises(ConnectionClosed) as closed:
                await until(older, "never")
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4409


async def test_a_server_that_falls_silent_is_relieved(pair: Any) -> None:
    """Its lease lapses, and the other server says the reply anew, as attempt 2, to both players.

    The silent one comes to itself: it tells its own player of the other attempt.
    """
    async with pair(SLOW) as (here, there), two(here, there) as (minsu, jiwoo):
        turn = await minsu.say("Count!")
        await jiwoo.until("reply.delta")
        live = here.dialogue.rooms.known("default", minsu.conversation).live
        for task in live.tasks:
            task.cancel()
        for ear in (minsu, jiwoo):
            await ear.until("scene.idle", turn=turn)
            assert [event["attempt"] for event in of(ear.events, "reply.started")] == [1, 2]
            (done,) = of(ear.events, "reply.done")
            assert (done["text"], done["finish"]) == (COUNTING, "stop")
            assert ear.story.exact == 1


GIVES: Json = {"emotion": "happy", "action": "give_item", "args": {"item": "knife", "count": 1}}
ACTING: Json = {
    "rules": [
        {"match": "Count!", "times": 1, "json": {**GIVES, "action": "none", "args": {}}},
        {"json": GIVES, "first_ms": 400},
        {"match": "You did this", "reply": "Here, mind the edge."},
        {"match": "refused", "reply": "It will not be."},
        {"reply": COUNTING, "piece_ms": 60},
    ]
}


async def test_a_deed_is_done_where_its_player_is(pair: Any, tmp_path: Path) -> None:
    """What an NPC at one server does is executed by a player at the other, and told to the NPC."""
    personas = (acting_smith(tmp_path / "personas"),)
    async with pair(ACTING, personas=personas) as (here, there), two(here, there) as (minsu, jiwoo):
        await minsu.say("Count!")
        await jiwoo.until("reply.delta")
        turn = await jiwoo.say("A knife, please.")
        action = await jiwoo.until("reply.action")
        assert action["execute"]
        assert here.dialogue.rooms.known("default", minsu.conversation).live is not None
        await jiwoo.client.answer(action, ok=True)
        for ear in (minsu, jiwoo):
            await ear.until("scene.idle", turn=turn)
            assert of(ear.events, "action.settled")[0]["ok"]
            assert of(ear.events, "reply.done")[-1]["text"] == "Here, mind the edge."
        (seen,) = of(minsu.events, "reply.action")
        assert (seen["call"], seen["execute"]) == (action["call"], False)


async def test_a_deed_follows_its_player_to_another_server(pair: Any, tmp_path: Path) -> None:
    """A connection breaks before the action came: at the other server it is given, and settled."""
    personas = (acting_smith(tmp_path / "personas"),)
    async with pair(ACTING, personas=personas) as (here, there):
        async with session(here.address, player="minsu", role="player") as client:
            conversation = await opened(client)
            await client.send("say", conversation=conversation, text="A knife, please.")
            begun = await until(client, "reply.started")
            abort(client)

        async def proposed() -> bool:
            state = await here.store.load("default", conversation)
            return bool(state and state.reply and state.reply.actions)

        await eventually(proposed)
        async with comes_back(there.address, client, {conversation: begun["seq"]}) as again:
            ear = Ear(again, conversation)
            given = await ear.until("reply.action", execute=True)
            await again.answer(given, ok=True)
            done = await ear.until("reply.done")
            assert done["text"] == "Here, mind the edge."
            assert [e["execute"] for e in of(ear.events, "reply.action")] == [False, True]


async def test_a_server_that_hangs_is_cut_all_the_same(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server that speaks does not end its reply in time, what was kept of it stands."""
    monkeypatch.setattr(replies, "CUT_SECONDS", 0.1)
    async with (
        pair(SLOW) as (here, there),
        two(here, there, ("minsu", "minsu")) as (mouth, hand),
    ):
        await mouth.say("Count!")
        await hand.until("reply.delta")
        async with here.dialogue.rooms.known("default", mouth.conversation).lock:
            await hand.client.send("interrupt", conversation=hand.conversation)
            done = await hand.until("reply.done")
            await hand.until("scene.idle")
        assert done["finish"] == "interrupted"
        assert COUNTING.startswith(done["text"])
        assert (heard(hand, done["turn"]), hand.story.exact) == (done["text"], 1)
        (turn,) = (await hand.client.ask("history.get", conversation=hand.conversation, limit=1))[
            "turns"
        ]
        assert turn["text"] == done["text"]
