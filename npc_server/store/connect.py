"""From a URL to a Redis client, and from Redis' errors to ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis.exceptions as failures
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from npc_server.errors import ConfigError, StoreUnavailable

OLDEST = (6, 2)
RETRIES = 2

_HINTS = {
    "MISCONF": "Redis cannot write to its disk. Free space or mend its folder.",
    "OOM": "Redis is out of memory. Raise maxmemory or delete data.",
    "READONLY": "This Redis is a read-only replica. Point NPC_REDIS_URL to the primary.",
    "LOADING": "Redis is still loading its data.",
    "BUSY": "Redis is busy with a long script.",
    "NOAUTH": "Redis asks for a password. Put it into NPC_REDIS_URL.",
    "WRONGPASS": "Redis refuses the password of NPC_REDIS_URL.",
}


def redact(url: str) -> str:
    """A URL without its password."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()


def connect(url: str, timeout: float) -> Redis:
    """A client with time-outs; it connects with its first command, and again after a loss.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        timeout: Of one command, in seconds.

    Raises:
        ConfigError: The URL is of no known kind.
    """
    try:
        return Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            client_name="npc-server",
            driver_info=None,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), RETRIES),
            health_check_interval=15,
        )
    except ValueError as error:
        raise ConfigError(
            f"NPC_REDIS_URL={redact(url)} is no Redis address. Use redis://, rediss:// or unix://."
        ) from error


async def check_version(client: Redis) -> None:
    """Refuse a server that is too old.

    Raises:
        ConfigError: It is older than 6.2.
        StoreUnavailable: It does not answer.
    """
    with translated():
        version = str((await client.info("server"))["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise ConfigError(f"Redis {version} is too old. Use 6.2 or later.")


@contextmanager
def translated() -> Iterator[None]:
    """Turn every error of Redis into ``StoreUnavailable`` that says what to do."""
    try:
        yield
    except (failures.ConnectionError, failures.TimeoutError, OSError) as error:
        if isinstance(error, failures.AuthenticationError):
            raise StoreUnavailable(_HINTS["WRONGPASS"], retry_after_ms=5_000) from error
        if isinstance(error, failures.BusyLoadingError):
            raise StoreUnavailable(_HINTS["LOADING"], retry_after_ms=1_000) from error
        raise StoreUnavailable(
            "Redis does not answer. Start it, or check NPC_REDIS_URL.", retry_after_ms=1_000
        ) from error
    except failures.RedisError as error:
        text = str(error)
        hint = next((hint for word, hint in _HINTS.items() if word in text), None)
        raise StoreUnavailable(hint or f"Redis failed: {text}", retry_after_ms=2_000) from error
