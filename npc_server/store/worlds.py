"""Which conversations a world has: an index, since a search would go through all keys of Redis."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from urllib.parse import unquote

from npc_server.errors import StoreUnavailable
from npc_server.store.connect import Link
from npc_server.store.keys import ConversationKeys, states_of, world_index
from npc_server.store.script import Script

GRACE_MS = 3_600_000
"""So long after it was noted a conversation may still be about to be committed."""
CHECKED_AT_ONCE = 4
"""Of those not known to be there for the whole retention, with each that is noted. So the index
sheds what lapsed faster than it grows, whether anybody lists it or not."""
BATCH = 1_000

COMPLETE = ""
"""Among the ids: the index has all of them. Older servers wrote none, and one may have lapsed."""


class WorldIndex:
    """The ids of the conversations of each world.

    They lie apart from the conversations, which have hash tags of their own: an id is noted before
    its conversation is committed, and one without a conversation is left out and goes in time.

    Args:
        link: A way to Redis.
        retention_ms: How long an unused conversation is kept; 0 is for ever.
    """

    def __init__(self, link: Link, retention_ms: int) -> None:
        self._link = link
        self._retention_ms = retention_ms
        self._script = Script("index")

    async def note(self, world: str, conversation: str) -> None:
        """Note a conversation that is about to be committed for the first time."""
        unsure = await self._change(world, [conversation], [])
        if unsure:
            there = await self._there(world, unsure)
            await self._change(world, there, set(unsure) - there)

    async def forget(self, world: str, conversation: str) -> None:
        """Take out a conversation that was deleted."""
        async with self._link.use() as client:
            await client.zrem(world_index(world), conversation)

    async def listed(self, world: str) -> set[str]:
        """Every conversation that is there; also where nothing can be written."""
        noted = await self._noted(world)
        complete = COMPLETE in noted
        found = set() if complete else await self._search(world)
        unsure = noted - found - {COMPLETE}
        there = await self._there(world, unsure)
        with suppress(StoreUnavailable):
            for some in _batches(found - noted):
                await self._change(world, some, [])
            for some in _batches(unsure - there):
                await self._change(world, [], some)
            if not complete:
                async with self._link.use() as client:
                    await client.zadd(world_index(world), {COMPLETE: math.inf})
        return found | there

    async def _change(self, world: str, there: Collection[str], gone: Collection[str]) -> list[str]:
        about = (self._retention_ms, GRACE_MS, CHECKED_AT_ONCE, len(there))
        async with self._link.use() as client:
            unsure = await self._script(client, [world_index(world)], [*about, *there, *gone])
        return [name.decode() for name in unsure]

    async def _noted(self, world: str) -> set[str]:
        async with self._link.use() as client:
            found = client.zscan_iter(world_index(world), count=BATCH)
            return {name.decode() async for name, _ in found}

    async def _search(self, world: str) -> set[str]:
        begin, end = states_of(world)
        async with self._link.use() as client:
            keys = client.scan_iter(match=f"{begin}*{end}", count=BATCH)
            return {
                unquote(key.decode().removeprefix(begin).removesuffix(end)) async for key in keys
            }

    async def _there(self, world: str, conversations: Iterable[str]) -> set[str]:
        there: set[str] = set()
        for some in _batches(conversations):
            async with self._link.use() as client, client.pipeline(transaction=False) as pipe:
                for name in some:
                    pipe.exists(ConversationKeys.of(world, name).state)
                answers = await pipe.execute()
            there |= {name for name, known in zip(some, answers, strict=True) if known}
        return there


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while some := list(islice(rest, BATCH)):
        yield some
