"""Who a connection speaks for. Authentication returns an identity; nothing half done exists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from npc_server.config import LOOPBACK, Settings
from npc_server.errors import Unauthorized
from npc_server.server.keys import KeyFile, Role


@dataclass(frozen=True, slots=True)
class Identity:
    """The bearer of a credential.

    Attributes:
        role: A player speaks for itself; a host may speak for any player.
        namespace: Where its player ids live: the key's id, or empty without authentication.
    """

    role: Role
    namespace: str


def authenticate(
    mode: Literal["none", "keys"], keys: KeyFile, header: str | None, token: str | None
) -> Identity:
    """Find out who it is.

    Args:
        mode: The setting ``auth``.
        keys: The keys that are good.
        header: The ``Authorization`` header.
        token: The token of ``hello``.

    Raises:
        Unauthorized: There is no credential, or it is wrong.
    """
    if mode == "none":
        return Identity("host", "")
    scheme, _, bearer = (header or "").partition(" ")
    secret = bearer.strip() if scheme.lower() == "bearer" else token
    if not secret:
        raise Unauthorized(
            "This server asks for an API key. Send it as 'Authorization: Bearer KEY' "
            "or as 'token' in hello."
        )
    key = keys.find(secret)
    if key is None:
        raise Unauthorized("The API key is not known here. Ask the server's operator for one.")
    return Identity(key.role, key.id)


def origin_allowed(origin: str | None, host: str | None, allowed: Iterable[str]) -> bool:
    """Whether a web page of that origin may connect: its own pages and the listed ones.

    Clients that are no browsers send no ``Origin`` and may.
    """
    if origin is None:
        return True
    listed = set(allowed)
    return "*" in listed or origin in listed or urlsplit(origin).netloc == host


def host_allowed(host: str | None, settings: Settings) -> bool:
    """Whether the ``Host`` header names this machine, where nobody is asked for a credential.

    A page that makes its own name resolve to loopback (DNS rebinding) fails here.
    """
    if settings.auth != "none":
        return True
    return urlsplit(f"//{host or ''}").hostname in LOOPBACK
