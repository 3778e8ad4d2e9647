"""Several servers on one Redis: each takes in what the others do to conversations it has open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from npc_server.errors import Busy, StoreUnavailable
from npc_server.observability import get_logger
from npc_server.replies import Replies
from npc_server.rooms import Rooms
from npc_server.store import Fenced, Store, Wakes

log = get_logger(__name__)


@asynccontextmanager
async def following(store: Store, rooms: Rooms, replies: Replies) -> AsyncIterator[None]:
    """Follow what other servers do, as long as the context lasts; nothing where there are none."""
    if not store.shared:
        yield
        return
    async with store.wakes() as wakes:
        rooms.wakes = wakes
        following = asyncio.create_task(_follow(wakes, rooms, replies))
        try:
            yield
        finally:
            rooms.wakes = None
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _follow(wakes: Wakes, rooms: Rooms, replies: Replies) -> None:
    async for wake in wakes:
        room = rooms.known(wake.world, wake.conversation)
        if room is None:
            continue
        try:
            await replies.follow(room, wake.kind)
        except (StoreUnavailable, Busy, Fenced) as error:
            # The next word of it is a reason to read everything anew.
            room.stale = True
            log.warning("not_followed", conversation=wake.conversation, reason=str(error))
        except Exception:
            room.stale = True
            log.exception("not_followed", conversation=wake.conversation)
