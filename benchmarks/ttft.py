"""Time to the first token: through our server, and from the engine's own HTTP.

Both sides read the same token ids with as many of them cached: our server says which prompt it
made and how much of it was cached, and llama.cpp's own server is brought into that state, untimed,
before it is asked. Our side is timed from sending ``say`` to the first ``reply.delta``; theirs from
opening the connection to the first event with text. Their side is asked twice in each pair, which
tells how much of a ratio is noise (A/A). A turn whose reply was drawn anew, because it repeated an
earlier one, is left out and counted: it asks the engine twice.

Warm: the conversation goes on, and only the newest words are read. Cold: the first words to a
character of whom nothing is cached.

Conclusion: what our server adds stands in the warm ratio, where reading the prompt hides nothing;
cold, reading some 560 tokens is nearly all of the time.
"""

from __future__ import annotations

import asyncio
import time

from common import (
    LINES,
    REST_SECONDS,
    Comparison,
    Options,
    Reply,
    Served,
    Tokens,
    character,
    helper,
    options,
    prompt_ids,
    quiet,
    reply_to,
    report,
    run,
    serving,
    talking,
    tokens_of,
)
from engine_http import completion
from measures import Target

NAMES = ("npc-server", "llama.cpp's HTTP")


async def main(asked: Options) -> None:
    """Measure warm and cold pairs."""
    tokens = tokens_of(asked.model)
    warm, cold = asked.samples(32, 6), asked.samples(10, 3)
    characters = [character(f"cold-{n}", tokens) for n in range(cold)]
    # The likeliest words are soon the same ones, which our server does not let pass.
    characters.append(character("warm", tokens, temperature=1))
    with (
        serving(asked, characters, context=4096, seats=2) as served,
        helper("engine_http.py", str(asked.model), "--context", "4096", "--seats", "2") as (
            address,
            _,
        ),
    ):
        warm_pairs, redrawn = await warm_turns(served, address, tokens, warm)
        cold_pairs = [await cold_turn(served, address, tokens, n) for n in range(cold)]
    comparisons = [
        *compared(asked.engine, "time to first token, warm", warm_pairs, 1.10),
        *compared(asked.engine, "time to first token, cold", cold_pairs, 1.05),
    ]
    sizes = [reply.prompt - reply.cached for reply, _, _ in warm_pairs]
    report(
        "ttft",
        asked,
        comparisons,
        facts=[
            ("tokens to read in a warm turn", f"{min(sizes)} to {max(sizes)}"),
            ("warm turns left out, as drawn anew", f"{redrawn} of {redrawn + warm}"),
        ],
    )


Pair = tuple[Reply, float, float]


async def warm_turns(
    served: Served, address: str, tokens: Tokens, count: int
) -> tuple[list[Pair], int]:
    """Pairs of a conversation that goes on, and how many turns were drawn anew."""
    pairs: list[Pair] = []
    asked = redrawn = 0
    async with talking(served, "warm") as (client, conversation):
        await reply_to(client, conversation, "Good day!")
        while len(pairs) < count:
            await quiet(served)
            reply = await reply_to(client, conversation, LINES[asked % len(LINES)])
            asked += 1
            if asked > 6 * count:
                raise RuntimeError(f"only {len(pairs)} of {asked} turns can be compared")
            if reply.prompt > len(prompt_ids(served, tokens, reply.turn)):
                redrawn += 1
            elif not reply.degraded:
                pairs.append((reply, *await theirs(served, address, tokens, reply)))
    return pairs, redrawn


async def cold_turn(served: Served, address: str, tokens: Tokens, number: int) -> Pair:
    """A pair of first words."""
    async with talking(served, f"cold-{number}") as (client, conversation):
        reply = await reply_to(client, conversation, LINES[number % len(LINES)])
        return (reply, *await theirs(served, address, tokens, reply))


async def theirs(served: Served, address: str, tokens: Tokens, reply: Reply) -> tuple[float, float]:
    """Milliseconds to the first token of llama.cpp's own HTTP for the same prompt, twice."""
    await quiet(served)
    ids = prompt_ids(served, tokens, reply.turn)
    if len(ids) != reply.prompt:
        raise RuntimeError(f"the prompt has {len(ids)} tokens, the engine read {reply.prompt}")
    return (
        await first_token(address, ids, reply.cached),
        await first_token(address, ids, reply.cached),
    )


async def first_token(address: str, ids: list[int], cached: int) -> float:
    """Milliseconds to the first token when the first ``cached`` ids are cached."""
    body = {"id_slot": 0, "temperature": 0}
    # Another token behind them cuts off what the slot holds from the call before.
    before = [*ids[:cached], 0 if ids[cached] else 1]
    async for _ in completion(address, {**body, "prompt": before, "n_predict": 0}):
        pass
    # Ours is asked when nothing was computed for as long: the first work after a rest is slower.
    await asyncio.sleep(REST_SECONDS)
    first = 0.0
    begun = time.perf_counter()
    async for event in completion(address, {**body, "prompt": ids, "n_predict": 8}):
        if event.get("content") and not first:
            first = time.perf_counter()
    found = event["timings"]["cache_n"]
    if not first or found != cached:
        raise RuntimeError(f"llama.cpp had {found} tokens cached, not {cached}, or gave no text")
    return (first - begun) * 1000


def compared(engine: str, label: str, pairs: list[Pair], most: float) -> list[Comparison]:
    """The ratio in question, and llama.cpp against itself.

    There is a target only where the same engine works on both sides.
    """
    target = Target("at most", most) if engine == "llamacpp" else None
    ours, once, again = zip(*((reply.first_ms, a, b) for reply, a, b in pairs), strict=True)
    return [
        Comparison(label, "ms", ours, once, NAMES, target),
        Comparison(f"{label}: A/A", "ms", again, once, (NAMES[1], NAMES[1])),
    ]


if __name__ == "__main__":
    run(main(options(__doc__)))
