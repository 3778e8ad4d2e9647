"""Both local engines side by side: speed of one stream, time to the first token, memory.

Each runs the same model in a worker of its own, in this process and without a server, and they take
turns. Warm is the next turn of a conversation; cold is a system message of some 560 tokens that was
never seen. Memory is the proportional set of the workers after all of it.

Conclusion: what the two differ in is told by the ratios below; both read the same file, which
ctransformers takes rewritten (``npc_server/engines/convert.py``).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil
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
from tail import new_engine

from npc_server.engines.base import Engine, GenerateRequest
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

NAMES = ("llamacpp", "ctransformers")
REPLY_TOKENS = 64


async def main(asked: Options) -> None:
    """Measure rounds of both engines in turn."""
    tokens = tokens_of(asked.model)
    rounds = asked.samples(8, 2)
    started = [await start(name, asked.model) for name in NAMES]
    engines = [engine for engine, _ in started]
    samples: dict[str, list[list[float]]] = {"cold": [], "warm": [], "rate": []}
    try:
        for number in range(rounds):
            measured = [await talked(engine, tokens, number) for engine in engines]
            for kind, values in zip(samples, zip(*measured, strict=True), strict=True):
                samples[kind].append(list(values))
        ours, theirs = ((pss(worker) / 2**20,) for _, worker in started)
    finally:
        await asyncio.gather(*(engine.close() for engine in engines))
    labels = {
        "cold": ("first token, cold", "ms"),
        "warm": ("first token, warm", "ms"),
        "rate": ("tokens a second of one stream", "tok/s"),
    }
    found = [
        Comparison(
            label,
            unit,
            tuple(pair[0] for pair in samples[kind]),
            tuple(pair[1] for pair in samples[kind]),
            NAMES,
        )
        for kind, (label, unit) in labels.items()
    ]
    found.append(Comparison("memory of the worker", "MiB", ours, theirs, NAMES))
    report("engines", asked, found)


async def start(name: str, model: Path) -> tuple[Engine, psutil.Process]:
    """A started engine and its worker's process."""
    me = psutil.Process()
    before = set(me.children(recursive=True))
    engine = new_engine(name, model)
    await engine.start()
    if engine.capabilities.engine != name:
        await engine.close()
        raise SystemExit(f"This build has no engine {name}.")
    (worker,) = set(me.children(recursive=True)) - before
    return engine, worker


async def talked(engine: Engine, tokens: Tokens, number: int) -> tuple[float, float, float]:
    """Milliseconds to the first token cold and warm, and tokens a second."""
    system = Message("system", prose(("engines", number), tokens, PERSONA_TOKENS))
    first = (system, Message("user", LINES[0]))
    cold, _, said = await one(engine, first, number)
    later = (*first, Message("assistant", said), Message("user", LINES[1]))
    warm, rate, _ = await one(engine, later, number)
    return cold, warm, rate


async def one(
    engine: Engine, messages: tuple[Message, ...], number: int
) -> tuple[float, float, str]:
    """Milliseconds to the first token, tokens a second after it, and the text of one reply."""
    sampling = Sampling(max_tokens=REPLY_TOKENS, temperature=0.8)
    request = GenerateRequest(messages, sampling, "bench/engines/npc", seed=number)
    said, made, first = "", 0, None
    begun = time.perf_counter()
    async with engine.generate(request) as pieces:
        async for piece in pieces:
            first = first or time.perf_counter()
            said += piece.text
            made = piece.usage.completion if piece.usage else made
    ended = time.perf_counter()
    first = first or ended
    return (first - begun) * 1000, max(1, made - 1) / max(ended - first, 1e-9), said


def pss(process: psutil.Process) -> float:
    """Proportional memory of a process, in bytes."""
    info = process.memory_full_info()
    return float(getattr(info, "pss", 0) or info.rss)


if __name__ == "__main__":
    run(main(options(__doc__)))
