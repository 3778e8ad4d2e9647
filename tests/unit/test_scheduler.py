"""Who gets a seat when: classes, turns of owners, recalls, bounds, and nothing lost in between."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npc_server.errors import Busy
from npc_server.observability import Metrics
from npc_server.scheduler import (
    FIRST_GUESS,
    WARM_PATIENCE,
    WARM_QUEUE,
    Grant,
    Priority,
    Recalled,
    Scheduler,
    _Line,
    _Turn,
)

PLAYER, WARM, AMBIENT, BACKGROUND = Priority


class Desk:
    """Work of several kinds at one scheduler: who got a seat is written down in order."""

    def __init__(self, seats: int = 1, queue: int = 8) -> None:
        self.now = 0.0
        self.metrics = Metrics()
        self.scheduler = Scheduler(seats, queue, self.metrics, monotonic=lambda: self.now)
        self.log: list[str] = []
        self.recalled: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, priority: Priority = PLAYER, owner: str = "") -> None:
        """Let a task of that name ask for a seat, and work until ``finish``."""
        self.gates[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._work(name, priority, owner))
        await settle()

    async def finish(self, *names: str) -> None:
        """Let work end, one after the other."""
        for name in names:
            self.gates[name].set()
            await settle()

    async def close(self) -> None:
        """Let all work end; what failed is raised."""
        for gate in self.gates.values():
            gate.set()
        await asyncio.gather(*self.tasks.values())

    def sample(self, metric: str, priority: Priority) -> float | None:
        """A metric's value for a class."""
        labels = {"engine": "default", "priority": priority.label}
        return self.metrics.registry.get_sample_value(metric, labels)

    async def _work(self, name: str, priority: Priority, owner: str) -> None:
        again = False
        while True:
            try:
                async with self.scheduler.seat(priority, owner, again=again) as grant:
                    self.log.append(name)
                    await grant.run(self.gates[name].wait())
                    return
            except Recalled:
                self.recalled.append(name)
                again = True


async def settle() -> None:
    """Let every task that can go on do so."""
    for _ in range(8):
        await asyncio.sleep(0)


async def test_first_come_first_served() -> None:
    """Two seats take the first two of one owner; the third comes in before the fourth."""
    desk = Desk(seats=2)
    for name in "abcd":
        await desk.ask(name)
    assert desk.log == ["a", "b"]
    assert desk.scheduler.position() == 2
    await desk.finish("b")
    assert desk.log == ["a", "b", "c"]
    await desk.close()
    assert desk.log == ["a", "b", "c", "d"]
    assert desk.scheduler.position() == 0


async def test_owners_take_turns() -> None:
    """Who asks for one reply waits for one of another's ten, not for all of them."""
    desk = Desk(queue=20)
    for n in range(10):
        await desk.ask(f"a{n}", owner="a")
    await desk.ask("b0", owner="b")
    await desk.ask("b1", owner="b")
    await desk.finish("a0", "b0", "a1", "b1", "a2", "a3")
    assert desk.log[:7] == ["a0", "b0", "a1", "b1", "a2", "a3", "a4"]
    await desk.close()


async def test_a_position_counts_turns() -> None:
    """The position of an owner's next request is what would be served before it."""
    desk = Desk(queue=20)
    for n in range(4):
        await desk.ask(f"a{n}", owner="a")
    await desk.ask("b0", owner="b")
    assert desk.scheduler.position(owner="c") == 1, "b waits; a is being served"
    assert desk.scheduler.position(owner="b") == 2, "b0 and one of a"
    assert desk.scheduler.position(owner="a") == 4, "b0 and three of its own"
    assert desk.scheduler.position(AMBIENT) == 4, "every player who waits"
    await desk.close()


async def test_classes_in_strict_order() -> None:
    """Whatever was asked for first, players come first, then warm, ambient, background."""
    desk = Desk()
    await desk.ask("now")
    for priority in reversed(Priority):
        await desk.ask(priority.label, priority)
    await desk.finish("now", "player", "warm", "ambient", "background")
    assert desk.log == ["now", "player", "warm", "ambient", "background"]


