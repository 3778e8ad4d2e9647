"""Seats go to those who know them, and prompts are kept in whole blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.prefix import common_length
from npc_server.engines.seats import BLOCK, Seat, Seats, chunk


def take(
    seats: Seats, job: int, affinity: str, *, hint: bool = False, adapter: str = ""
) -> int | None:
    seat = seats.take(job, affinity, hint=hint, adapter=adapter)
    return None if seat is None else seat.number


def test_an_affinity_returns_to_its_seat() -> None:
    """Others get seats of their own while there are any."""
    seats = Seats(2)
    assert (take(seats, 1, "a"), take(seats, 2, "b")) == (0, 1)
    seats.leave(1)
    seats.leave(2)
    assert (take(seats, 3, "b"), take(seats, 4, "a")) == (1, 0)


def test_without_a_free_seat_a_job_waits() -> None:
    """A full house gives none, until one leaves; then the one idle longest is used again."""
    seats = Seats(2)
    take(seats, 1, "a")
    take(seats, 2, "b")
    assert take(seats, 3, "c") is None
    seats.leave(2)
    seats.leave(1)
    assert take(seats, 3, "c") == 0


def test_a_reply_takes_the_seat_of_a_hint() -> None:
    """A prompt that is only read ahead of time gives way, first to its own affinity."""
    seats = Seats(2)
    take(seats, 1, "a", hint=True)
    take(seats, 2, "b", hint=True)
    assert take(seats, 3, "b") == 1
    assert take(seats, 4, "c") == 0
    assert take(seats, 5, "d", hint=True) is None
    assert take(seats, 6, "d") is None


def test_what_is_forgotten_is_used_first() -> None:
    """A forgotten seat holds nothing and is taken before another is made."""
    seats = Seats(3)
    for job, affinity in enumerate(["w/one/a", "w/two/a"], 1):
        take(seats, job, affinity)
        seats.leave(job)
    first, second = seats
    first.read(range(64))
    second.read(range(64))
    seats.forget("w/two/")
    assert (len(first.tokens), len(second.tokens), second.affinity) == (64, 0, None)
    assert take(seats, 9, "w/three/a") == 1


def test_a_busy_seat_is_forgotten_when_it_is_left() -> None:
    """A reply under way ends first; then nothing of it stays."""
    seats = Seats(1)
    take(seats, 1, "w/one/a")
    (seat,) = seats
    seat.read(range(64))
    seats.forget("w/one/")
    assert len(seat.tokens) == 64
    seats.leave(1)
    assert (seat.tokens, seat.whole) == ([], 0)


@given(
    old=st.lists(st.integers(0, 2), max_size=200),
    new=st.lists(st.integers(0, 2), max_size=200),
    same=st.integers(0, 150),
)
def test_only_whole_blocks_of_a_common_beginning_are_kept(
    old: list[int], new: list[int], same: int
) -> None:
    """What is kept is common to both prompts, in whole blocks, and never the whole new prompt."""
    seat = Seat(0)
    seat.read([0] * same + old)
    prompt = [0] * same + new
    kept = seat.begin(prompt)
    assert kept % BLOCK == 0
    assert kept == 0 or kept < len(prompt)
    assert seat.tokens == prompt[:kept]
    assert kept >= min(same, max(len(prompt) - 1, 0)) // BLOCK * BLOCK - BLOCK


@pytest.mark.parametrize(
    ("one", "other", "length"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2], [1, 3], 1)]
)
def test_the_common_beginning_is_counted(one: list[int], other: list[int], length: int) -> None:
    """Up to the first difference, or the end of the shorter."""
    assert common_length(one, other) == length


def test_chunks_are_small_where_others_wait() -> None:
    """Alone a prompt is read faster; its last chunk is what is left."""
    assert [chunk(0, 200, alone=alone) for alone in (True, False)] == [64, 32]
    assert chunk(192, 200, alone=True) == 8


def test_a_seat_belongs_to_an_adapter() -> None:
    """The same affinity with another adapter gets another seat, and returns to each."""
    seats = Seats(3, adapters=2)
    for job, adapter in enumerate(["", "x", "y"]):
        assert take(seats, job, "a", adapter=adapter) == job
        seats.leave(job)
    assert [take(seats, 10 + at, "a", adapter=name) for at, name in enumerate("yx")] == [2, 1]


def test_a_seat_with_another_adapter_holds_nothing() -> None:
    """What was read by one model is of no use to another."""
    seats = Seats(1)
    take(seats, 1, "a")
    (seat,) = seats
    seat.read(range(64))
    seats.leave(1)
    assert take(seats, 2, "a", adapter="x") == 0
    assert (seat.tokens, seat.whole, seat.adapter, seat.affinity) == ([], 0, "x", "a")


def test_an_empty_seat_with_the_adapter_comes_first() -> None:
    """A forgotten seat keeps its instance, and is best for those who need the same."""
    seats = Seats(3, adapters=2)
    for job, adapter in enumerate("xy"):
        take(seats, job, f"w/{adapter}", adapter=adapter)
        seats.leave(job)
    seats.forget("w/")
    assert take(seats, 5, "w/new", adapter="y") == 1
    assert take(seats, 6, "w/new", adapter="") == 0


def test_adapters_are_bounded() -> None:
    """One too many makes the seats of the one idle longest empty; where all are busy it waits."""
    seats = Seats(4, adapters=2)
    take(seats, 1, "a", adapter="x")
    take(seats, 2, "b", adapter="y")
    assert take(seats, 3, "c", adapter="z") is None
    assert take(seats, 4, "c") == 2
    seats.leave(2)
    assert take(seats, 3, "c", adapter="z") == 1
    assert {seat.adapter for seat in seats} == {"x", "z", ""}
    assert take(seats, 5, "d", adapter="x") == 3


def test_a_hint_with_another_adapter_gives_way_too() -> None:
    """A reply takes its seat, and the seat then has the reply's adapter."""
    seats = Seats(1, adapters=1)
    take(seats, 1, "a", hint=True)
    assert take(seats, 2, "b", adapter="x") == 0
    assert [seat.adapter for seat in seats] == ["x"]
