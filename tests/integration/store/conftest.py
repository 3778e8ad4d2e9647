"""A Redis and a store for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from npc_server.config import Settings
from npc_server.store import EmbeddedRedis, Store, open_store


@pytest.fixture
async def redis_url(tmp_path: Path) -> AsyncIterator[str]:
    """A Redis of this test's own."""
    redis = EmbeddedRedis(tmp_path / "redis-data")
    yield await redis.start()
    await redis.stop()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A store in it."""
    async with open_store(redis_url, Settings(), owner="one", own=True) as store:
        yield store
