"""Lua scripts: what Redis does at one moment."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any

from redis.exceptions import NoScriptError

from npc_server.store.connect import Client


class Script:
    """A script of this package, sent by its digest; in full only where Redis does not know it.

    That is so on a server that started anew, and on one that took over from another.

    Args:
        name: Of its file in ``scripts/``, without ``.lua``.
    """

    def __init__(self, name: str) -> None:
        path = resources.files("npc_server.store") / "scripts" / f"{name}.lua"
        self._source = path.read_bytes()
        self._digest = hashlib.sha1(self._source, usedforsecurity=False).hexdigest()

    async def __call__(
        self, client: Client, keys: Sequence[str], arguments: Sequence[bytes | str | int]
    ) -> Any:
        """Run it; its keys share a hash tag."""
        words: Any = [*keys, *arguments]
        try:
            return await client.evalsha(self._digest, len(keys), *words)
        except NoScriptError:
            return await client.eval(self._source, len(keys), *words)  # type: ignore[arg-type]
