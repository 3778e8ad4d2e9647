"""Nobody is ever given what it did not hear: the long check."""

from __future__ import annotations

from leak_machine import KINDS, Leaks, run
from soak_progress import Progress

STEPS, CHUNK = 20_000, 1_000


def test_nobody_knows_what_it_did_not_hear(progress: Progress) -> None:
    """20,000 random steps, half of them in conversations of 200 steps; see the quick check."""
    for chunk in progress.left(STEPS // CHUNK):
        happened = run(Leaks, CHUNK, each=200 if chunk % 2 else 50, first=1_000 * (chunk + 1))
        assert sum(kind in happened for kind in KINDS) > len(KINDS) // 2
