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
    """A waiter that is cancelled leaves the queue, even in the moment when its turn comes."""
    scheduler, log = Scheduler(1, 8, Metrics()), list[str]()
    gate = asyncio.Event()
    gate.set()
    async with scheduler.seat():
        waiters = [asyncio.create_task(hold(scheduler, log, name, gate)) for name in "abc"]
        await asyncio.sleep(0)
        waiters[0].cancel()
        await asyncio.sleep(0)
    waiters[1].cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert log == ["c"]
    async with scheduler.seat():
        assert scheduler.position == 0
