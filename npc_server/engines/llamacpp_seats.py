"""Who sits where in llama.cpp, and whose state is put away while another sits there.

llama.cpp's own cache of prompts knows tokens only: not whose they are, so they cannot be forgotten,
and not which adapter read them. So the states are put away and fetched from here, each under its
own key, into memory files of the worker.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from npc_server.engines.llamacpp_http import HttpFailed, HttpRefused
from npc_server.observability import get_logger

log = get_logger(__name__)


class Key(NamedTuple):
    """Whose state it is: who asks, and with which adapter (path and scale) it was read."""

    affinity: str
    adapter: tuple[str, float] | None = None


@dataclass(eq=False)
class Seat:
    """One of llama.cpp's slots.

    Attributes:
        number: From 0.
        holds: Whose state is in it; ``None`` while it is empty.
        user: Who uses it; ``None`` while it is idle.
        hint: The task of a use that is only a hint and may be ended.
        used: When it was used last, as a counter.
        stale: Whether what it holds is to be forgotten as soon as it can be.
    """

    number: int
    holds: Key | None = None
    user: Key | None = None
    hint: asyncio.Task[None] | None = None
    used: int = 0
    stale: bool = False


def choose(seats: Sequence[Seat], key: Key) -> Seat | None:
    """PURE. The idle seat to take: the key's own, an empty one, or the one idle longest.

    No key has two seats, each with half of what was read: while its own is in use, it gets none.
    """
    if any(seat.user == key for seat in seats):
        return None
    idle = [seat for seat in seats if seat.user is None]

    def rank(seat: Seat) -> tuple[bool, bool, int]:
        return seat.holds != key, seat.holds is not None, seat.used

    return min(idle, key=rank, default=None)


class Line:
    """Gives seats to those who wait for one, in the order in which they came as far as they can.

    Args:
        count: How many seats there are.
    """

    def __init__(self, count: int) -> None:
        self.seats = [Seat(number) for number in range(count)]
        self._waiting: deque[tuple[Key, asyncio.Future[Seat]]] = deque()
        self._uses = 0

    def take_now(self, key: Key) -> Seat | None:
        """A seat, if one is idle: nobody who waits can take it then."""
        seat = choose(self.seats, key)
        if seat is not None:
            self._occupy(seat, key)
        return seat

    async def take(self, key: Key) -> Seat:
        """A seat, as soon as there is one; a hint gives way."""
        seat = self.take_now(key)
        if seat is not None:
            return seat
        self._end_a_hint(key)
        ready: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, ready))
        try:
            return await ready
        except asyncio.CancelledError:
            if ready.done() and not ready.cancelled():
                self.leave(ready.result())
            with suppress(ValueError):
                self._waiting.remove((key, ready))
            raise

    def leave(self, seat: Seat) -> None:
        """The seat is free for the next one."""
        seat.user, seat.hint = None, None
        for key, ready in [*self._waiting]:
            chosen = choose(self.seats, key)
            if chosen is None:
                continue
            self._waiting.remove((key, ready))
            if not ready.done():
                self._occupy(chosen, key)
                ready.set_result(chosen)

    def _occupy(self, seat: Seat, key: Key) -> None:
        self._uses += 1
        seat.user, seat.used = key, self._uses

    def _end_a_hint(self, key: Key) -> None:
        hinted = [seat for seat in self.seats if seat.hint is not None]
        for seat in sorted(hinted, key=lambda seat: (seat.user != key, seat.used))[:1]:
            if seat.hint is not None:
                seat.hint.cancel()
                seat.hint = None


class Shelf:
    """PURE. Where states are put away: which place holds whose, and how much they take in all.

    Args:
        places: The names of the places.
        most: How many bytes they may hold together.
    """

    def __init__(self, places: Iterable[int], most: int) -> None:
        self._free = deque(places)
        self._most = most
        self._bytes = 0
        self._kept: OrderedDict[Key, tuple[int, int]] = OrderedDict()

    def free_place(self) -> int | None:
        """A place to put a state, which is the caller's until ``put`` or ``give_back``."""
        if self._free:
            return self._free.popleft()
        return self._remove(next(iter(self._kept))) if self._kept else None

    def put(self, key: Key, place: int, size: int) -> list[int]:
        """Note that a place holds a state of so many bytes.

        Returns:
            Places that are to be emptied and given back: what was put away longest ago gives way.
        """
        emptied = [] if key not in self._kept else [self._remove(key)]
        self._kept[key] = place, size
        self._bytes += size
        while self._bytes > self._most:
            emptied.append(self._remove(next(iter(self._kept))))
        return emptied

    def fetch(self, key: Key) -> int | None:
        """The place that holds this state, which is the caller's to empty and give back."""
        return self._remove(key) if key in self._kept else None

    def forget(self, affinity: str) -> list[int]:
        """Places to be emptied and given back: those of every affinity that begins so."""
        return [self._remove(key) for key in [*self._kept] if key.affinity.startswith(affinity)]

    def give_back(self, places: Iterable[int]) -> None:
        """These places are empty."""
        self._free.extend(places)

    def _remove(self, key: Key) -> int:
        place, size = self._kept.pop(key)
        self._bytes -= size
        return place


