"""Servers that share a Redis hear of each other, and know when they may have missed something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import redis_servers
from redis.asyncio import RedisCluster
from support import eventually

from npc_server.config import Settings, Timeouts
from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Member
from npc_server.errors import StoreUnavailable
from npc_server.store import Committed, Partial, Store, Wake, Wakes, open_store
from npc_server.store import wakes as module
from npc_server.store.connect import Client
from npc_server.store.keys import ConversationKeys

QUICK = Settings(timeouts=Timeouts(redis=1))
BRAM = Member("bram", "npc", "Bram", "bram")


@pytest.fixture
async def here(redis_url: str) -> AsyncIterator[Store]:
    """The store of the server that listens."""
    async with open_store(redis_url, QUICK, owner="here") as store:
        yield store


@pytest.fixture
async def there(redis_url: str) -> AsyncIterator[Store]:
    """The store of another server."""
    async with open_store(redis_url, QUICK, owner="there") as store:
        yield store


async def commit(store: Store, name: str, *, take_lease: bool = False) -> tuple[Conversation, int]:
    """Commit something new of a conversation, which is made if need be: its state and fence."""
    before = await store.load("w", name)
    player = Member("minsu", "player", "Minsu", ":minsu")
    after = before or rules.begin(name, "w", player, [BRAM], locale="ko", now_ms=5)
    done = await store.commit(after, before=before, take_lease=take_lease)
    assert isinstance(done, Committed)
    return replace(after, revision=done.revision), done.fence


async def heard(wakes: Wakes) -> tuple[str, str]:
    """The next wake: its conversation and kind."""
    async with asyncio.timeout(15):
        wake = await anext(wakes)
    assert wake.world == "w"
    return wake.conversation, wake.kind


async def listening(wakes: Wakes, *names: str) -> None:
    """Subscribe and wait until nothing is missed any more."""
    for name in names:
        wakes.subscribe("w", name)
    assert {await heard(wakes) for _ in names} == {(name, "lost") for name in names}


async def test_what_another_server_does_wakes(here: Store, there: Store) -> None:
    """A commit and a kept text of another server are told; one's own are not."""
    _, fence = await commit(there, "c", take_lease=True)
    async with here.wakes() as wakes:
        await listening(wakes, "c")
        await there.renew("w", "c", fence)
        await there.flush_partial("w", "c", Partial("r", 1, "Well, "), fence)
        assert await heard(wakes) == ("c", "partial")
        await commit(here, "c")
        await there.flush_partial("w", "c", Partial("r", 1, "Well, no."), fence)
        assert await heard(wakes) == ("c", "partial")
        await commit(there, "c")
        assert await heard(wakes) == ("c", "commit")


async def test_only_what_is_wanted_is_heard(here: Store, there: Store) -> None:
    """Conversations come and go while listening, down to none and up again."""
    async with here.wakes() as wakes:
        await listening(wakes, "c", "d")
        wakes.unsubscribe("w", "c")
        await listening(wakes, "e")
        await commit(there, "c")
        await commit(there, "e")
        assert await heard(wakes) == ("e", "commit")
        wakes.unsubscribe("w", "d")
        wakes.unsubscribe("w", "e")
        await commit(there, "d")
        await listening(wakes, "a b/{c}")
        await commit(there, "a b/{c}")
        assert await heard(wakes) == ("a b/{c}", "commit")


async def test_a_slow_reader_is_told_once(here: Store, there: Store) -> None:
    """What waits is bounded: once per conversation and kind, and nothing of what is unwanted."""
    async with here.wakes() as wakes:
        await listening(wakes, "c", "d")
        for _ in range(20):
            await commit(there, "c")
        await commit(there, "d")

        async def both() -> bool:
            return {Wake("w", "c", "commit"), Wake("w", "d", "commit")} == set(wakes._waiting)

        await eventually(both)
        wakes.unsubscribe("w", "c")
        assert await heard(wakes) == ("d", "commit")


async def test_a_lost_connection_is_told(here: Store, there: Store, raw: Client) -> None:
    """Where the connection was cut, each conversation is to be read anew, and listening goes on."""
    async with here.wakes() as wakes:
        await listening(wakes, "c", "d")
        nodes = {"target_nodes": RedisCluster.ALL_NODES} if isinstance(raw, RedisCluster) else {}
        await raw.execute_command("CLIENT KILL", "TYPE", "pubsub", **nodes)
        assert {await heard(wakes), await heard(wakes)} == {("c", "lost"), ("d", "lost")}
        await commit(there, "d")
        assert await heard(wakes) == ("d", "commit")


