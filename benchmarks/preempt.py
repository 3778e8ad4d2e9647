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
    Served,
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

AMBIENT = 6
NAMES = ("among six that speak", "idle server")


async def main(asked: Options) -> None:
    """Measure pairs of a busy and a quiet server, with seats for everybody and with too few."""
    tokens = tokens_of(asked.model)
    characters = [
        character(f"bystander-{n}", tokens, size=300, reply=200, temperature=0.8)
        for n in range(AMBIENT)
    ]
    characters.append(character("listener", tokens))
    found = []
    for seats, count, target in ((8, asked.samples(16, 4), Target("at most", 1.5)), (4, 6, None)):
        with serving(asked, characters, seats=seats, context=4096) as served:
            ours, theirs = zip(*await pairs(served, count, least=min(seats, AMBIENT)), strict=True)
        label = f"a player's first token, {seats} seats"
        found.append(Comparison(label, "ms", ours, theirs, NAMES, target))
    report("preempt", asked, found)


async def pairs(served: Served, count: int, *, least: int) -> list[tuple[float, float]]:
    """Milliseconds to a player's first token while at least so many others speak, and alone."""
    found = []
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(talking(served, f"bystander-{n}", f"host-{n}"))
            for n in range(AMBIENT)
        ]
        player = await stack.enter_async_context(talking(served, "listener"))
        await reply_to(*player, "Good day!")
        await quiet(served)
        for number in range(count):
            line = LINES[number % len(LINES)]
            async with speaking(hosts, number, least):
                busy = (await reply_to(*player, line)).first_ms
            # What was cut short is read for the next turn first.
            await quiet(served)
            found.append((busy, (await reply_to(*player, line)).first_ms))
            await quiet(served)
    return found


@asynccontextmanager
async def speaking(hosts: list[tuple[Client, str]], number: int, least: int) -> AsyncIterator[None]:
    """While it is entered, so many of the hosts' characters speak; then all are quiet."""
    for at, (client, conversation) in enumerate(hosts):
        text = f"A cart goes by. {LINES[(number + at) % len(LINES)]}"
        await client.ask("event", conversation=conversation, text=text, respond="must")
    heard = {asyncio.create_task(_first_word(client)) for client, _ in hosts}
    waiting = set(heard)
    while len(heard) - len(waiting) < least:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
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
