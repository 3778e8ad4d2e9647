"""Many conversations at once, against the server that one would write first (``naive.py``).

Each conversation has a character of its own, of some 560 tokens, and three turns of up to 40
tokens; the next turn begins when the reply has ended. Compared are the tokens a second of all
conversations together, and the time to the first token of the third reply, conversation by
conversation.

Expected: a queue in front of one instance makes everybody wait for whole replies and reads every
prompt again. Seats with caches of their own give more tokens a second the more talk at once, and
the third reply, of whose prompt nearly all is cached, begins at once.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable

import orjson
from common import (
    LINES,
    PERSONA_TOKENS,
    Comparison,
    Json,
    Options,
    Served,
    character,
    helper,
    options,
    prose,
    reply_to,
    report,
    run,
    serving,
    talking,
    tokens_of,
)
from measures import Target
from websockets.asyncio.client import connect

TURNS, REPLY_TOKENS, SEATS = 3, 40, 8
NAMES = ("npc-server", "one locked instance")
TARGETS = {"llamacpp": (2.5, 1 / 20), "ctransformers": (1.0, 1 / 4)}

Turn = tuple[float, int]
"""Milliseconds to the first token, and how many tokens came."""


async def main(asked: Options) -> None:
    """Measure each number of conversations in turn, naive and ours."""
    tokens = tokens_of(asked.model)
    counts = [2] if asked.quick else asked.more.conversations
    characters = [
        character(f"talker-{n}", tokens, reply=REPLY_TOKENS, temperature=0.7)
        for n in range(sum(counts))
    ]
    systems = [prose(f"talker-{n}", tokens, PERSONA_TOKENS) for n in range(sum(counts))]
    rates: dict[int, list[tuple[float, float]]] = defaultdict(list)
    thirds: dict[int, list[tuple[float, float]]] = defaultdict(list)
    with (
        serving(asked, characters, seats=SEATS, context=2048) as served,
        helper("naive.py", str(asked.model), "--threads", str(_cores())) as (address, _),
    ):
        at = 0
        for count in counts:
            numbers = range(at, at + count)
            at += count
            theirs = await together([naively(address, systems[n], n) for n in numbers])
            ours = await together([served_by_us(served, n) for n in numbers])
            rates[count].append((ours[0], theirs[0]))
            thirds[count] += zip(ours[1], theirs[1], strict=True)
            print(f"{count} at once: {ours[0]:.1f} and {theirs[0]:.1f} tokens a second", flush=True)
    report("load", asked, compared(asked.engine, rates, thirds), series=plotted(rates, thirds))


async def together(conversations: list[Awaitable[list[Turn]]]) -> tuple[float, list[float]]:
    """Run conversations at once: tokens a second in all, and each one's third first token."""
    begun = time.perf_counter()
    talked = await asyncio.gather(*conversations)
    seconds = time.perf_counter() - begun
    made = sum(tokens for turns in talked for _, tokens in turns)
    return made / seconds, [turns[-1][0] for turns in talked]


async def served_by_us(served: Served, number: int) -> list[Turn]:
    """One conversation with our server."""
    async with talking(served, f"talker-{number}", f"player-{number}") as (client, conversation):
        replies = [
            await reply_to(client, conversation, _line(number, turn)) for turn in range(TURNS)
        ]
    return [(reply.first_ms, reply.completion) for reply in replies]


async def naively(address: str, system: str, number: int) -> list[Turn]:
    """One conversation with the naive server."""
    turns = []
    async with connect(address, ping_interval=None, max_size=None) as connection:
        await connection.send(orjson.dumps({"system": system, "max_tokens": REPLY_TOKENS}))
        for turn in range(TURNS):
            begun, first = time.perf_counter(), None
            await connection.send(orjson.dumps({"text": _line(number, turn)}))
            while "done" not in (event := orjson.loads(await connection.recv())):
                first = first or time.perf_counter()
            turns.append((((first or time.perf_counter()) - begun) * 1000, event["tokens"]))
    return turns


def compared(
    engine: str,
    rates: dict[int, list[tuple[float, float]]],
    thirds: dict[int, list[tuple[float, float]]],
) -> list[Comparison]:
    """One comparison for each number of conversations and each measure."""
    found = []
    for count in sorted(rates):
        targets = TARGETS[engine] if count == 8 and engine in TARGETS else None
        most_tokens = targets and Target("at least", targets[0])
        soonest = targets and Target("at most", targets[1])
        at_once = f"{count} at once"
        found += [
            _comparison(f"tokens a second, {at_once}", "tok/s", rates[count], most_tokens),
            _comparison(f"third reply's first token, {at_once}", "ms", thirds[count], soonest),
        ]
    return found


def plotted(
    rates: dict[int, list[tuple[float, float]]], thirds: dict[int, list[tuple[float, float]]]
) -> Json:
    """Medians by number of conversations."""
    counts = sorted(rates)
    median: Callable[[list[tuple[float, float]], int], float] = lambda pairs, side: (  # noqa: E731
        statistics.median(pair[side] for pair in pairs)
    )
    return {
        "conversations": counts,
        "rate": [[median(rates[n], side) for n in counts] for side in (0, 1)],
        "third": [[median(thirds[n], side) for n in counts] for side in (0, 1)],
        "names": list(NAMES),
    }


def _comparison(
    label: str, unit: str, pairs: list[tuple[float, float]], target: Target | None
) -> Comparison:
    ours, theirs = zip(*pairs, strict=True)
    return Comparison(label, unit, ours, theirs, NAMES, target)


def _line(number: int, turn: int) -> str:
    return LINES[(number + turn) % len(LINES)]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    at_once = {
        "type": int,
        "nargs": "+",
        "default": [1, 2, 4, 8, 8, 16],
        "help": "how many; a number that is given twice is measured twice",
    }
    run(main(options(__doc__, conversations=at_once)))
