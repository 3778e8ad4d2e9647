"""The index of a world lists what is there, whatever lapsed, was deleted, or is older than it."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from npc_server.conversation import rules
from npc_server.conversation.model import Member
from npc_server.store import Store, worlds
from npc_server.store.connect import Client
from npc_server.store.keys import ConversationKeys, world_index

MINSU = Member("minsu", "player", "Minsu", ":minsu")
BRAM = Member("bram", "npc", "Bram", "bram")
INDEX = world_index("w")


async def make(store: Store, *names: str, world: str = "w") -> None:
    """Commit new conversations."""
    for name in names:
        state = rules.begin(name, world, MINSU, [BRAM], locale="ko", now_ms=5)
        await store.commit(state, before=None)


async def lapse(raw: Client, *names: str) -> None:
    """Take conversations away as their retention would."""
    for name in names:
        await raw.delete(ConversationKeys.of("w", name).state)


async def noted(raw: Client) -> set[str]:
    """The ids in the index of the world."""
    found: Any = await raw.zrange(INDEX, 0, -1)
    return {name.decode() for name in found} - {worlds.COMPLETE}


async def test_conversations_of_a_world_are_found(store: Store) -> None:
    """Each id of the world comes once, sorted, whatever characters it has; no other world's."""
    names = ["b", "a/b", "c}{*", "안녕 👋", *(f"n{n}" for n in range(1_100))]
    await make(store, *names)
    await make(store, "elsewhere", world="w2")
    await make(store, "elsewhere", world="w*")
    await store.index_player("w", ":minsu", "indexed")
    for _ in range(2):  # by a search at first, then by the index
        assert await store.conversations("w") == sorted(names)
        assert await store.conversations("w*") == ["elsewhere"]
        assert await store.conversations("none") == []
    await make(store, "new")
    assert await store.conversations("w") == sorted([*names, "new"])


async def test_what_an_older_server_made_is_searched_for_once(
    single: Store, single_url: str
) -> None:
    """Without an index, or beside one of newer conversations only, all keys are searched; then not.

    It is the same where the index lapsed, since nothing new was made for the whole retention.
    """
    async with Redis.from_url(single_url) as raw:
        await make(single, "old", "older")
        await raw.delete(INDEX)
        await make(single, "new")
        await raw.config_resetstat()
        for _ in range(2):
            assert await single.conversations("w") == ["new", "old", "older"]
        assert (await raw.info("commandstats"))["cmdstat_scan"]["calls"] == 1
        assert await noted(raw) == {"new", "old", "older"}


async def test_what_is_gone_is_not_listed(
    store: Store, raw: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted leaves the index at once, what lapsed when it is listed."""
    await make(store, "there", "lapsed", "deleted")
    await store.delete_conversation("w", "deleted")
    assert await noted(raw) == {"there", "lapsed"}
    assert await store.conversations("w") == ["lapsed", "there"]
    await lapse(raw, "lapsed")
    assert await store.conversations("w") == ["there"]
    monkeypatch.setattr(worlds, "GRACE_MS", 0)
    assert await store.conversations("w") == ["there"]
    assert await noted(raw) == {"there"}


async def test_what_is_about_to_be_made_stays_noted(store: Store, raw: Client) -> None:
    """A listing between the note and the first commit does not take the note away."""
    await make(store, "there")
    await raw.zadd(INDEX, {"coming": (await raw.zscore(INDEX, "there")) or 0})
    assert await store.conversations("w") == ["there"]
    await make(store, "coming")
    await raw.zadd(INDEX, {"coming": 1}, xx=True)
    assert await store.conversations("w") == ["coming", "there"]


async def test_the_index_sheds_what_lapsed_without_being_listed(store: Store, raw: Client) -> None:
    """With each new conversation some old notes are looked at: what is there stays, noted anew."""
    names = [f"n{n}" for n in range(20)]
    await make(store, *names)
    await lapse(raw, *names[2:])
    await raw.zadd(INDEX, dict.fromkeys(names, 1))
    for number in range(5):
        await make(store, f"new{number}")
    assert await noted(raw) == {"n0", "n1", *(f"new{n}" for n in range(5))}
    assert await raw.zcount(INDEX, 0, 1) == 0


async def test_what_is_restored_is_listed(store: Store) -> None:
    """A conversation of a save is in the index, also where it was deleted since."""
    await make(store, "c", "d")
    assert await store.conversations("w") == ["c", "d"]
    saved = await store.checkpoints.dump("w", "c")
    assert saved is not None
    await store.delete_conversation("w", "c")
    assert await store.conversations("w") == ["d"]
    await store.restore(saved, [])
    assert await store.conversations("w") == ["c", "d"]


async def test_a_full_redis_still_lists(single: Store, single_url: str) -> None:
    """Where nothing can be written the search is answered all the same."""
    async with Redis.from_url(single_url) as raw:
        await make(single, "a", "b")
        await raw.delete(INDEX)
        await raw.config_set("maxmemory", 1)
        assert await single.conversations("w") == ["a", "b"]
        await raw.config_set("maxmemory", 0)
        assert await noted(raw) == set()
