"""Conversations over a real socket, from opening to being forgotten."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from support import Start, eventually, of, opened, reply_to, until

from npc_server import replies
from npc_server.app import App
from npc_server.client import Client, Refused, session
from npc_server.conversation.model import Conversation
from npc_server.store import Fenced, Store

SLOW = {"rules": [{"reply": "One two zanzibar. Four five six. Seven eight nine.", "piece_ms": 30}]}


async def test_an_npc_answers(client: Client) -> None:
    """A say is acknowledged, comes back as a turn, and is answered in streamed text."""
    conversation = await opened(client)
    events = await reply_to(client, conversation, "Good morning!")
    types = [event["type"] for event in events]
    assert types[:3] == ["ack", "turn", "reply.started"]
    assert types[-2:] == ["reply.done", "scene.idle"]
    assert types.index("reply.emotion") < types.index("reply.delta")
    done = of(events, "reply.done")[0]
    assert done["text"]
    assert done["text"] == "".join(e["text"] for e in of(events, "reply.delta"))
    assert done["finish"] == "stop"
    assert done["usage"]["completion"] > 0
    for sentence in of(events, "reply.sentence"):
        start = sentence["start_char"]
        assert done["text"][start : start + len(sentence["text"])] == sentence["text"]


async def test_durable_events_are_numbered(client: Client) -> None:
    """Seq rises by one over opening, turns and replies, and nothing else carries one."""
    conversation = await opened(client)
    events = await reply_to(client, conversation, "Hello")
    events += await reply_to(client, conversation, "Hello again")
    numbers = [event["seq"] for event in events if "seq" in event]
    assert numbers == list(range(2, 2 + len(numbers)))
    assert not any("seq" in e for e in of(events, "reply.delta", "reply.sentence", "ack"))


async def test_a_greeting_is_an_ordinary_reply(client: Client) -> None:
    """A new conversation begins with an authored greeting; a reopened one does not."""
    first = await client.ask("conversation.open", npcs=["bram"])
    greeting = [event async for event in client.until_idle()]
    done = of(greeting, "reply.done")[0]
    assert first["reply"] == done["turn"]
    again = await client.ask("conversation.open", conversation=first["conversation"])
    assert "reply" not in again
    assert done["text"] in [e.get("text") for e in again["tail"]]


async def test_the_tail_begins_after_since(client: Client) -> None:
    """A client that knows events up to a seq gets those after it, and no others."""
    conversation = await opened(client)
    events = await reply_to(client, conversation, "Hello")
    known = of(events, "turn")[0]["seq"]
    again = await client.ask("conversation.open", conversation=conversation, since=known)
    missed = [e for e in events if e.get("seq", 0) > known]
    assert again["tail"] == missed


async def test_the_same_id_makes_one_turn(app: App, client: Client) -> None:
    """A command sent twice, also on a new connection, is acknowledged twice and done once."""
    conversation = await opened(client)
    say = {"type": "say", "id": "say-1", "conversation": conversation, "text": "Hello"}
    first = [event async for event in repeated(client, say)]
    await client.connection.send(dumps(say))
    assert await client.receive() == of(first, "ack")[0]
    async with session(app.address, player="minsu") as other:
        await other.ask("conversation.open", conversation=conversation)
        await other.connection.send(dumps(say))
        assert await other.receive() == of(first, "ack")[0]
        history = await other.ask("history.get", conversation=conversation)
    assert [turn["text"] for turn in history["turns"]][:1] == ["Hello"]
    assert len(history["turns"]) == 2


async def repeated(client: Client, frame: dict[str, Any]) -> Any:
    await client.connection.send(dumps(frame))
    async for event in client.until_idle():
        yield event


def dumps(frame: dict[str, Any]) -> str:
    return json.dumps(frame)


async def test_interrupt_keeps_what_was_heard(start: Start) -> None:
    """Cutting in ends the reply at the heard part: in the event, the history and the prompt."""
    async with start(SLOW) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        delta = await until(client, "reply.delta")
        await until(client, "reply.sentence")
        await client.send("interrupt", conversation=conversation, heard_chars=7)
        done = await until(client, "reply.done")
        assert done["finish"] == "interrupted"
        heard = await until(client, "reply.heard")
        assert (heard["turn"], heard["heard"]) == (delta["turn"], 7)
        await until(client, "scene.idle")
        history = await client.ask("history.get", conversation=conversation)
        assert (history["turns"][-1]["text"], history["turns"][-1]["cut"]) == ("One two", True)
        events = await reply_to(client, conversation, "And now?")
        prompts = app.dialogue.replies.speaker
        prompt = prompts.prompt_of(of(events, "reply.done")[0]["turn"])
        assert prompt is not None
        text = "\n".join(m["text"] for m in prompt["messages"])
        assert "One two" in text
        assert "zanzibar" not in text


async def test_speaking_cuts_in(start: Start) -> None:
    """A new say while the NPC speaks ends its reply at the last playback, and is answered."""
    async with start(SLOW) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        delta = await until(client, "reply.delta")
        await until(client, "reply.sentence")
        await client.send(
            "playback",
            conversation=conversation,
            turn=delta["turn"],
            state="progress",
            heard_chars=3,
        )
        await client.send("say", conversation=conversation, text="Stop!")
        done = await until(client, "reply.done")
        assert (done["turn"], done["finish"]) == (delta["turn"], "interrupted")
        assert (await until(client, "reply.heard"))["heard"] == 3
        second = await until(client, "reply.done")
        assert second["finish"] == "stop"
        history = await client.ask("history.get", conversation=conversation)
        assert [t["text"] for t in history["turns"]] == ["Count!", "One", "Stop!", second["text"]]


async def test_a_finished_reply_can_still_be_cut(client: Client) -> None:
    """An interrupt after reply.done, while the client still plays it, shortens the transcript."""
    conversation = await opened(client)
    events = await reply_to(client, conversation, "Hello")
    done = of(events, "reply.done")[0]
    await client.ask("interrupt", conversation=conversation, turn=done["turn"], heard_chars=4)
    history = await client.ask("history.get", conversation=conversation)
    assert history["turns"][-1]["text"] == done["text"][:4]


async def test_an_engine_that_fails_on_the_way_ends_the_reply(start: Start) -> None:
    """What breaks off after its first word is told by an error and reply.done; the next works."""
    broken = {"reply": "No, I never", "fail_after": 2, "times": 1}
    script = {"rules": [broken, {"reply": "Yes."}]}
    async with start(script) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Hello")
        error = await until(client, "error")
        assert error["code"] == "engine_unavailable"
        done = await until(client, "reply.done")
        assert (done["finish"], done["text"]) == ("error", "No, I")
        await until(client, "scene.idle")
        events = await reply_to(client, conversation, "Hello?")
        assert of(events, "reply.done")[0]["text"] == "Yes."


async def test_segments_wait_for_an_auto(client: Client) -> None:
    """A say with respond never is kept without an answer; the next auto is answered."""
    conversation = await opened(client)
    await client.send("say", conversation=conversation, text="I was", respond="never")
    first = [event async for event in client.until_idle()]
    assert of(first, "reply.started") == []
    events = await reply_to(client, conversation, "thinking.")
    assert len(of(events, "reply.done")) == 1


async def test_history_goes_back_in_pages(client: Client) -> None:
    """Pages follow each other without gap or overlap down to the first turn."""
    conversation = await opened(client)
    for number in range(4):
        await reply_to(client, conversation, f"Number {number}")
    page = await client.ask("history.get", conversation=conversation, limit=3)
    seen = page["turns"]
    while page["more"]:
        page = await client.ask(
            "history.get", conversation=conversation, limit=3, before=seen[0]["turn"]
        )
        seen = page["turns"] + seen
    assert [t["text"] for t in seen if t["kind"] == "say"] == [f"Number {n}" for n in range(4)]
    assert len(seen) == 8


async def test_others_conversations_are_not_found(app: App, client: Client) -> None:
    """One player's conversation does not exist for another."""
    conversation = await opened(client)
    async with session(app.address, player="eve", role="player") as eve:
        for command in ("conversation.open", "history.get", "conversation.close", "interrupt"):
            with pytest.raises(Refused, match="no such conversation"):
                await eve.ask(command, conversation=conversation)


