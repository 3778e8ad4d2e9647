"""Reading ahead while a player types: time to the first token with and without ``input``.

Every sample is a fresh conversation with a character of whom nothing is cached. On one side the
client tells that its player types, and says the line three seconds later; on the other it says the
line at once.

Conclusion: three seconds of typing are enough to read a character; what is left is the line itself.
"""

from __future__ import annotations

import asyncio

from common import (
    LINES,
    Comparison,
    Options,
    Served,
    character,
    options,
    reply_to,
    report,
    run,
    serving,
    talking,
    tokens_of,
)
from measures import Target

TYPING_SECONDS = 3.0
NAMES = ("after typing", "at once")


async def main(asked: Options) -> None:
    """Measure pairs of fresh conversations."""
    tokens = tokens_of(asked.model)
    count = asked.samples(8, 3)
    characters = [character(f"stranger-{n}", tokens) for n in range(2 * count)]
    with serving(asked, characters, seats=2, context=2048) as served:
        pairs = [
            (await first_words(served, 2 * n, typing=True), await first_words(served, 2 * n + 1))
            for n in range(count)
        ]
    ours, theirs = zip(*pairs, strict=True)
    label = "first token of a fresh conversation"
    found = Comparison(label, "ms", ours, theirs, NAMES, Target("at most", 0.3))
    report("warm", asked, [found])


async def first_words(served: Served, number: int, *, typing: bool = False) -> float:
    """Milliseconds to the first token of a fresh conversation."""
    line = LINES[number // 2 % len(LINES)]
    async with talking(served, f"stranger-{number}") as (client, conversation):
        if typing:
            await client.send("input", conversation=conversation, state="typing", text=line[:8])
            await asyncio.sleep(TYPING_SECONDS)
        return (await reply_to(client, conversation, line)).first_ms


if __name__ == "__main__":
    run(main(options(__doc__)))