@pytest.mark.parametrize("priority", [WARM, AMBIENT, BACKGROUND])
async def test_a_player_recalls_everything_below_it(priority: Priority) -> None:
    """A player gets its seat at once, and what it recalled goes on first when it is done."""
    desk = Desk()
    await desk.ask("low", priority, "a")
    await desk.ask("later", priority, "b")
    await desk.ask("player", owner="a")
    assert desk.log == ["low", "player"]
    assert desk.recalled == ["low"]
    assert desk.sample("npc_recalls_total", priority) == 1
    await desk.finish("player")
    assert desk.log == ["low", "player", "low"]
    await desk.close()
    assert desk.log[3:] == ["later"]


async def test_free_seats_stay_free_beside_a_player() -> None:
    """Below a player nothing runs while one holds a seat, though others are free: they share."""
    desk = Desk(seats=4)
    await desk.ask("ambient", AMBIENT)
    await desk.ask("one")
    await desk.ask("two")
    await desk.ask("background", BACKGROUND)
    assert desk.log == ["ambient", "one", "two"]
    assert desk.recalled == ["ambient"]
    await desk.finish("one")
    assert desk.log == ["ambient", "one", "two"]
    await desk.finish("two")
    assert desk.log[3:] == ["ambient", "background"]
    await desk.close()


async def test_a_player_who_gives_up_lets_the_rest_go_on() -> None:
    """A player that is cancelled, while it waits or at work, wakes those below it."""
    desk = Desk()
    await desk.ask("one")
    await desk.ask("two")
    await desk.ask("ambient", AMBIENT)
    for name in ("two", "one"):
        assert "ambient" not in desk.log
        desk.tasks.pop(name).cancel()
        await settle()
    assert desk.log == ["one", "ambient"]
    await desk.close()


async def test_who_gives_up_waiting_takes_no_seat() -> None:
    """A waiter that is cancelled leaves the queue, even in the moment when its turn comes."""
    desk = Desk()
    for name in "nabc":
        await desk.ask(name)
    desk.tasks.pop("a").cancel()
    await settle()
    desk.gates["n"].set()
    await asyncio.sleep(0)
    assert desk.sample("npc_queue_depth", PLAYER) == 1, "b was granted the seat"
    desk.tasks.pop("b").cancel()
    await settle()
    assert desk.log == ["n", "c"]
    await desk.close()
    assert desk.sample("npc_seats_busy", PLAYER) == 0


async def test_a_full_queue_is_busy() -> None:
    """Past its bound the queue refuses, and says when to come back by the pace it measured."""
    desk = Desk(queue=0)
    await desk.ask("slow")
    desk.now = 40.0
    await desk.finish("slow")
    await desk.ask("now")
    with pytest.raises(Busy) as caught:
        desk.scheduler.admit()
    assert caught.value.retry_after_ms == 20_000, "half of the 40 s that the last one took"
    with pytest.raises(Busy):
        await desk.scheduler.seat(PLAYER).__aenter__()
    assert desk.sample("npc_busy_total", PLAYER) == 2
    await desk.close()
    desk.scheduler.admit()


@pytest.mark.parametrize(
    ("priority", "bound"), [(PLAYER, 6), (WARM, WARM_QUEUE), (AMBIENT, 6), (BACKGROUND, 6)]
)
async def test_every_class_has_its_bound(priority: Priority, bound: int) -> None:
    """So many of a class may wait, and the next one is refused; other classes are not."""
    desk = Desk(queue=6)
    await desk.ask("now")
    for n in range(bound):
        await desk.ask(str(n), priority)
    assert desk.sample("npc_queue_depth", priority) == bound
    with pytest.raises(Busy):
        desk.scheduler.admit(priority)
    for other in set(Priority) - {priority}:
        desk.scheduler.admit(other)
    await desk.close()


