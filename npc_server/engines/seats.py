"""PURE. Who sits where: which seat a reply gets, and how much of its prompt is there already.

A reply depends on its request alone, not on what the seat read before. Floating-point sums depend
on how many tokens are read at once, so a token's state is used again only where it would come out
the same: in whole blocks of 32 tokens of a prompt. Tokens behind the last whole block, and those
that the model said itself, are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from npc_server.engines.prefix import common_length

BLOCK = 32
CHUNK = 64


@dataclass
class Seat:
    """One instance of the model with a memory of its own.

    Attributes:
        number: From 0; the name of the instance.
        adapter: The model file with an adapter that the instance runs; empty for the bare model.
        affinity: For whom it was used last.
        job: What it works on; ``None`` while it is idle.
        hint: Whether that work is only a hint and may be dropped.
        used: When it was used last, as a counter.
        tokens: What its memory holds.
        whole: How many of these, from the first, can be used again.
    """

    number: int
    adapter: str = ""
    affinity: str | None = None
    job: int | None = None
    hint: bool = False
    used: int = 0
    tokens: list[int] = field(default_factory=list)
    whole: int = 0

    def begin(self, prompt: Sequence[int]) -> int:
        """Keep what can be used for a prompt; returns how many tokens need not be read."""
        common = min(common_length(self.tokens, prompt), self.whole, max(len(prompt) - 1, 0))
        kept = common // BLOCK * BLOCK
        del self.tokens[kept:]
        self.whole = kept
        return kept

    def read(self, tokens: Sequence[int]) -> None:
        """Note that a part of a prompt was read, which began at a whole block."""
        self.tokens += tokens
        self.whole = len(self.tokens) // BLOCK * BLOCK

    def clear(self) -> None:
        """Forget everything."""
        self.affinity = None
        self.tokens.clear()
        self.whole = 0


class Seats:
    """The seats of a worker, made one by one as they are needed.

    Args:
        most: How many there may be.
        adapters: How many different adapters they may have at the same time.
    """

    def __init__(self, most: int, *, adapters: int = 1) -> None:
        self.most = most
        self.adapters = adapters
        self._seats: list[Seat] = []
        self._uses = 0

    def __iter__(self) -> Iterator[Seat]:
        """Every seat that was made."""
        return iter(self._seats)

    def take(self, job: int, affinity: str, *, hint: bool, adapter: str = "") -> Seat | None:
        """Give a seat to a job; ``None`` if it has to wait.

        In this order: the idle seat that was used for the same affinity and adapter; one that holds
        nothing, best with the same adapter; a new one; the one that was idle longest; and, unless
        the job is a hint itself, one whose work is a hint. A seat that gets another adapter loses
        what it holds; so do all seats of the adapter that was idle longest, where there would be
        too many.
        """
        seat = self._find(affinity, adapter, hint=hint)
        if seat is not None:
            if seat.adapter != adapter:
                seat.clear()
            self._uses += 1
            seat.job, seat.hint, seat.used = job, hint, self._uses
            seat.affinity, seat.adapter = affinity, adapter
        return seat

    def leave(self, job: int) -> None:
        """The job has ended; its seat is idle."""
        for seat in self._seats:
            if seat.job == job:
                seat.job = None
                if seat.affinity is None:
                    seat.clear()

    def forget(self, affinity: str) -> None:
        """Drop what seats hold for affinities that begin so; where one works, when it has ended."""
        for seat in self._seats:
            if seat.affinity is not None and seat.affinity.startswith(affinity):
                seat.affinity = None
                if seat.job is None:
                    seat.clear()

    def _find(self, affinity: str, adapter: str, *, hint: bool) -> Seat | None:
        def is_own(seat: Seat) -> bool:
            return (seat.affinity, seat.adapter) == (affinity, adapter)

        free = [seat for seat in self._seats if seat.job is None]
        hinted = (
            [] if hint else [seat for seat in self._seats if seat.job is not None and seat.hint]
        )
        own = self._oldest(free, is_own) or self._oldest(hinted, is_own)
        if own is not None:
            return own
        if not self._has_room(adapter):
            return None
        blank = [seat for seat in free if seat.affinity is None]
        fitting = self._oldest(blank, lambda seat: seat.adapter == adapter) or self._oldest(blank)
        if fitting is not None or len(self._seats) < self.most:
            return fitting or self._make()
        return self._oldest(free) or self._oldest(hinted)

    def _has_room(self, adapter: str) -> bool:
        """Whether a seat may have this adapter; makes room for it where that can be done."""
        loaded = {seat.adapter for seat in self._seats} - {""}
        if not adapter or adapter in loaded or len(loaded) < self.adapters:
            return True
        idle = loaded - {seat.adapter for seat in self._seats if seat.job is not None}
        if not idle:
            return False
        last_use = {name: max(s.used for s in self._seats if s.adapter == name) for name in idle}
        oldest = min(idle, key=lambda name: last_use[name])
        for seat in self._seats:
            if seat.adapter == oldest:
                seat.clear()
                seat.adapter = ""
        return True

    def _make(self) -> Seat:
        seat = Seat(len(self._seats))
        self._seats.append(seat)
        return seat

    @staticmethod
    def _oldest(
        seats: Sequence[Seat], fits: Callable[[Seat], bool] = lambda _seat: True
    ) -> Seat | None:
        return min((seat for seat in seats if fits(seat)), key=lambda seat: seat.used, default=None)


def chunk(position: int, length: int, *, alone: bool) -> int:
    """How many tokens of a prompt to read at once: few, so that others are not kept waiting.

    Args:
        position: How many are read; a multiple of ``BLOCK``.
        length: How many there are.
        alone: Whether nobody else is waiting.
    """
    return min(CHUNK if alone else BLOCK, length - position)
