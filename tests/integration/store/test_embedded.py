"""A Redis of our own starts, keeps what it was told, and never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis
from support import eventually

from npc_server.errors import SetupError
from npc_server.store import EmbeddedRedis, FolderInUse
from npc_server.store.embedded import SOCKET_BYTES

OWNER = """
import asyncio, sys
from pathlib import Path
from npc_server.store import EmbeddedRedis

async def main():
    redis = EmbeddedRedis(Path(sys.argv[1]))
    url = await redis.start()
    print(redis.pid, url, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def owner(folder: Path) -> tuple[subprocess.Popen[str], int, str]:
    """A process that runs an embedded Redis: itself, the Redis' pid, its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert process.stdout is not None
    pid, url = process.stdout.readline().split()
    process.stdout.close()
    return process, int(pid), url


async def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_it_is_private_and_durable(tmp_path: Path) -> None:
    """It listens on no port, in a folder of our own, with an append-only file, never evicting."""
    redis = EmbeddedRedis(tmp_path)
    url = await redis.start()
    async with Redis.from_url(url) as client:
        wanted = {"port": "0", "appendonly": "yes", "maxmemory-policy": "noeviction", "save": ""}
        for name, value in wanted.items():
            assert (await client.config_get(name))[name] == value
        await client.set("a", "b")
    assert (tmp_path / "redis").stat().st_mode & 0o777 == 0o700
    await redis.stop()
    await redis.stop()
    url = await redis.start()
    async with Redis.from_url(url) as client:
        assert await client.get("a") == b"b"
    await redis.stop()
    assert not (tmp_path / "redis" / "redis.sock").exists()


async def test_who_is_refused_leaves_the_other_alone(tmp_path: Path) -> None:
    """A refused server touches nothing of the first, whose Redis still takes connections."""
    first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
    url = await first.start()
    with pytest.raises(FolderInUse):
        await second.start()
    assert second.url_of_other() == url
    async with Redis.from_url(url) as client:
        assert await client.ping()
    await first.stop()
    with pytest.raises(FolderInUse, match="Try again"):
        second.url_of_other()


async def test_a_folder_is_not_shared(tmp_path: Path) -> None:
    """A second server on the folder is refused with what to do; after the first it may."""
    first, second = EmbeddedRedis(tmp_path), EmbeddedRedis(tmp_path)
    await first.start()
    with pytest.raises(SetupError, match="Another npc-server"):
        await second.start()
    await first.stop()
    await second.start()
    await second.stop()


async def test_kill_9_leaves_no_redis(tmp_path: Path) -> None:
    """When its owner is killed the Redis is gone, and what it acknowledged is not."""
    process, pid, url = owner(tmp_path)
    async with Redis.from_url(url) as client:
        await client.set("canary", "sings")
    process.send_signal(signal.SIGKILL)
    process.wait()

    async def gone() -> bool:
        return not await alive(pid)

    await eventually(gone)
    redis = EmbeddedRedis(tmp_path)
    async with Redis.from_url(await redis.start()) as client:
        assert await client.get("canary") == b"sings"
    await redis.stop()


async def test_half_a_file_is_read(tmp_path: Path) -> None:
    """An append-only file that ends in half a command loses that command only."""
    redis = EmbeddedRedis(tmp_path)
    async with Redis.from_url(await redis.start()) as client:
        await client.set("whole", "1")
    await redis.stop()
    (file,) = [f for f in (tmp_path / "redis").rglob("appendonly*.aof*") if f.suffix != ".manifest"
               and ".base." not in f.name]  # fmt: skip
    with file.open("ab") as half:
        half.write(b"*3\r\n$3\r\nSET\r\n$4\r\nha")
    async with Redis.from_url(await redis.start()) as client:
        assert await client.get("whole") == b"1"
    await redis.stop()


async def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """Where the socket's path would be too long it moves, and is removed afterwards."""
    folder = tmp_path / ("x" * SOCKET_BYTES)
    redis = EmbeddedRedis(folder)
    url = await redis.start()
    socket = Path(url.removeprefix("unix://"))
    assert len(str(socket)) <= SOCKET_BYTES
    assert not socket.is_relative_to(folder)
    await redis.stop()
    assert not socket.parent.exists()


async def test_an_unusable_folder_is_explained(tmp_path: Path) -> None:
    """A file where the folder should be ends in what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="NPC_DATA_DIR"):
        await EmbeddedRedis(tmp_path / "file").start()


async def test_a_broken_file_is_quoted(tmp_path: Path) -> None:
    """A Redis that refuses its file ends in Redis' own last words."""
    redis = EmbeddedRedis(tmp_path)
    await redis.start()
    await redis.stop()
    for file in (tmp_path / "redis").rglob("appendonly*"):
        if file.is_file():
            file.write_bytes(b"nonsense, and more of it\r\n" * 5)
    with pytest.raises(SetupError, match="last words"):
        await redis.start()
