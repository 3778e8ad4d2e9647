"""PURE. From tokens to text that may be shown: whole characters, no stop strings, no echoes."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

SENTENCE_ENDS = frozenset(".!?…")
"""Behind these a word of a new sentence stands apart; Chinese and Japanese marks need no space."""


class Utf8Stream:
    """Decodes bytes that arrive in any cuts; a character is given out only when it is whole.

    Bytes that are no UTF-8 become U+FFFD. A character that never ends is never given out.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> str:
        """Take more bytes; returns the characters that are complete with them."""
        return self._decoder.decode(data)


class StopFilter:
    """Ends a text before the first of several strings, and never gives out a part of one.

    Args:
        stops: The strings; empty ones are left out.
        begun: Whether the text has a beginning already; space before one is left out.
    """

    def __init__(self, stops: Sequence[str], *, begun: bool = True) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._beginnings = frozenset(stop[:n] for stop in self._stops for n in range(1, len(stop)))
        self._longest = max(map(len, self._beginnings), default=0)
        self._held = ""
        self._begun = begun
        self.stopped = False

    def feed(self, text: str) -> str:
        """Take more text; returns what can belong to no stop string any more."""
        if self.stopped:
            return ""
        if not self._begun:
            text = text.lstrip()
            # It has, be it held back for now: a space behind it stays.
            self._begun = bool(text)
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self._held) - self._possible())

    def end(self) -> str:
        """The text has ended; returns what was held back."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        return text

    def _possible(self) -> int:
        for length in range(min(self._longest, len(self._held)), 0, -1):
            if self._held[-length:] in self._beginnings:
                return length
        return 0


class EchoFilter:
    """Takes what was already said from the beginning of a text that may say it again.

    Some chat endpoints go on from an assistant message, some repeat it first, some begin a new
    answer. Where a sentence had ended and a word follows without a space, one is put in; where a
    space was said, it is not said twice.

    Args:
        said: What was said; spaces at both ends do not count.
    """

    def __init__(self, said: str) -> None:
        self._said = said.strip()
        self._last = said[-1:]
        self._held = ""
        self._done = not self._said

    def feed(self, text: str) -> str:
        """Take more text; returns what is new in it."""
        if self._done:
            return self._join(text)
        self._held += text
        bare = self._held.lstrip()
        if len(bare) < len(self._said) and self._said.startswith(bare):
            return ""
        return self._release(bare.removeprefix(self._said) if bare.startswith(self._said) else None)

    def end(self) -> str:
        """The text has ended; returns what was held back."""
        return "" if self._done else self._release(None)

    def _release(self, new: str | None) -> str:
        self._done = True
        return self._join(self._held if new is None else new)

    def _join(self, text: str) -> str:
        if self._last.isspace():
            text = text.lstrip()
        elif self._last in SENTENCE_ENDS and text[:1].isalnum():
            text = f" {text}"
        self._last = "" if text else self._last
        return text
