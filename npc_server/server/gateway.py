"""The listening socket: who may connect, and what becomes of a connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.http11 import Request, Response
from websockets.protocol import State

from npc_server.config import Settings
from npc_server.errors import SetupError
from npc_server.observability import Metrics
from npc_server.protocol import SUBPROTOCOL
from npc_server.protocol.events import Draining
from npc_server.server.auth import host_allowed, origin_allowed
from npc_server.server.http import Routes
from npc_server.server.outbox import Outbox
from npc_server.server.session import Services, serve_session

RECONNECT_AFTER_MS = 3_000
CLOSE_SECONDS = 2.0


class Gateway:
    """Accepts connections and hands them to sessions or routes.

    Args:
        services: What sessions stand on.
        routes: What can be fetched by plain HTTP.
    """

    def __init__(self, services: Services, routes: Routes) -> None:
        self._services = services
        self._routes = routes
        self._settings: Settings = services.settings
        self._metrics: Metrics = services.metrics
        self._addresses: Counter[str] = Counter()
        self._outboxes: dict[ServerConnection, Outbox] = {}

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        """Listen until the context ends; yields the WebSocket address.

        Raises:
            SetupError: The port is taken, or the address is not this machine's.
        """
        host, port = self._settings.host, self._settings.port
        timeouts = self._settings.timeouts
        try:
            server = await serve(
                self._serve,
                host,
                port,
                subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]
                process_request=self._answer_http,
                compression=None,
                open_timeout=timeouts.handshake,
                ping_interval=timeouts.heartbeat,
                ping_timeout=timeouts.heartbeat,
                close_timeout=CLOSE_SECONDS,
                max_size=self._settings.limits.frame_bytes,
                server_header="npc-server",
            )
        except OSError as error:
            raise SetupError(
                f"Cannot listen on {host}:{port}: {error.strerror or error}. "
                "Stop what uses it, or choose another with --port."
            ) from error
        try:
            yield _address(server)
        finally:
            await self.drain(timeouts.drain)
            server.close(code=1012, reason="restart")
            await server.wait_closed()

    async def drain(self, seconds: float) -> None:
        """Tell every client that the server stops, and give the replies in flight some time."""
        for outbox in self._outboxes.values():
            outbox.put(Draining(reconnect_after_ms=RECONNECT_AFTER_MS))
        await self._services.dialogue.replies.drain(seconds)
        written = [asyncio.create_task(outbox.drained()) for outbox in self._outboxes.values()]
        if written:
            _, slow = await asyncio.wait(written, timeout=CLOSE_SECONDS)
            for task in slow:
                task.cancel()

    async def _serve(self, connection: ServerConnection) -> None:
        address = _peer(connection)
        self._addresses[address] += 1
        self._metrics.connections.inc()
        outbox = Outbox(
            self._settings.limits,
            self._settings.timeouts.write,
            partial(_write_now, connection),
        )
        self._outboxes[connection] = outbox
        try:
            await serve_session(connection, outbox, self._services)
        finally:
            del self._outboxes[connection]
            self._metrics.connections.dec()
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]

    async def _answer_http(self, connection: ServerConnection, request: Request) -> Response | None:
        headers = request.headers
        if "websocket" not in headers.get("Upgrade", "").lower():
            return await self._routes.respond(request)
        host = headers.get("Host")
        if not host_allowed(host, self._settings):
            return connection.respond(HTTPStatus.FORBIDDEN, "Connect by 127.0.0.1 or localhost.\n")
        if not origin_allowed(headers.get("Origin"), host, self._settings.origins):
            return connection.respond(
                HTTPStatus.FORBIDDEN, "This origin may not connect. List it in NPC_ORIGINS.\n"
            )
        offered = ",".join(headers.get_all("Sec-WebSocket-Protocol"))
        if SUBPROTOCOL not in {name.strip() for name in offered.split(",")}:
            return connection.respond(
                HTTPStatus.BAD_REQUEST, f"Ask for the WebSocket subprotocol '{SUBPROTOCOL}'.\n"
            )
        if self._addresses[_peer(connection)] >= self._settings.limits.connections_per_address:
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections from this address.\n"
            )
        return None


def _peer(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]) if isinstance(address, tuple) else "local"


def _address(server: Server) -> str:
    host, port = next(iter(server.sockets)).getsockname()[:2]
    return f"ws://[{host}]:{port}" if ":" in host else f"ws://{host}:{port}"


def _write_now(connection: ServerConnection, payload: bytes) -> bool:
    """Write a frame unless some of an earlier one is still in our hands."""
    if connection.state is not State.OPEN or connection.transport.get_write_buffer_size():
        return False
    broadcast((connection,), payload, text=True)
    return True
