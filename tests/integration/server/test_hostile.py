"""Clients that send nonsense, too much, or do not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request

import orjson
import pytest
from support import FAST, Json, Start, eventually, of, opened, reply_to, until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from npc_server.app import App
from npc_server.client import session

HELLO = {"type": "hello", "id": "h", "protocol": 1, "player": {"id": "p"}}


def joined(app: App, **options: object) -> connect:
    return connect(app.address, subprotocols=["npc.v1"], max_size=None, **options)  # type: ignore[list-item,arg-type]


async def closed(connection: ClientConnection) -> int | None:
    """Read to the end; the close code."""
    await read_all(connection)
    return connection.close_code


async def read_all(connection: ClientConnection) -> list[Json]:
    """Every event up to the close."""
    events = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            events.append(orjson.loads(await connection.recv()))
    return events


@pytest.mark.parametrize(
    ("frames", "code", "error"),
    [
        (["{"], 4400, "bad_json"),
        ([b"\x00"], 4400, "bad_message"),
        ([{"type": "ping"}], 4400, "bad_message"),
        ([{**HELLO, "protocol": 2}], 4400, "protocol_version"),
        ([{**HELLO, "player": {"id": "x" * 200}}], 4400, "bad_message"),
        ([], 4408, None),
    ],
)
async def test_a_bad_handshake_is_refused(
    start: Start, frames: list[object], code: int, error: str | None
) -> None:
    """Whatever comes instead of a good hello is answered and closed with its code."""
    async with start(timeouts={"handshake": 1}) as app, joined(app) as connection:
        for frame in frames:
            raw = orjson.dumps(frame).decode() if isinstance(frame, dict) else frame
            await connection.send(raw)  # type: ignore[arg-type]
        if error:
            assert orjson.loads(await connection.recv())["code"] == error
        assert await closed(connection) == code


async def test_without_the_subprotocol_it_is_a_400(app: App) -> None:
    """A handshake that does not ask for npc.v1 gets HTTP 400 with the name in it."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(app.address)
    assert caught.value.response.status_code == 400
    assert b"npc.v1" in (caught.value.response.body or b"")


async def test_foreign_origins_are_refused(app: App) -> None:
    """Another site's page cannot connect; one's own page can."""
    with pytest.raises(InvalidStatus) as caught:
        await joined(app, origin="https://evil.example")
    assert caught.value.response.status_code == 403
    async with joined(app, origin=app.address.replace("ws", "http")):
        pass


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", "bad_json"),
        ("[" * 5_000, "bad_json"),
        ('{"type":"ping","x":' + "[" * 40 + "]" * 40 + "}", "bad_json"),
        ('{"type":"say","id":"1","conversation":"c","text":"\\ud800"}', "bad_json"),
        (b"\x01\x02", "bad_message"),
        ("7", "bad_message"),
        ('{"type":"say","id":"1","conversation":"c","text":7}', "bad_message"),
        ('{"type":"asset.put","id":"1","name":"x"}', "unknown_type"),
        ('{"type":"say","id":"1","conversation":"c","text":"' + "x" * 4001 + '"}', "too_large"),
        ('{"type":"say","id":"1","conversation":"nope","text":"x"}', "not_found"),
    ],
)
async def test_a_bad_frame_leaves_the_socket_open(app: App, frame: str | bytes, code: str) -> None:
    """Each bad frame gets its documented error, and the next ping its pong."""
    async with joined(app) as connection:
        await connection.send(orjson.dumps(HELLO).decode())
        await connection.recv()
        await connection.send(frame)
        error = orjson.loads(await connection.recv())
        assert (error["type"], error["code"]) == ("error", code)
        assert error["message"]
        await connection.send('{"type":"ping","t":5}')
        assert orjson.loads(await connection.recv())["t"] == 5


@pytest.mark.parametrize(
    ("raw", "code"),
    [(b"\x81\x82\x00\x00\x00\x00\xff\xfe", 1007), (b"\xff\x80\x00\x00\x00\x00", 1002)],
)
async def test_broken_websocket_frames_close(app: App, raw: bytes, code: int) -> None:
    """What breaks the WebSocket protocol itself closes with the code of RFC 6455."""
    async with joined(app) as connection:
        await connection.send(orjson.dumps(HELLO).decode())
        await connection.recv()
        connection.transport.write(raw)
        assert await closed(connection) == code


