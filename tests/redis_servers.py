"""Redis servers on loopback for tests: single ones, a Cluster, and a pair with a sentinel."""

from __future__ import annotations

import secrets
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from redis import Redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import RedisError

from npc_server.store import find_redis_server

BUS = 10_000
"""A Cluster's nodes talk to each other on their port and this."""
SLOTS = REDIS_CLUSTER_HASH_SLOTS
SERVICE = "npc"
PASSWORD = "p@ss/word"
"""Of the two that are watched; it has to be escaped in a URL."""


def _free_port() -> int:
    """A port that is free, and below those that a system gives away by itself, with its bus."""
    while True:
        port = secrets.choice(range(10_000, 22_000))
        with socket.socket() as one, socket.socket() as bus:
            try:
                one.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + BUS))
            except OSError:
                continue
            return port


@dataclass(slots=True)
class Server:
    """A redis-server that can be killed and started again on what it wrote.

    Attributes:
        folder: Of its own; it is made.
        options: For its command line.
        port: On loopback.
        password: That ``options`` ask for.
    """

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=_free_port)
    password: str | None = None
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self) -> Server:
        """Start it and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                str(find_redis_server()),
                *self.options,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
                *("--logfile", str(self.folder / "redis.log")),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(lambda: self.ask("PING") in {True, "PONG"})
        return self

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def ask(self, *words: str | int) -> Any:
        """What it answers to a command."""
        with Redis(
            port=self.port, password=self.password, decode_responses=True, socket_timeout=5
        ) as client:
            return client.execute_command(*words)


@dataclass(frozen=True, slots=True)
class Cluster:
    """Three primaries, each with a third of the slots."""

    nodes: tuple[Server, ...]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def renew(self) -> None:
        """Start the nodes that were killed, and delete everything, the scripts too."""
        for node in self.nodes:
            if not node.running:
                node.start()
        self.wait()
        for node in self.nodes:
            node.ask("FLUSHALL")
            node.ask("SCRIPT", "FLUSH")

    def owner(self, key: str) -> Server:
        """The node that has a key."""
        slot = key_slot(key.encode())
        ranges = self.nodes[0].ask("CLUSTER SLOTS")
        port = next(at[1] for first, last, at, *_ in ranges if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def move(self, key: str, target: Server) -> None:
        """Give the slot of a key to another node; it holds no keys yet."""
        name = target.ask("CLUSTER", "MYID")
        for node in (target, *(node for node in self.nodes if node is not target)):
            node.ask("CLUSTER", "SETSLOT", key_slot(key.encode()), "NODE", name)

    def wait(self) -> None:
        """Wait until every node knows all others, and that all slots are served."""

        def ready(node: Server) -> bool:
            about = node.ask("CLUSTER INFO")
            return (about["cluster_state"], about["cluster_known_nodes"]) == ("ok", "3")

        wait_until(lambda: all(ready(node) for node in self.nodes))


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A Redis Cluster."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--appendonly", "yes")
    nodes = tuple(Server(folder / f"node{number}", options) for number in range(3))
    with ExitStack() as stack:
        for number, node in enumerate(nodes):
            stack.callback(node.kill)
            node.start()
            slots = range(number * SLOTS // 3, (number + 1) * SLOTS // 3)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.ask("CLUSTER", "ADDSLOTS", *slots)
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port)
        started = Cluster(nodes)
        started.wait()
        yield started


@dataclass(frozen=True, slots=True)
class Watched:
    """A primary and its replica, watched over by a sentinel."""

    primary: Server
    replica: Server
    sentinel: Server

    @property
    def url(self) -> str:
        password = quote(PASSWORD, safe="")
        return f"redis+sentinel://:{password}@127.0.0.1:{self.sentinel.port}/{SERVICE}"


@contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """A pair with a sentinel that notices within half a second."""
    options = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--save", "")
    with ExitStack() as stack:
        primary = Server(
            folder / "primary", (*options, "--repl-diskless-sync-delay", "0"), password=PASSWORD
        )
        stack.callback(primary.kill)
        primary.start()
        following = ("--replicaof", "127.0.0.1", str(primary.port))
        replica = Server(folder / "replica", (*options, *following), password=PASSWORD)
        stack.callback(replica.kill)
        replica.start()
        wait_until(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up")
        file = folder / "sentinel.conf"
        file.write_text(
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary.port} 1\n"
            f"sentinel auth-pass {SERVICE} {PASSWORD}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 2000\n"
        )
        sentinel = Server(folder / "sentinel", (str(file), "--sentinel"))
        stack.callback(sentinel.kill)
        sentinel.start()
        wait_until(lambda: sentinel.ask("SENTINEL MASTER", SERVICE)["num-slaves"] == 1)
        yield Watched(primary, replica, sentinel)


def wait_until(holds: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something holds of servers; one that does not answer is asked again.

    Raises:
        TimeoutError: It did not in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except (RedisError, OSError):
            pass
        time.sleep(0.02)
    raise TimeoutError
