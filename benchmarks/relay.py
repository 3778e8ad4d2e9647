"""Processor time of our server for each streamed token, against the least relay there can be.

Several streams at once, as many tokens on both sides. Counted is the time of the server's own
process, not its worker's or its Redis', from ``say`` until the next turn was read ahead: the
parser, sentences, emotions, commits and all. The relay (``minimal_relay.py``) reads llama.cpp's
stream and sends each piece on.

Conclusion: what a turn costs besides its tokens is spread over its tokens, so the ratio falls as
replies grow; it says how many streams one core can carry, not how long anybody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import psutil
from common import (
    LINES,
    Client,
    Comparison,
    Options,
    Served,
    character,
    helper,
    options,
    quiet,
    reply_to,
    report,
    run,
    serving,
    talking,
    tokens_of,
)
from measures import Target, spread
from websockets.asyncio.client import connect

STREAMS, REPLY_TOKENS = 4, 120
NAMES = ("npc-server", "minimal relay")


async def main(asked: Options) -> None:
    """Measure rounds of both sides in turn."""
    tokens = tokens_of(asked.model)
    rounds = asked.samples(6, 2)
    characters = [
        character(f"stream-{n}", tokens, size=200, reply=REPLY_TOKENS, temperature=0.8)
        for n in range(STREAMS)
    ]
    prompt = tokens.prompt([["system", characters[0]["description"]], ["user", LINES[0]]])
    pairs, lengths = [], []
    with (
        serving(asked, characters, seats=STREAMS, context=4096) as served,
        helper("engine_http.py", str(asked.model), "--seats", str(STREAMS)) as (engine, _),
        helper("minimal_relay.py", engine) as (address, pid),
    ):
        async with AsyncExitStack() as stack:
            talks = [
                await stack.enter_async_context(talking(served, f"stream-{n}", f"p{n}"))
                for n in range(STREAMS)
            ]
            await ours(served, talks, 0)
            for number in range(1, rounds + 1):
                mine, made = await costing(served.process.pid, ours(served, talks, number))
                relayed, sent = await costing(pid, theirs(address, prompt, made // STREAMS))
                pairs.append((mine / made * 1e6, relayed / sent * 1e6))
                lengths.append(made / STREAMS)
    mine_all, theirs_all = zip(*pairs, strict=True)
    found = Comparison(
        "processor time for each streamed token",
        "µs",
        mine_all,
        theirs_all,
        NAMES,
        Target("at most", 2),
    )
    facts = [
        ("streams at once", str(STREAMS)),
        ("tokens of a reply, on average", spread(lengths)),
    ]
    report("relay", asked, [found], facts=facts)


async def costing(pid: int, work: Awaitable[int]) -> tuple[float, int]:
    """Seconds of processor time that a process took for some work, and the tokens it made."""
    before = processor_seconds(pid)
    made = await work
    return processor_seconds(pid) - before, made


async def ours(served: Served, talks: list[tuple[Client, str]], number: int) -> int:
    """One reply in each of several conversations at once; how many tokens came."""
    lines = [f"{LINES[(number + n) % len(LINES)]} Tell me everything." for n in range(len(talks))]
    replies = await asyncio.gather(
        *(reply_to(*talk, line) for talk, line in zip(talks, lines, strict=True))
    )
    await quiet(served)
    return sum(reply.completion for reply in replies)


async def theirs(address: str, prompt: list[int], count: int) -> int:
    """Streams of ``count`` tokens through the relay; how many came in all."""

    async def one(stream: int) -> int:
        body = {"prompt": prompt, "n_predict": count, "ignore_eos": True, "seed": stream}
        made = 0
        async with connect(address, max_size=None) as connection:
            await connection.send(orjson.dumps(body))
            while orjson.loads(await connection.recv())["type"] != "reply.done":
                made += 1
        return made

    return sum(await asyncio.gather(*(one(stream) for stream in range(STREAMS))))


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used: to the nanosecond where Linux tells it."""
    tasks = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
    if tasks:
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    run(main(options(__doc__)))
