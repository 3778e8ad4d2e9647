"""A conversation that grows: time to the first token of its next turn, and the cache at the bound.

Growing: turns are added by ``say`` with ``respond: never``, which costs no reply; one reply, not
timed, reads them; then turns of a long and of a fresh, short conversation of the same length of
lines are timed in pairs. The context holds everything.

Full: in a context of 1,024 tokens a conversation goes on long after the first turn was left out of
its prompt. Where old turns are dropped in blocks, most turns still find their prompt cached.

Expected: with everything cached, a turn of a conversation of 200 turns costs about what one of
ten costs; past the context's end, only the turns at which a block is dropped read the prompt again.
"""

from __future__ import annotations

import statistics

from common import (
    LINES,
    Client,
    Comparison,
    Json,
    Options,
    Served,
    character,
    options,
    prompt_view,
    quiet,
    reply_to,
    report,
    run,
    serving,
    talking,
    tokens_of,
)
from measures import Target, figure

SHORT = 10
SIZES = (25, 50, 100, 200)
CONTEXT, SMALL_CONTEXT = 8192, 1024


async def main(asked: Options) -> None:
    """Measure a growing conversation, then one whose context is full."""
    tokens = tokens_of(asked.model)
    sizes = SIZES[:2] if asked.quick else SIZES
    pairs_each, after = asked.samples(8, 3), asked.samples(60, 15)
    personas = [character("teller", tokens, size=300)]
    personas += [character(f"fresh-{size}", tokens, size=300) for size in sizes]
    with serving(asked, personas, context=CONTEXT, seats=2) as served:
        found = await growing(served, sizes, pairs_each)
    with serving(asked, [character("teller", tokens)], context=SMALL_CONTEXT, seats=1) as served:
        turns = await full(served, after)
    hits = [turn for turn in turns if turn["cached"] > turn["prompt"] / 2]
    medians = [statistics.median(comparison.ratios) for comparison in found]
    report(
        "history",
        asked,
        found,
        facts=[
            (
                f"turns past a full context of {SMALL_CONTEXT} that find over half of it cached",
                f"{figure(100 * len(hits) / len(turns))} % (n = {len(turns)})",
            ),
            ("first token past a full context, median", f"{figure(_median(turns))} ms"),
        ],
        series={"turns": list(sizes), "ratios": medians, "full": turns},
    )


async def growing(served: Served, sizes: tuple[int, ...], count: int) -> list[Comparison]:
    """A comparison with a short conversation at each size."""
    found = []
    async with talking(served, "teller") as (client, conversation):
        turns = 0
        for size in sizes:
            await add(client, conversation, size - turns - 1, turns)
            await reply_to(client, conversation, "What do you say to that?")
            async with talking(served, f"fresh-{size}", f"p{size}") as short:
                await add(*short, SHORT - 1, 0)
                await reply_to(*short, "What do you say to that?")
                pairs = []
                for number in range(count):
                    line = LINES[number % len(LINES)]
                    await quiet(served)
                    long = await reply_to(client, conversation, line)
                    await quiet(served)
                    pairs.append((long.first_ms, (await reply_to(*short, line)).first_ms))
            turns = size + count
            ours, theirs = zip(*pairs, strict=True)
            names = (f"after {size} turns", f"after {SHORT} turns")
            label = f"first token after {size} turns"
            found.append(Comparison(label, "ms", ours, theirs, names, Target("at most", 1.25)))
    return found


async def add(client: Client, conversation: str, count: int, at: int) -> None:
    """Turns of the player that nobody answers."""
    for number in range(count):
        text = f"Mark {at + number}. {LINES[number % len(LINES)]}"
        await client.send("say", conversation=conversation, text=text, respond="never")
        async for _ in client.until_idle():
            pass


async def full(served: Served, count: int) -> list[Json]:
    """So many turns behind the first one for which there was no room for all of the history."""
    turns: list[Json] = []
    dropped = 0
    async with talking(served, "teller") as (client, conversation):
        number = 0
        while len(turns) < count:
            reply = await reply_to(client, conversation, LINES[number % len(LINES)])
            await quiet(served)
            number += 1
            dropped = dropped or prompt_view(served, reply.turn)["dropped"]["turns"]
            if dropped:
                cut = {"prompt": reply.prompt, "cached": reply.cached}
                turns.append({**cut, "first_ms": reply.first_ms})
    return turns


def _median(turns: list[Json]) -> float:
    return statistics.median(float(turn["first_ms"]) for turn in turns)


if __name__ == "__main__":
    run(main(options(__doc__)))
