"""Who may use an engine next: players first, fairly among them, and the rest when none is there.

Every engine has one ``Scheduler``. Four classes of work ask it for seats, served in strict order:
what a player waits for, prompts read ahead, what NPCs say among themselves, work in the background.
Inside a class owners (players, conversations) take turns, each in order of arrival, so that one who
asks for ten replies does not hold up another who asks for one. What is below a player shares the
engine's compute with it, hence a player who asks calls all of it back at once, wherever it sits,
and none of it is granted again before the last player is done. Under players without a pause it
starves, by design: a deadline for it is its caller's affair (``asyncio.timeout`` around ``seat``).
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from enum import IntEnum
from types import TracebackType
from typing import TypeVar

from npc_server.errors import Busy
from npc_server.observability import Metrics

T = TypeVar("T")

FIRST_GUESS = 2.0
"""Seconds for which a reply holds its seat, before any was measured."""

NEWEST = 0.2
"""Weight of the newest reply in the mean of how long seats are held."""

WARM_QUEUE = 4
"""Prompts that may wait to be read ahead: soon the player has spoken, and they are of no use."""

WARM_PATIENCE = 5.0
"""Seconds after which a prompt that waits to be read ahead is dropped instead of granted."""

SHORTEST_RETRY_MS = 250
LONGEST_RETRY_MS = 30_000

OVERDUE = 0.1
"""A seat that is held for longer than the mean is taken to be left in this share of the mean."""


class Priority(IntEnum):
    """The classes of work, the first served first."""

    PLAYER = 0
    WARM = 1
    AMBIENT = 2
    BACKGROUND = 3

    @property
    def label(self) -> str:
        """Its name in the metrics."""
        return self.name.lower()


class Recalled(Exception):
    """A player needs the engine: leave the seat, and ask for it ``again``."""


class Grant:
    """A seat that is held.

    Whatever is below a player must wait for its engine inside ``until_recalled`` or ``run``: a
    grant that does not look keeps its seat from the player who waits for it.

    Attributes:
        priority: The class of the work.
        owner: Whose work it is.
        since: When it was granted, in monotonic seconds.
        recalled: Whether a player needs the engine.
    """

    __slots__ = ("_windows", "owner", "priority", "recalled", "since")

    def __init__(self, priority: Priority, owner: str, since: float) -> None:
        self.priority = priority
        self.owner = owner
        self.since = since
        self.recalled = False
        self._windows: set[_Window] = set()

    async def until_recalled(self, pieces: AsyncIterator[T]) -> AsyncGenerator[T]:
        """Go through a stream; a recall breaks off the wait for its next piece.

        Raises:
            Recalled: A player needs the engine.
        """
        window = _Window(self, self._windows)
        while True:
            with window:
                try:
                    piece = await anext(pieces)
                except StopAsyncIteration:
                    return
            yield piece

    async def run(self, work: Awaitable[T]) -> T:
        """Wait for something; a recall cancels it.

        Raises:
            Recalled: A player needs the engine.
        """
        if self.recalled and isinstance(work, Coroutine):
            work.close()  # else it warns that nobody awaited it
        with _Window(self, self._windows):
            return await work

    def recall(self) -> None:
        """Break off what is waited for in ``until_recalled`` and ``run``, now and from now on."""
        self.recalled = True
        for window in self._windows:
            window.shut()


class _Window:
    """Stretches of a task that a recall may break off.

    A recall cancels the task, as ``asyncio.timeout`` does, and by its count of cancellations tells
    its own from a real one, which goes through. So nothing is spent on a recall that never comes.
    """

    __slots__ = ("_before", "_grant", "_open", "_shut", "_task")

    def __init__(self, grant: Grant, open_: set[_Window]) -> None:
        self._grant = grant
        self._open = open_
        self._task: asyncio.Task[object] | None = None
        self._before = 0
        self._shut = False

    def __enter__(self) -> None:
        if self._grant.recalled:
            raise Recalled
        self._task = task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a grant can be used inside a task only")
        self._before = task.cancelling()
        self._open.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.discard(self)
        task, self._task = self._task, None
        if self._shut and task is not None:
            self._shut = False
            if task.uncancel() <= self._before and kind is asyncio.CancelledError:
                raise Recalled from None

    def shut(self) -> None:
        """Break off the stretch in which the task is."""
        if self._task is not None and not self._shut:
            self._shut = True
            self._task.cancel()


class _Turn:
    """A place in a line."""

    __slots__ = ("again", "grant", "granted", "waiting")

    def __init__(self, grant: Grant, *, again: bool) -> None:
        self.grant = grant
        self.again = again
        self.waiting = True
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class _Line:
    """Those of one class who wait: first who were put back, then owners in rotation."""

    def __init__(self) -> None:
        self._returned: deque[_Turn] = deque()
        self._waiting: dict[str, deque[_Turn]] = {}
        self._rotation: list[str] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def push(self, turn: _Turn, holders: set[str]) -> None:
        """Take a place; ``holders`` are the owners who are being served."""
        owner = turn.grant.owner
        self._length += 1
        if turn.again:
            self._returned.append(turn)
        elif owner in self._waiting:
            self._waiting[owner].append(turn)
        else:
            self._rotation.insert(self._place(owner, holders), owner)
            self._waiting[owner] = deque((turn,))

    def head(self) -> _Turn:
        """Who is next."""
        return self._returned[0] if self._returned else self._waiting[self._rotation[0]][0]

    def pop(self) -> None:
        """Serve who is next: what else its owner waits for comes after everybody's."""
        turn = self.head()
        self.remove(turn)
        owner = turn.grant.owner
        if not turn.again and owner in self._waiting:
            self._rotation.remove(owner)
            self._rotation.append(owner)

    def remove(self, turn: _Turn) -> None:
        """Take out one who gave up."""
        turn.waiting = False
        self._length -= 1
        if turn.again:
            self._returned.remove(turn)
            return
        owner = turn.grant.owner
        self._waiting[owner].remove(turn)
        if not self._waiting[owner]:
            del self._waiting[owner]
            self._rotation.remove(owner)

    def ahead(self, owner: str, holders: set[str]) -> int:
        """How many would be served before one of ``owner`` that came now."""
        own = len(self._waiting.get(owner, ()))
        place = self._rotation.index(owner) if own else self._place(owner, holders)
        return (
            len(self._returned)
            + own
            + sum(
                min(len(self._waiting[other]), own + (at < place))
                for at, other in enumerate(self._rotation)
                if other != owner
            )
        )

    def _place(self, owner: str, holders: set[str]) -> int:
        """Where a new owner comes in: at the end, but before those there who are being served.

        One who waits and is not being served is never overtaken by a newcomer, so nobody starves.
        """
        place = len(self._rotation)
        if owner not in holders:
            while place and self._rotation[place - 1] in holders:
                place -= 1
        return place


