"""What waits to be sent to one client: bounded, in order, with one writer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from npc_server.config import Limits
from npc_server.protocol.events import Event, ReplyDelta


class Slow(Exception):
    """The client does not read fast enough."""


class Outbox:
    """A bounded queue of events. Waiting deltas of one turn are joined into one.

    Args:
        limits: How many messages and bytes may wait.
        write_timeout: How long one write may block, in seconds.
    """

    def __init__(self, limits: Limits, write_timeout: float) -> None:
        self._limits = limits
        self._write_timeout = write_timeout
        self._waiting: deque[Event] = deque()
        self._bytes = 0
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._overflow = False

    def put(self, event: Event) -> None:
        """Queue an event. Never blocks: past its bounds the outbox fails its writer instead."""
        if self._overflow:
            return
        last = self._waiting[-1] if self._waiting else None
        if (
            isinstance(event, ReplyDelta)
            and isinstance(last, ReplyDelta)
            and last.turn == event.turn
        ):
            self._waiting[-1] = last.model_copy(update={"text": last.text + event.text})
            self._bytes += len(event.text.encode())
        else:
            self._waiting.append(event)
            self._bytes += _size(event)
        too_many = len(self._waiting) > self._limits.outbox_messages
        self._overflow = too_many or self._bytes > self._limits.outbox_bytes
        self._drained.clear()
        self._filled.set()

    async def drained(self) -> None:
        """Wait until everything that was queued is written."""
        await self._drained.wait()

    async def write_to(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Write what is queued, as it comes, until cancelled.

        Raises:
            Slow: Too much waits, or a write was blocked for too long.
        """
        while True:
            await self._filled.wait()
            while self._waiting:
                if self._overflow:
                    raise Slow("Too much waits for a client that does not read.")
                event = self._waiting.popleft()
                self._bytes -= _size(event)
                try:
                    async with asyncio.timeout(self._write_timeout):
                        await send(event.encode())
                except TimeoutError:
                    raise Slow("A write to the client was blocked for too long.") from None
            self._filled.clear()
            self._drained.set()


def _size(event: Event) -> int:
    return len(event.encode())
