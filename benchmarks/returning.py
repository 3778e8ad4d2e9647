"""Eight characters in turn on two seats: how soon one that was away speaks again.

Each is spoken to once, cold; then all of them again, in the same order, so that every one has lost
its seat in between. Nobody speaks before the end of the last reply was read ahead as well.
``reply.done.usage`` tells how much of the prompt was cached.

Conclusion: where prompts without a seat are kept (llama.cpp's ``prompt_cache_mib``), coming back
costs little of the cold time; an engine without such a cache reads all of it again.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from common import (
    LINES,
    Comparison,
    Options,
    character,
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

CHARACTERS, SEATS = 8, 2
NAMES = ("on return", "cold")


async def main(asked: Options) -> None:
    """Measure each character cold, then on its returns."""
    tokens = tokens_of(asked.model)
    count, returns = asked.samples(CHARACTERS, 3), asked.samples(3, 1)
    characters = [character(f"resident-{n}", tokens) for n in range(count)]
    back, cold, shares = [], [], []
    with serving(asked, characters, seats=SEATS, context=2048, prompt_cache_mib=2048) as served:
        async with AsyncExitStack() as stack:
            talks, first = [], []
            for n in range(count):
                talk = await stack.enter_async_context(talking(served, f"resident-{n}", f"p{n}"))
                first.append(await reply_to(*talk, LINES[0]))
                talks.append(talk)
                await quiet(served)
            for number in range(returns):
                for at, talk in enumerate(talks):
                    reply = await reply_to(*talk, LINES[1 + number])
                    back.append(reply.first_ms)
                    cold.append(first[at].first_ms)
                    shares.append(100 * reply.cached / reply.prompt)
                    await quiet(served)
    found = Comparison(
        f"first token of {count} characters in turn on {SEATS} seats",
        "ms",
        tuple(back),
        tuple(cold),
        NAMES,
        Target("at most", 0.08),
    )
    facts = [("share of the prompt that was cached on return", spread(shares, "%"))]
    report("returning", asked, [found], facts=facts)


if __name__ == "__main__":
    run(main(options(__doc__)))
