"""A connection breaks, and the session goes on with another one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from disconnects import abort, comes_back
from support import Json, Start, eventually, of, opened, reply_to, until
from websockets.exceptions import ConnectionClosed

from npc_server import replies
from npc_server.app import App
from npc_server.client import Client, session
from npc_server.store import store as store_module

COUNTING = "One two three four five six seven eight nine ten."
SLOW = {"rules": [{"reply": COUNTING, "piece_ms": 30}]}


async def rest(client: Client) -> list[Json]:
    """What was sent until now: all that comes before the answer to a ping."""
    command = await client.send("ping")
    events = []
    while (event := await client.receive()).get("re") != command:
        events.append(event)
    return events


async def dropped(client: Client, app: App) -> None:
    """Let the connection break, and wait until the server knows."""
    abort(client)
    mine = client.welcome["session"]

    async def left() -> bool:
        return not any(mine in room.listeners for room in app.dialogue.rooms.all())

    await eventually(left)


async def test_a_token_goes_on_once_and_is_renewed(app: App) -> None:
    """The newest token goes on with the same session; one that was used does not any more."""
    async with session(app.address, player="minsu", role="player") as client:
        conversation = await opened(client)
        first = client.welcome
        assert not first["resumed"]
    async with session(app.address, player="minsu", role="player", resume=first["resume"]) as again:
        second = again.welcome
        assert (second["resumed"], second["session"]) == (True, first["session"])
        assert second["resume"] != first["resume"]
        said = await reply_to(again, conversation, "Here I am again.")
        assert of(said, "reply.done")
    async with session(app.address, player="minsu", role="player", resume=first["resume"]) as late:
        assert not late.welcome["resumed"]
        assert late.welcome["session"] != first["session"]
    async with session(app.address, player="minsu", role="player", resume=second["resume"]) as last:
        assert last.welcome["session"] == first["session"]


@pytest.mark.parametrize(
    "other",
    [
        {"player": "jiwoo"},
        {"world": "another"},
        {"role": None},
        {"resume": "no-such-token"},
    ],
    ids=["player", "world", "role", "token"],
)
async def test_a_token_is_of_its_owner_only(app: App, other: dict[str, Any]) -> None:
    """Another player, world or role, or a made-up token, begins a new session."""
    mine: dict[str, Any] = {"player": "minsu", "role": "player"}
    async with session(app.address, **mine) as client:
        await opened(client)
        token = client.welcome["resume"]
    async with session(app.address, **{**mine, "resume": token, **other}) as stranger:
        assert not stranger.welcome["resumed"]
        assert stranger.welcome["session"] != client.welcome["session"]
        assert await rest(stranger) == []


async def test_what_was_missed_comes_in_order_and_once(app: App) -> None:
    """Durable events after ``last`` are told again, each once, and then what happens."""
    async with session(app.address, player="minsu", role="player") as client:
        conversation = await opened(client)
        events = await reply_to(client, conversation, "Good morning.")
        durable = [event for event in events if "seq" in event]
        token = client.welcome["resume"]
    for known in range(len(durable)):
        last = {conversation: durable[known]["seq"]}
        async with session(
            app.address, player="minsu", role="player", resume=token, last=last
        ) as again:
            assert of(await rest(again), *{e["type"] for e in durable}) == durable[known + 1 :]
            token = again.welcome["resume"]
    async with session(app.address, player="minsu", role="player", resume=token, last=last) as end:
        new = [e for e in await reply_to(end, conversation, "And on.") if "seq" in e]
        numbers = [e["seq"] for e in new]
        assert numbers == list(range(durable[-1]["seq"] + 1, durable[-1]["seq"] + 1 + len(new)))


async def test_a_reply_goes_on_and_is_heard_whole(start: Start) -> None:
    """A reply goes on without its listener; who comes back has a snapshot, and then the rest."""
    async with start(SLOW) as app:
        async with session(app.address, player="minsu", role="player") as client:
            conversation = await opened(client)
            await client.send("say", conversation=conversation, text="Count!")
            begun = await until(client, "reply.started")
            await until(client, "reply.delta")
            await dropped(client, app)
        async with comes_back(app.address, client, {conversation: begun["seq"]}) as again:
            events = [event async for event in again.until_idle()]
    (snapshot,) = of(events, "reply.snapshot")
    assert not snapshot["restarted"]
    assert events.index(snapshot) < events.index(of(events, "reply.delta")[0])
    heard = snapshot["text"] + "".join(e["text"] for e in of(events, "reply.delta"))
    (done,) = of(events, "reply.done")
    assert (done["text"], done["finish"], heard) == (COUNTING, "stop", COUNTING)
    assert snapshot["sentences"] == []


async def test_a_reply_ends_where_nobody_comes_back(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while without listeners a reply ends as cancelled, and nothing new is begun."""
    monkeypatch.setattr(replies, "ABSENCE_SECONDS", 0.05)
    script = {"rules": [{"reply": COUNTING, "piece_ms": 200}]}
    async with start(script) as app:
        async with session(app.address, player="minsu", role="player") as client:
            conversation = await opened(client)
            await client.send("say", conversation=conversation, text="Count!")
            begun = await until(client, "reply.delta")
        last = {conversation: 0}

        async def over() -> bool:
            state = await app.store.load("default", conversation)
            return state is not None and state.reply is None

        await eventually(over)
        async with comes_back(app.address, client, last) as again:
            (done,) = of(await rest(again), "reply.done")
    assert done["finish"] == "cancelled"
    assert done["text"].startswith(begun["text"])


