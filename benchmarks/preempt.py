"""A player among characters that talk by themselves: does it wait for them?

Six conversations in which nobody plays are kept speaking by events of a host (``respond: must``),
which have the least priority. A player speaks to a seventh character, once while they speak and
once while the server does nothing at all, over and over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from common import (
    LINES,
    Client,
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
from measures import Target

AMBIENT, SEATS = 6, 4
NAMES = ("among six that speak", "idle server")


async def main(asked: Options) -> None:
    """Measure pairs of a busy and a quiet server."""
    tokens = tokens_of(asked.model)
    count = asked.samples(16, 4)
    characters = [
        character(f"bystander-{n}", tokens, size=300, reply=200, temperature=0.8)
        for n in range(AMBIENT)
    ]
    characters.append(character("listener", tokens))
    pairs = []
    with serving(asked, characters, seats=SEATS, context=4096) as served:
        async with AsyncExitStack() as stack:
            hosts = [
                await stack.enter_async_context(talking(served, f"bystander-{n}", f"host-{n}"))
                for n in range(AMBIENT)
            ]
            player = await stack.enter_async_context(talking(served, "listener"))
            await reply_to(*player, "Good day!")
            for number in range(count):
                line = LINES[number % len(LINES)]
                async with speaking(hosts, number):
                    busy = (await reply_to(*player, line)).first_ms
                # What was cut short is read for the next turn first.
                await quiet(served)
                idle = (await reply_to(*player, line)).first_ms
                await quiet(served)
                pairs.append((busy, idle))
    ours, theirs = zip(*pairs, strict=True)
    label = "a player's first token"
    found = Comparison(label, "ms", ours, theirs, NAMES, Target("at most", 1.5))
    report("preempt", asked, [found], facts=[("seats", str(SEATS)), ("ambient", str(AMBIENT))])


@asynccontextmanager
async def speaking(hosts: list[tuple[Client, str]], number: int) -> AsyncIterator[None]:
    """While it is entered, the hosts' characters speak or wait for a seat; then all are quiet."""
    for at, (client, conversation) in enumerate(hosts):
        text = f"A cart goes by. {LINES[(number + at) % len(LINES)]}"
        await client.ask("event", conversation=conversation, text=text, respond="must")
    heard = [asyncio.create_task(_first_word(client)) for client, _ in hosts]
    _, waiting = await asyncio.wait(heard, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*heard, return_exceptions=True)
    yield
    for client, conversation in hosts:
        await client.send("interrupt", conversation=conversation)
    async with asyncio.timeout(60):
        for client, _ in hosts:
            async for _ in client.until_idle():
                pass


async def _first_word(client: Client) -> None:
    while (await client.receive())["type"] != "reply.delta":
        pass


if __name__ == "__main__":
    run(main(options(__doc__)))
