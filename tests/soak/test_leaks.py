"""Nobody is ever given what it did not hear: the long check."""

from __future__ import annotations

from collections import Counter

from hypothesis import seed
from leak_machine import KINDS, Leaks, run, settings_for
from soak_progress import Progress

STEPS, CHUNK = 20_000, 1_000


def test_nobody_knows_what_it_did_not_hear(progress: Progress) -> None:
    """20,000 random steps, half of them in conversations of 120 steps; see the quick check."""
    for chunk in progress.left(STEPS // CHUNK):
        machine = seed(chunk)(type("Chunk", (Leaks,), {}))
        happened: Counter[str] = run(
            machine, settings_for(CHUNK * 3 // 2, each=120 if chunk % 2 else 50)
        )
        assert happened["step"] >= CHUNK
        assert sum(kind in happened for kind in KINDS) > len(KINDS) // 2
