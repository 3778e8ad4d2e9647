"""Who may use the engine next: first come, first served, over as many seats as there are."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from npc_server.errors import Busy
from npc_server.observability import Metrics

RETRY_AFTER_MS = 2_000


class Scheduler:
    """Grants the engine's seats in order of arrival, with a bounded queue.

    Args:
        seats: How many replies may be generated at once.
        queue: How many may wait; one more gets ``Busy``.
        metrics: Where depth and use are told.
    """

    def __init__(self, seats: int, queue: int, metrics: Metrics) -> None:
        self._free = seats
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._metrics = metrics

    @property
    def position(self) -> int:
        """How many would be served before a request that comes now."""
        return 0 if self._free else len(self._waiting)

    def admit(self) -> None:
        """Check that one more request would be taken.

        Raises:
            Busy: Every seat is taken and the queue is full.
        """
        if not self._free and len(self._waiting) >= self._queue:
            raise Busy(
                "Every seat is taken and the queue is full. Try again in a moment.",
                retry_after_ms=RETRY_AFTER_MS,
            )

    @asynccontextmanager
    async def seat(self) -> AsyncIterator[None]:
        """Hold a seat.

        Raises:
            Busy: Every seat is taken and the queue is full.
        """
        await self._take()
        self._metrics.seats_busy.inc()
        try:
            yield
        finally:
            self._metrics.seats_busy.dec()
            self._give()

    async def _take(self) -> None:
        if self._free:
            self._free -= 1
            return
        self.admit()
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._metrics.queue_depth.set(len(self._waiting))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()
            else:
                self._waiting.remove(turn)
            raise
        finally:
            self._metrics.queue_depth.set(len(self._waiting))

    def _give(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
