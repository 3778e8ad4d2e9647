"""Text from clients: what is let in, and where text may be cut."""

from __future__ import annotations

import unicodedata
from typing import Annotated

import regex
from pydantic import AfterValidator, Field

_CONTROLS = regex.compile(r"[\p{Cc}--[\n\t]]", flags=regex.V1)
_GRAPHEME = regex.compile(r"\X")


def clean(text: str) -> str:
    """Bring text to NFC and drop control characters other than newline and tab.

    Raises:
        ValueError: The text holds a lone surrogate, which is no character.
    """
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("holds half of a surrogate pair; send whole characters")
    return _CONTROLS.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n")))


def one_line(text: str) -> str:
    """``clean`` for a name: stripped, and refused if empty or of more than one line.

    Raises:
        ValueError: The text is empty or holds a line break.
    """
    text = clean(text).strip()
    if not text:
        raise ValueError("is empty")
    if len(text.splitlines()) > 1:
        raise ValueError("must be one line")
    return text


def cut(text: str, length: int) -> str:
    """The first ``length`` code points of ``text``, cut back to a grapheme boundary."""
    if length >= len(text):
        return text
    end = 0
    for match in _GRAPHEME.finditer(text):
        if match.end() > length:
            break
        end = match.end()
    return text[:end]


Id = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(clean)]
"""An opaque id of at most 128 characters."""

Name = Annotated[str, Field(max_length=64), AfterValidator(one_line)]
"""One line of at most 64 characters."""

Text = Annotated[str, AfterValidator(clean)]
"""Text of a person, made clean."""