class Slots(Protocol):
    """What llama.cpp can do with a slot's state."""

    async def act(self, seat: int, action: str, place: int | None = None) -> dict[str, Any]:
        """``save`` to a place, ``restore`` from one, or ``erase``."""
        ...

    async def clear(self, places: Sequence[int]) -> None:
        """Empty places."""
        ...


class SeatKeeper:
    """The seats of one running llama.cpp.

    Args:
        slots: What can be done with their states.
        count: How many seats.
        shelf: Where states are put away.
    """

    def __init__(self, slots: Slots, count: int, shelf: Shelf) -> None:
        self._slots = slots
        self._line = Line(count)
        self._shelf = shelf
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def seat(self, key: Key) -> AsyncGenerator[int]:
        """Hold a seat in which this key's state is, as far as it is there at all.

        Raises:
            HttpFailed: llama.cpp is gone.
        """
        seat = await self._line.take(key)
        async with self._held(seat, key) as number:
            yield number

    @asynccontextmanager
    async def hinted_seat(self, key: Key, task: asyncio.Task[None]) -> AsyncGenerator[int | None]:
        """Hold a seat, if one is idle, until somebody needs it: then the task is cancelled."""
        seat = self._line.take_now(key)
        if seat is None:
            yield None
            return
        seat.hint = task
        async with self._held(seat, key) as number:
            yield number

    async def forget(self, affinity: str) -> None:
        """Drop the states of every affinity that begins so; where one works, when it has ended."""
        erasing = []
        for seat in self._line.seats:
            if seat.holds is None or not seat.holds.affinity.startswith(affinity):
                continue
            seat.stale = True
            if seat.user is None:
                seat.user = seat.holds
                erasing.append(self._begin(self._leave(seat)))
        await asyncio.gather(*erasing, self._clear(self._shelf.forget(affinity)))

    async def close(self) -> None:
        """End what still goes on. llama.cpp itself is ended by others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def _held(self, seat: Seat, key: Key) -> AsyncGenerator[int]:
        preparing = None
        try:
            if seat.holds != key:
                preparing = self._begin(self._prepare(seat, key))
                await asyncio.shield(preparing)
            yield seat.number
        finally:
            # Whoever goes need not wait, but the next one has to.
            if (preparing is None or preparing.done()) and not seat.stale:
                self._line.leave(seat)
            else:
                self._begin(self._leave(seat, preparing))

    async def _prepare(self, seat: Seat, key: Key) -> None:
        if seat.holds is not None:
            await self._put_away(seat, seat.holds)
        if seat.stale:
            await self._slots.act(seat.number, "erase")
        seat.holds, seat.stale = key, False
        place = self._shelf.fetch(key)
        if place is not None:
            try:
                await self._slots.act(seat.number, "restore", place)
            except HttpRefused as error:
                log.warning("state_not_restored", reason=str(error))
            self._begin(self._clear([place]))

    async def _put_away(self, seat: Seat, key: Key) -> None:
        place = self._shelf.free_place()
        if place is None:
            return
        emptied = [place]
        try:
            saved = await self._slots.act(seat.number, "save", place)
            if not seat.stale:
                emptied = self._shelf.put(key, place, saved["n_written"])
        except HttpRefused as error:
            log.warning("state_not_saved", reason=str(error))
        self._begin(self._clear(emptied))

    async def _leave(self, seat: Seat, preparing: asyncio.Task[None] | None = None) -> None:
        if preparing is not None:
            await asyncio.wait([preparing])
        if seat.stale:
            with suppress(HttpFailed, HttpRefused):
                await self._slots.act(seat.number, "erase")
            seat.holds, seat.stale = None, False
        self._line.leave(seat)

    async def _clear(self, places: Sequence[int]) -> None:
        if places:
            await self._slots.clear(places)
            # Not before: a state that was put there meanwhile would be emptied too.
            self._shelf.give_back(places)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # Only a worker that is gone fails here; whoever uses it hears that by itself.
            log.debug("seat_not_kept", reason=str(task.exception()))
