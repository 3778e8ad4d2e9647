"""A small HTTP/1.1 client for llama.cpp's server on loopback: JSON in, JSON or events out.

It costs half of the processor's time that a general client takes for each token. Each request has
a connection of its own, so that closing it ends the request and nothing else. One that is not begun
to be answered is sent again: under load llama.cpp has been seen to leave a task lying, all idle,
until another one came.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from npc_server.observability import get_logger

Json = dict[str, Any]

READ_BYTES = 65_536
LARGEST_HEAD = 65_536
LARGEST_EVENT = 16_777_216
PATIENCE_SECONDS = 5.0
"""After so long without the beginning of an answer a request is sent again, then after twice that,
and so on. One that only takes long is not worse off: who waits for it gives up by other clocks."""

log = get_logger(__name__)


class HttpFailed(Exception):
    """The server did not answer, or not as HTTP; the text says how."""


class HttpRefused(Exception):
    """The server answered that it will not; the text is its reason.

    Args:
        reason: In the server's words.
        kind: The server's name for the kind of error.
    """

    def __init__(self, reason: str, kind: str) -> None:
        super().__init__(reason)
        self.kind = kind


class EventReader:
    """PURE. Takes a chunked event stream in any cuts and gives its JSON objects.

    Attributes:
        ended: Whether the last chunk has come.
    """

    def __init__(self) -> None:
        self._raw = bytearray()
        self._lines = bytearray()
        self._left = 0
        self.ended = False

    def feed(self, data: bytes) -> list[Json]:
        """Take more bytes; returns the events that are complete with them.

        Raises:
            HttpFailed: These are no chunks, no JSON, or more than is bearable.
        """
        self._raw += data
        while not self.ended and self._unwrap():
            pass
        if len(self._raw) > LARGEST_EVENT or len(self._lines) > LARGEST_EVENT:
            raise HttpFailed("llama.cpp sent an event that never ends")
        *lines, rest = self._lines.split(b"\n")
        self._lines = rest
        try:
            return [
                orjson.loads(line.partition(b":")[2]) for line in lines if _tells_something(line)
            ]
        except ValueError as error:
            raise HttpFailed(f"llama.cpp sent an event that is no JSON: {error}") from error

    def _unwrap(self) -> bool:
        """Move on by the rest of a chunk, or by the line before one."""
        if self._left:
            part = self._raw[: self._left]
            del self._raw[: len(part)]
            self._left -= len(part)
            self._lines += part
            return bool(part)
        line, end, _ = self._raw.partition(b"\r\n")
        if not end:
            if len(line) > LARGEST_HEAD:
                raise HttpFailed("llama.cpp sent a chunk without a length")
            return False
        del self._raw[: len(line) + 2]
        if line:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError as error:
                raise HttpFailed("llama.cpp sent a chunk without a length") from error
            if self._left < 0:
                raise HttpFailed("llama.cpp sent a chunk of negative length")
            self.ended = not self._left
        return True


class LlamaHttp:
    """Asks one server.

    Args:
        address: Such as ``http://127.0.0.1:8080``.
        key: What it wants to be shown.
        patience: After how many seconds a request is sent again for the first time.
    """

    def __init__(self, address: str, key: str, patience: float = PATIENCE_SECONDS) -> None:
        host, _, port = address.removeprefix("http://").rpartition(":")
        self._host, self._port = host, int(port)
        self._patience = patience
        self._head = (
            f"Host: {host}\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
            "Content-Type: application/json\r\nContent-Length: "
        )

    async def call(self, path: str, body: Json | None = None) -> Any:
        """Ask and take the whole answer: POST with a body, GET without.

        Raises:
            HttpFailed: There was no answer.
            HttpRefused: There was one, and it was a refusal.
        """
        async with self._asked(path, body) as (reader, head):
            try:
                return await _whole(reader, head)
            except (OSError, EOFError, ValueError) as error:
                raise HttpFailed(f"llama.cpp's answer broke off ({error})") from error

    async def events(self, path: str, body: Json) -> AsyncGenerator[Json]:
        """Ask and yield the events of the answer. Leaving early ends the work on it at once.

        Raises:
            HttpFailed: There was no answer, or it broke off.
            HttpRefused: There was one, and it was a refusal.
        """
        async with self._asked(path, body) as (reader, _):
            stream = EventReader()
            while not stream.ended:
                try:
                    data = await reader.read(READ_BYTES)
                except OSError as error:
                    raise HttpFailed(f"llama.cpp's answer broke off ({error})") from error
                if not data:
                    raise HttpFailed("llama.cpp's answer broke off")
                for event in stream.feed(data):
                    if "error" in event:
                        raise _refusal(event)
                    yield event

    @asynccontextmanager
    async def _asked(
        self, path: str, body: Json | None
    ) -> AsyncGenerator[tuple[asyncio.StreamReader, bytes]]:
        patience = self._patience
        while True:
            reader, writer = await self._connected()
            try:
                self._send(writer, path, body)
                try:
                    async with asyncio.timeout(patience):
                        head = await reader.readuntil(b"\r\n\r\n")
                except TimeoutError:
                    log.warning("llama_asked_again", path=path, seconds=patience)
                    patience *= 2
                    continue
                except (OSError, EOFError, asyncio.LimitOverrunError) as error:
                    raise HttpFailed(f"llama.cpp did not answer ({error})") from error
                if head.split(b" ", 2)[1:2] != [b"200"]:
                    raise await _refused(reader, head)
                yield reader, head
                return
            finally:
                _cut(writer)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            return await asyncio.open_connection(self._host, self._port, limit=LARGEST_HEAD)
        except OSError as error:
            raise HttpFailed(f"llama.cpp cannot be reached ({error})") from error

    def _send(self, writer: asyncio.StreamWriter, path: str, body: Json | None) -> None:
        data = b"" if body is None else orjson.dumps(body)
        method = "GET" if body is None else "POST"
        writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{len(data)}\r\n\r\n".encode())
        writer.write(data)


def _cut(writer: asyncio.StreamWriter) -> None:
    """Close a connection so that the other side notices with its next write, not the one after."""
    connection = writer.get_extra_info("socket")
    # One that the other side has cut is closed already.
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _refused(reader: asyncio.StreamReader, head: bytes) -> HttpFailed | HttpRefused:
    try:
        return _refusal(await _whole(reader, head))
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        line = head.partition(b"\r\n")[0].decode(errors="replace")
        return HttpFailed(f"llama.cpp answered {line!r}")


def _refusal(answer: Json) -> HttpRefused:
    error = answer["error"]
    return HttpRefused(str(error["message"]), str(error["type"]))


async def _whole(reader: asyncio.StreamReader, head: bytes) -> Any:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return orjson.loads(await reader.readexactly(int(value)))
    raise ValueError("it has no length")


def _tells_something(line: bytes | bytearray) -> bool:
    # Others are blank lines, comments (":", to keep the connection) and the sign of the end.
    return line.startswith((b"data:", b"error:")) and line.strip() != b"data: [DONE]"
