"""What other servers did to a conversation, told as it happens: a reason to read it anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from redis.asyncio.client import PubSub

from npc_server.store.connect import FAILURES, Link
from npc_server.store.keys import ConversationKeys

Kind = Literal["commit", "partial", "lost"]

SILENCE_SECONDS = 15
"""Without a word for so long, the connection is asked whether it is alive, and given as long."""
AGAIN_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Wake:
    """Something of a conversation should be read anew.

    Attributes:
        world: Of the conversation.
        conversation: Its id.
        kind: ``commit``: another server committed. ``partial``: another server kept more of the
            text of its reply. ``lost``: anything may have happened until now, since this is when
            listening began, or began again after a loss.
    """

    world: str
    conversation: str
    kind: Kind


class Wakes:
    """The wakes of the conversations that are subscribed to, for one reader.

    A wake says that there is something to read, not what: of those that wait, each kind is there
    once for a conversation, so that a slow reader misses nothing and nothing grows.

    Args:
        link: A way to Redis.
        owner: Whose own doings are no news.
    """

    def __init__(self, link: Link, owner: str) -> None:
        self._link = link
        self._owner = owner.encode()
        self._wanted: dict[str, tuple[str, str]] = {}
        self._waiting: dict[Wake, None] = {}
        self._arrived = asyncio.Event()
        self._some_wanted = asyncio.Event()
        self._ended = False
        self._reading: asyncio.Timeout | None = None

    def subscribe(self, world: str, conversation: str) -> None:
        """Listen for a conversation. The first wake, ``lost``, comes once nothing is missed."""
        self._wanted[ConversationKeys.of(world, conversation).wakes] = (world, conversation)
        self._look_again()

    def unsubscribe(self, world: str, conversation: str) -> None:
        """Listen no more; what waits of it is dropped."""
        self._wanted.pop(ConversationKeys.of(world, conversation).wakes, None)
        for kind in ("commit", "partial", "lost"):
            self._waiting.pop(Wake(world, conversation, kind), None)
        self._look_again()

    def __aiter__(self) -> AsyncIterator[Wake]:
        return self

    async def __anext__(self) -> Wake:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        wake = next(iter(self._waiting))
        del self._waiting[wake]
        return wake

    async def listen(self) -> None:
        """Hear what is published, and connect again after a loss; until it is cancelled."""
        while True:
            await self._some_wanted.wait()
            try:
                async with self._link.listening() as pubsub:
                    await self._follow(pubsub)
            except FAILURES:
                await asyncio.sleep(AGAIN_SECONDS)

    def end(self, _: object = None) -> None:
        """Give what waits, and then no more."""
        self._ended = True
        self._arrived.set()

    async def _follow(self, pubsub: PubSub) -> None:
        """Hear what is wanted, until nothing is."""
        subscribed: set[str] = set()
        asked = False
        while self._wanted:
            wanted = set(self._wanted)
            if wanted - subscribed:
                await pubsub.subscribe(*(wanted - subscribed))
            if subscribed - wanted:
                await pubsub.unsubscribe(*(subscribed - wanted))
            subscribed = wanted
            try:
                async with asyncio.timeout(None) as reading:
                    self._reading = reading
                    message = await pubsub.get_message(timeout=SILENCE_SECONDS)
            except TimeoutError:
                if not reading.expired():
                    raise
                continue  # other conversations are wanted now
            finally:
                self._reading = None
            if message is not None:
                self._heard(message)
            elif asked:
                raise ConnectionError("Redis is silent")
            else:
                await pubsub.ping()
            asked = message is None

    def _heard(self, message: dict[str, bytes | str | int]) -> None:
        channel, data = message["channel"], message["data"]
        about = self._wanted.get(channel.decode()) if isinstance(channel, bytes) else None
        if about is None:
            return
        if message["type"] == "subscribe":
            self._wake(Wake(*about, "lost"))
        elif message["type"] == "message" and isinstance(data, bytes):
            owner, _, what = data.rpartition(b":")
            if owner != self._owner:
                self._wake(Wake(*about, "partial" if what == b"partial" else "commit"))

    def _wake(self, wake: Wake) -> None:
        self._waiting[wake] = None
        self._arrived.set()

    def _look_again(self) -> None:
        if self._wanted:
            self._some_wanted.set()
        else:
            self._some_wanted.clear()
        if self._reading is not None:
            self._reading.reschedule(0)
            self._reading = None


@asynccontextmanager
async def waking(link: Link, owner: str) -> AsyncIterator[Wakes]:
    """Wakes, as long as the context lasts."""
    wakes = Wakes(link, owner)
    listening = asyncio.create_task(wakes.listen())
    listening.add_done_callback(wakes.end)
    try:
        yield wakes
    finally:
        listening.cancel()
        await asyncio.wait({listening})
        if not listening.cancelled():
            listening.result()
