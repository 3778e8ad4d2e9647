"""A conversation is put back as it was saved, also where it is in use or gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.store import Committed, Durable, Fenced, Partial, Saved, Store, Wake, open_store

MINSU = Member("minsu", "player", "Minsu", ":minsu")
BRAM = Member("bram", "npc", "Bram", "bram")
TOLD = Durable(b'{"type":"turn"}', (":minsu",))
RESET = Durable(b'{"type":"reset"}', (":minsu",))


async def spoken(store: Store, *texts: str) -> Conversation:
    """A conversation in which this was said, an event for each."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=5)
    done = await store.commit(state, before=None)
    for number, text in enumerate(texts):
        assert isinstance(done, Committed)
        before = replace(state, revision=done.revision, seq=done.seq)
        state = rules.said(
            before, MINSU, text, to=(), whisper=False, turn=f"t{number}", now_ms=1
        ).state
        done = await store.commit(state, before=before, events=[TOLD])
    assert isinstance(done, Committed)
    return replace(state, revision=done.revision, seq=done.seq)


async def dumped(store: Store) -> Saved:
    """What a save holds of it now."""
    saved = await store.checkpoints.dump("w", "c")
    assert saved is not None
    return saved


async def test_it_is_as_it_was_and_its_numbers_rise(store: Store) -> None:
    """State and turns are back; revision and seq go on; events of the later game are gone."""
    early = await spoken(store, "One", "Two")
    saved = await dumped(store)
    late = rules.said(early, MINSU, "Three", to=(), whisper=False, turn="t2", now_ms=1).state
    done = await store.commit(late, before=early, events=[TOLD, TOLD])
    assert isinstance(done, Committed)
    await store.restore(saved, [RESET])
    again = await store.load("w", "c")
    assert again is not None
    assert again == replace(early, revision=done.revision + 1, seq=done.seq + 1)
    events = await store.events_after("w", "c", 0, 100)
    assert [(e.seq, e.event["type"]) for e in events] == [(done.seq + 1, "reset")]
    assert await store.turns_at("w", "c", range(5)) == list(early.turns)
    assert await dumped(store) == saved


async def test_who_was_speaking_is_fenced_out(store: Store) -> None:
    """A reply that was in flight can neither be kept nor ended any more, and its text is gone."""
    early = await spoken(store, "One")
    saved = await dumped(store)
    ask = Ask("bram", "t0", "t0", ":minsu")
    begun = rules.begun(early, ask, turn="r", queue_position=0, now_ms=1).state
    done = await store.commit(begun, before=early, take_lease=True)
    assert isinstance(done, Committed)
    await store.flush_partial("w", "c", Partial("r", 1, "Well, "), done.fence)
    await store.restore(saved, [])
    assert await store.partial("w", "c") is None
    with pytest.raises(Fenced):
        await store.renew("w", "c", done.fence)
    now = await store.load("w", "c")
    assert now is not None
    with pytest.raises(Fenced):
        await store.commit(now, before=now, fence=done.fence)
    taken = await store.commit(now, before=now, take_lease=True)
    assert isinstance(taken, Committed)
    assert taken.fence > done.fence


async def test_a_restore_and_a_deletion_wake_others(redis_url: str) -> None:
    """Another server hears that a conversation is another one, and that it is gone."""
    async with (
        open_store(redis_url, Settings(), owner="here") as here,
        open_store(redis_url, Settings(), owner="there") as there,
        asyncio.timeout(15),
        here.wakes() as wakes,
    ):
        await spoken(there, "One")
        saved = await dumped(there)
        wakes.subscribe("w", "c")
        assert await anext(wakes) == Wake("w", "c", "lost")
        await here.restore(saved, [])
        await there.restore(saved, [])
        assert await anext(wakes) == Wake("w", "c", "commit")
        await there.delete_conversation("w", "c")
        assert await anext(wakes) == Wake("w", "c", "commit")
        assert await here.load("w", "c") is None


async def test_the_index_follows(store: Store) -> None:
    """Listed is what is there: after a deletion, a restore, and in a world that was forked."""
    await spoken(store, "One")
    saved = await dumped(store)
    assert await store.conversations("w") == ["c"]
    await store.delete_conversation("w", "c")
    assert await store.conversations("w") == []
    await store.restore(saved, [])
    assert await store.conversations("w") == ["c"]
    assert await store.conversations("fork") == []
    await store.restore(replace(saved, state=replace(saved.state, world="fork")), [])
    assert await store.conversations("fork") == ["c"]
    assert await store.conversations("w") == ["c"]


async def test_who_listens_elsewhere_is_known_for_a_moment(store: Store) -> None:
    """A server that listens to what another says notes it, and it lapses of itself."""
    assert not await store.has_listeners("w", "c")
    await store.note_listeners("w", "c")
    assert await store.has_listeners("w", "c")
    assert not await store.has_listeners("w", "d")
