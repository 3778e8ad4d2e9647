"""Commits are whole or nothing, once, in order, and under one owner."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from support import eventually

from npc_server.config import Settings, Timeouts
from npc_server.conversation import rules
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.errors import ConfigError, NotFound, StoreUnavailable
from npc_server.store import (
    Answer,
    Committed,
    Consent,
    Durable,
    Fenced,
    Owned,
    Partial,
    Repeated,
    RevisionConflict,
    SavedSession,
    Store,
    open_store,
)
from npc_server.store.checkpoints import About
from npc_server.store.connect import Client
from npc_server.store.store import EVENTS_KEPT, LEASE_MS, TURNS_KEPT

MINSU = Member("minsu", "player", "Minsu", ":minsu")
BRAM = Member("bram", "npc", "Bram", "bram")
EVENT = Durable(b'{"type":"x"}', (":minsu",))


def fresh(name: str = "c") -> Conversation:
    return rules.begin(name, "w", MINSU, [BRAM], locale="ko", now_ms=5)


def with_turn(state: Conversation, text: str = "Hello") -> Conversation:
    return rules.said(
        state, MINSU, text, to=(), whisper=False, turn=f"t{state.next}", now_ms=1
    ).state


async def put(store: Store, before: Conversation | None, after: Conversation) -> Conversation:
    """Commit and return the state as it is stored then."""
    done = await store.commit(after, before=before, events=[EVENT])
    assert isinstance(done, Committed)
    return replace(after, revision=done.revision, seq=done.seq)


async def names(raw: Client) -> list[bytes]:
    """Every key, of all nodes of a Cluster."""
    return [key async for key in raw.scan_iter()]


async def test_what_is_committed_is_loaded(store: Store) -> None:
    """A state with turns and a reply comes back equal."""
    state = await put(store, None, fresh())
    after = with_turn(with_turn(state), "안녕 👋")
    newest = after.turns[-1].id
    ask = Ask("bram", newest, newest, MINSU.ref)
    started = rules.begun(after, ask, turn="r", queue_position=0, now_ms=1).state
    stored = await put(store, state, started)
    assert await store.load("w", "c") == stored
    assert await store.load("w", "other") is None
    assert await store.load("other", "c") is None


async def test_events_are_numbered_in_order(store: Store) -> None:
    """Each event of each commit gets the next number; reading begins after any of them."""
    state = await put(store, None, fresh())
    many = [Durable(b'{"type":"y","n":%d}' % n, ()) for n in range(3)]
    done = await store.commit(with_turn(state), before=state, events=many)
    assert isinstance(done, Committed)
    assert done.seq == 4
    found = await store.events_after("w", "c", 1, 10)
    assert [(e.seq, e.event["n"], e.audience) for e in found] == [
        (2, 0, ()),
        (3, 1, ()),
        (4, 2, ()),
    ]
    assert [e.seq for e in await store.events_after("w", "c", 0, 2)] == [3, 4]


async def test_a_stale_commit_changes_nothing(store: Store) -> None:
    """Of two commits from one state the second is refused and leaves no trace."""
    state = await put(store, None, fresh())
    first = await put(store, state, with_turn(state, "first"))
    with pytest.raises(RevisionConflict):
        await store.commit(with_turn(state, "second"), before=state, events=[EVENT])
    with pytest.raises(RevisionConflict):
        await store.commit(fresh(), before=None)
    assert await store.load("w", "c") == first
    assert len(await store.events_after("w", "c", 0, 10)) == 2


async def test_a_repeated_command_is_answered_only(store: Store) -> None:
    """The same player and id again get the first answer, whatever else is sent."""
    state = await put(store, None, fresh())
    answer = Answer(":minsu", "say-1", b"first")
    await store.commit(with_turn(state), before=state, answer=answer)
    again = await store.commit(
        with_turn(state, "other"), before=state, answer=replace(answer, body=b"second")
    )
    assert again == Repeated(b"first")
    assert await store.answer("w", "c", answer) == b"first"
    assert await store.answer("w", "c", replace(answer, player=":eve")) is None
    loaded = await store.load("w", "c")
    assert loaded is not None
    assert [turn.text for turn in loaded.turns] == ["Hello"]


async def test_one_owner_at_a_time(store: Store, redis_url: str, raw: Client) -> None:
    """A lease keeps others from beginning, a fence keeps the former owner from committing."""
    async with open_store(redis_url, Settings(), owner="two") as other:
        state = await put(store, None, fresh())
        mine = await store.commit(with_turn(state), before=state, take_lease=True)
        assert isinstance(mine, Committed)
        state = replace(with_turn(state), revision=mine.revision, seq=mine.seq)
        with pytest.raises(Owned) as owned:
            await other.commit(with_turn(state), before=state, take_lease=True)
        assert 0 < owned.value.retry_after_ms <= LEASE_MS
        await raw.hset("npc:{w/c}:state", "until", 1)
        theirs = await other.commit(with_turn(state), before=state, take_lease=True)
        assert isinstance(theirs, Committed)
        assert theirs.fence == mine.fence + 1
        with pytest.raises(Fenced):
            await store.commit(with_turn(state), before=state, fence=mine.fence)
        with pytest.raises(Fenced):
            await store.renew("w", "c", mine.fence)
        await other.renew("w", "c", theirs.fence)


async def test_a_released_lease_is_free(store: Store, redis_url: str, raw: Client) -> None:
    """After a release another owner may begin at once, and the partial text goes soon.

    Where servers share the Redis, the others read the end of the reply from it before.
    """
    async with open_store(redis_url, Settings(), owner="two") as other:
        state = await put(store, None, fresh())
        mine = await store.commit(state, before=state, take_lease=True)
        assert isinstance(mine, Committed)
        partial = Partial("r", 1, "Well, ")
        await store.flush_partial("w", "c", partial, mine.fence)
        assert await store.partial("w", "c") == partial
        state = replace(state, revision=mine.revision)
        done = await store.commit(state, before=state, release_lease=True, fence=mine.fence)
        assert isinstance(done, Committed)
        if store.shared:
            assert 0 < await raw.pttl("npc:{w/c}:partial") <= 10_000
        else:
            assert await store.partial("w", "c") is None
        state = replace(state, revision=done.revision)
        assert isinstance(await other.commit(state, before=state, take_lease=True), Committed)


async def leased(store: Store, before: Conversation | None, **how: Any) -> tuple[Conversation, int]:
    """Commit a turn, or a new conversation, under a lease: the state as stored, and the fence."""
    after = with_turn(before) if before else fresh()
    done = await store.commit(after, before=before, **how)
    assert isinstance(done, Committed)
    return replace(after, revision=done.revision, seq=done.seq), done.fence


async def test_a_player_is_heard_while_another_server_speaks(store: Store, redis_url: str) -> None:
    """A turn is committed by its revision alone; the reply's owner goes on under its fence."""
    async with open_store(redis_url, Settings(), owner="two") as other:
        state, fence = await leased(store, None, take_lease=True)
        await store.flush_partial("w", "c", Partial("r", 1, "Well, "), fence)
        heard, same = await leased(other, state)
        assert same == fence
        await store.renew("w", "c", fence)
        with pytest.raises(RevisionConflict):
            await store.commit(with_turn(state), before=state, fence=fence)
        assert await store.load("w", "c") == heard
        assert await store.partial("w", "c") == Partial("r", 1, "Well, ")
        after, _ = await leased(store, heard, fence=fence, release_lease=True)
        assert [turn.index for turn in after.turns] == [0, 1]