async def test_a_frame_over_the_limit_closes_with_1009(app: App) -> None:
    """64 KiB and one byte is too big for a frame."""
    async with joined(app) as connection:
        await connection.send(orjson.dumps(HELLO).decode())
        await connection.recv()
        await connection.send("x" * (FAST.frame_bytes + 1))
        assert await closed(connection) == 1009


async def test_half_a_frame_and_gone(app: App) -> None:
    """A client that dies in the middle of a frame leaves a server that answers others."""
    async with joined(app) as connection:
        await connection.send(orjson.dumps(HELLO).decode())
        await connection.recv()
        connection.transport.write(b"\x81\xfe\x10\x00abcd")
        connection.transport.abort()
    async with session(app.address) as client:
        conversation = await opened(client)
        assert of(await reply_to(client, conversation, "Hello"), "reply.done")


async def test_too_many_commands_are_refused_and_then_closed(start: Start) -> None:
    """Over the rate a command is refused with when to come; who goes on and on is closed."""
    limits = {"messages_per_second": 1, "message_burst": 3}
    async with start(limits=limits) as app, joined(app) as connection:
        await connection.send(orjson.dumps(HELLO).decode())
        await connection.recv()
        for number in range(4):
            await connection.send(
                orjson.dumps(
                    {"type": "history.get", "id": str(number), "conversation": "c"}
                ).decode()
            )
        codes = [orjson.loads(await connection.recv()) for _ in range(4)]
        assert [e["code"] for e in codes] == ["not_found"] * 3 + ["rate_limited"]
        assert codes[3]["retryable"]
        assert codes[3]["retry_after_ms"] > 0
        for number in range(8):
            await connection.send(
                orjson.dumps(
                    {"type": "history.get", "id": str(number), "conversation": "c"}
                ).decode()
            )
        assert await closed(connection) == 4429


async def test_a_client_that_does_not_read_is_closed(start: Start) -> None:
    """A client with small buffers that stops reading gets 4429; another one does not notice."""
    script = {"rules": [{"reply": "word " * 400, "piece_ms": 0}]}
    limits = {
        "outbox_messages": 64,
        "outbox_bytes": 65_536,
        "messages_per_second": 100_000,
        "message_burst": 100_000,
    }
    async with (
        start(script, limits=limits, timeouts={"write": 0.5}) as app,
        session(app.address, player="reader") as reader,
    ):
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.connect(("127.0.0.1", int(app.address.rsplit(":", 1)[1])))
        raw.setblocking(False)
        async with joined(app, sock=raw, ping_interval=None, max_queue=1) as sleeper:
            await sleeper.send(orjson.dumps(HELLO).decode())
            await sleeper.recv()
            closing = asyncio.create_task(flood(sleeper))
            conversation = await opened(reader)
            events = await reply_to(reader, conversation, "Hello")
            assert of(events, "reply.done")[0]["finish"] in {"stop", "length"}
            await until_metric(app, 'npc_closes_total{code="4429"} 1.0')
            assert await reader.ask("history.get", conversation=conversation)
            closing.cancel()
            sleeper.transport.abort()


async def flood(connection: ClientConnection) -> None:
    """Ask for answers and never read one."""
    payload = orjson.dumps({"type": "nonsense", "id": "x" * 120}).decode()
    with contextlib.suppress(ConnectionClosed):
        while True:
            await connection.send(payload)
            await asyncio.sleep(0)


async def until_metric(app: App, line: str) -> None:
    """Wait until the metrics page has this line."""
    url = app.address.replace("ws", "http") + "/metrics"

    def read() -> str:
        with urllib.request.urlopen(url) as answer:
            return str(answer.read().decode())

    async def there() -> bool:
        return line in await asyncio.to_thread(read)

    await eventually(there, 20)


async def test_stopping_tells_and_closes(start: Start) -> None:
    """A server that stops sends draining, finishes the reply and closes with 1012."""
    script = {"rules": [{"reply": "One two three four.", "piece_ms": 20}]}
    async with start(script) as app:
        connected = session(app.address)
        client = await connected.__aenter__()
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Count!")
        await until(client, "reply.delta")
    events = await read_all(client.connection)
    assert client.connection.close_code == 1012
    assert of(events, "draining")
    assert of(events, "reply.done")[0]["finish"] == "stop"
