"""What each 100 tokens of changing tail cost: the part of a prompt that no cache can hold.

At the level of the engine: the same history, cached, and a last message of the user that is new
each time and 0, 100, 200 or 400 tokens longer. The sizes are taken in a shuffled order in every
round. The cost is the slope of the time to the first token.

Expected: the tail is what a turn waits for. Game state, recalled memories and keyed lore belong
into a budget, since each 100 tokens of them cost as much as many turns of cached history.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path

from common import (
    LINES,
    PERSONA_TOKENS,
    Comparison,
    Options,
    Tokens,
    options,
    prose,
    report,
    run,
    tokens_of,
)
from measures import figure, slope

from npc_server.config import EngineSettings
from npc_server.engines.base import Engine, GenerateRequest
from npc_server.engines.create import create_engine
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

SIZES = (0, 100, 200, 400)


async def main(asked: Options) -> None:
    """Measure rounds of every size."""
    tokens = tokens_of(asked.model)
    chance = random.Random(1)
    rounds = asked.samples(10, 3)
    engine = new_engine(asked.engine, asked.model)
    await engine.start()
    try:
        times: dict[int, list[float]] = {size: [] for size in SIZES}
        await first_token(engine, tokens, 0, -1)
        for number in range(rounds):
            for size in chance.sample(SIZES, len(SIZES)):
                times[size].append(await first_token(engine, tokens, size, number))
    finally:
        await engine.close()
    found = [
        Comparison(
            f"first token with {size} tokens of tail",
            "ms",
            tuple(times[size]),
            tuple(times[0]),
            (f"{size} tokens of tail", "no tail"),
        )
        for size in SIZES[1:]
    ]
    xs = [size / 100 for size in SIZES for _ in times[size]]
    each, low, high = slope(xs, [value for size in SIZES for value in times[size]])
    cost = f"{figure(each)} ms (95 % {figure(low)} to {figure(high)})"
    medians = [statistics.median(times[size]) for size in SIZES]
    report(
        "tail",
        asked,
        found,
        facts=[("each 100 tokens of tail", cost)],
        series={"tokens": list(SIZES), "medians": medians},
    )


def new_engine(name: str, model: Path, **more: int) -> Engine:
    """An engine in this process, not started yet."""
    settings = EngineSettings.model_validate(
        {"engine": name, "model": str(model), "context": 4096, "seats": 2, **more}
    )
    return create_engine(settings, models_dir=model.parent, start_timeout=180)


async def first_token(engine: Engine, tokens: Tokens, size: int, number: int) -> float:
    """Milliseconds to the first piece of a reply to a last message with so much tail."""
    tail = prose((size, number), tokens, size) if size else ""
    messages = (
        Message("system", prose("tail", tokens, PERSONA_TOKENS)),
        Message("user", LINES[0]),
        Message("assistant", "I swept the yard and looked for the key."),
        Message("user", f"{tail} {LINES[number % len(LINES)]}".strip()),
    )
    request = GenerateRequest(messages, Sampling(max_tokens=8, temperature=0), "bench/tail/npc")
    begun = time.perf_counter()
    async with asyncio.timeout(120), engine.generate(request) as pieces:
        async for piece in pieces:
            if piece.text:
                return (time.perf_counter() - begun) * 1000
    raise RuntimeError("the engine said nothing")


if __name__ == "__main__":
    run(main(options(__doc__)))
