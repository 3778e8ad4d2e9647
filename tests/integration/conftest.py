"""A whole server in the test's own process: a real Redis, real sockets, the scripted engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from npc_server.app import App, running
from npc_server.client import Client, session
from npc_server.config import Limits, Settings

Json = dict[str, Any]
Start = Callable[..., AbstractAsyncContextManager[App]]
FAST = Limits(messages_per_second=100_000, message_burst=100_000, signals_per_second=100_000)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a server on a free port; ``script`` is what the scripted engine says."""

    @asynccontextmanager
    async def begin(script: Json | None = None, **settings: Any) -> AsyncIterator[App]:
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
        async with running(Settings(**chosen)) as app:
            await app.loading
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


async def opened(client: Client, **fields: Any) -> str:
    """Open a conversation with Bram, without a greeting unless asked for."""
    event = await client.ask("conversation.open", **{"npcs": ["bram"], "greet": "never", **fields})
    return str(event["conversation"])


async def reply_to(client: Client, conversation: str, text: str) -> list[Json]:
    """Say something and collect everything up to ``scene.idle``."""
    await client.send("say", conversation=conversation, text=text)
    return [event async for event in client.until_idle()]


def of(events: list[Json], *types: str) -> list[Json]:
    """The events of some types."""
    return [event for event in events if event["type"] in types]


async def until(client: Client, type_: str, **fields: Any) -> Json:
    """The next event of a type with these fields; the rest is dropped."""
    while True:
        event = await client.receive()
        if event["type"] == type_ and fields.items() <= event.items():
            return event


async def eventually(check: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until something holds, looking often.

    Raises:
        TimeoutError: It did not in time.
    """
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.01)
