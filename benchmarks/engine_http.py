"""llama.cpp's own HTTP server as a process, and the least that one needs to talk with it.

Run alone, it serves a model and prints ``ready ADDRESS``. The benchmarks compare our server with
it; a relay of a few lines (``minimal_relay.py``) reads from it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import orjson

Json = dict[str, Any]


async def completion(address: str, body: Json) -> AsyncIterator[Json]:
    """Ask for a completion and yield its server-sent events as they come."""
    where = urlsplit(address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port, limit=1 << 22)
    data = orjson.dumps({"stream": True, "cache_prompt": True, **body})
    head = (
        f"POST /completion HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + data)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"llama.cpp answered {status!r}: {await reader.read(2000)!r}")
        while line := await reader.readline():
            if line.startswith(b"data: {"):
                event: Json = orjson.loads(line[6:])
                yield event
                if event.get("stop"):
                    return
    finally:
        writer.close()


def serve(model: str, context: int, seats: int, batch: int) -> None:
    """Serve a model until a signal comes, with the parameters of our own worker.

    Args:
        model: The file.
        context: Tokens of one seat.
        seats: Completions at once.
        batch: Tokens of a prompt that are read at once.
    """
    # Imported late: who only talks with the server does not load the library.
    from xllamacpp import CommonParams, Server, llama_flash_attn_type  # noqa: PLC0415

    cores = len(os.sched_getaffinity(0))
    params = CommonParams()
    params.model.path = model
    params.n_ctx = context * seats
    params.n_parallel = seats
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores
    params.n_batch = params.n_ubatch = batch
    # As ours is on a processor.
    params.flash_attn_type = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.fit_params = False
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.port = 0
    params.ui = False
    server = Server(params)
    print(f"ready {server.listening_address}", flush=True)
    # Whatever the library prints from now on, nobody reads.
    os.dup2(2, 1)
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--seats", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    given = parser.parse_args()
    serve(given.model, given.context, given.seats, given.batch)