async def test_a_number_is_not_a_lease(store: Store, redis_url: str) -> None:
    """Who has learnt the number of another server's lease can do nothing with it."""
    async with open_store(redis_url, Settings(), owner="two") as other:
        state, fence = await leased(store, None, take_lease=True)
        with pytest.raises(Fenced):
            await other.commit(with_turn(state), before=state, fence=fence)
        with pytest.raises(Fenced):
            await other.renew("w", "c", fence)
        with pytest.raises(Fenced):
            await other.flush_partial("w", "c", Partial("r", 1, "Mine."), fence)
        assert await store.partial("w", "c") is None


async def test_a_lease_that_lapsed_can_be_taken(store: Store, redis_url: str, raw: Client) -> None:
    """Its owner may still use it; once another server took it, its owner can commit nothing."""
    async with open_store(redis_url, Settings(), owner="two") as other:
        state, fence = await leased(store, None, take_lease=True)
        await raw.hset("npc:{w/c}:state", "until", 1)
        state, _ = await leased(store, state, fence=fence)
        await raw.hset("npc:{w/c}:state", "until", 1)
        await store.renew("w", "c", fence)
        with pytest.raises(Owned):
            await leased(other, state, take_lease=True)
        await raw.hset("npc:{w/c}:state", "until", 1)
        state, theirs = await leased(other, state, take_lease=True)
        assert theirs == fence + 1
        for late in (
            store.commit(with_turn(state), before=state, fence=fence),
            store.commit(with_turn(state), before=state, fence=fence, release_lease=True),
            store.renew("w", "c", fence),
            store.flush_partial("w", "c", Partial("r", 1, "Late."), fence),
        ):
            with pytest.raises(Fenced):
                await late
        assert await store.load("w", "c") == state
        assert await store.partial("w", "c") is None
        await other.renew("w", "c", theirs)


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_player_cuts_the_reply_of_another_server(
    store: Store, redis_url: str, goes_on: bool
) -> None:
    """The cutter has the lease at once, or nobody; the server that spoke can commit nothing."""
    async with open_store(redis_url, Settings(), owner="two") as other:
        state, fence = await leased(store, None, take_lease=True)
        await store.flush_partial("w", "c", Partial("r", 1, "Well, "), fence)
        with pytest.raises(Owned):
            await leased(other, state, take_lease=True)
        stale = state
        state, theirs = await leased(other, state, seize_lease=True, release_lease=not goes_on)
        assert theirs == fence + 1
        assert await store.partial("w", "c") is None
        with pytest.raises(RevisionConflict):
            await other.commit(with_turn(stale), before=stale, seize_lease=True)
        with pytest.raises(Fenced):
            await store.commit(with_turn(state), before=state, fence=fence)
        with pytest.raises(Fenced):
            await store.flush_partial("w", "c", Partial("r", 1, "Well, no."), fence)
        if goes_on:
            await other.renew("w", "c", theirs)
            with pytest.raises(Owned):
                await leased(store, state, take_lease=True)
        else:
            _, again = await leased(store, state, take_lease=True)
            assert again == theirs + 1