async def test_seats_of_the_recalled_count_as_free_for_players() -> None:
    """With no queue at all a player is still admitted where work below it holds the seat."""
    desk = Desk(queue=0)
    await desk.ask("ambient", AMBIENT)
    assert desk.scheduler.expected_wait() == 0
    await desk.ask("player")
    assert desk.log == ["ambient", "player"]
    await desk.close()


async def test_who_is_put_back_is_never_refused() -> None:
    """What was recalled waits again though the queue of its class is full."""
    desk = Desk(queue=1)
    await desk.ask("ambient", AMBIENT)
    await desk.ask("other", AMBIENT)
    await desk.ask("player")
    assert desk.recalled == ["ambient"]
    assert desk.sample("npc_queue_depth", AMBIENT) == 2
    await desk.close()
    assert desk.log[2:] == ["ambient", "other"]


async def test_a_stale_prompt_is_not_read_ahead() -> None:
    """A warm that waited for too long is dropped with ``Busy``, and the next one is granted."""
    desk = Desk()
    await desk.ask("player")
    await desk.ask("stale", WARM, "a")
    desk.now = WARM_PATIENCE + 1
    await desk.ask("fresh", WARM, "b")
    await desk.finish("player")
    assert desk.log == ["player", "fresh"]
    with pytest.raises(Busy):
        await desk.tasks.pop("stale")
    await desk.close()


async def test_the_expected_wait() -> None:
    """It follows from how long seats were held, since when they are, and who waits before."""
    desk = Desk(seats=2)
    assert desk.scheduler.expected_wait() == 0
    await desk.ask("a")
    assert desk.scheduler.expected_wait() == 0, "the other seat is free"
    await desk.ask("b")
    assert desk.scheduler.expected_wait() == FIRST_GUESS
    desk.now = 10.0
    await desk.finish("a")
    await desk.ask("c")
    desk.now = 14.0
    assert desk.scheduler.expected_wait() == 1.0, "b is overdue and leaves soon: a tenth of 10 s"
    await desk.ask("d")
    assert desk.scheduler.expected_wait() == 6.0, "d takes the seat of b; c has 6 s to go"
    await desk.ask("e")
    assert desk.scheduler.expected_wait() == 11.0, "e takes that of c; d is done in 1 + 10 s"
    await desk.close()


async def test_more_and_fewer_seats() -> None:
    """More seats are granted at once; of fewer, those that are held are kept until left."""
    desk = Desk(seats=1)
    for name in "abcd":
        await desk.ask(name)
    desk.scheduler.resize(3)
    await settle()
    assert desk.log == ["a", "b", "c"]
    desk.scheduler.resize(1)
    assert desk.scheduler.expected_wait() == 2 * FIRST_GUESS, "all three leave, then d"
    await desk.finish("a", "b")
    assert desk.log == ["a", "b", "c"]
    await desk.finish("c")
    assert desk.log == ["a", "b", "c", "d"]
    await desk.close()


async def count_up(released: asyncio.Event | None = None) -> AsyncIterator[int]:
    """0, 1, 2, and no more before the event."""
    for n in range(3):
        yield n
    if released is not None:
        await released.wait()
        yield 3


def a_grant() -> Grant:
    """One that nobody knows of but the test."""
    return Grant(AMBIENT, "a", 0.0)


async def test_a_stream_is_broken_off_while_it_waits() -> None:
    """A recall ends the wait for the next piece, and leaves the task free of cancellation."""
    grant, seen = a_grant(), list[int]()

    async def work() -> str:
        try:
            async for n in grant.until_recalled(count_up(asyncio.Event())):
                seen.append(n)
        except Recalled:
            await asyncio.sleep(0)
            task = asyncio.current_task()
            assert task is not None
            return f"recalled, {task.cancelling()} cancellations"
        return "went on"

    task = asyncio.create_task(work())
    await settle()
    grant.recall()
    assert await task == "recalled, 0 cancellations"
    assert seen == [0, 1, 2]


