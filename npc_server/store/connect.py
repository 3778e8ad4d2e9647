"""From a URL to Redis, and from Redis' errors to ours.

A single Redis, a Redis Cluster and a Redis that Sentinel watches over are used alike: the same
commands, within Redis 6.2, on keys whose hash tags keep together what one command touches.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis.exceptions as failures
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError
from redis.backoff import ExponentialBackoff, NoBackoff

from npc_server.errors import ConfigError, StoreUnavailable

Client = Redis | RedisCluster
"""What the rest of the store calls; both offer every command that it needs."""

OLDEST = (6, 2)
RETRIES = 2
HEALTH_SECONDS = 15
COMMANDS_AT_ONCE = 64
"""Of one server; more wait. redis-py opens 100 connections and refuses a command beyond them."""

REDIS_PORT, SENTINEL_PORT = 6_379, 26_379

FAILURES = (failures.RedisError, failures.RedisClusterException, OSError)
"""Everything that redis-py raises where Redis does not answer or refuses."""

_FORMS = (
    "Use redis://HOST:PORT, rediss://HOST:PORT, unix://PATH, redis+cluster://HOST:PORT,HOST:PORT "
    "or redis+sentinel://HOST:PORT,HOST:PORT/SERVICE."
)

_SILENT = "Redis does not answer. Start it, or check NPC_REDIS_URL."
_NO_PRIMARY = (
    "The sentinels name no Redis that answers. Where it is failing over, that passes; else check "
    "the name of the service in NPC_REDIS_URL."
)
_HINTS = {
    "MISCONF": "Redis cannot write to its disk. Free space or mend its folder.",
    "OOM": "Redis is out of memory. Raise maxmemory or delete data.",
    "READONLY": (
        "This Redis is a read-only replica. Where it is failing over, that passes; else point "
        "NPC_REDIS_URL to the primary."
    ),
    "NOREPLICAS": "Redis lacks the replicas without which it does not write. Start them.",
    "LOADING": "Redis is still loading its data.",
    "BUSY": "Redis is busy with a long script.",
    "NOAUTH": "Redis asks for a password. Put it into NPC_REDIS_URL.",
    "WRONGPASS": "Redis refuses the password of NPC_REDIS_URL.",
    "CLUSTERDOWN": "A part of the Redis Cluster is down. Start its nodes.",
    "slots are not covered": "A part of the Redis Cluster is missing. Start its nodes.",
    "Cluster mode is not enabled": "This Redis is no Cluster. Use redis:// in NPC_REDIS_URL.",
    "MOVED": "This Redis is one of a Cluster. Use redis+cluster:// in NPC_REDIS_URL.",
    "SENTINEL": "This Redis is no sentinel. Use redis:// in NPC_REDIS_URL.",
}
_MODES = {
    "cluster": "This Redis is one of a Cluster. Use redis+cluster:// in NPC_REDIS_URL.",
    "sentinel": (
        "This is a sentinel. Use redis+sentinel://HOST:PORT/SERVICE in NPC_REDIS_URL, with the "
        "name of the service that it watches."
    ),
}


class Link:
    """A way to Redis.

    Args:
        client: It connects with its first command, and again after a loss or a failover.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._free = asyncio.Semaphore(COMMANDS_AT_ONCE)

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Client]:
        """The client for some commands; waits while too many are on their way.

        Raises:
            StoreUnavailable: Redis does not answer or refuses, with what to do.
        """
        async with self._free:
            try:
                yield self.client
            except FAILURES as error:
                if "READONLY" in str(error) and isinstance(self.client, Redis):
                    # A failover may have left these connections with what is a replica now.
                    await self.client.connection_pool.disconnect(inuse_connections=False)
                raise _explained(error) from error

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[PubSub]:
        """A connection for what is published; it fails as redis-py does.

        Every node of a Cluster hears what is published at any of them.
        """
        if isinstance(self.client, RedisCluster):
            await self.client.initialize()
            pubsub: PubSub = self.client.pubsub(node=self.client.get_random_node())
        else:
            pubsub = self.client.pubsub()
        try:
            yield pubsub
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def ping(self) -> None:
        """Ask whether Redis answers, every primary of a Cluster.

        Raises:
            StoreUnavailable: It does not.
        """
        async with self.use() as client:
            if isinstance(client, RedisCluster):
                await client.ping(target_nodes=RedisCluster.PRIMARIES)
            else:
                await client.ping()


def redact(url: str) -> str:
    """A URL without its password, also where it is malformed."""
    without = re.sub(r"(://[^:/@]*):.*@", r"\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&]password=)[^&]*", r"\1***", without)