async def test_a_cut_that_is_sent_again_cuts_nothing_else(store: Store, redis_url: str) -> None:
    """The first answer is given; the lease stays with whoever has it by now."""
    async with open_store(redis_url, Settings(), owner="two") as other:
        state, _ = await leased(store, None, take_lease=True)
        answer = Answer(":minsu", "cut", b"ack")
        state, _ = await leased(other, state, seize_lease=True, release_lease=True, answer=answer)
        state, fence = await leased(store, state, take_lease=True)
        again = await other.commit(with_turn(state), before=state, seize_lease=True, answer=answer)
        assert again == Repeated(b"ack")
        await store.renew("w", "c", fence)


async def test_an_answer_that_was_lost_does_not_commit_twice(
    single: Store, single_url: str
) -> None:
    """A connection that is cut after a commit: the client's own retry finds it done."""
    path = single_url.removeprefix("unix://")
    cut = asyncio.Event()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_unix_connection(path)

        async def back() -> None:
            while data := await to_reader.read(65_536):
                if cut.is_set():
                    cut.clear()
                    writer.close()
                    return
                writer.write(data)

        answering = asyncio.create_task(back())
        while data := await reader.read(65_536):
            to_writer.write(data)
        answering.cancel()
        for stream in (to_writer, writer):
            stream.close()
            await stream.wait_closed()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with open_store(f"redis://127.0.0.1:{port}", Settings(), owner="one") as shaky:
        state = await put(shaky, None, fresh())
        state = await put(shaky, state, with_turn(state, "before"))
        cut.set()
        done = await shaky.commit(
            with_turn(state, "once"), before=state, answer=Answer(":minsu", "1", b"ack")
        )
        assert isinstance(done, Committed)
        assert done.revision == state.revision + 1
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)
    loaded = await single.load("w", "c")
    assert loaded is not None
    assert [turn.text for turn in loaded.turns] == ["before", "once"]


async def test_everything_is_bounded(store: Store, raw: Client) -> None:
    """Old turns and events leave when there are too many; every key has a lifetime."""
    state = await put(store, None, fresh())
    await raw.hset("npc:{w/c}:turns", "3", b"old")
    await raw.hset("npc:{w/c}:state", "turns", TURNS_KEPT + 3)
    turn = replace(with_turn(state).turns[0], index=TURNS_KEPT + 3)
    lots = [EVENT] * (EVENTS_KEPT + 1_000)
    await store.commit(
        replace(state, turns=(turn,)),
        before=state,
        events=lots,
        answer=Answer(":minsu", "1", b"x"),
    )
    assert not await raw.hexists("npc:{w/c}:turns", "3")
    assert await raw.xlen("npc:{w/c}:events") < EVENTS_KEPT + 300
    await store.index_player("w", ":minsu", "c")
    for key in await names(raw):
        assert await raw.pttl(key) > 0, key


async def test_deleting_leaves_nothing(store: Store, raw: Client) -> None:
    """After deleting a conversation and its index the Redis is empty."""
    state = await put(store, None, fresh("a b/{c}"))
    done = await store.commit(
        with_turn(state), before=state, answer=Answer("k:min su", "x:y", b"1"), take_lease=True
    )
    assert isinstance(done, Committed)
    await store.flush_partial("w", "a b/{c}", Partial("r", 1, "x"), done.fence)
    await store.index_player("w", "k:min su", "a b/{c}")
    assert await store.conversations_of("w", "k:min su") == ["a b/{c}"]
    await store.delete_conversation("w", "a b/{c}")
    await store.forget_player("w", "k:min su")
    assert await names(raw) == []


