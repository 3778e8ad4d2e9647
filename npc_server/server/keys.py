"""API keys: made once, kept as hashes in a file that only the server's user may read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Literal

import orjson
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from npc_server.errors import ConfigError, NotFound
from npc_server.protocol.text import one_line

Role = Literal["player", "host"]
PREFIX = "npck_"


class Key(BaseModel):
    """An API key without its secret.

    Attributes:
        id: Eight characters by which people name it; players of a key live in its name space.
        name: What its maker called it.
        role: What its bearer may do.
        sha256: Of the whole key. The key has 192 random bits, so that a plain hash is enough.
        created_ms: Unix milliseconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    v: Literal[1] = 1
    id: str
    name: str
    role: Role
    sha256: str
    created_ms: int


_KEYS = TypeAdapter(list[Key])


class KeyFile:
    """The keys of one data folder.

    Args:
        path: The file; it is made with the first key.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, list[Key]] | None = None

    def all(self) -> list[Key]:
        """The keys, oldest first. A change of the file by another process is seen.

        Raises:
            ConfigError: The file cannot be read.
        """
        try:
            changed = self._path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                self._read = (changed, _KEYS.validate_json(self._path.read_bytes()))
        except FileNotFoundError:
            return []
        except (OSError, ValidationError) as error:
            raise ConfigError(
                f"The key file {self._path} cannot be read. Restore it, or delete it and make "
                "new keys with `npc-server keys add`."
            ) from error
        return self._read[1]

    def add(self, name: str, role: Role, now_ms: int) -> tuple[Key, str]:
        """Make a key; its secret is returned here and kept nowhere.

        Raises:
            ConfigError: The name is empty or of more than one line.
        """
        try:
            name = one_line(name)[:64]
        except ValueError as error:
            raise ConfigError(f"The key's name {error}.") from None
        secret = PREFIX + secrets.token_urlsafe(24)
        key = Key(
            id=secrets.token_hex(4), name=name, role=role, sha256=_hash(secret), created_ms=now_ms
        )
        self._write([*self.all(), key])
        return key, secret

    def revoke(self, key_id: str) -> Key:
        """Delete a key.

        Raises:
            NotFound: There is no key of that id.
        """
        keys = self.all()
        found = next((key for key in keys if key.id == key_id), None)
        if found is None:
            raise NotFound(f"There is no key '{key_id}'. `npc-server keys list` shows them.")
        self._write([key for key in keys if key.id != key_id])
        return found

    def find(self, secret: str) -> Key | None:
        """The key of this secret, compared in constant time."""
        digest = _hash(secret)
        return next((k for k in self.all() if hmac.compare_digest(k.sha256, digest)), None)

    def _write(self, keys: list[Key]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps([key.model_dump() for key in keys], option=orjson.OPT_INDENT_2))
        fresh.replace(self._path)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
