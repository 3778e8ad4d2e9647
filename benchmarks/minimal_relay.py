"""The least that can stand between a player and llama.cpp: reads its stream, sends each piece on.

Raw asyncio streams on one side, websockets on the other, and nothing else: no conversation, no
parser, no store. ``relay.py`` compares our server's processor time with it.
"""

from __future__ import annotations

import argparse
import asyncio

import orjson
from engine_http import completion
from websockets.asyncio.server import ServerConnection, serve


async def main(engine: str) -> None:
    """Serve until killed."""

    async def relay(connection: ServerConnection) -> None:
        async for frame in connection:
            async for event in completion(engine, orjson.loads(frame)):
                piece = {"type": "reply.delta", "text": event["content"]}
                await connection.send(orjson.dumps(piece), text=True)
            await connection.send(orjson.dumps({"type": "reply.done"}), text=True)

    async with serve(relay, "127.0.0.1", 0, max_size=None) as server:
        host, port = server.sockets[0].getsockname()[:2]
        print(f"ready ws://{host}:{port}", flush=True)
        await server.wait_closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("engine")
    asyncio.run(main(parser.parse_args().engine))
