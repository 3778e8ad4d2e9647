"""PURE. Server-sent events as chat endpoints send them, cut anywhere and not always well-formed.

The format is that of the WHATWG HTML standard, section 9.2. Only ``data`` is of use here.
"""

from __future__ import annotations

from typing import Any

import orjson
import regex

Json = dict[str, Any]

LONGEST_LINE = 1 << 20
LONGEST_JOINED = 1 << 16
_LINE_END = regex.compile(rb"\r\n|\n|\r")


class LineTooLong(Exception):
    """The endpoint sends a line that does not end."""


class EventStream:
    """Takes the bytes of a stream in any cuts and gives out the JSON objects in it.

    Comments, other fields, and what is no JSON object are passed over. An object may go over
    several ``data`` lines of 64 KiB in all, and needs no blank line behind it, which the standard
    wants.

    Attributes:
        done: Whether ``[DONE]`` was seen. Nothing that comes behind it is read.
    """

    def __init__(self) -> None:
        self.done = False
        self._rest = b""
        self._data = b""

    def feed(self, data: bytes) -> list[Json]:
        """Take more bytes; returns the objects that are complete with them.

        Raises:
            LineTooLong: More than 1 MiB came without the end of a line.
        """
        self._rest += data
        # A last CR may be the first half of CRLF.
        whole = len(self._rest) - self._rest.endswith(b"\r")
        *lines, tail = _LINE_END.split(self._rest[:whole])
        self._rest = tail + self._rest[whole:]
        if len(self._rest) > LONGEST_LINE:
            raise LineTooLong
        return [found for line in lines for found in self._line(line)]

    def end(self) -> list[Json]:
        """The stream has ended; returns what its last line held."""
        rest, self._rest = self._rest.rstrip(b"\r"), b""
        return self._line(rest)

    def _line(self, line: bytes) -> list[Json]:
        if not line:
            self._data = b""
        if self.done or not line.startswith(b"data:"):
            return []
        payload = line[5:].removeprefix(b" ")
        if payload.strip() == b"[DONE]":
            self.done = True
            return []
        for candidate in (payload, self._data + b"\n" + payload):
            found = _object(candidate)
            if found is not None:
                self._data = b""
                return [found]
        joined = (self._data + b"\n" + payload).lstrip(b"\n")
        self._data = joined if len(joined) <= LONGEST_JOINED else b""
        return []


def _object(payload: bytes) -> Json | None:
    try:
        found = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
