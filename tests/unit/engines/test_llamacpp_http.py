"""The event stream of llama.cpp, however it is cut."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.llamacpp_http import (
    LARGEST_EVENT,
    LARGEST_HEAD,
    EventReader,
    HttpFailed,
    HttpRefused,
    LlamaHttp,
)

EVENTS: list[dict[str, object]] = [
    {"content": "안녕"},
    {"content": "\n\n"},
    {"content": "", "stop": True},
]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def framed(events: list[dict[str, object]]) -> bytes:
    chunks = [chunk(b"data: " + orjson.dumps(event) + b"\n\n") for event in events]
    return b"".join([*chunks, chunk(b":\n\n"), chunk(b"data: [DONE]\n\n"), b"0\r\n\r\n"])


@given(st.lists(st.integers(1, 20), max_size=60))
def test_events_come_out_whole_however_they_are_cut(cuts: list[int]) -> None:
    """Half a length, half an event, half a character: the same events."""
    data, reader, events = framed(EVENTS), EventReader(), []
    for cut in cuts:
        events += reader.feed(data[:cut])
        data = data[cut:]
    events += reader.feed(data)
    assert events == EVENTS
    assert reader.ended


def test_an_event_may_take_several_chunks() -> None:
    """Chunks are no events."""
    reader = EventReader()
    assert reader.feed(chunk(b'data: {"a"')) == []
    assert reader.feed(chunk(b": 1}\n\n")) == [{"a": 1}]
    assert not reader.ended


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n",
        b"-5\r\nx",
        chunk(b"data: {half\n"),
        b"1" * (LARGEST_HEAD + 1),
        b"%x\r\n" % (LARGEST_EVENT + 2) + b"x" * (LARGEST_EVENT + 1),
    ],
    ids=["no length", "a negative length", "no json", "an endless length", "an endless event"],
)
def test_garbage_is_an_error(data: bytes) -> None:
    """What is no event stream is told, and not waited for."""
    with pytest.raises(HttpFailed):
        EventReader().feed(data)


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answer) -> AsyncIterator[LlamaHttp]:
    """A server on loopback that answers each request in a given way."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "127.0.0.1")
    port = listening.sockets[0].getsockname()[1]
    try:
        yield LlamaHttp(f"http://127.0.0.1:{port}", "secret")
    finally:
        listening.close()


def says(data: bytes) -> Answer:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return answer


def whole(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_a_request_carries_body_and_key() -> None:
    """A POST with JSON and the key; a GET where there is no body."""
    heads = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        length = int(heads[-1].partition("Content-Length: ")[2].partition("\r\n")[0])
        body = await reader.readexactly(length)
        writer.write(whole(b"200 OK", body or b"null"))

    async with server(answer) as http:
        assert await http.call("/x", {"a": "é"}) == {"a": "é"}
        assert await http.call("/y") is None
    assert heads[0].startswith("POST /x HTTP/1.1\r\n")
    assert heads[1].startswith("GET /y HTTP/1.1\r\n")
    assert "\r\nAuthorization: Bearer secret\r\n" in heads[0]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", HttpFailed),
        (b"HTTP/1.1 200 OK\r\n\r\n", HttpFailed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", HttpFailed),
        (whole(b"200 OK", b"{half"), HttpFailed),
        (whole(b"500 Oh", b"no json"), HttpFailed),
        (whole(b"500 Oh", b'{"message": 1}'), HttpFailed),
        (whole(b"400 No", b'{"error": {"message": "too long", "type": "t"}}'), HttpRefused),
        (b"x" * (LARGEST_HEAD + 1), HttpFailed),
    ],
)
async def test_what_is_no_answer_is_told(data: bytes, error: type[Exception]) -> None:
    """Broken off, without a length, no JSON, a refusal: an error of ours each."""
    async with server(says(data)) as http:
        with pytest.raises(error):
            await http.call("/x")


async def test_a_reset_is_told() -> None:
    """A server that dies resets the connection: that is no answer, and no error of another kind."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with server(answer) as http:
        with pytest.raises(HttpFailed, match="did not answer"):
            await http.call("/x")
        with pytest.raises(HttpFailed, match="did not answer"):
            await anext(http.events("/x", {}))


async def test_a_stream_that_breaks_off_is_told() -> None:
    """The events before come through; then an error."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with server(says(head + framed(EVENTS)[:40])) as http:
        events = http.events("/x", {})
        assert await anext(events) == EVENTS[0]
        with pytest.raises(HttpFailed):
            await anext(events)


async def test_an_error_within_a_stream_is_told() -> None:
    """llama.cpp may refuse when it has already begun to answer."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    refusal = chunk(b'error: {"error": {"message": "no room", "type": "t"}}\n\n')
    async with server(says(head + refusal)) as http:
        with pytest.raises(HttpRefused, match="no room"):
            await anext(http.events("/x", {}))


async def test_what_is_not_begun_to_be_answered_is_asked_again() -> None:
    """The first two requests are left lying; each is cut before the next, and the third counts."""
    asked, cut = 0, 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked, cut
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        if asked < 3:
            with suppress(ConnectionError):
                await reader.read()
            cut += 1
            return
        writer.write(whole(b"200 OK", b"[1]"))

    async with server(answer) as http:
        hurried = LlamaHttp(f"http://{http._host}:{http._port}", "secret", patience=0.01)
        assert await hurried.call("/x") == [1]
    assert (asked, cut) == (3, 2)


async def test_leaving_a_stream_is_noticed_by_the_other_side() -> None:
    """The connection is reset, so that the next write fails."""
    noticed = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + chunk(b'data: {"a": 1}\n\n'))
        try:
            await reader.read()
        except ConnectionResetError:
            noticed.set()

    async with server(answer) as http:
        events = http.events("/x", {})
        assert await anext(events) == {"a": 1}
        await events.aclose()
        async with asyncio.timeout(5):
            await noticed.wait()


async def test_a_server_that_is_gone_is_told() -> None:
    """Nobody listens: an error of ours."""
    async with server(says(b"")) as http:
        pass
    with pytest.raises(HttpFailed, match="reached"):
        await http.call("/x")
