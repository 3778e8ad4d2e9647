"""A reply has begun by its deadline, however the engine behaves."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path
from typing import Any

import yaml
from processes import Served, Servers
from soak_progress import Progress
from support import opened

from npc_server.client import session

TURNS, AT_ONCE = 500, 5
SLACK_MS = 100
"""What the way to the client and back may add on a busy machine."""
LIMITS = {
    "NPC_SEATS": "4",
    "NPC_TIMEOUTS__STALL": "3",
    "NPC_TIMEOUTS__FIRST_TOKEN": "6",
    "NPC_LIMITS__MESSAGES_PER_SECOND": "10000",
    "NPC_PLAYER_QUOTA__TOKENS_PER_MINUTE": "100000000",
    "NPC_KEY_QUOTA__TOKENS_PER_MINUTE": "100000000",
}


async def test_every_reply_begins_in_time(
    servers: Servers, tmp_path: Path, progress: Progress
) -> None:
    """500 turns of a slow, erratic engine: each one's first words are there by its deadline.

    The engine begins within 5 s or not at all, stops in mid-sentence, or fails; players ask in five
    conversations at once, each turn with a deadline of .4 to 2 s.
    """
    script = tmp_path / "script.yaml"
    rules = [rule(number) for number in range(TURNS)]
    script.write_text(yaml.safe_dump({"seats": 4, "rules": rules}))
    served = servers.start("--engine", "scripted", data=None, NPC_SCRIPT=str(script), **LIMITS)
    late: list[str] = []
    for block in progress.left(TURNS // AT_ONCE):
        numbers = range(block * AT_ONCE, (block + 1) * AT_ONCE)
        late += filter(None, await asyncio.gather(*(turn(served, number) for number in numbers)))
        assert not late, late


async def turn(served: Served, number: int) -> str | None:
    """One turn in a conversation of its own; what went wrong, if anything."""
    deadline = random.Random(-number).randrange(400, 2_000)
    async with session(served.address, player=f"player-{number}") as client:
        conversation = await opened(client)
        begun, first = time.monotonic(), None
        await client.send(
            "say", conversation=conversation, text=f"Turn {number}.", deadline_ms=deadline
        )
        async with asyncio.timeout(60):
            while (event := await client.receive())["type"] != "scene.idle":
                if event["type"] == "reply.delta" and first is None:
                    first = (time.monotonic() - begun) * 1000
    if first is None:
        return f"turn {number}: nothing was said"
    if first > deadline + SLACK_MS:
        return f"turn {number}: {first:.0f} ms, deadline {deadline} ms, {rule(number)}"
    return None


def rule(number: int) -> dict[str, Any]:
    """How the engine behaves in one turn."""
    chance = random.Random(number)
    behaviour: dict[str, Any] = {
        "match": rf"\bTurn {number}\.",
        "reply": "The mill is turning again. Come and see it before the rain comes back.",
        "first_ms": chance.choice([0, 50, chance.randrange(5_000)]),
        "piece_ms": chance.choice([0, 10, chance.randrange(800)]),
        "piece": chance.choice(["word", "char", 5]),
    }
    if chance.random() < 0.3:
        behaviour["fail"] = chance.choice(["unavailable", "stall"])
        behaviour["fail_after"] = chance.randrange(6)
    return behaviour