async def test_a_host_speaks_for_players(app: App, client: Client) -> None:
    """A host may put a player on a command, and then acts as that player."""
    conversation = await opened(client)
    async with session(app.address, player="game") as host:
        await host.ask("conversation.open", conversation=conversation, player={"id": "minsu"})
        await host.send("say", conversation=conversation, player="minsu", text="Hello")
        assert (await until(host, "turn"))["speaker"] == "minsu"
    assert (await until(client, "turn"))["speaker"] == "minsu"


async def test_worlds_do_not_meet(app: App, client: Client) -> None:
    """The same id in another world is another conversation."""
    conversation = await opened(client, conversation="shared")
    await reply_to(client, conversation, "Remember the canary.")
    async with session(app.address, player="minsu", world="second") as other:
        assert await opened(other, conversation="shared") == "shared"
        history = await other.ask("history.get", conversation="shared")
        assert history["turns"] == []


async def test_a_closed_conversation_can_be_opened_again(client: Client) -> None:
    """Closing ends it, saying then is a conflict, opening goes on with the history."""
    conversation = await opened(client)
    await reply_to(client, conversation, "Hello")
    await client.ask("conversation.close", conversation=conversation)
    with pytest.raises(Refused, match="closed"):
        await client.ask("say", conversation=conversation, text="Hello?")
    await client.ask("conversation.open", conversation=conversation)
    history = await client.ask("history.get", conversation=conversation)
    assert history["turns"][0]["text"] == "Hello"


