"""A store for a server, or for a command beside one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from npc_server.config import Settings
from npc_server.errors import SetupError
from npc_server.store.connect import check_server, connected
from npc_server.store.embedded import EmbeddedRedis, FolderInUse
from npc_server.store.store import Store


@asynccontextmanager
async def open_store(
    url: str, settings: Settings, *, owner: str, own: bool = False
) -> AsyncIterator[Store]:
    """A store in the Redis at a URL.

    Args:
        url: Of a Redis, a Cluster or sentinels; see ``connected``.
        settings: Time-out and retention.
        owner: Who holds the leases that are taken.
        own: Whether the Redis is our own.

    Raises:
        ConfigError: The URL is wrong, or the Redis too old.
        StoreUnavailable: It does not answer.
    """
    days = settings.retention_days
    async with connected(url, settings.timeouts.redis) as link:
        await check_server(link)
        yield Store(
            link,
            owner=owner,
            retention_ms=int(days * 86_400_000) if days else 0,
            own=own,
            replicas=not own,
        )


@asynccontextmanager
async def open_beside(settings: Settings, *, owner: str) -> AsyncIterator[Store]:
    """A store for a command that may run beside the server, and reads only.

    It is in the Redis of the settings; without one, in that of the server which runs on the data
    folder, else in one that is started there for as long as this takes.

    Raises:
        SetupError: The data folder holds no conversations, or cannot be used.
        StoreUnavailable: Redis does not answer.
    """
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            if not EmbeddedRedis.has_data(settings.data_dir):
                raise SetupError(
                    f"There are no conversations in {settings.data_dir}. Choose the folder of the "
                    "server with --data-dir, or its Redis with --redis-url."
                )
            embedded = EmbeddedRedis(settings.data_dir)
            stack.push_async_callback(embedded.stop)
            try:
                url = await embedded.start()
            except FolderInUse:
                url = embedded.url_of_other()
        yield await stack.enter_async_context(open_store(url, settings, owner=owner))