async def test_a_redis_that_was_away_is_told(tmp_path: Path) -> None:
    """When it is back everything is read anew, and wakes come again."""
    server = redis_servers.Server(tmp_path / "redis").start()
    try:
        async with open_store(server.url, QUICK, owner="here") as here, here.wakes() as wakes:
            await listening(wakes, "c")
            server.kill()
            with pytest.raises(StoreUnavailable):
                await here.ping()
            server.start()
            assert await heard(wakes) == ("c", "lost")
            async with open_store(server.url, QUICK, owner="there") as there:
                await commit(there, "c")
            assert await heard(wakes) == ("c", "commit")
    finally:
        server.kill()


async def test_another_node_is_listened_to(cluster: redis_servers.Cluster) -> None:
    """When the node that was listened to dies, another one of the Cluster tells the rest."""
    async with open_store(cluster.url, QUICK, owner="here") as here, here.wakes() as wakes:
        await listening(wakes, "c")
        channel = ConversationKeys.of("w", "c").wakes
        (node,) = [n for n in cluster.nodes if channel in n.ask("PUBSUB", "CHANNELS")]
        node.kill()
        assert await heard(wakes) == ("c", "lost")


async def test_a_failover_is_told(tmp_path: Path) -> None:
    """After a failover the new primary is listened to."""
    with redis_servers.watched(tmp_path) as pair:
        async with open_store(pair.url, QUICK, owner="here") as here, here.wakes() as wakes:
            await listening(wakes, "c")
            pair.primary.kill()
            assert await heard(wakes) == ("c", "lost")
            assert pair.replica.ask("ROLE")[0] == "master"
            async with open_store(pair.url, QUICK, owner="there") as there:
                await commit(there, "c")
            assert await heard(wakes) == ("c", "commit")


async def test_a_dead_line_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is open and says nothing is left; one that answers is kept."""
    monkeypatch.setattr(module, "SILENCE_SECONDS", 0.1)
    server = redis_servers.Server(tmp_path / "redis").start()
    frozen: set[asyncio.StreamWriter] = set()
    lines: set[asyncio.StreamWriter] = set()
    pings = 0

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_redis, to_redis = await asyncio.open_connection("127.0.0.1", server.port)
        lines.add(writer)

        async def back() -> None:
            while data := await from_redis.read(65_536):
                if writer not in frozen:
                    writer.write(data)

        async def forth() -> None:
            nonlocal pings
            while data := await reader.read(65_536):
                pings += data.count(b"PING")
                to_redis.write(data)
            to_redis.close()

        with suppress(ConnectionError):
            await asyncio.gather(back(), forth())
        writer.close()

    line = await asyncio.start_server(relay, "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{line.sockets[0].getsockname()[1]}"
    try:
        async with open_store(url, QUICK, owner="here") as here, here.wakes() as wakes:
            await listening(wakes, "c")

            async def asked() -> bool:
                return pings >= 4

            await eventually(asked)
            async with open_store(server.url, QUICK, owner="there") as there:
                await commit(there, "c")
                assert await heard(wakes) == ("c", "commit")
                frozen |= lines
                assert await heard(wakes) == ("c", "lost")
                await commit(there, "c")
                assert await heard(wakes) == ("c", "commit")
    finally:
        line.close()
        await line.wait_closed()
        server.kill()


async def test_nobody_is_woken_where_nobody_else_is(single: Store, single_url: str) -> None:
    """On a Redis of our own nothing is published: no other server can be on it."""
    _, fence = await commit(single, "c", take_lease=True)
    async with open_store(single_url, QUICK, owner="here") as here, here.wakes() as wakes:
        await listening(wakes, "c", "d")
        await single.flush_partial("w", "c", Partial("r", 1, "Well, "), fence)
        await commit(single, "d")
        async with open_store(single_url, QUICK, owner="there") as there:
            await commit(there, "c")
        assert await heard(wakes) == ("c", "commit")


async def test_listening_ends_with_its_reader(here: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where listening cannot go on the reader's loop ends, and the reason is raised."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async def read() -> None:
        async with asyncio.timeout(10), here.wakes() as wakes:
            wakes.subscribe("w", "c")
            assert [wake async for wake in wakes] == []

    monkeypatch.setattr(Wakes, "_heard", broken)
    with pytest.raises(ZeroDivisionError):
        await read()
