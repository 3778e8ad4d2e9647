"""Clusters and sentinels: nodes fail, take over, and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import redis_servers
from support import eventually

from npc_server.config import Settings, Timeouts
from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Member
from npc_server.errors import ConfigError, StoreUnavailable
from npc_server.store import Committed, Store, open_store
from npc_server.store.keys import ConversationKeys

MEMBERS = [Member("bram", "npc", "Bram", "bram")]
QUICK = Settings(timeouts=Timeouts(redis=1))


def fresh(name: str) -> Conversation:
    player = Member("minsu", "player", "Minsu", ":minsu")
    return rules.begin(name, "w", player, MEMBERS, locale="ko", now_ms=5)


async def committed(store: Store, name: str) -> bool:
    """Whether a new conversation could be committed."""
    with suppress(StoreUnavailable):
        return isinstance(await store.commit(fresh(name), before=None), Committed)
    return False


async def waiting(check: Callable[[], bool]) -> None:
    """Wait for servers without keeping the loop from its work."""
    await asyncio.to_thread(redis_servers.wait_until, check)


async def test_many_commands_at_once_wait_for_their_turn(store: Store) -> None:
    """More commands at once than there are connections are all answered."""
    assert await committed(store, "c")
    found = await asyncio.gather(*(store.load("w", "c") for _ in range(400)))
    assert all(found)


async def test_a_slot_that_moved_is_followed(cluster: redis_servers.Cluster) -> None:
    """Where another node has a conversation by now, it is asked, and learns our scripts."""
    key = ConversationKeys.of("w", "c").state
    async with open_store(cluster.url, QUICK, owner="one") as store:
        assert await store.load("w", "c") is None
        before = cluster.owner(key)
        after = next(node for node in cluster.nodes if node is not before)
        cluster.move(key, after)
        assert await committed(store, "c")
        assert after.ask("EXISTS", key) == 1
        assert await store.load("w", "c") is not None


async def test_a_node_that_is_gone_comes_back(cluster: redis_servers.Cluster) -> None:
    """Without it the store is not ready and commands may be sent again; then all goes on."""
    async with open_store(cluster.url, QUICK, owner="one") as store:
        assert await committed(store, "c")
        node = cluster.owner(ConversationKeys.of("w", "c").state)
        node.kill()
        with pytest.raises(StoreUnavailable, match="does not answer") as caught:
            await store.load("w", "c")
        assert caught.value.retry_after_ms
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await store.ping()
        await asyncio.to_thread(node.start)
        await asyncio.to_thread(cluster.wait)

        async def again() -> bool:
            with suppress(StoreUnavailable):
                return await store.load("w", "c") is not None
            return False

        await eventually(again)
        await store.ping()


async def test_a_cluster_without_some_slots_is_explained(tmp_path: Path) -> None:
    """A node that has not all slots is a Cluster of which a part is missing."""
    node = redis_servers.Server(tmp_path / "node", ("--cluster-enabled", "yes"))
    try:
        node.start()
        node.ask("CLUSTER", "ADDSLOTS", 1)
        with pytest.raises(StoreUnavailable, match="A part of the Redis Cluster is missing"):
            async with open_store(f"redis+cluster://127.0.0.1:{node.port}", QUICK, owner="one"):
                pass
    finally:
        node.kill()


async def test_a_failover_is_followed(tmp_path: Path) -> None:
    """The primary is killed: commands may be sent again until the sentinel's choice carries them.

    Nothing that the replica had is lost, and the scripts that it did not know are sent anew.
    """
    with redis_servers.watched(tmp_path) as pair:
        async with open_store(pair.url, QUICK, owner="one") as store:
            assert await committed(store, "before")
            key = ConversationKeys.of("w", "before").state
            await waiting(lambda: pair.replica.ask("EXISTS", key) == 1)
            pair.primary.kill()
            with pytest.raises(StoreUnavailable) as caught:
                await store.commit(fresh("during"), before=None)
            assert caught.value.retry_after_ms

            async def again() -> bool:
                return await committed(store, "after")

            await eventually(again, 20)
            assert await store.load("w", "before") is not None
            assert pair.replica.ask("ROLE")[0] == "master"


async def test_a_demoted_primary_is_left(tmp_path: Path) -> None:
    """Behind a name that leads to another Redis by now, the connections to the old one are ended.

    The old one is a read-only replica, which would refuse every write for ever.
    """
    servers = [redis_servers.Server(tmp_path / name) for name in ("old", "new")]
    target = servers[0]

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", target.port)

        async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                sink.write(data)
            sink.close()

        await asyncio.gather(copy(reader, to_redis), copy(from_redis, writer))

    name = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = name.sockets[0].getsockname()[1]
    try:
        for server in servers:
            server.start()
        async with open_store(f"redis://127.0.0.1:{port}", QUICK, owner="one") as store:
            assert await committed(store, "before")
            target.ask("REPLICAOF", "127.0.0.1", 1)
            target = servers[1]
            with pytest.raises(StoreUnavailable, match="read-only replica"):
                await store.commit(fresh("during"), before=None)
            assert await committed(store, "after")
        assert target.ask("EXISTS", ConversationKeys.of("w", "after").state) == 1
    finally:
        name.close()
        await name.wait_closed()
        for server in servers:
            server.kill()


async def test_the_wrong_kind_of_address_is_explained(
    tmp_path: Path, cluster: redis_servers.Cluster
) -> None:
    """Each kind of Redis under the address of another is told apart, with the right address."""

    async def refused(url: str, error: type[Exception], said: str) -> None:
        with pytest.raises(error, match=said):
            async with open_store(url, QUICK, owner="one"):
                pass

    await refused(cluster.nodes[0].url, ConfigError, r"one of a Cluster. Use redis\+cluster://")
    with redis_servers.watched(tmp_path) as pair:
        single = redis_servers.Server(tmp_path / "single").start()
        try:
            at = f"127.0.0.1:{single.port}"
            await refused(f"redis+cluster://{at}", StoreUnavailable, "no Cluster. Use redis://")
            await refused(f"redis+sentinel://{at}/x", StoreUnavailable, "no sentinel. Use redis://")
        finally:
            single.kill()
        await refused(pair.sentinel.url, ConfigError, "SERVICE")
        other = pair.url.replace(f"/{redis_servers.SERVICE}", "/other")
        await refused(other, StoreUnavailable, "the name of the service")
        wrong = pair.url.replace("p%40ss", "guess")
        await refused(wrong, StoreUnavailable, "refuses the password")
