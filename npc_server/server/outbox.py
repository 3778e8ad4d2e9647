"""What waits to be sent to one client: bounded, in order, with one writer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from npc_server.config import Limits
from npc_server.protocol.events import Event, ReplyDelta

LOOKS = 4
"""So often within the longest time of a write it is looked at whether one is blocked."""


class Slow(Exception):
    """The client does not read fast enough."""


@dataclass(slots=True)
class _Waiting:
    payload: bytes
    delta: ReplyDelta | None
    size: int


class Outbox:
    """A bounded queue of events. Waiting deltas of one turn are joined into one.

    Args:
        limits: How many messages other than deltas, and how many bytes, may wait.
        write_timeout: How long one write may block, in seconds.
        write_now: Writes at once if the client has taken all that came before; tells whether it
            did. So nearly everything is written, without waking the writer up for every token.
    """

    def __init__(
        self,
        limits: Limits,
        write_timeout: float,
        write_now: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self._limits = limits
        self._write_timeout = write_timeout
        self._write_now = write_now
        self._waiting: deque[_Waiting] = deque()
        self._messages = 0
        self._bytes = 0
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._writing_since: float | None = None

    @property
    def overflowing(self) -> bool:
        """Whether more waits than may."""
        return (
            self._messages > self._limits.outbox_messages or self._bytes > self._limits.outbox_bytes
        )

    def put(self, event: Event) -> None:
        """Send an event, or queue it if it cannot be sent yet.

        Never blocks: past its bounds the outbox fails its writer instead.
        """
        if self.overflowing or self._closed:
            return
        behind = self._waiting or self._writing_since is not None
        if not behind and self._write_now(event.encode()):
            return
        last = self._waiting[-1] if self._waiting else None
        if isinstance(event, ReplyDelta):
            size = len(event.text.encode())
            if last and last.delta and last.delta.turn == event.turn:
                joined = last.delta.text + event.text
                last.delta = last.delta.model_copy(update={"text": joined})
                last.size += size
            else:
                self._waiting.append(_Waiting(b"", event, size))
            self._bytes += size
        else:
            payload = event.encode()
            self._waiting.append(_Waiting(payload, None, len(payload)))
            self._messages += 1
            self._bytes += len(payload)
        self._idle.clear()
        self._filled.set()

    def close(self) -> None:
        """Nobody writes any more: drop what waits and whatever comes."""
        self._closed = True
        self._waiting.clear()
        self._idle.set()

    async def drained(self) -> None:
        """Wait until everything that was queued is written."""
        await self._idle.wait()

    async def write_to(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Write what is queued, as it comes, until cancelled.

        Raises:
            Slow: Too much waits, or a write was blocked for too long.
        """
        try:
            async with asyncio.timeout(None) as limit:
                with self._watched(limit):
                    await self._write_all(send)
        except TimeoutError:
            raise Slow("a write to the client was blocked for too long") from None
        finally:
            self.close()

    async def _write_all(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        now = asyncio.get_running_loop().time
        while True:
            await self._filled.wait()
            self._filled.clear()
            while self._waiting:
                if self.overflowing:
                    raise Slow("more waits for the client than may")
                self._writing_since = now()
                await send(self._take())
                self._writing_since = None
            self._idle.set()

    @contextmanager
    def _watched(self, limit: asyncio.Timeout) -> Iterator[None]:
        """Let the limit pass when a write is blocked for too long.

        Looked at now and then: a timer for each write would cost as much as the write.
        """
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle

        def look() -> None:
            nonlocal timer
            since = self._writing_since
            if since is not None and loop.time() - since >= self._write_timeout:
                limit.reschedule(loop.time())
            else:
                timer = loop.call_later(self._write_timeout / LOOKS, look)

        timer = loop.call_later(self._write_timeout / LOOKS, look)
        try:
            yield
        finally:
            timer.cancel()

    def _take(self) -> bytes:
        first = self._waiting.popleft()
        self._bytes -= first.size
        if first.delta is not None:
            return first.delta.encode()
        self._messages -= 1
        return first.payload
