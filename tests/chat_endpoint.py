"""An OpenAI-compatible endpoint on loopback that misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes back for one request.

    Attributes:
        parts: The body; each part is written by itself.
        status: The HTTP status.
        headers: More headers.
        kind: The content type.
        framed: Whether the body is chunked; else the end of the connection ends it.
        cut: Whether the connection breaks behind the last part.
        stall: Whether nothing more comes behind the last part, for ever.
    """

    parts: tuple[bytes, ...] = ()
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "text/event-stream"
    framed: bool = True
    cut: bool = False
    stall: bool = False


def event(found: object) -> bytes:
    """An object as an event of a stream."""
    return b"data: " + orjson.dumps(found) + b"\n\n"


def chunk(text: str | None = None, finish: str | None = None, **more: Any) -> Json:
    """A chunk of a streamed reply."""
    delta = {} if text is None else {"content": text}
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def usage(prompt: int, completion: int, cached: int = 0) -> Json:
    """The chunk that tells the usage."""
    details = {"cached_tokens": cached}
    told = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": details,
    }
    return {"choices": [], "usage": told}


def stream(*texts: str, finish: str | None = "stop", done: bool = True, **more: Any) -> Answer:
    """A streamed reply that goes well, unless told otherwise."""
    parts = [event(chunk(text)) for text in texts]
    if finish is not None:
        parts.append(event(chunk(finish=finish)))
    if done:
        parts += [event(usage(30, len(texts), 10)), b"data: [DONE]\n\n"]
    return Answer(tuple(parts), **more)


def whole(
    text: str, top: Sequence[tuple[str, float]] | None = None, finish: str = "stop"
) -> Answer:
    """A reply that is not streamed, with the likeliest first tokens."""
    choice: Json = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    if top is not None:
        listed = [{"token": token, "logprob": log} for token, log in top]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0, "top_logprobs": listed}]}
    body = orjson.dumps({"choices": [choice]})
    return Answer((body,), kind="application/json")


def error(status: int, message: str = "", *, after: str | None = None, **more: Any) -> Answer:
    """An error in OpenAI's form; ``after`` is the Retry-After header."""
    body = orjson.dumps({"error": {"message": message, **more}})
    headers = () if after is None else (("Retry-After", after),)
    return Answer((body,), status, headers, "application/json")


def offering(body: Json) -> Answer:
    """What an endpoint with everything answers to a question of any kind."""
    if body["stream"]:
        return stream("Good ", "day.")
    return whole('{"ok":true}', [("A", -0.5), (" B", -1.5)])


@dataclass
class ChatEndpoint:
    """What is served, and what was asked.

    Attributes:
        answers: What the next requests for a completion get; then ``usual`` answers.
        usual: Answers a request by its body.
        models: What ``/models`` lists; ``None`` is 404.
        bodies: The bodies of all requests for a completion, as they came.
        authorization: The last header of that name.
        left: Set each time a client has left before its answer ended.
    """

    answers: deque[Answer] = field(default_factory=deque)
    usual: Callable[[Json], Answer] = offering
    models: Json | None = None
    bodies: list[bytes] = field(default_factory=list)
    authorization: str = ""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    address: str = ""

    @property
    def asked(self) -> list[Json]:
        """The bodies, read."""
        return [orjson.loads(body) for body in self.bodies]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = {
                    name.lower(): value
                    for name, _, value in (line.partition(": ") for line in head.split("\r\n"))
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.authorization = headers.get("authorization", "")
                answer = self._answer(head.split()[1], body)
                await self._write(answer, reader, writer)
                if not answer.framed or answer.cut:
                    break
        writer.close()

    def _answer(self, path: str, body: bytes) -> Answer:
        if path.endswith("/models"):
            if self.models is None:
                return error(404)
            return Answer((orjson.dumps(self.models),), kind="application/json")
        assert path == "/v1/chat/completions"
        self.bodies.append(body)
        return self.answers.popleft() if self.answers else self.usual(orjson.loads(body))

    async def _write(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        framing = "Transfer-Encoding: chunked" if answer.framed else "Connection: close"
        lines = [f"HTTP/1.1 {answer.status} X", f"Content-Type: {answer.kind}", framing]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        for part in answer.parts:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part) if answer.framed else part)
            await writer.drain()
            await asyncio.sleep(0)
        if answer.stall:
            # A client that leaves without having read everything resets the connection.
            with suppress(ConnectionError):
                await reader.read()
            self.left.set()
        elif answer.framed and not answer.cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def serving() -> AsyncIterator[ChatEndpoint]:
    """An endpoint on a free port."""
    endpoint = ChatEndpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield endpoint
    finally:
        server.close()
