"""Who gets which seat of llama.cpp, and what becomes of the states of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from npc_server.engines.llamacpp_http import HttpFailed, HttpRefused
from npc_server.engines.llamacpp_seats import Key, Seat, SeatKeeper, Shelf, choose

A, B, C = Key("w/a"), Key("w/b"), Key("x/c")


class Slots:
    """Remembers what it was told; ``save`` says that a state takes ten bytes."""

    def __init__(self) -> None:
        self.acts: list[tuple[int, str, int | None]] = []
        self.cleared: list[int] = []
        self.go = asyncio.Event()
        self.go.set()
        self.refuse: Exception | None = None

    async def act(self, seat: int, action: str, place: int | None = None) -> dict[str, Any]:
        await self.go.wait()
        self.acts.append((seat, action, place))
        if self.refuse is not None and action != "erase":
            raise self.refuse
        return {"n_written": 10}

    async def clear(self, places: Sequence[int]) -> None:
        self.cleared += places


@pytest.fixture
def slots() -> Slots:
    return Slots()


def keeper(slots: Slots, seats: int = 1, places: int = 3, most: int = 100) -> SeatKeeper:
    return SeatKeeper(slots, seats, Shelf(range(70, 70 + places), most))


async def use(seats: SeatKeeper, *keys: Key) -> list[int]:
    numbers = []
    for key in keys:
        async with seats.seat(key) as number:
            numbers.append(number)
    return numbers


async def settled(seats: SeatKeeper) -> None:
    while seats._tasks:
        await asyncio.gather(*seats._tasks)


def test_a_key_returns_to_its_own_seat() -> None:
    """Else an empty seat is taken, else the one that was idle longest; never a busy one."""
    seats = [Seat(0, A, used=9), Seat(1, B, used=1), Seat(2), Seat(3, B, user=Key("x/d"))]
    assert choose(seats, A) is seats[0]
    assert choose(seats, C) is seats[2]
    assert choose(seats[:2], C) is seats[1]
    assert choose(seats[3:], B) is None
    assert choose(seats, Key("x/d")) is None


async def test_the_same_seat_needs_no_request_to_llama(slots: Slots) -> None:
    """Who returns to the seat that is still theirs costs nothing; another adapter is another."""
    seats = keeper(slots, seats=2)
    assert await use(seats, A, B, A, B) == [0, 1, 0, 1]
    assert slots.acts == []
    await use(seats, Key("w/a", ("lora", 1.0)))
    assert slots.acts == [(0, "save", 70)]


async def test_a_state_is_put_away_and_fetched(slots: Slots) -> None:
    """One seat, two keys in turn: each finds its state again; its place is emptied afterwards."""
    seats = keeper(slots)
    await use(seats, A, B, A)
    assert slots.acts == [(0, "save", 70), (0, "save", 71), (0, "restore", 70)]
    await settled(seats)
    assert slots.cleared == [70]


async def test_what_was_put_away_longest_ago_gives_way(slots: Slots) -> None:
    """The memory has a bound, and so has the number of places."""
    seats = keeper(slots, most=15)
    await use(seats, A, B, C)
    await settled(seats)
    assert slots.cleared == [70]
    await use(seats, A)
    assert [action for _, action, _ in slots.acts] == ["save", "save", "save"]
    few = keeper(other := Slots(), places=1)
    await use(few, A, B, C)
    assert other.acts == [(0, "save", 70), (0, "save", 70)]
    none = keeper(third := Slots(), places=0)
    await use(none, A, B)
    assert third.acts == []


async def test_who_waits_is_served_in_turn(slots: Slots) -> None:
    """With one seat busy, two wait; one of them gives up, and so does one that was just served."""
    seats = keeper(slots)
    async with seats.seat(A):
        gone = asyncio.create_task(use(seats, B))
        late = asyncio.create_task(use(seats, C))
        await asyncio.sleep(0)
        gone.cancel()
    assert await late == [0]
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(seats.seat(A))
        served = asyncio.create_task(use(seats, B))
        await asyncio.sleep(0)
        await stack.aclose()
        served.cancel()
        with pytest.raises(asyncio.CancelledError):
            await served
    assert await use(seats, A) == [0]


async def test_a_hint_gives_way(slots: Slots) -> None:
    """A hint takes an idle seat only, and is ended when a reply needs it."""
    seats = keeper(slots)
    entered = asyncio.Event()

    async def hint() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with seats.hinted_seat(A, task) as number:
            assert number == 0
            entered.set()
            await asyncio.Event().wait()

    hinting = asyncio.create_task(hint())
    await entered.wait()
    async with seats.hinted_seat(B, hinting) as number:
        assert number is None
    assert await use(seats, B) == [0]
    assert hinting.cancelled()


async def test_no_key_has_two_seats(slots: Slots) -> None:
    """A reply ends its own hint and waits for that seat, though others are idle; others may go."""
    seats = keeper(slots, seats=3)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def hint() -> None:
        task = asyncio.current_task()
        assert task is not None
        async with seats.hinted_seat(A, task):
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                await leave.wait()

    hinting = asyncio.create_task(hint())
    await entered.wait()
    reply = asyncio.create_task(use(seats, A))
    await asyncio.sleep(0)
    async with seats.hinted_seat(A, hinting) as number:
        assert number is None
    assert await use(seats, B, C) == [1, 2]
    assert not reply.done()
    leave.set()
    assert await reply == [0]
    assert hinting.cancelled()


async def test_who_waits_for_a_seat_of_its_own_holds_up_nobody(slots: Slots) -> None:
    """Behind a reply that waits for the seat of its key, another gets the seat that falls idle."""
    seats = keeper(slots, seats=2)
    async with seats.seat(A):
        async with seats.seat(B):
            again, other = asyncio.create_task(use(seats, A)), asyncio.create_task(use(seats, C))
            await asyncio.sleep(0)
        assert await other == [1]
        assert not again.done()
    assert await again == [0]


async def test_forgetting_erases_seats_and_places(slots: Slots) -> None:
    """Idle seats at once, busy ones when they are left; what was put away is emptied."""
    seats = keeper(slots, seats=2)
    await use(seats, Key("w/old"), A, C)
    assert slots.acts == [(0, "save", 70)]
    async with seats.seat(A):
        await seats.forget("w/")
        assert slots.cleared == [70]
        assert slots.acts == [(0, "save", 70)]
    await settled(seats)
    await seats.forget("x/")
    assert slots.acts[1:] == [(1, "erase", None), (0, "erase", None)]
    assert await use(seats, Key("w/old"), A) == [0, 1]
    assert len(slots.acts) == 3


async def test_what_is_forgotten_while_it_is_put_away_is_not_kept(slots: Slots) -> None:
    """The place is emptied, the seat erased before the next one reads."""
    seats = keeper(slots)
    await use(seats, A)
    slots.go.clear()
    using = asyncio.create_task(use(seats, B))
    await asyncio.sleep(0)
    await seats.forget("w/a")
    slots.go.set()
    await using
    await settled(seats)
    assert slots.acts == [(0, "save", 70), (0, "erase", None)]
    assert slots.cleared == [70]


async def test_leaving_while_a_state_is_fetched_keeps_the_seat_until_then(slots: Slots) -> None:
    """Who is cancelled goes at once; the next one waits for the seat to be in order."""
    seats = keeper(slots)
    await use(seats, A)
    slots.go.clear()
    using = asyncio.create_task(use(seats, B))
    await asyncio.sleep(0)
    using.cancel()
    with pytest.raises(asyncio.CancelledError):
        await using
    waiting = asyncio.create_task(use(seats, A))
    await asyncio.sleep(0)
    assert not waiting.done()
    slots.go.set()
    assert await waiting == [0]


async def test_a_refused_state_is_no_failure(slots: Slots) -> None:
    """Without room for a state the reply is made all the same, only later."""
    slots.refuse = HttpRefused("no room", "t")
    seats = keeper(slots)
    assert await use(seats, A, B, A) == [0, 0, 0]


async def test_a_worker_that_is_gone_is_heard(slots: Slots) -> None:
    """Its failure reaches who wanted the seat, and the seat is free again."""
    seats = keeper(slots)
    await use(seats, A)
    slots.refuse = HttpFailed("gone")
    with pytest.raises(HttpFailed):
        await use(seats, B)
    await seats.close()
    assert await use(seats, A) == [0]
