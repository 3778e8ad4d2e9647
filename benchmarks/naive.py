"""The server that one would write first: one ctransformers instance behind one lock.

Each connection says who the character is, then what the player says; every turn renders the whole
conversation into one prompt and generates while everybody else waits. ``load.py`` measures
against it.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
from websockets.asyncio.server import ServerConnection, serve

from common import tokens_of  # isort: skip
from ctransformers.llm import LLM, Config

from npc_server.engines.convert import prepared
from npc_server.engines.ctransformers_model import library
from npc_server.engines.worker_loop import Tokens


class Naive:
    """The one instance, its lock, and the conversations that wait for it."""

    def __init__(self, llm: Any, tokens: Tokens, threads: int) -> None:
        self._llm = llm
        self._tokens = tokens
        self._threads = threads
        self._lock = asyncio.Lock()

    async def talk(self, connection: ServerConnection) -> None:
        """One conversation: the persona first, then a message for each turn."""
        about = orjson.loads(await connection.recv())
        messages = [["system", about["system"]]]
        async for frame in connection:
            messages.append(["user", orjson.loads(frame)["text"]])
            said, count = "", 0
            async with self._lock:
                pieces = self._generate(self._tokens.prompt(messages), about["max_tokens"])
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    said, count = said + piece, count + 1
                    await connection.send(orjson.dumps({"text": piece}), text=True)
            messages.append(["assistant", said])
            await connection.send(orjson.dumps({"done": True, "tokens": count}), text=True)

    def _generate(self, prompt: list[int], most: int) -> Iterator[str]:
        drawn = self._llm.generate(prompt, temperature=0.01, reset=True, threads=self._threads)
        for _, token in zip(range(most), drawn, strict=False):
            if token in self._tokens.ends:
                return
            yield self._tokens.vocabulary.piece(token).decode(errors="replace")


async def main(model: Path, context: int, threads: int) -> None:
    """Serve until killed."""
    path = prepared(model, None)
    llm = LLM(str(path), config=Config(context_length=context), lib=library(0))
    naive = Naive(llm, tokens_of(path), threads)
    async with serve(naive.talk, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"ready ws://{host}:{port}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    asyncio.run(main(given.model, given.context, given.threads))
