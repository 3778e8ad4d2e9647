"""The server's end of a worker process: starts it, asks it, hears it, ends it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

import npc_server
from npc_server.observability import get_logger

Json = dict[str, Any]

LINE_LIMIT = 1 << 24
LINES_KEPT = 5
LINE_KEPT = 500
STOP_SECONDS = 2.0

log = get_logger(__name__)


class WorkerDied(Exception):
    """The process ended while it was needed; the text says how."""


class WorkerProcess:
    """A running worker. Made by ``launch``.

    Attributes:
        facts: What it told about itself when it was ready.
        ended: Is set when the process has ended.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[Json | None]] = {}
        self._last_words: deque[str] = deque(maxlen=LINES_KEPT)
        self._tasks: list[asyncio.Task[None]] = []
        self.facts: Json = {}
        self.ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def complaints(self) -> tuple[str, ...]:
        """The last lines that it wrote to its standard error."""
        return tuple(self._last_words)

    @classmethod
    async def launch(
        cls, module: str | Sequence[str], first: Json, *, seconds: float
    ) -> WorkerProcess:
        """Start a worker and wait until it is ready or has failed; see ``facts``.

        Args:
            module: The Python module to run, or a whole command line.
            first: The first command: what to load.
            seconds: How long it may take.

        Raises:
            WorkerDied: It ended without a word.
            TimeoutError: It was not ready in time.
        """
        command = [sys.executable, "-P", "-m", module] if isinstance(module, str) else [*module]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=LINE_LIMIT, env=_environment()
        )
        worker = cls(process)
        try:
            worker._tasks.append(asyncio.create_task(worker._hear_complaints()))
            worker._write(first)
            async with asyncio.timeout(seconds):
                worker.facts = await worker._first_event()
        except BaseException:
            await worker.stop(patience=0)
            raise
        worker._tasks.append(asyncio.create_task(worker._hear()))
        return worker

    async def ask(self, command: Json) -> AsyncGenerator[Json]:
        """Send a command and yield its events; the caller knows the last one.

        Leaving early cancels the command in the worker.

        Raises:
            WorkerDied: The process ended before the last event.
        """
        number = next(self._ids)
        answers: asyncio.Queue[Json | None] = asyncio.Queue()
        self._answers[number] = answers
        last = False
        try:
            self._write({**command, "id": number})
            while not last:
                event = None if self.ended.is_set() and answers.empty() else await answers.get()
                if event is None:
                    raise WorkerDied(self._how_it_ended())
                last = not event.keys().isdisjoint({"finish", "error", "counts", "scores"})
                yield event
        finally:
            del self._answers[number]
            if not last:
                self.tell({"op": "cancel", "id": number})

    def tell(self, command: Json) -> None:
        """Send a command that has no answer; in vain if the process has ended."""
        with suppress(WorkerDied):
            self._write(command)

    async def stop(self, *, patience: float = STOP_SECONDS) -> None:
        """End the process: kindly, then by force. May be called twice."""
        stdin = self._process.stdin
        if stdin is not None:
            stdin.close()
        await self._end(patience)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.ended.set()

    def _write(self, command: Json) -> None:
        stdin = self._process.stdin
        if stdin is None or stdin.is_closing():
            raise WorkerDied(self._how_it_ended())
        stdin.write(orjson.dumps(command) + b"\n")

    async def _first_event(self) -> Json:
        try:
            event: Json = orjson.loads(await self._line())
        except ValueError:
            # Nothing came, or half a line, or no JSON: it is of no use any more.
            await self._end(STOP_SECONDS)
            await asyncio.gather(*self._tasks)
            raise WorkerDied(self._how_it_ended()) from None
        return event

    async def _hear(self) -> None:
        try:
            while line := await self._line():
                event = orjson.loads(line)
                answers = self._answers.get(event["id"])
                if answers is not None:
                    answers.put_nowait(event)
        except (ValueError, KeyError) as error:
            log.error("worker_not_understood", pid=self.pid, reason=str(error))
        finally:
            await self._end(STOP_SECONDS)
            self.ended.set()
            for answers in self._answers.values():
                answers.put_nowait(None)

    async def _end(self, patience: float) -> None:
        try:
            async with asyncio.timeout(patience):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def _line(self) -> bytes:
        stdout = self._process.stdout
        if stdout is None:
            return b""
        line = await stdout.readline()
        # A worker that dies may leave half a line.
        return line if line.endswith(b"\n") else b""

    async def _hear_complaints(self) -> None:
        stderr = self._process.stderr
        while stderr is not None and (data := await stderr.readline()):
            line = data.decode(errors="replace").strip()[:LINE_KEPT]
            if line:
                self._last_words.append(line)
                log.debug("worker_said", pid=self.pid, line=line)

    def _how_it_ended(self) -> str:
        code = self._process.returncode
        if code is None:
            how = "its pipe closed"
        elif code < 0:
            name = signal.Signals(-code).name if -code in _signal_numbers() else str(-code)
            how = f"it was ended by {name}"
        else:
            how = f"it ended with code {code}"
        words = self._last_words[-1] if self._last_words else ""
        return f"{how} ({words})" if words else how


def _signal_numbers() -> set[int]:
    return {int(number) for number in signal.Signals}


def _environment() -> dict[str, str]:
    """The server's environment, in which the worker finds the same npc_server."""
    root = str(Path(npc_server.__file__).parent.parent)
    paths = [root, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
