"""PURE. From the parts of a prompt to token ids, without a control token of a player's making."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import regex

from npc_server.engines.templates import BOS, EOS, Part, Text

ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "</s>",
)


class Vocabulary(Protocol):
    """The tokens of a model.

    Attributes:
        size: How many there are.
        bos: What a prompt begins with, if anything.
        eos: What ends a text, if anything.
        control: The ids that are no text but commands, with their names.
    """

    size: int
    bos: int | None
    eos: int | None
    control: Mapping[int, str]

    def encode(self, text: str) -> list[int]:
        """The ids of a text. May contain control tokens; ``encode_text`` takes care of them."""
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of one token, which may be a part of a character; none for a control token."""
        ...


def encode_text(vocabulary: Vocabulary, text: str) -> list[int]:
    """The ids of a text, of which none is a control token, whatever the text contains."""
    whole = text.encode(errors="replace").decode()
    tokens = vocabulary.encode(whole) if whole else []
    if not vocabulary.control.keys() & set(tokens):
        return tokens
    pieces = _cut(whole, vocabulary.control.values())
    return [token for piece in pieces for token in _encode_piece(vocabulary, piece)]


def encode_parts(vocabulary: Vocabulary, parts: Iterable[Part], marks: Sequence[str]) -> list[int]:
    """The ids of a rendered prompt.

    Neighbouring texts are tokenised as one. A mark that the vocabulary has no control token for is
    plain text; such marks are broken up where they occur in data.

    Args:
        vocabulary: The model's tokens.
        parts: What ``templates.render`` gave.
        marks: The template's marks.
    """
    ids = {name: token for token, name in vocabulary.control.items()}
    plain = [mark for mark in marks if mark not in ids]
    tokens: list[int] = []
    text = ""
    for part in parts:
        if isinstance(part, Text):
            text += broken_up(part.text, plain)
        elif part.name in (BOS, EOS) or part.name in ids:
            tokens += encode_text(vocabulary, text)
            text = ""
            token = _boundary(vocabulary, part.name) if part.name not in ids else ids[part.name]
            tokens += [] if token is None else [token]
        else:
            text += part.name
    return tokens + encode_text(vocabulary, text)


def broken_up(text: str, marks: Sequence[str]) -> str:
    """The text with a space put into every one of these marks, before its last character."""
    if not marks:
        return text
    pattern = "|".join(regex.escape(mark) for mark in sorted(marks, key=len, reverse=True))
    return regex.sub(pattern, lambda found: f"{found[0][:-1]} {found[0][-1]}", text)


def end_tokens(vocabulary: Vocabulary) -> frozenset[int]:
    """The control tokens at which a reply has ended."""
    ends = {token for token, name in vocabulary.control.items() if name in ENDS}
    return frozenset(ends if vocabulary.eos is None else ends | {vocabulary.eos})


def _boundary(vocabulary: Vocabulary, name: str) -> int | None:
    return vocabulary.bos if name == BOS else vocabulary.eos


def _cut(text: str, names: Iterable[str]) -> list[str]:
    """The text cut behind the first character of each control token's name."""
    pattern = "|".join(regex.escape(name) for name in names if len(name) > 1)
    cuts = [found.start() + 1 for found in regex.finditer(pattern, text, overlapped=True)]
    ends = [*sorted(set(cuts)), len(text)]
    return [text[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]


def _encode_piece(vocabulary: Vocabulary, text: str) -> list[int]:
    tokens = vocabulary.encode(text) if text else []
    if not vocabulary.control.keys() & set(tokens):
        return tokens
    if len(text) == 1:
        return [token for token in tokens if token not in vocabulary.control]
    half = len(text) // 2
    return _encode_piece(vocabulary, text[:half]) + _encode_piece(vocabulary, text[half:])
