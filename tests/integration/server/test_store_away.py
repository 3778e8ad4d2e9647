"""Redis goes away and comes back while players talk."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as NoAnswer
from support import Start, eventually, of, opened, reply_to, until
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from npc_server.client import Refused, session
from npc_server.errors import StoreUnavailable
from npc_server.protocol import SUBPROTOCOL
from npc_server.store import find_redis_server

COUNTING = "One two three four five six seven eight."
SLOW = {"rules": [{"reply": COUNTING, "piece_ms": 40}]}


class Outside:
    """A Redis that is not the server's own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/redis.sock"
        self._command = [
            str(find_redis_server()),
            *("--port", "0", "--unixsocket", f"{folder}/redis.sock"),
            *("--dir", str(folder), "--appendonly", "yes", "--save", ""),
        ]
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.DEVNULL
        )

        async def answers() -> bool:
            async with Redis.from_url(self.url) as client:
                try:
                    return bool(await client.ping())
                except NoAnswer:
                    return False

        await eventually(answers)

    async def stop(self) -> None:
        assert self._process
        self._process.terminate()
        await self._process.wait()


async def test_commands_are_refused_and_then_work(start: Start, tmp_path: Path) -> None:
    """Without Redis a say is store_unavailable and may be sent again; with it, it works again."""
    redis = Outside(tmp_path)
    await redis.start()
    async with (
        start(redis_url=redis.url, timeouts={"redis": 0.5}) as app,
        session(app.address, player="minsu") as client,
    ):
        conversation = await opened(client)
        await reply_to(client, conversation, "Before")
        await redis.stop()
        await client.send("say", conversation=conversation, text="During")
        error = await until(client, "error")
        assert (error["code"], error["retryable"]) == ("store_unavailable", True)
        assert error["retry_after_ms"] > 0
        await redis.start()

        async def answered() -> bool:
            try:
                history = await client.ask("history.get", conversation=conversation)
            except Refused:
                return False
            return [t["text"] for t in history["turns"]][:1] == ["Before"]

        await eventually(answered, 20)
        events = await reply_to(client, conversation, "After")
        assert of(events, "reply.done")[0]["finish"] == "stop"
        history = await client.ask("history.get", conversation=conversation)
        assert [t["text"] for t in history["turns"] if t["kind"] == "say"] == ["Before", "After"]
    await redis.stop()


async def test_a_reply_is_committed_when_redis_is_back(start: Start, tmp_path: Path) -> None:
    """A reply that ends while Redis is away is kept, and committed as soon as it can be."""
    redis = Outside(tmp_path)
    await redis.start()
    async with (
        start(SLOW, redis_url=redis.url, timeouts={"redis": 0.5}) as app,
        session(app.address, player="minsu") as client,
    ):
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        await until(client, "reply.delta")
        await redis.stop()
        await until(client, "reply.sentence")
        await redis.start()
        done = await until(client, "reply.done")
        assert (done["finish"], done["text"]) == ("stop", COUNTING)
    await redis.stop()


async def test_a_consent_that_is_taken_back_is_not_lost(start: Start, tmp_path: Path) -> None:
    """Without Redis a hello is refused with a close after which clients come back; then it holds.

    Else somebody who takes consent back while Redis is away would be in the training data.
    """
    redis = Outside(tmp_path)
    await redis.start()
    async with start(redis_url=redis.url, timeouts={"redis": 0.5}) as app:
        async with session(app.address, player="minsu", consent=["training"]):
            assert await app.store.consent("default", ":minsu") is not None
        await redis.stop()
        hello = {"type": "hello", "id": "1", "protocol": 1, "player": {"id": "minsu"}}
        async with connect(app.address, subprotocols=[Subprotocol(SUBPROTOCOL)]) as raw:
            await raw.send(json.dumps(hello))
            error = json.loads(await raw.recv())
            assert (error["code"], error["retryable"]) == ("store_unavailable", True)
            with pytest.raises(ConnectionClosed) as closed:
                await raw.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4503
        await redis.start()

        async def taken_back() -> bool:
            try:
                async with session(app.address, player="minsu"):
                    return await app.store.consent("default", ":minsu") is None
            except Refused:
                return False

        await eventually(taken_back)
    await redis.stop()


async def test_a_redis_that_never_was_is_told(start: Start) -> None:
    """A server whose Redis does not answer does not start, and says what to check."""
    with pytest.raises(StoreUnavailable, match="NPC_REDIS_URL"):
        async with start(redis_url="redis://127.0.0.1:1", timeouts={"redis": 0.3}):
            pass