async def test_a_stream_is_broken_off_between_pieces() -> None:
    """A recall that comes while a piece is being used is raised before the next."""
    grant = a_grant()
    pieces = grant.until_recalled(count_up())
    assert await anext(pieces) == 0
    grant.recall()
    with pytest.raises(Recalled):
        await anext(pieces)


async def test_a_stream_that_nobody_recalls_is_as_it_was() -> None:
    """Every piece comes through, and the end."""
    assert [n async for n in a_grant().until_recalled(count_up())] == [0, 1, 2]


async def test_work_is_not_begun_after_a_recall() -> None:
    """``run`` raises at once where the grant was recalled before."""
    grant, future = a_grant(), asyncio.get_running_loop().create_future()
    grant.recall()
    with pytest.raises(Recalled):
        await grant.run(future)
    assert not future.done()


@pytest.mark.parametrize("first", ["recall", "cancel"])
async def test_a_real_cancellation_goes_through(first: str) -> None:
    """Cancelled in the same moment as recalled, before or after, a task is cancelled."""
    grant = a_grant()
    task = asyncio.create_task(grant.run(asyncio.Event().wait()))
    await settle()
    if first == "recall":
        grant.recall()
    task.cancel()
    grant.recall()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_hears_no_recall_leaves_no_cancellation_behind() -> None:
    """Where the work swallows the cancellation its result counts, and nothing cancels later."""
    grant = a_grant()

    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    async def work() -> tuple[str, int]:
        result = await grant.run(stubborn())
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return result, task.cancelling()

    task = asyncio.create_task(work())
    await settle()
    grant.recall()
    assert await task == ("done", 0)


async def test_a_recall_inside_a_time_out_is_no_time_out() -> None:
    """The stream of an engine waits under ``asyncio.timeout``: a recall passes through it."""
    grant = a_grant()

    async def paced() -> AsyncIterator[int]:
        async with asyncio.timeout(60):
            yield await asyncio.get_running_loop().create_future()

    async def work() -> None:
        async for _ in grant.until_recalled(paced()):
            pass

    task = asyncio.create_task(work())
    await settle()
    grant.recall()
    with pytest.raises(Recalled):
        await task


class Watched(Scheduler):
    """Checks in the moment of every grant that it was the right one."""

    overtaken: Counter[tuple[Priority, float, str]]

    def _grant(self, turn: _Turn) -> None:
        grant = turn.grant
        waiting = [other for line in self._lines.values() for other in _still_there(line)]
        assert all(other.grant.priority >= grant.priority for other in waiting), "strict order"
        mates = [other for other in waiting if other.grant.priority is grant.priority]
        if turn.again:
            assert all(m.grant.since > grant.since for m in mates if m.again), "as they came back"
        else:
            self._check_turn(grant, mates)
        super()._grant(turn)

    def _check_turn(self, grant: Grant, mates: list[_Turn]) -> None:
        assert not [m for m in mates if m.again], "those who were put back come first"
        first: dict[str, float] = {}
        for mate in mates:
            first.setdefault(mate.grant.owner, mate.grant.since)
        assert first.get(grant.owner, grant.since) >= grant.since, "in order inside an owner"
        for owner in first.keys() - self._holders(grant.priority) - {grant.owner}:
            key = (grant.priority, first[owner], grant.owner)
            self.overtaken[key] += 1
            assert self.overtaken[key] == 1, "owners take turns"


def _still_there(line: _Line) -> list[_Turn]:
    turns = [*line._returned, *(turn for owner in line._waiting.values() for turn in owner)]
    return [turn for turn in turns if not turn.granted.cancelled()]


@dataclass(eq=False)
class Job:
    """One task of the random test."""

    priority: Priority
    owner: str
    done: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    state: str = "new"


