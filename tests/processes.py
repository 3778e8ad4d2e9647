"""Servers as processes of their own, with the real model."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "npc_server.cli")


@dataclass(frozen=True, slots=True)
class Served:
    """A running ``npc-server serve``."""

    address: str
    process: subprocess.Popen[str]
    data: Path

    @property
    def page(self) -> str:
        """Its address for a browser."""
        return self.address.replace("ws://", "http://") + "/"

    def children(self) -> list[psutil.Process]:
        """Its workers and its Redis."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def worker(self) -> psutil.Process:
        """The process that runs the model."""
        return next(p for p in self.children() if p.cmdline()[-1].endswith("_worker"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


class Servers:
    """Starts servers and ends those that are left."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._started: list[Served] = []

    def start(self, *arguments: str, data: Path | None = None, **environment: str) -> Served:
        """Start ``npc-server serve`` on a free port and wait until it is ready."""
        folder = data or self._data
        with (folder.parent / "server.log").open("a") as log_file:
            process = subprocess.Popen(
                [*COMMAND, "serve", "--port", "0", "--data-dir", str(folder), *arguments],
                stdout=subprocess.PIPE,
                stderr=log_file,
                text=True,
                cwd=folder.parent,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("ready ws://"):
            process.kill()
            log = (folder.parent / "server.log").read_text()
            raise RuntimeError(f"the server did not get ready: {line!r}\n{log}")
        served = Served(line.split()[1], process, folder)
        self._started.append(served)
        return served

    def end(self) -> None:
        """Stop what still runs."""
        for served in self._started:
            if served.process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    served.stop()
                served.process.kill()
            if served.process.stdout is not None:
                served.process.stdout.close()