async def test_turns_are_read_backwards(store: Store) -> None:
    """Pages before an index come oldest first."""
    state = await put(store, None, fresh())
    for number in range(5):
        state = await put(store, state, with_turn(state, str(number)))
    assert [t.text for t in await store.turns_before(state, 4, 2)] == ["2", "3"]
    assert await store.turns_before(state, 0, 2) == []


async def test_a_full_redis_still_reads(single: Store, single_url: str) -> None:
    """Out of memory, writing is store_unavailable with what to do, and reading goes on."""
    state = await put(single, None, fresh())
    async with Redis.from_url(single_url) as client:
        await client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match="maxmemory") as caught:
            await single.commit(with_turn(state), before=state)
        assert caught.value.retry_after_ms
        assert await single.load("w", "c") == state
        await client.config_set("maxmemory", 0)
    await put(single, state, with_turn(state))


async def test_a_full_disk_is_store_unavailable(single: Store, single_url: str) -> None:
    """When Redis cannot write its files it says MISCONF, and we say what to do."""
    state = await put(single, None, fresh())
    async with Redis.from_url(single_url) as client:
        # A folder where the snapshot should go makes every snapshot fail, as a full disk would.
        (Path(single_url.removeprefix("unix://")).parent / "dump.rdb" / "x").mkdir(parents=True)
        await client.config_set("save", "3600 1")
        await client.bgsave()
        async with asyncio.timeout(10):
            while (await client.info("persistence"))["rdb_last_bgsave_status"] != "err":
                await asyncio.sleep(0.05)
        with pytest.raises(StoreUnavailable, match="disk"):
            await single.commit(with_turn(state), before=state)
        await client.config_set("save", "")
    await put(single, state, with_turn(state))


async def test_a_redis_that_is_gone_is_store_unavailable() -> None:
    """Nobody at the address: an error with what to do, without the password."""
    settings = Settings(timeouts=Timeouts(redis=0.5))
    with pytest.raises(StoreUnavailable, match="NPC_REDIS_URL") as caught:
        async with open_store("redis://:hush@127.0.0.1:1", settings, owner="x"):
            pass
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"http://x:\*\*\*@y"):
        async with open_store("http://x:hush@y", settings, owner="x"):
            pass


async def test_consent_counts_from_when_it_was_given(store: Store, raw: Client) -> None:
    """Given again it goes back to the first time, taken back it is gone, as after being forgotten.

    It lapses with what is kept.
    """
    assert await store.consent("w", ":minsu") is None
    await store.set_consent("w", ":minsu", Consent(5))
    await store.set_consent("w", ":minsu", Consent(9))
    assert await store.consent("w", ":minsu") == Consent(5)
    assert await store.consent("w2", ":minsu") is None
    assert await raw.pttl("npc:{w/@%3Aminsu}:consent") > 86_400_000
    await store.set_consent("w", ":minsu", None)
    assert await store.consent("w", ":minsu") is None
    await store.set_consent("w", ":minsu", Consent(12))
    assert await store.consent("w", ":minsu") == Consent(12)
    await store.forget_player("w", ":minsu")
    assert await store.consent("w", ":minsu") is None


async def test_a_session_is_taken_up_once(store: Store, raw: Client) -> None:
    """Who comes first with the token in time gets the session; nobody gets it twice."""
    session = SavedSession("w", "key", "minsu", "player", ("c", "d"), "s")
    assert await store.keep_session("token", session, 60_000, anew=True)
    assert await store.keep_session("token", session, 60_000, anew=False)
    (key,) = await names(raw)
    assert b"token" not in key
    assert 0 < await raw.pttl(key) <= 60_000
    assert await store.take_session("other") is None
    taken = await asyncio.gather(*(store.take_session("token") for _ in range(5)))
    assert [each for each in taken if each] == [session]
    assert not await store.keep_session("token", session, 60_000, anew=False)
    assert not await names(raw)
    assert await store.keep_session("token", session, 1, anew=True)

    async def lapsed() -> bool:
        return not await names(raw)

    await eventually(lapsed)
    assert await store.take_session("token") is None


async def test_saves_are_kept_by_name(store: Store) -> None:
    """A save is read as it was put, replaced by one of its name, listed newest first, deleted."""
    saves = store.checkpoints
    for at_ms, name, file in ((1, "a/b", b"1"), (2, "c", b"2"), (3, "a/b", b"3")):
        await saves.put("w", About(name, len(file), at_ms, 0), file)
    assert [(each.name, each.at_ms) for each in await saves.all("w")] == [("a/b", 3), ("c", 2)]
    assert await saves.get("w", "a/b") == b"3"
    await saves.delete("w", "a/b")
    assert [each.name for each in await saves.all("w")] == ["c"]
    for gone in (saves.get, saves.delete):
        with pytest.raises(NotFound, match="no save 'a/b'"):
            await gone("w", "a/b")
