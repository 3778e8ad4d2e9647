"""Memory of server, worker and Redis with eight conversations, and whether it goes on growing.

The peak is that of the real model: a few turns in eight conversations at once. Growth is looked
for with a model of one tiny layer, whose turns are quick: a leak of the server, the worker's loop
or the store does not depend on what the model says.

Before the count begins, everything with a bound is filled to it: the 400 turns that a conversation
has in memory (by lines that nobody answers), the counts of 4,096 texts, the newest prompts, the
texts whose tokens are remembered, the event logs, and the context of every seat. Then, after each
round of one turn in every conversation, the memory of all processes is read. What grows is judged
without the pages of files, which the system takes back and reads again as it likes. The slope is by
least squares, its interval by Newey and West.

The transcript is kept, so Redis grows by it: that is told apart, as bytes for each line.

Conclusion: the peak belongs to the model and the seats; the slope to what is kept of every turn.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from common import (
    LINES,
    Client,
    Comparison,
    Options,
    Served,
    character,
    growing_bytes,
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
from redis.asyncio import Redis

CONVERSATIONS, SEATS = 8, 8
LARGEST_SLOPE = 1024
KINDS = ("server", "worker", "redis")

Sample = dict[str, int]
"""Bytes by kind of process."""


@dataclass
class Kept:
    """What was measured of one server.

    Attributes:
        peaks: All of its memory, before anything was said and after each round.
        samples: The same without pages of files.
        stored: What Redis held at the end, in words.
    """

    peaks: list[Sample]
    samples: list[Sample]
    stored: str = ""


async def main(asked: Options) -> None:
    """Measure the peak, then the slope."""
    filled, settled, counted = asked.samples(380, 40), asked.samples(110, 10), asked.samples(64, 20)
    real = await rounds(asked, asked.samples(4, 2), context=2048)
    with tempfile.TemporaryDirectory(prefix="npc-benchmark-") as folder:
        tiny = Path(folder) / "tiny.gguf"
        tiny.write_bytes(llama(changes={"llama.context_length": 4096}))
        with_tiny = replace(asked, model=tiny)
        kept = await rounds(with_tiny, settled + counted, context=1024, filled=filled)
    after = kept.samples[-counted - 1 :]
    turns = [CONVERSATIONS * at for at in range(len(after))]
    ours = [sample["server"] + sample["worker"] for sample in after]
    parts = {kind: slope(turns, [sample[kind] for sample in after]) for kind in KINDS}
    peak = max(real.peaks[1:], key=lambda sample: sum(sample.values()))
    growth = slope(turns, ours)
    report(
        "memory",
        asked,
        [_ends(ours)],
        facts=[
            ("idle, with the real model", _told(real.peaks[0])),
            (f"peak with {CONVERSATIONS} conversations", _told(peak)),
            (f"growth of server and worker over {turns[-1]} turns", _judged(growth)),
            *((f"growth of {kind}", _each(found)) for kind, found in parts.items()),
            ("stored in Redis", kept.stored),
        ],
        series={
            "turns": [CONVERSATIONS * at for at in range(len(kept.samples))],
            "warm_up": CONVERSATIONS * settled,
            "mib": {kind: [sample[kind] / 2**20 for sample in kept.samples] for kind in KINDS},
        },
    )


async def rounds(asked: Options, count: int, *, context: int, filled: int = 0) -> Kept:
    """Memory before anything was said, and after each of so many rounds of turns.

    Args:
        asked: Engine and model.
        count: Rounds.
        context: Tokens of prompt and reply.
        filled: Lines that are said in every conversation before, without an answer.
    """
    tokens = tokens_of(asked.model)
    # A model of single letters needs more tokens for the server's own words.
    size = 220 if context > 1024 else 0
    characters = [character(f"guest-{n}", tokens, size=size) for n in range(CONVERSATIONS)]
    with serving(asked, characters, seats=SEATS, context=context) as served:
        kept = Kept([private_bytes(served)], [growing_bytes(served)])
        async with AsyncExitStack() as stack:
            talks = [
                await stack.enter_async_context(talking(served, f"guest-{n}", f"player-{n}"))
                for n in range(CONVERSATIONS)
            ]
            await asyncio.gather(*(_fill(*talk, filled) for talk in talks))
            for number in range(filled, filled + count):
                await asyncio.gather(*(reply_to(*talk, _line(number)) for talk in talks))
                kept.peaks.append(private_bytes(served))
                kept.samples.append(growing_bytes(served))
            kept.stored = await _stored(served)
    return kept


def _line(number: int) -> str:
    # No two of one conversation are the same, and all are of one length.
    return f"{LINES[number % len(LINES)]} {number:04}"


async def _fill(client: Client, conversation: str, count: int) -> None:
    for number in range(count):
        fields = {"conversation": conversation, "text": _line(number), "respond": "never"}
        await client.send("say", **fields)
        async for _ in client.until_idle():
            pass


async def _stored(served: Served) -> str:
    """What a line of the transcript takes in Redis, and what else is kept of a conversation."""
    socket = (served.data / "redis" / "redis.pid").read_text().splitlines()[1]
    taken: Counter[str] = Counter()
    lines = answers = 0
    async with Redis.from_url(f"unix://{socket}") as redis:
        async for key in redis.scan_iter():
            kind = key.rpartition(b"}:")[2].partition(b":")[0].decode()
            taken[kind] += await redis.memory_usage(key, samples=0) or 0
            lines += await redis.hlen(key) if kind == "turns" else 0
            answers += kind == "answer"
    each_answer = (taken["answer"] + taken["answers"]) / max(1, answers)
    return (
        f"{taken['turns'] / max(1, lines):.0f} bytes for a line of the transcript, "
        f"{each_answer:.0f} bytes for a command of the last ten minutes, "
        f"{taken['events'] / CONVERSATIONS / 1024:.0f} KiB for the events of a conversation"
    )


def _ends(totals: list[int]) -> Comparison:
    quarter = max(1, len(totals) // 4)
    return Comparison(
        "server and worker in the last and the first quarter of the turns",
        "MiB",
        (statistics.median(totals[-quarter:]) / 2**20,),
        (statistics.median(totals[:quarter]) / 2**20,),
        ("last quarter", "first quarter"),
        Target("at most", 1.01),
    )


def _told(sample: Sample) -> str:
    parts = ", ".join(f"{kind} {figure(size / 2**20)}" for kind, size in sample.items())
    return f"{figure(sum(sample.values()) / 2**20)} MiB ({parts})"


def _judged(found: tuple[float, float, float]) -> str:
    verdict = "met" if found[2] < LARGEST_SLOPE else "not met"
    return f"{_each(found)}; target: below 1 KiB at 95 %: {verdict}"


def _each(found: tuple[float, float, float]) -> str:
    each, low, high = (f"{value / 1024:.2f}" for value in found)
    return f"{each} KiB a turn (95 % {low} to {high})"


if __name__ == "__main__":
    run(main(options(__doc__)))