class Scheduler:
    """Grants an engine's seats.

    Args:
        seats: How many replies may be generated at once; at least 1.
        queue: How many of a class may wait; one more gets ``Busy``.
        metrics: Where depth, waits and use are told.
        name: The engine's name, for the metrics.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        seats: int,
        queue: int,
        metrics: Metrics,
        *,
        name: str = "default",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._seats = seats
        self._queue = queue
        self._lines = {priority: _Line() for priority in Priority}
        self._held: set[Grant] = set()
        self._pace: float | None = None
        self._monotonic = monotonic
        self._metrics = metrics
        self._name = name
        metrics.seats.labels(name).set(seats)

    def resize(self, seats: int) -> None:
        """The engine told how many seats it really has; who holds one keeps it."""
        self._seats = seats
        self._metrics.seats.labels(self._name).set(seats)
        self._serve()

    def position(self, priority: Priority = Priority.PLAYER, owner: str = "") -> int:
        """How many of those who wait would be served before one that asks now."""
        higher = sum(len(self._lines[other]) for other in Priority if other < priority)
        return higher + self._lines[priority].ahead(owner, self._holders(priority))

    def expected_wait(self, owner: str = "") -> float:
        """Seconds until a player who asks now would get a seat; 0 if one is free.

        Every reply is taken to hold its seat for the mean of the last ones (exponentially weighted
        by ``NEWEST``), and seats of others than players to be free, for they are recalled.
        """
        pace = FIRST_GUESS if self._pace is None else self._pace
        now = self._monotonic()
        left = [max(pace * OVERDUE, pace - (now - held.since)) for held in self._players()]
        free_in = [0.0] * (self._seats - len(left)) + sorted(left)
        free_in = free_in[max(0, len(left) - self._seats) :]
        for _ in range(self.position(Priority.PLAYER, owner)):
            heapq.heapreplace(free_in, free_in[0] + pace)
        return free_in[0]

    def admit(self, priority: Priority = Priority.PLAYER) -> None:
        """Check that one more request would be taken.

        Raises:
            Busy: No seat is free for it and its queue is full. ``retry_after_ms`` is when half of
                those who wait will have been served: then there is room, and the seats have not
                run dry.
        """
        if not self._is_full(priority):
            return
        self._metrics.busy.labels(self._name, priority.label).inc()
        raise self._busy()

    @asynccontextmanager
    async def seat(
        self, priority: Priority, owner: str = "", *, again: bool = False
    ) -> AsyncIterator[Grant]:
        """Hold a seat.

        Args:
            priority: The class of the work.
            owner: Whose turn it takes inside the class.
            again: It was recalled: to the head of its class, and never refused.

        Raises:
            Busy: No seat is free for it and its queue is full; or it would read ahead, and waited
                so long that it is of no use any more.
            Recalled: What the body waits for was broken off because a player needs the engine.
        """
        if not again:
            self.admit(priority)
        grant = await self._take(priority, owner, again=again)
        try:
            yield grant
        finally:
            self._leave(grant)

    async def _take(self, priority: Priority, owner: str, *, again: bool) -> Grant:
        turn = _Turn(Grant(priority, owner, self._monotonic()), again=again)
        if priority is Priority.PLAYER:
            self._recall()
        self._lines[priority].push(turn, self._holders(priority))
        self._serve()
        try:
            granted = await turn.granted
        except asyncio.CancelledError:
            self._give_up(turn)
            raise
        if not granted:
            self._metrics.busy.labels(self._name, priority.label).inc()
            raise self._busy()
        return turn.grant

    def _give_up(self, turn: _Turn) -> None:
        if turn.waiting:
            self._lines[turn.grant.priority].remove(turn)
        if turn.grant in self._held:
            self._leave(turn.grant)
        else:
            self._serve()

    def _leave(self, grant: Grant) -> None:
        self._held.remove(grant)
        if grant.priority is Priority.PLAYER:
            held = self._monotonic() - grant.since
            self._pace = held if self._pace is None else self._pace + NEWEST * (held - self._pace)
        self._serve()

    def _serve(self) -> None:
        """Grant what can be granted. Called after everything that may have changed that."""
        for priority, line in self._lines.items():
            while line and self._is_free(priority):
                turn = line.head()
                if turn.granted.cancelled():  # its task has yet to notice
                    line.remove(turn)
                else:
                    line.pop()
                    self._grant(turn)
        self._tell()

    def _grant(self, turn: _Turn) -> None:
        grant, now = turn.grant, self._monotonic()
        waited, grant.since = now - grant.since, now
        stale = grant.priority is Priority.WARM and waited > WARM_PATIENCE and not turn.again
        if not stale:
            self._held.add(grant)
            self._metrics.queue_wait.labels(self._name, grant.priority.label).observe(waited)
        turn.granted.set_result(not stale)

    def _recall(self) -> None:
        for grant in self._held:
            if grant.priority is not Priority.PLAYER and not grant.recalled:
                grant.recall()
                self._metrics.recalls.labels(self._name, grant.priority.label).inc()

    def _is_free(self, priority: Priority) -> bool:
        """Whether a seat may be granted to the class now, those who wait above it aside."""
        quiet = priority is Priority.PLAYER or not (
            self._lines[Priority.PLAYER] or any(self._players())
        )
        return quiet and len(self._held) < self._seats

    def _is_full(self, priority: Priority) -> bool:
        waiting = len(self._lines[priority])
        if priority is Priority.PLAYER:
            return sum(1 for _ in self._players()) + waiting >= self._seats + self._queue
        bound = min(self._queue, WARM_QUEUE) if priority is Priority.WARM else self._queue
        above = any(self._lines[other] for other in Priority if other <= priority)
        return waiting >= bound and (above or not self._is_free(priority))

    def _busy(self) -> Busy:
        wait = round(self.expected_wait() * 1000 / 2)
        return Busy(
            "Every seat is taken and the queue is full. Try again in a moment.",
            retry_after_ms=min(max(wait, SHORTEST_RETRY_MS), LONGEST_RETRY_MS),
        )

    def _players(self) -> Iterator[Grant]:
        return (grant for grant in self._held if grant.priority is Priority.PLAYER)

    def _holders(self, priority: Priority) -> set[str]:
        return {grant.owner for grant in self._held if grant.priority is priority}

    def _tell(self) -> None:
        for priority, line in self._lines.items():
            labels = (self._name, priority.label)
            held = sum(grant.priority is priority for grant in self._held)
            self._metrics.queue_depth.labels(*labels).set(len(line))
            self._metrics.seats_busy.labels(*labels).set(held)
