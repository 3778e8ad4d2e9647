"""The connection to a chat endpoint: one request at a time, its answer as JSON objects."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import orjson
from pydantic import SecretStr

from npc_server.engines.openai_wire import Problem, problem_of, retry_after
from npc_server.engines.sse import EventStream, LineTooLong
from npc_server.errors import ConfigError

Json = dict[str, Any]

TIMEOUT = httpx.Timeout(connect=10, read=120, write=30, pool=30)
"""Seconds. A stall is the caller's to notice; these only bound what nobody looks at."""

LARGEST_ANSWER = 4 << 20
LARGEST_ERROR = 64 << 10
PASSING = frozenset({408, 429, 500, 502, 503, 504, 520, 522, 524, 529})


class Failure(Exception):
    """The endpoint did not answer, or not with what was asked for.

    Attributes:
        problem: What it said; ``status`` is ``None`` where it said nothing.
        retry_after: Seconds after which it wants to be asked again.
        passing: Whether the same request may succeed later.
    """

    def __init__(
        self, problem: Problem, *, retry_after: float | None = None, passing: bool | None = None
    ) -> None:
        super().__init__(problem.message)
        self.problem = problem
        self.retry_after = retry_after
        status = problem.status
        known = status is None or status in PASSING
        # An account without credit is answered 429 as well, and stays without.
        self.passing = (
            known and problem.code != "insufficient_quota" if passing is None else passing
        )


class Endpoint:
    """An OpenAI-compatible address.

    Args:
        base_url: Such as ``http://127.0.0.1:11434/v1``.
        key: Sent as a bearer token; never shown.
        connections: How many there may be at once.

    Raises:
        ConfigError: The address is none.
    """

    def __init__(self, base_url: str, key: SecretStr | None, *, connections: int) -> None:
        self._key = key.get_secret_value() if key is not None else ""
        url = _parsed(base_url)
        port = f":{url.port}" if url.port else ""
        self.host = f"{url.host}{port}"
        self.in_clear = bool(self._key) and url.scheme == "http" and not _loopback(url.host)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=connections, keepalive_expiry=60),
        )

    async def close(self) -> None:
        """Close every connection; what is being read breaks."""
        await self._client.aclose()

    async def models(self) -> Json:
        """What ``/models`` lists.

        Raises:
            Failure: It cannot be asked.
        """
        async with self._send("GET", "models") as response:
            return await self._whole(response)

    async def ask(self, body: Json) -> AsyncGenerator[Json]:
        """Ask for a chat completion; gives the objects of the answer, one if it does not stream.

        Raises:
            Failure: The endpoint refuses, or the connection broke.
        """
        async with self._send("POST", "chat/completions", json=body) as response:
            if "event-stream" not in response.headers.get("Content-Type", "event-stream"):
                yield await self._whole(response)
                return
            events = EventStream()
            async for data in response.aiter_bytes():
                for found in events.feed(data):
                    yield found
                if events.done:
                    return
            for found in events.end():
                yield found
            if not _framed(response) and not events.done:
                raise Failure(Problem("the stream ended before the reply did"))

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, *, json: Json | None = None
    ) -> AsyncGenerator[httpx.Response]:
        content = None if json is None else orjson.dumps(json)
        headers = {} if json is None else {"Content-Type": "application/json"}
        try:
            async with self._client.stream(
                method, path, content=content, headers=headers
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise await self._refusal(response)
                yield response
        except httpx.TimeoutException as error:
            raise Failure(Problem("it does not answer")) from error
        except httpx.TransportError as error:
            raise Failure(self.shown(Problem(f"the connection failed ({error})"))) from error
        except (httpx.DecodingError, LineTooLong) as error:
            raise Failure(Problem("its answer cannot be read")) from error
        except RuntimeError as error:
            # httpx says so of a client that was closed.
            if not self._client.is_closed:
                raise
            raise Failure(Problem("the connection was closed"), passing=False) from error

    async def _refusal(self, response: httpx.Response) -> Failure:
        status = response.status_code
        try:
            found = problem_of(orjson.loads(await _read(response, LARGEST_ERROR)))
        except (orjson.JSONDecodeError, httpx.TransportError, httpx.DecodingError):
            found = Problem()
        return Failure(
            self.shown(replace(found, status=status)),
            retry_after=retry_after(response.headers.get("Retry-After"), time.time()),
        )

    async def _whole(self, response: httpx.Response) -> Json:
        try:
            found = orjson.loads(await _read(response, LARGEST_ANSWER))
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict):
            raise Failure(Problem("its answer is no JSON object"), passing=False)
        return found

    def shown(self, problem: Problem) -> Problem:
        """The problem without the key, which an endpoint may repeat to us."""
        message = problem.message.replace(self._key, "***") if self._key else problem.message
        return replace(problem, message=message)


async def open_endpoint(base_url: str, key: SecretStr | None, *, connections: int) -> Endpoint:
    """Make an endpoint without holding up the event loop: certificates are read from disk."""

    def make() -> Endpoint:
        return Endpoint(base_url, key, connections=connections)

    return await asyncio.to_thread(make)


def _parsed(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip().rstrip("/").removesuffix("/chat/completions") + "/")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        # The address is not repeated: it may hold a password.
        raise ConfigError(
            "NPC_OPENAI_BASE_URL is no address. It begins with http:// or https:// and usually "
            "ends in /v1, such as http://127.0.0.1:11434/v1."
        )
    return url


def _loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _framed(response: httpx.Response) -> bool:
    """Whether the end of the body was said, so that a connection that breaks is noticed."""
    headers = response.headers
    return "Content-Length" in headers or "chunked" in headers.get("Transfer-Encoding", "")


async def _read(response: httpx.Response, most: int) -> bytes:
    """The body, up to a length at which it is no answer any more."""
    data = b""
    async for more in response.aiter_bytes():
        data += more
        if len(data) > most:
            raise Failure(Problem("its answer is too large"), passing=False)
    return data
