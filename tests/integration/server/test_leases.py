"""The lease of a reply, and the ends of replies that look as if it was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import Start, of, opened, reply_to

from npc_server import replies
from npc_server.client import session
from npc_server.store import Committed, Partial, Repeated, Store


async def test_a_flush_that_meets_the_end_of_its_own_reply_takes_nothing_away(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush reaches Redis behind the commit that gave the lease up, and is answered before it.

    The reply was its own, so it ends as ever: the player gets ``reply.done`` and ``scene.idle``.
    """
    given_up, refused = asyncio.Event(), asyncio.Event()
    commit, flush = Store.commit, Store.flush_partial

    async def slow_commit(self: Store, *state: Any, **how: Any) -> Committed | Repeated:
        done = await commit(self, *state, **how)
        if how["release_lease"]:
            given_up.set()
            await refused.wait()
        return done

    async def late_flush(self: Store, world: str, of: str, partial: Partial, fence: int) -> None:
        await given_up.wait()
        try:
            await flush(self, world, of, partial, fence)
        finally:
            refused.set()

    monkeypatch.setattr(Store, "commit", slow_commit)
    monkeypatch.setattr(Store, "flush_partial", late_flush)
    monkeypatch.setattr(replies, "FLUSH_SECONDS", 0.001)
    script = {"rules": [{"reply": "The river is high today.", "piece_ms": 10}]}
    async with start(script) as app, session(app.address) as client, asyncio.timeout(10):
        conversation = await opened(client)
        heard = await reply_to(client, conversation, "How is the river?")
    (done,) = of(heard, "reply.done")
    assert (done["text"], done["finish"]) == ("The river is high today.", "stop")
