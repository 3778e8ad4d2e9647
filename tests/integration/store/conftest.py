"""A Redis, a Cluster and a store for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis_servers

from npc_server.config import Settings
from npc_server.store import EmbeddedRedis, Store, open_store
from npc_server.store.connect import Client, connected


@pytest.fixture
async def single_url(tmp_path: Path) -> AsyncIterator[str]:
    """A Redis of this test's own."""
    redis = EmbeddedRedis(tmp_path / "redis-data")
    yield await redis.start()
    await redis.stop()


@pytest.fixture
async def single(single_url: str) -> AsyncIterator[Store]:
    """A store in it."""
    async with open_store(single_url, Settings(), owner="one", own=True) as store:
        yield store


@pytest.fixture(scope="session")
def cluster_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_servers.Cluster]:
    """A Cluster that all tests use, since it takes seconds until it is ready."""
    with redis_servers.cluster(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def cluster(cluster_of_all: redis_servers.Cluster) -> redis_servers.Cluster:
    """The Cluster, empty."""
    cluster_of_all.renew()
    return cluster_of_all


@pytest.fixture(params=["single", "cluster"])
def redis_url(request: pytest.FixtureRequest) -> str:
    """A Redis of this test's own, and then a Cluster."""
    if request.param == "cluster":
        found: redis_servers.Cluster = request.getfixturevalue("cluster")
        return found.url
    return str(request.getfixturevalue("single_url"))


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[Store]:
    """A store in it."""
    own = redis_url.startswith("unix:")
    async with open_store(redis_url, Settings(), owner="one", own=own) as store:
        yield store


@pytest.fixture
async def raw(redis_url: str) -> AsyncIterator[Client]:
    """What is in it, without the store."""
    async with connected(redis_url, 5) as link:
        yield link.client
