"""Plain HTTP on the WebSocket's port: the playground, health, metrics, schemas, prompts."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import unquote

import orjson
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from npc_server.config import Settings
from npc_server.dialogue import Dialogue
from npc_server.errors import NpcError, Unauthorized
from npc_server.library import Library
from npc_server.observability import Metrics
from npc_server.persona import Scene
from npc_server.persona.reference import scene_schema, schema
from npc_server.protocol.reference import json_schema
from npc_server.server.auth import authenticate, host_allowed
from npc_server.server.keys import KeyFile

PAGE_POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"
JSON = "application/json"
SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "npc.v1.json": json_schema,
    "persona.v1.json": schema,
    "scene.v1.json": scene_schema,
}


@dataclass(frozen=True, slots=True)
class Routes:
    """Everything that can be fetched.

    Attributes:
        settings: Decide who may see what.
        keys: The API keys that are good.
        library: The personas and scenes at hand.
        dialogue: Knows the prompts of the newest turns.
        metrics: Shown at ``/metrics``.
        ready: Says why the server cannot answer, or nothing when it can.
    """

    settings: Settings
    keys: KeyFile
    library: Library
    dialogue: Dialogue
    metrics: Metrics
    ready: Callable[[], Awaitable[str | None]]

    async def respond(self, request: Request) -> Response:
        """Answer one request."""
        if not host_allowed(request.headers.get("Host"), self.settings):
            return _text(HTTPStatus.FORBIDDEN, "Connect by 127.0.0.1 or localhost.")
        path = unquote(request.path.partition("?")[0])
        first, _, rest = path.lstrip("/").partition("/")
        routes: Mapping[str, Callable[[str], Awaitable[Response]]] = {
            "": self._page,
            "playground": self._page,
            "healthz": self._health,
            "readyz": self._ready,
            "schema": self._schema,
            "personas": self._personas,
            "scenes": self._scenes,
        }
        guarded: Mapping[str, Callable[[str], Awaitable[Response]]] = {
            "metrics": self._metrics,
            "prompts": self._prompt,
        }
        if first in guarded:
            try:
                await asyncio.to_thread(self._check_credential, request)
            except NpcError as error:
                return _text(HTTPStatus.UNAUTHORIZED, error.message)
            return await guarded[first](rest)
        if first in routes:
            return await routes[first](rest)
        return _missing()

    def _check_credential(self, request: Request) -> None:
        identity = authenticate(
            self.settings.auth, self.keys, request.headers.get("Authorization"), None
        )
        if identity.role != "host":
            raise Unauthorized("This page needs the API key of a host.")

    async def _page(self, rest: str) -> Response:
        found = await asyncio.to_thread(_playground_file, rest or "index.html")
        if found is None:
            return _missing()
        body, kind = found
        return _response(HTTPStatus.OK, body, kind, {"Content-Security-Policy": PAGE_POLICY})

    async def _health(self, rest: str) -> Response:
        return _missing() if rest else _text(HTTPStatus.OK, "ok")

    async def _ready(self, rest: str) -> Response:
        if rest:
            return _missing()
        problem = await self.ready()
        if problem:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, problem)
        return _text(HTTPStatus.OK, "ready")

    async def _schema(self, rest: str) -> Response:
        found = SCHEMAS.get(rest)
        return _missing() if found is None else _json(found(), kind="application/schema+json")

    async def _personas(self, rest: str) -> Response:
        if rest:
            return _missing()
        shown = {"id", "name", "languages", "summary", "portrait"}
        return _json([p.model_dump(include=shown) for p in self.library.all()])

    async def _scenes(self, rest: str) -> Response:
        if rest:
            return _missing()
        return _json([self._listed(scene) for scene in self.library.scenes()])

    def _listed(self, scene: Scene) -> dict[str, Any]:
        names = self.library.names()
        cast = [
            {"member": member, "npc": part.npc, "name": part.name or names.get(part.npc)}
            for member, part in zip(scene.members(), scene.cast, strict=True)
        ]
        return {**scene.model_dump(include={"id", "title", "languages", "summary"}), "cast": cast}

    async def _metrics(self, rest: str) -> Response:
        if rest:
            return _missing()
        body, kind = self.metrics.exposition()
        return _response(HTTPStatus.OK, body, kind)

    async def _prompt(self, rest: str) -> Response:
        if not self.settings.shows_prompts:
            return _text(
                HTTPStatus.FORBIDDEN, "This server shows no prompts. Set NPC_PROMPT_VIEW=true."
            )
        prompt = self.dialogue.prompt_of(rest)
        return _missing() if prompt is None else _json(prompt)


@lru_cache(maxsize=64)
def _playground_file(name: str) -> tuple[bytes, str] | None:
    if name.startswith(".") or "/" in name or "\\" in name:
        return None
    file = resources.files("npc_server.server") / "playground" / name
    if not file.is_file():
        return None
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    if kind.startswith("text/"):
        kind += "; charset=utf-8"
    return file.read_bytes(), kind


def _json(value: Any, *, kind: str = JSON) -> Response:
    return _response(HTTPStatus.OK, orjson.dumps(value), kind)


def _missing() -> Response:
    return _text(HTTPStatus.NOT_FOUND, "There is nothing here.")


def _text(status: HTTPStatus, text: str) -> Response:
    return _response(status, f"{text}\n".encode(), "text/plain; charset=utf-8")


def _response(
    status: HTTPStatus, body: bytes, kind: str, more: Mapping[str, str] | None = None
) -> Response:
    headers = Headers(
        {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-cache",
            "X-Content-Type-Options": "nosniff",
            "Connection": "close",
            **(more or {}),
        }
    )
    return Response(status.value, status.phrase, headers, body)