async def test_an_absence_begins_anew_with_every_break(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who came back and is gone again has the whole time once more."""
    monkeypatch.setattr(replies, "ABSENCE_SECONDS", 0.4)
    script = {"rules": [{"reply": COUNTING, "piece_ms": 150}]}
    async with start(script) as app:
        token: str | None = None
        last: dict[str, int] = {}
        conversation = ""
        for part in range(6):
            async with session(
                app.address, player="minsu", role="player", resume=token, last=last
            ) as client:
                if not part:
                    conversation = await opened(client)
                    await client.send("say", conversation=conversation, text="Count!")
                    last = {conversation: (await until(client, "reply.started"))["seq"]}
                await until(client, "reply.delta")
                token = client.welcome["resume"]
                await dropped(client, app)
            await asyncio.sleep(0.1)
        async with session(
            app.address, player="minsu", role="player", resume=token, last=last
        ) as client:
            done = await until(client, "reply.done")
    assert (done["finish"], done["text"]) == ("stop", COUNTING)


async def test_too_late_is_told(start: Start) -> None:
    """When the time is over the session is a new one, and the conversation is opened anew."""
    async with start(timeouts={"resume": 0.05}) as app:
        async with session(app.address, player="minsu", role="player") as client:
            conversation = await opened(client)
            events = await reply_to(client, conversation, "Good morning.")
            last = events[-1]["seq"]
        await asyncio.sleep(0.3)
        async with session(
            app.address, player="minsu", role="player", resume=client.welcome["resume"]
        ) as late:
            assert not late.welcome["resumed"]
            again = await late.ask("conversation.open", conversation=conversation, since=last)
            assert again["tail"] == []
            assert again["seq"] == last + 1


async def test_a_trimmed_past_is_replaced(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not all that was missed is kept, the conversation is told anew, up to a ``seq``."""
    monkeypatch.setattr(store_module, "EVENTS_KEPT", 1)
    async with start() as app:
        async with AsyncExitStack() as stack:
            client = await stack.enter_async_context(session(app.address, player="minsu"))
            conversation = await opened(client)
            first = await reply_to(client, conversation, "Good morning.")
            for number in range(60):
                last = await reply_to(client, conversation, f"Number {number}.")
            token = client.welcome["resume"]
        seq = last[-1]["seq"]
        known = {conversation: first[-1]["seq"]}
        async with session(app.address, player="minsu", resume=token, last=known) as again:
            (reset,) = await rest(again)
            assert (reset["type"], reset["seq"]) == ("conversation.reset", seq)
            assert [t["text"] for t in reset["tail"] if t["kind"] == "say"][-1] == "Number 59."
            token = again.welcome["resume"]
        known = {conversation: seq + 5}
        async with session(app.address, player="minsu", resume=token, last=known) as ahead:
            (reset,) = await rest(ahead)
            assert (reset["type"], reset["seq"]) == ("conversation.reset", seq)


async def test_the_older_connection_is_replaced(start: Start) -> None:
    """A newer connection closes the older with 4409, which takes nothing away from the newer."""
    async with start(SLOW) as app, AsyncExitStack() as stack:
        older = await stack.enter_async_context(session(app.address, player="minsu", role="player"))
        conversation = await opened(older)
        await older.send("say", conversation=conversation, text="Count!")
        begun = await until(older, "reply.started")
        newer = await stack.enter_async_context(
            session(
                app.address,
                player="minsu",
                role="player",
                resume=older.welcome["resume"],
                last={conversation: begun["seq"]},
            )
        )
        with pytest.raises(ConnectionClosed) as closed:
            await until(older, "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4409
        events = [event async for event in newer.until_idle()]
        heard = "".join(e["text"] for e in of(events, "reply.snapshot", "reply.delta"))
        assert heard == of(events, "reply.done")[0]["text"] == COUNTING
        assert of(await reply_to(newer, conversation, "Again!"), "reply.done")


async def test_a_session_goes_on_after_a_restart(start: Start) -> None:
    """Token and events outlive the server; what was being said then is told as it ended."""
    async with start(SLOW, timeouts={"drain": 0.05}) as app:
        client_session = session(app.address, player="minsu", role="player")
        client = await client_session.__aenter__()
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        begun = await until(client, "reply.started")
        await until(client, "reply.delta")
        abort(client)
    async with (
        start(SLOW) as app,
        comes_back(app.address, client, {conversation: begun["seq"]}) as again,
    ):
        assert again.welcome["resumed"]
        assert again.welcome["session"] == client.welcome["session"]
        missed = await rest(again)
        assert of(missed, "reply.done")[0]["finish"] == "cancelled"
        assert COUNTING.startswith(of(missed, "reply.done")[0]["text"])
        assert of(await reply_to(again, conversation, "Once more!"), "reply.done")


async def test_what_was_not_kept_in_time_is_resumed_too(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may break before the server kept that a conversation was opened."""
    store, kept = type(app.store), type(app.store).keep_session

    async def slow(self: Any, *about: Any, anew: bool) -> bool:
        return await kept(self, *about, anew=anew) if anew else True

    monkeypatch.setattr(store, "keep_session", slow)
    async with session(app.address, player="minsu", role="player") as client:
        event = await client.ask("conversation.open", npcs=["bram"], greet="never")
        conversation = event["conversation"]
        await rest(client)
    async with comes_back(
        app.address, client, {conversation: event["seq"], "somebody-elses": 3}
    ) as again:
        assert of(await reply_to(again, conversation, "Good morning."), "reply.done")


async def test_a_command_is_carried_out_whole_although_its_connection_breaks(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A break while a say is being committed: the reply is made, and both are told later."""
    async with start(SLOW) as app:
        store, commit = type(app.store), type(app.store).commit
        committing, broken = asyncio.Event(), asyncio.Event()

        async def slow(self: Any, *states: Any, **how: Any) -> Any:
            done = await commit(self, *states, **how)
            if how["take_lease"] and not committing.is_set():
                committing.set()
                await broken.wait()
            return done

        async with session(app.address, player="minsu", role="player") as client:
            conversation = await opened(client)
            monkeypatch.setattr(store, "commit", slow)
            command = await client.send("say", conversation=conversation, text="Count!")
            await committing.wait()
            abort(client)
        sessions = app.dialogue.rooms.all()[0].listeners
        assert sessions
        broken.set()
        async with comes_back(app.address, client, {}) as again:
            events = [event async for event in again.until_idle()]
            (turn,) = of(events, "turn")
            assert (turn["text"], turn["re"]) == ("Count!", command)
            assert of(events, "reply.done")[0]["text"] == COUNTING


async def test_an_answer_comes_again_on_another_connection(app: App) -> None:
    """A command that concerns no single conversation is not done twice when it is sent again."""
    async with session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await reply_to(client, conversation, "Good morning.")
        command = await client.send("checkpoint.save", name="dawn")
        first = await until(client, "checkpoint.saved")
        await reply_to(client, conversation, "Good evening.")
    async with session(app.address, player="minsu", resume=client.welcome["resume"]) as again:
        await rest(again)
        await again.send("checkpoint.save", name="dawn", id=command)
        assert await until(again, "checkpoint.saved") == first
        (kept,) = (await again.ask("checkpoint.list"))["checkpoints"]
        assert kept["bytes"] == first["bytes"]