async def test_export_holds_everything(client: Client) -> None:
    """An export has every conversation of the player with every turn."""
    conversation = await opened(client)
    events = await reply_to(client, conversation, "Hello")
    page = await client.ask("player.export")
    assert (page["part"], page["parts"]) == (1, 1)
    assert page["data"]["conversation"] == conversation
    texts = [turn["text"] for turn in page["data"]["turns"]]
    assert texts == ["Hello", of(events, "reply.done")[0]["text"]]


async def test_forgetting_really_deletes(app: App, client: Client, tmp_path: Any) -> None:
    """After player.forget neither Redis nor its files hold a word of what was said."""
    conversation = await opened(client)
    await reply_to(client, conversation, "My canary is called Zanzibarra.")
    folder = tmp_path / "data"

    def on_disk() -> bool:
        files = [f for f in folder.rglob("*") if f.is_file()]
        return any(b"Zanzibarra" in file.read_bytes() for file in files)

    await eventually(lambda: asyncio.to_thread(on_disk))
    gone = await client.ask("player.forget")
    assert gone["conversations"] == 1

    async def clean() -> bool:
        return not await asyncio.to_thread(on_disk)

    await eventually(clean)
    assert await app.store.conversations_of("default", ":minsu") == []
    with pytest.raises(Refused, match="no such conversation"):
        await client.ask("history.get", conversation=conversation)


