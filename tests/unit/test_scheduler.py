"""Seats are granted in order of arrival, and the queue is bounded."""

import asyncio

import pytest

from npc_server.errors import Busy
from npc_server.observability import Metrics
from npc_server.scheduler import Scheduler


async def hold(scheduler: Scheduler, log: list[str], name: str, go: asyncio.Event) -> None:
    async with scheduler.seat():
        log.append(name)
        await go.wait()


async def test_first_come_first_served() -> None:
    """Two seats take the first two; the third comes in when one leaves, before the fourth."""
    scheduler, log = Scheduler(2, 8, Metrics()), list[str]()
    gates = [asyncio.Event() for _ in range(4)]
    tasks = [asyncio.create_task(hold(scheduler, log, str(n), g)) for n, g in enumerate(gates)]
    await asyncio.sleep(0)
    assert log == ["0", "1"]
    assert scheduler.position == 2
    gates[1].set()
    await tasks[1]
    await asyncio.sleep(0)
    assert log == ["0", "1", "2"]
    for gate in gates:
        gate.set()
    await asyncio.gather(*tasks)
    assert scheduler.position == 0


async def test_a_full_queue_is_busy() -> None:
    """Past its bound the queue refuses at once and says when to come back."""
    scheduler = Scheduler(1, 0, Metrics())
    async with scheduler.seat():
        with pytest.raises(Busy) as caught:
            scheduler.admit()
        assert caught.value.retry_after_ms
        with pytest.raises(Busy):
            await scheduler.seat().__aenter__()
    scheduler.admit()


async def test_who_gives_up_waiting_takes_no_seat() -> None:
    """A cancelled waiter leaves the queue, whether its turn had come or not."""
    scheduler, log = Scheduler(1, 8, Metrics()), list[str]()
    first, last = asyncio.Event(), asyncio.Event()
    holder = asyncio.create_task(hold(scheduler, log, "a", first))
    await asyncio.sleep(0)
    waiter = asyncio.create_task(hold(scheduler, log, "b", last))
    next_one = asyncio.create_task(hold(scheduler, log, "c", last))
    await asyncio.sleep(0)
    first.set()
    await holder
    waiter.cancel()
    last.set()
    await asyncio.gather(waiter, next_one, return_exceptions=True)
    assert log == ["a", "c"]
    async with scheduler.seat():
        assert scheduler.position == 0
