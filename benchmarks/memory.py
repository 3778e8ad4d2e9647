"""Memory of server, worker and Redis with eight conversations, and whether it goes on growing.

Short turns in a small context, which is full before the count begins: then nothing has a reason to
grow but what is kept, and that is in Redis. Each round is a turn in every conversation; after each,
the proportional memory (PSS) of all processes is read. The slope is by least squares over the turns
after the warm-up, its interval by Newey and West.

Conclusion: the peak belongs to the model and the seats; the slope to what is kept of every turn.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import AsyncExitStack

from common import (
    LINES,
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
from measures import Comparison, Target, figure, slope

CONVERSATIONS, SEATS, CONTEXT = 8, 8, 512
KINDS = ("server", "worker", "redis")


async def main(asked: Options) -> None:
    """Measure the peak and the slope."""
    tokens = tokens_of(asked.model)
    warm_up, counted = asked.samples(20, 5), asked.samples(63, 12)
    characters = [character(f"guest-{n}", tokens, size=220) for n in range(CONVERSATIONS)]
    kept: list[dict[str, int]] = []
    with serving(asked, characters, seats=SEATS, context=CONTEXT) as served:
        idle = private_bytes(served)
        async with AsyncExitStack() as stack:
            talks = [
                await stack.enter_async_context(talking(served, f"guest-{n}", f"player-{n}"))
                for n in range(CONVERSATIONS)
            ]
            for number in range(warm_up + counted):
                line = LINES[number % len(LINES)]
                await asyncio.gather(*(reply_to(*talk, line) for talk in talks))
                kept.append(private_bytes(served))
    totals = [sum(sample.values()) for sample in kept]
    after = kept[warm_up:]
    turns = [CONVERSATIONS * at for at in range(len(after))]
    whole = slope(turns, totals[warm_up:])
    parts = {kind: slope(turns, [sample[kind] for sample in after]) for kind in KINDS}
    quarter = max(1, len(after) // 4)
    ends = Comparison(
        "memory of the last and the first quarter of the turns",
        "MiB",
        (statistics.median(totals[-quarter:]) / 2**20,),
        (statistics.median(totals[warm_up : warm_up + quarter]) / 2**20,),
        ("last quarter", "first quarter"),
        Target("at most", 1.01),
    )
    report(
        "memory",
        asked,
        [ends],
        facts=[
            ("idle", f"{figure(sum(idle.values()) / 2**20)} MiB"),
            ("peak", f"{figure(max(totals) / 2**20)} MiB"),
            (f"growth over {turns[-1]} turns", _each(whole)),
            *((f"growth of {kind}", _each(found)) for kind, found in parts.items()),
        ],
        series={
            "turns": [CONVERSATIONS * (at + 1) for at in range(len(kept))],
            "warm_up": CONVERSATIONS * warm_up,
            "mib": {kind: [sample[kind] / 2**20 for sample in kept] for kind in KINDS},
            "slope": list(whole),
        },
    )


def _each(found: tuple[float, float, float]) -> str:
    each, low, high = (f"{value / 1024:.2f}" for value in found)
    return f"{each} KiB a turn (95 % {low} to {high})"


if __name__ == "__main__":
    run(main(options(__doc__)))
