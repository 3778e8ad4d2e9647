"""Connections break at random moments while replies are streamed; nothing is lost or told twice."""

from __future__ import annotations

import random

import pytest
from disconnects import SCRIPT, Player, check, limits
from support import Start

from npc_server.store import store as store_module

BREAKS = 30


async def test_random_disconnects(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 breaks, also in mid-frame, amid says and interrupts: the story has no gap and no double.

    Durable events arrive once, in order; snapshot and deltas are the text of ``reply.done``.
    """
    monkeypatch.setattr(store_module, "EVENTS_KEPT", 100_000)
    async with start(SCRIPT, **limits()) as app:
        player = Player(app.address, random.Random(7))
        await player.play(BREAKS)
        await check(app, player)
    assert player.broken == BREAKS
    assert player.resumed > BREAKS // 2
