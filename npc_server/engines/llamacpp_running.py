"""One running llama.cpp: its process, its HTTP server and its seats."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import Any

from npc_server.engines.base import Adapter
from npc_server.engines.llamacpp_http import Json, LlamaHttp
from npc_server.engines.llamacpp_seats import Key, SeatKeeper, Shelf
from npc_server.engines.worker_process import WorkerDied, WorkerProcess

MIB = 1 << 20


class RunningLlama:
    """A worker process that is ready, and what is to be known of it.

    Args:
        process: The process.
        adapters: The adapters that it has loaded, in llama.cpp's order.
        seats: How many replies it makes at once.
        cache_mib: How much memory the states of those without a seat may take.

    Attributes:
        http: Asks its server.
        seats: Its seats.
        adapters: As given.
    """

    def __init__(
        self, process: WorkerProcess, adapters: Sequence[Path], *, seats: int, cache_mib: int
    ) -> None:
        self._process = process
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self.adapters = tuple(adapters)
        self.http = LlamaHttp(process.facts["address"], process.facts["key"])
        shelf = Shelf(process.facts["places"], cache_mib * MIB)
        self.seats = SeatKeeper(self, seats, shelf)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def ended(self) -> asyncio.Event:
        """Is set when the process has ended."""
        return self._process.ended

    @property
    def facts(self) -> Json:
        """What the worker said of itself."""
        return self._process.facts

    @contextmanager
    def used(self) -> Generator[None]:
        """Let it not be retired meanwhile."""
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def retire(self) -> None:
        """End it as soon as nobody uses it; at once where this is cancelled."""
        try:
            await self._unused.wait()
        finally:
            await self.stop()

    async def stop(self, *, patience: float = 2.0) -> None:
        """End it now. May be called twice."""
        await self.seats.close()
        await self._process.stop(patience=patience)

    def key(self, affinity: str, adapter: Adapter | None) -> Key:
        """Under which the state of a prompt is kept."""
        return Key(affinity, None if adapter is None else (str(adapter.path), adapter.scale))

    def lora(self, adapter: Adapter | None) -> list[Json]:
        """llama.cpp's ``lora`` field. What it leaves out would be as the request before had it."""
        path, scale = (None, 0.0) if adapter is None else (adapter.path, adapter.scale)
        return [
            {"id": number, "scale": scale if path == loaded else 0.0}
            for number, loaded in enumerate(self.adapters)
        ]

    async def tokenize(self, text: str) -> list[int]:
        """llama.cpp's ids of a text, in which no control token is looked for."""
        body = {"content": text, "add_special": False, "parse_special": False}
        answer = await self.http.call("/tokenize", body)
        return list(answer["tokens"])

    async def act(self, seat: int, action: str, place: int | None = None) -> dict[str, Any]:
        """Save a seat's state to a place, restore it from one, or erase it."""
        body = {} if place is None else {"filename": str(place)}
        answer: Json = await self.http.call(f"/slots/{seat}?action={action}", body)
        return answer

    async def clear(self, places: Sequence[int]) -> None:
        """Empty places; in vain if the process has ended, which empties them all."""
        with suppress(WorkerDied):
            async with aclosing(self._process.ask({"op": "clear", "places": [*places]})) as events:
                async for _ in events:
                    pass