class Crowd:
    """Many tasks at one scheduler, and what must hold whatever they do."""

    def __init__(self, seats: int, queue: int) -> None:
        moments = itertools.count()
        self.scheduler = Watched(seats, queue, Metrics(), monotonic=lambda: next(moments) / 1e6)
        self.scheduler.overtaken = Counter()
        self.jobs: list[Job] = []

    def of(self, state: str) -> list[Job]:
        """The jobs in a state."""
        return [job for job in self.jobs if job.state == state]

    def ask(self, priority: Priority, owner: str) -> None:
        """One more job."""
        job = Job(priority, owner)
        self.jobs.append(job)
        job.task = asyncio.create_task(self._work(job))

    async def close(self) -> None:
        """End all jobs as they get their seats; what failed in them is raised."""
        for _ in range(2 * len(self.jobs)):
            for job in self.of("holding"):
                job.done.set()
            await settle()
        ends = await asyncio.gather(
            *(job.task for job in self.jobs if job.task), return_exceptions=True
        )
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def check(self) -> None:
        """What must be so whenever every task has had its say."""
        holding, waiting = self.of("holding"), self.of("waiting")
        assert len(self.scheduler._held) == len(holding), "no seat is leaked"
        if any(job.priority is PLAYER for job in holding + waiting):
            assert all(job.priority is PLAYER for job in holding), "players have it to themselves"
            waiting = [job for job in waiting if job.priority is PLAYER]
        for priority, line in self.scheduler._lines.items():
            queued = [job for job in self.of("waiting") if job.priority is priority]
            assert len(line) == len(queued), "no waiter is forgotten"
        if len(holding) < self.scheduler._seats:
            assert not waiting, "no wake-up is lost"

    async def _work(self, job: Job) -> None:
        again = False
        try:
            while True:
                job.state = "waiting"
                try:
                    async with self.scheduler.seat(job.priority, job.owner, again=again) as grant:
                        job.state = "holding"
                        await grant.run(job.done.wait())
                        return
                except Recalled:
                    again = True
        except Busy:
            assert not again, "who is put back is never refused"
        finally:
            job.state = "done"


ASK = st.tuples(st.just("ask"), st.sampled_from(Priority), st.sampled_from("abc"))
STEPS = st.one_of(
    ASK,
    ASK,
    ASK,
    st.tuples(st.sampled_from(["finish", "cancel", "cancel waiting"]), st.integers(0, 9)),
    st.tuples(st.sampled_from(["finish", "cancel waiting"]), st.integers(0, 9)),
    st.tuples(st.just("resize"), st.integers(1, 4)),
    st.tuples(st.just("tick")),
    st.tuples(st.just("tick")),
    st.tuples(st.just("settle")),
)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3), st.integers(1, 12), st.lists(STEPS, min_size=30, max_size=100))
def test_nothing_is_lost_whatever_happens(
    seats: int, queue: int, steps: list[tuple[object, ...]]
) -> None:
    """Tasks come, end, are cancelled and recalled at any moment, and still all is in order.

    No seat leaks, no waiter is forgotten, classes and turns are kept. Who waits and is not being
    served is not overtaken twice by the same owner.
    """
    asyncio.run(_act(Crowd(seats, queue), steps))


async def _act(crowd: Crowd, steps: list[tuple[object, ...]]) -> None:
    for step in steps:
        match step:
            case ("ask", Priority() as priority, str(owner)):
                crowd.ask(priority, owner)
            case ("resize", int(seats)):
                crowd.scheduler.resize(seats)
            case ("tick",):
                await asyncio.sleep(0)
            case ("settle",):
                await settle()
                crowd.check()
            case (str(what), int(which)):
                _end(crowd, what, which)
    await settle()
    crowd.check()
    await crowd.close()
    assert not crowd.of("waiting")
    assert not crowd.scheduler._held


def _end(crowd: Crowd, what: str, which: int) -> None:
    found = crowd.of("waiting" if what == "cancel waiting" else "holding")
    if found:
        job = found[which % len(found)]
        if what == "finish":
            job.done.set()
        elif job.task is not None:
            job.task.cancel()