@asynccontextmanager
async def connected(url: str, seconds: float) -> AsyncIterator[Link]:
    """A link to the Redis at a URL, until the context ends.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; ``redis+cluster://host:port,host:port``,
            of which one that answers is enough; ``redis+sentinel://host:port,host:port/service``,
            where user and password are those of the Redis. ``rediss+cluster`` and
            ``rediss+sentinel`` are the same over TLS.
        seconds: The time-out of one command.

    Raises:
        ConfigError: The URL is of no known kind.
    """
    options: dict[str, Any] = {
        "socket_timeout": seconds,
        "socket_connect_timeout": seconds,
        "client_name": "npc-server",
        "driver_info": None,
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES),
        "health_check_interval": HEALTH_SECONDS,
    }
    try:
        parts = urlsplit(url)
        kind = parts.scheme.partition("+")[2]
        if kind == "cluster":
            opening = _cluster(parts, options)
        elif kind == "sentinel":
            opening = _sentinel(parts, options)
        else:
            opening = _single(url, options)
    except ValueError as error:
        said = f" {error}" if isinstance(error, _Malformed) else ""
        raise ConfigError(
            f"NPC_REDIS_URL={redact(url)} is no Redis address.{said} {_FORMS}"
        ) from error
    async with opening as client:
        yield Link(client)


async def check_server(link: Link) -> None:
    """Refuse a server that is too old, or of another kind than the URL says.

    Raises:
        ConfigError: It is.
        StoreUnavailable: It does not answer.
    """
    async with link.use() as client:
        about = await client.info("server")
    version = str(about["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise ConfigError(f"Redis {version} is too old. Use 6.2 or later.")
    if isinstance(link.client, Redis) and about["redis_mode"] in _MODES:
        raise ConfigError(_MODES[about["redis_mode"]])


class _Malformed(ValueError):
    """Says what is wrong with a URL, and quotes nothing of it."""


def _single(url: str, options: dict[str, Any]) -> AbstractAsyncContextManager[Client]:
    return Redis.from_url(url, **options)


def _cluster(parts: SplitResult, options: dict[str, Any]) -> AbstractAsyncContextManager[Client]:
    if parts.path not in {"", "/", "/0"}:
        raise _Malformed("A Cluster has database 0 only: nothing stands behind its hosts.")
    nodes = [ClusterNode(host, port) for host, port in _hosts(parts, REDIS_PORT)]
    return _open_cluster(RedisCluster(startup_nodes=nodes, **_found(parts), **options))


@asynccontextmanager
async def _open_cluster(client: RedisCluster) -> AsyncIterator[RedisCluster]:
    try:
        yield client
    finally:
        await client.aclose()
        # Which does nothing where the client has just lost a node: the other nodes' connections.
        await client.nodes_manager.aclose()


def _sentinel(parts: SplitResult, options: dict[str, Any]) -> AbstractAsyncContextManager[Client]:
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service:
        raise _Malformed("Behind the sentinels' hosts stands the name of the service: /SERVICE.")
    if database and not database.isdecimal():
        raise _Malformed("Behind the name of the service stands a number, that of the database.")
    found = _found(parts)
    # The next sentinel is asked at once: trying one again that is gone would delay a failover.
    asking = {
        **{name: value for name, value in options.items() if name.startswith("socket_")},
        "ssl": found.get("ssl", False),
        "retry": Retry(NoBackoff(), 0),
    }
    sentinel = Sentinel(_hosts(parts, SENTINEL_PORT), sentinel_kwargs=asking)  # type: ignore[no-untyped-call]
    client = sentinel.master_for(unquote(service), db=int(database or 0), **found, **options)
    return _open_watched(sentinel, client)


@asynccontextmanager
async def _open_watched(sentinel: Sentinel, client: Redis) -> AsyncIterator[Redis]:
    async with sentinel, client:
        yield client


def _hosts(parts: SplitResult, port: int) -> list[tuple[str, int]]:
    """The hosts of a URL, which are parted by commas, with a port for those that name none."""
    credentials, _, listed = parts.netloc.rpartition("@")
    if "@" in credentials:
        raise _Malformed("The password stands once, before all hosts; an @ in it is written %40.")
    found = []
    for host in listed.split(","):
        name = urlsplit(f"//{host}")
        if not name.hostname:
            raise _Malformed("A host is missing.")
        found.append((name.hostname, name.port or port))
    return found


def _found(parts: SplitResult) -> dict[str, Any]:
    """What a URL of several hosts says otherwise, read as redis-py reads that of a single one."""
    credentials, _, _ = parts.netloc.rpartition("@")
    found: dict[str, Any] = dict(parse_url(f"redis://{credentials}@host?{parts.query}"))
    del found["host"]
    return {**found, "ssl": True} if parts.scheme.startswith("rediss+") else found


def _explained(error: Exception) -> StoreUnavailable:
    text = str(error)
    if isinstance(error, failures.AuthenticationError):
        return StoreUnavailable(_HINTS["WRONGPASS"], retry_after_ms=5_000)
    if isinstance(error, failures.BusyLoadingError):
        return StoreUnavailable(_HINTS["LOADING"], retry_after_ms=1_000)
    if isinstance(error, MasterNotFoundError):
        return StoreUnavailable(_NO_PRIMARY, retry_after_ms=1_000)
    hint = next((hint for word, hint in _HINTS.items() if word in text), None)
    if isinstance(error, failures.ConnectionError | failures.TimeoutError | OSError):
        return StoreUnavailable(_SILENT, retry_after_ms=1_000)
    if isinstance(error, failures.RedisClusterException):
        return StoreUnavailable(hint or _SILENT, retry_after_ms=1_000)
    return StoreUnavailable(hint or f"Redis failed: {text}", retry_after_ms=2_000)
