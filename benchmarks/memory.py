"""Memory of server, worker and Redis with eight conversations, and whether it goes on growing.

The peak is that of the real model: a few turns in eight conversations at once. Growth is looked
for with a model of one tiny layer, whose turns are quick: a leak of the server, the worker's loop
or the store does not depend on what the model says. Before the count begins, 800 turns fill the
context and most of what is bounded. Each round is a turn in every conversation; after each, the
proportional memory (PSS) of all processes is read. The slope is by least squares over the turns
after the warm-up, its interval by Newey and West.

Conclusion: the peak belongs to the model and the seats; the slope to what is kept of every turn.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from common import (
    LINES,
    Comparison,
    Options,
    character,
    options,
    private_bytes,
    reply_to,
    report,
    run,
    serving,
    talking,
    tokens_of,
)
from measures import Target, figure, slope
from model_files import llama

CONVERSATIONS, SEATS = 8, 8
KINDS = ("server", "worker", "redis")

Sample = dict[str, int]
"""Bytes by kind of process."""


async def main(asked: Options) -> None:
    """Measure the peak, then the slope."""
    warm_up, counted = asked.samples(100, 10), asked.samples(64, 20)
    real = await rounds(asked, asked.samples(4, 2), context=2048)
    with tempfile.TemporaryDirectory(prefix="npc-benchmark-") as folder:
        tiny = Path(folder) / "tiny.gguf"
        tiny.write_bytes(llama(changes={"llama.context_length": 4096}))
        kept = await rounds(replace(asked, model=tiny), warm_up + counted, context=1024)
    totals = [sum(sample.values()) for sample in kept]
    after = kept[warm_up:]
    turns = [CONVERSATIONS * at for at in range(len(after))]
    whole = slope(turns, totals[warm_up:])
    parts = {kind: slope(turns, [sample[kind] for sample in after]) for kind in KINDS}
    peak = max(real[1:], key=lambda sample: sum(sample.values()))
    report(
        "memory",
        asked,
        [_ends(totals[warm_up:])],
        facts=[
            ("idle, with the real model", _told(real[0])),
            (f"peak with {CONVERSATIONS} conversations", _told(peak)),
            (f"growth over {turns[-1]} turns (target: below 1 KiB a turn)", _each(whole)),
            *((f"growth of {kind}", _each(found)) for kind, found in parts.items()),
        ],
        series={
            "turns": [CONVERSATIONS * at for at in range(len(kept))],
            "warm_up": CONVERSATIONS * warm_up,
            "mib": {kind: [sample[kind] / 2**20 for sample in kept] for kind in KINDS},
        },
    )


async def rounds(asked: Options, count: int, *, context: int) -> list[Sample]:
    """Memory before anything was said, and after each of so many rounds of turns."""
    tokens = tokens_of(asked.model)
    # A model of single letters needs more tokens for the server's own words.
    size = 220 if context > 1024 else 0
    characters = [character(f"guest-{n}", tokens, size=size) for n in range(CONVERSATIONS)]
    with serving(asked, characters, seats=SEATS, context=context) as served:
        kept = [private_bytes(served)]
        async with AsyncExitStack() as stack:
            talks = [
                await stack.enter_async_context(talking(served, f"guest-{n}", f"player-{n}"))
                for n in range(CONVERSATIONS)
            ]
            for number in range(count):
                line = LINES[number % len(LINES)]
                await asyncio.gather(*(reply_to(*talk, line) for talk in talks))
                kept.append(private_bytes(served))
    return kept


def _ends(totals: list[int]) -> Comparison:
    quarter = max(1, len(totals) // 4)
    return Comparison(
        "memory of the last and the first quarter of the turns",
        "MiB",
        (statistics.median(totals[-quarter:]) / 2**20,),
        (statistics.median(totals[:quarter]) / 2**20,),
        ("last quarter", "first quarter"),
        Target("at most", 1.01),
    )


def _told(sample: Sample) -> str:
    parts = ", ".join(f"{kind} {figure(size / 2**20)}" for kind, size in sample.items())
    return f"{figure(sum(sample.values()) / 2**20)} MiB ({parts})"


def _each(found: tuple[float, float, float]) -> str:
    each, low, high = (f"{value / 1024:.2f}" for value in found)
    return f"{each} KiB a turn (95 % {low} to {high})"


if __name__ == "__main__":
    run(main(options(__doc__)))