async def test_a_reply_ends_when_nobody_listens(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody comes back the reply is soon committed as cancelled, with what was sent."""
    monkeypatch.setattr(replies, "ABSENCE_SECONDS", 0.01)
    async with start(SLOW) as app:
        async with session(app.address, player="minsu") as client:
            conversation = await opened(client)
            await client.send("say", conversation=conversation, text="Count!")
            await until(client, "reply.sentence")

        async def dropped() -> bool:
            return not app.dialogue.rooms.all()

        await eventually(dropped)
        async with session(app.address, player="minsu") as client:
            again = await client.ask("conversation.open", conversation=conversation)
            assert of(again["tail"], "reply.done")[0]["finish"] == "cancelled"


async def test_who_comes_in_late_gets_a_snapshot(start: Start) -> None:
    """A second connection of the player sees the text so far and then the rest."""
    async with start(SLOW) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        await until(client, "reply.sentence")
        async with session(app.address, player="minsu") as late:
            await late.ask("conversation.open", conversation=conversation)
            snapshot = await until(late, "reply.snapshot")
            events = [event async for event in late.until_idle()]
            text = snapshot["text"] + "".join(e["text"] for e in of(events, "reply.delta"))
            assert text == of(events, "reply.done")[0]["text"]


async def test_conversations_of_a_session_are_bounded(start: Start) -> None:
    """One conversation more than allowed is refused with what to do."""
    limits = {"conversations": 2}
    async with start(limits=limits) as app, session(app.address) as client:
        await opened(client)
        await opened(client)
        with pytest.raises(Refused, match="Close one first"):
            await opened(client)


async def test_a_reply_can_be_said_anew(app: App, client: Client) -> None:
    """Another reply takes the place of the newest: in the events, the history and the prompt."""
    conversation = await opened(client)
    events = await reply_to(client, conversation, "Tell me about the well")
    said, first = of(events, "turn", "reply.done")
    command = await client.send("regenerate", conversation=conversation, turn=first["turn"])
    events = [event async for event in client.until_idle()]
    started, second = of(events, "reply.started")[0], of(events, "reply.done")[0]
    assert of(events, "ack")[0]["re"] == command
    assert of(events, "ack")[0]["turn"] == started["turn"] == second["turn"]
    assert (started["replaces"], started["answers"]) == (first["turn"], said["turn"])
    history = await client.ask("history.get", conversation=conversation)
    assert [t["turn"] for t in history["turns"][1:]] == [second["turn"]]
    seeds = [request.seed for request in app.engine.requests]  # type: ignore[attr-defined]
    assert len(set(seeds)) == 2
    prompts = [app.dialogue.prompt_of(done["turn"]) for done in (first, second)]
    assert prompts[0] is not None
    assert prompts[1] is not None
    assert prompts[0]["messages"] == prompts[1]["messages"]
    page = await client.ask("player.export")
    kept = [turn.get("replaced_by") for turn in page["data"]["turns"]]
    assert kept == [None, second["turn"], None]


async def test_said_anew_twice_with_one_id_is_said_anew_once(client: Client) -> None:
    """The same regenerate again gets its first answer; another one of the old reply conflicts."""
    conversation = await opened(client)
    first = of(await reply_to(client, conversation, "Hello"), "reply.done")[0]
    frame = {"type": "regenerate", "id": "anew-1", "conversation": conversation}
    frame["turn"] = first["turn"]
    events = [event async for event in repeated(client, frame)]
    await client.connection.send(dumps(frame))
    assert await client.receive() == of(events, "ack")[0]
    with pytest.raises(Refused, match="already"):
        await client.ask("regenerate", conversation=conversation, turn=first["turn"])


async def test_a_reply_in_flight_is_not_said_anew(start: Start) -> None:
    """While it is spoken it has to be interrupted first; then it can be said anew."""
    async with start(SLOW) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        turn = (await until(client, "reply.delta"))["turn"]
        with pytest.raises(Refused, match="interrupt it first"):
            await client.ask("regenerate", conversation=conversation, turn=turn)
        await client.ask("interrupt", conversation=conversation)
        await client.send("regenerate", conversation=conversation, turn=turn)
        assert (await until(client, "reply.started"))["replaces"] == turn
        assert (await until(client, "reply.done"))["finish"] == "stop"


async def test_replies_that_are_cut_are_paid_for(start: Start) -> None:
    """Who cuts every reply uses up its tokens like one who listens to the end."""
    quota = {"tokens_per_minute": 60}
    replies = [" ".join(f"{first}{n}" for n in range(400)) for first in "abcdefgh"]
    script = {"rules": [{"reply": replies, "piece_ms": 1}]}
    async with start(script, player_quota=quota) as app, session(app.address) as client:
        conversation = await opened(client)

        async def cut_in() -> None:
            for number in range(60):
                await client.ask("say", conversation=conversation, text=f"Again {number}!")
                for _ in range(3):
                    await until(client, "reply.delta")

        with pytest.raises(Refused, match="Too many tokens"):
            await cut_in()


async def test_a_lease_given_back_is_no_lease_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept of a reply may reach the store just after its end: the end is told all the same.

    The lease is gone by then, because this server gave it back.
    """
    monkeypatch.setattr(replies, "FLUSH_SECONDS", 0.01)
    ended, refused = asyncio.Event(), asyncio.Event()
    commit, flush = Store.commit, Store.flush_partial

    async def slow_commit(store: Store, after: Conversation, **rest: Any) -> Any:
        done = await commit(store, after, **rest)
        if rest.get("release_lease"):
            ended.set()
            await refused.wait()
        return done

    async def late_flush(store: Store, *given: Any) -> None:
        await ended.wait()
        try:
            await flush(store, *given)
        except Fenced:
            refused.set()
            raise

    monkeypatch.setattr(Store, "commit", slow_commit)
    monkeypatch.setattr(Store, "flush_partial", late_flush)
    script = {"rules": [{"reply": "One two three four.", "piece_ms": 30}]}
    async with start(script) as app, session(app.address) as client:
        conversation = await opened(client)
        async with asyncio.timeout(10):
            events = await reply_to(client, conversation, "Count!")
        assert of(events, "reply.done")[0]["finish"] == "stop"
        assert refused.is_set()
        assert not app.dialogue.rooms.all()[0].stale
