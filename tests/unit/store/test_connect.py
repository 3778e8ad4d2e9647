"""Redis addresses are read, or refused with what is right."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import ConnectionPool, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from npc_server.errors import ConfigError
from npc_server.store import redact
from npc_server.store.connect import Client, connected


async def client_of(url: str) -> Client:
    """The client of an address; it has not connected yet."""
    async with connected(url, 2.5) as link:
        return link.client


async def test_a_single_one_is_named_as_ever() -> None:
    """Host, port, database, user and password of a plain URL reach the connection."""
    client = await client_of("redis://ann:p%40ss@redis.example:6380/3")
    assert isinstance(client, Redis)
    found = client.connection_pool.connection_kwargs
    assert (found["host"], found["port"], found["db"]) == ("redis.example", 6380, 3)
    assert (found["username"], found["password"]) == ("ann", "p@ss")
    assert found["socket_timeout"] == 2.5


async def test_a_cluster_is_named_by_some_of_its_nodes() -> None:
    """Every host is asked; the usual port, IPv6 and what stands once counts for all of them."""
    client = await client_of("redis+cluster://ann:p%40ss@10.0.0.1:7001,10.0.0.2,[::1]:7003")
    assert isinstance(client, RedisCluster)
    assert [(node.host, node.port) for node in client.startup_nodes] == [
        ("10.0.0.1", 7001),
        ("10.0.0.2", 6379),
        ("::1", 7003),
    ]
    for node in client.startup_nodes:
        found = node.connection_kwargs
        assert (found["username"], found["password"]) == ("ann", "p@ss")
        assert found["socket_timeout"] == 2.5


async def test_a_cluster_may_want_tls() -> None:
    """``rediss+cluster`` encrypts, with the options of redis-py behind the question mark."""
    client = await client_of("rediss+cluster://10.0.0.1:7001?ssl_ca_certs=ca.pem")
    assert isinstance(client, RedisCluster)
    (node,) = client.startup_nodes
    assert node.connection_class is SSLConnection
    assert node.connection_kwargs["ssl_ca_certs"] == "ca.pem"


async def test_a_service_is_found_by_its_sentinels() -> None:
    """Every sentinel is asked once, without password; the Redis has password and database."""
    client = await client_of("redis+sentinel://:p%40ss@10.0.0.1,10.0.0.2:5000/my%20game/2")
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.service_name == "my game"
    assert (pool.connection_kwargs["password"], pool.connection_kwargs["db"]) == ("p@ss", 2)
    asked = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
    assert [(each["host"], each["port"]) for each in asked] == [
        ("10.0.0.1", 26379),
        ("10.0.0.2", 5000),
    ]
    assert all(each.get("password") is None for each in asked)
    assert all(each["retry"].get_retries() == 0 for each in asked)


async def test_sentinels_may_want_tls() -> None:
    """``rediss+sentinel`` encrypts what goes to the sentinels and to the Redis."""
    client = await client_of("rediss+sentinel://10.0.0.1/game")
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.connection_class is SentinelManagedSSLConnection
    (sentinel,) = pool.sentinel_manager.sentinels
    assert isinstance(sentinel.connection_pool, ConnectionPool)
    assert sentinel.connection_pool.connection_class is SSLConnection


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://h:1", "redis://HOST:PORT"),
        ("redis://:hush@h:port", "redis://HOST:PORT"),
        ("redis+other://h:1", "redis://HOST:PORT"),
        ("redis+cluster://:hush@h:port,i:2", "redis://HOST:PORT"),
        ("redis+cluster://[::1", "redis://HOST:PORT"),
        ("redis+cluster://:hush@h:1,", "A host is missing"),
        ("redis+cluster://", "A host is missing"),
        ("redis+cluster://:hush@h:1,:hush@i:2", "once, before all hosts"),
        ("redis+cluster://:hush@h:1/3", "database 0 only"),
        ("redis+sentinel://:hush@h:1", "name of the service"),
        ("redis+sentinel://:hush@h:1/game/x", "stands a number"),
        ("redis+sentinel:///game", "A host is missing"),
    ],
)
async def test_what_is_no_address_is_refused(url: str, said: str) -> None:
    """The error tells what is wrong and every right form, and never the password."""
    with pytest.raises(ConfigError) as caught:
        await client_of(url)
    assert said in caught.value.message
    assert "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE" in caught.value.message
    assert "hush" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://ann@h:1", "redis://ann@h:1"),
        ("redis://ann:hush@h:1", "redis://ann:***@h:1"),
        ("redis+cluster://:hu@sh@h:1,i:2", "redis+cluster://:***@h:1,i:2"),
        ("redis://:hu#sh@h:1", "redis://:***@h:1"),
        ("redis://:[hush@h:1", "redis://:***@h:1"),
        ("unix:///run/redis?db=1&password=hush", "unix:///run/redis?db=1&password=***"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    """Whatever is odd about a URL, its password is left out of it."""
    assert redact(url) == shown
