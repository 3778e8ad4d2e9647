"""Connections break at random moments, hundreds of times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml
from disconnects import SCRIPT, Player, check, limits
from soak_progress import Progress

from npc_server.app import running
from npc_server.config import Settings
from npc_server.store import store as store_module

BREAKS, AT_ONCE = 300, 30


async def test_300_disconnects(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 breaks while replies are streamed, amid says and interrupts: the story stays whole."""
    monkeypatch.setattr(store_module, "EVENTS_KEPT", 100_000)
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump(SCRIPT))
    for part in progress.left(BREAKS // AT_ONCE):
        folder = tmp_path / f"data{part}"
        settings = Settings(port=0, engine="scripted", script=script, data_dir=folder, **limits())
        async with running(settings) as app:
            await app.loading
            player = Player(app.address, random.Random(part))
            await player.play(AT_ONCE)
            await check(app, player)
            assert player.broken == AT_ONCE
