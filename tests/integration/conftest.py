"""A whole server in the test's own process: a real Redis, real sockets, the scripted engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from blockbuster import blockbuster_ctx
from support import FAST, Json, Start

from npc_server.app import App, running
from npc_server.client import Client, session
from npc_server.clock import Clock
from npc_server.config import Settings


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a server on a free port; ``script`` is what the scripted engine says.

    ``clock`` is its time, if not the real one. While it serves, a blocking call of ours on the
    event loop fails the test, unless it is not ``watched``: another server may be starting then,
    which reads files.
    """

    @asynccontextmanager
    async def begin(
        script: Json | None = None,
        *,
        clock: Clock | None = None,
        watched: bool = True,
        **settings: Any,
    ) -> AsyncIterator[App]:
        file = None
        if script is not None:
            file = tmp_path / "script.yaml"
            file.write_text(yaml.safe_dump(script, allow_unicode=True))
        chosen = {
            "port": 0,
            "engine": "scripted",
            "script": file,
            "data_dir": tmp_path / "data",
            "limits": FAST,
            **settings,
        }
        async with running(Settings(**chosen), clock) as app:
            await app.loading
            with blockbuster_ctx(scanned_modules=["npc_server"]) if watched else nullcontext():
                yield app

    return begin


@pytest.fixture
async def app(start: Start) -> AsyncIterator[App]:
    """A server with the default script."""
    async with start() as app:
        yield app


@pytest.fixture
async def client(app: App) -> AsyncIterator[Client]:
    """A session with that server."""
    async with session(app.address, player="minsu", name="Minsu") as client:
        yield client
