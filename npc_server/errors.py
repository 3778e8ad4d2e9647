"""Every error of npc-server, and what a client sees of it.

::

    NpcError                      internal
    ├── BadJson                   bad_json
    ├── BadMessage                bad_message
    ├── UnknownType               unknown_type
    ├── ProtocolVersion           protocol_version
    ├── Unauthorized              unauthorized
    ├── Forbidden                 forbidden
    ├── NotFound                  not_found
    ├── Conflict                  conflict
    ├── TooLarge                  too_large
    ├── RateLimited               rate_limited          retryable
    ├── Busy                      busy                  retryable
    ├── EngineUnavailable         engine_unavailable    retryable
    │   └── ModelFileError
    ├── StoreUnavailable          store_unavailable     retryable
    └── SetupError                internal
        ├── ConfigError
        └── FileError

The text of an error is written for a person who does not know this code: what happened, and what
to do. The classes whose texts may name files or settings (``public = False``) show a client only
their ``wire_message``.
"""

from __future__ import annotations

from typing import Any, ClassVar


class NpcError(Exception):
    """The root: something went wrong, and the class says what kind of thing.

    Args:
        message: What happened and what to do.
        retry_after_ms: For a retryable error, how long to wait before the same command may be
            sent again, in milliseconds.
        details: Facts for a program, JSON-serialisable.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    public: ClassVar[bool] = True
    wire_message: ClassVar[str] = "The server failed inside. Its log says why."

    def __init__(
        self,
        message: str,
        *,
        retry_after_ms: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_ms = retry_after_ms
        self.details = details


class BadJson(NpcError):
    """The frame is not JSON (or is nested too deeply to be read)."""

    code = "bad_json"


class BadMessage(NpcError):
    """The frame is JSON, but not a command of this protocol."""

    code = "bad_message"


class UnknownType(NpcError):
    """The command's ``type`` is not one that this server knows."""

    code = "unknown_type"


class ProtocolVersion(NpcError):
    """The client speaks another version of the protocol."""

    code = "protocol_version"


class Unauthorized(NpcError):
    """No credential was given, or a wrong one."""

    code = "unauthorized"


class Forbidden(NpcError):
    """The credential is good, but not for this."""

    code = "forbidden"


class NotFound(NpcError):
    """There is no such thing, or it is not this player's."""

    code = "not_found"


class Conflict(NpcError):
    """The command does not fit the present state."""

    code = "conflict"


class TooLarge(NpcError):
    """A text or a list is over its limit."""

    code = "too_large"


class RateLimited(NpcError):
    """The client sends more than its share."""

    code = "rate_limited"
    retryable = True


class Busy(NpcError):
    """Every seat is taken and the queue is full."""

    code = "busy"
    retryable = True


class EngineUnavailable(NpcError):
    """The model cannot answer now."""

    code = "engine_unavailable"
    retryable = True
    public = False
    wire_message = "The language model cannot answer now. Try again in a moment."


class ModelFileError(EngineUnavailable):
    """A model file cannot be read or is not one that the engine can run.

    The message names the file, what is wrong with it and what to do.
    """

    retryable = False
    wire_message = "The server has no usable language model. Its log says what to do."


class StoreUnavailable(NpcError):
    """Redis does not answer or refuses to write."""

    code = "store_unavailable"
    retryable = True
    public = False
    wire_message = "The server cannot reach its store now. Nothing was changed; try again."


class SetupError(NpcError):
    """Something that the operator wrote cannot be used."""

    public = False


class ConfigError(SetupError):
    """A setting is missing, unknown or wrong."""


class FileError(SetupError):
    """A file of a persona or a scene cannot be used.

    Args:
        message: What is wrong and what was expected.
        file: The file's name.
        line: The line, from 1; ``None`` where the whole file is meant.
        field: The field's path, such as ``actions.0.name``.
    """

    def __init__(
        self, message: str, *, file: str, line: int | None = None, field: str | None = None
    ) -> None:
        place = file if line is None else f"{file}, line {line}"
        super().__init__(f"{place}: {field + ': ' if field else ''}{message}")
        self.reason = message
        self.file = file
        self.line = line
        self.field = field
