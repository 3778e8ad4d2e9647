"""PURE. How many tokens a text takes, where no tokenizer is at hand: an estimate by script.

The weights are a little above what the tokenizers of GPT-3.5 and later, Llama 3 and Qwen need, so
that a prompt that fits by the estimate fits in truth. What an endpoint reports corrects them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import regex

from npc_server.prompt.messages import Message

WEIGHTS = (
    (r"[A-Za-z ]+", 1 / 3.5),
    (r"[0-9]+", 0.5),
    (r"[\x00-\x7F]", 0.6),  # punctuation, line ends, control characters
    (r"[\p{Latin}\p{Cyrillic}\p{Greek}]", 0.6),
    (r"\p{Hangul}+", 1.0),
    (r"[\p{Han}\p{Hiragana}\p{Katakana}]+", 1.1),
    (r"\p{L}", 1.0),
    (r"[\s\S]", 2.0),  # emoji and rare signs: often one token for a byte or two
)
"""Runs of characters, and tokens for each character of them; the first that fits counts."""

MESSAGE = 5
"""Tokens that a template puts around each message."""

REPLY = 4
"""Tokens that open the reply."""

LEAST, MOST = 0.6, 4.0
"""Bounds of the correction."""

FALL = 0.1
"""How much of a smaller ratio is taken over at once; a larger one is believed immediately."""

_CLASSES = regex.compile("|".join(f"({pattern})" for pattern, _ in WEIGHTS))


def text_tokens(text: str) -> float:
    """Tokens of a text, about."""
    return sum(
        (found.end() - found.start()) * WEIGHTS[(found.lastindex or 1) - 1][1]
        for found in _CLASSES.finditer(text)
    )


def prompt_tokens(messages: Sequence[Message]) -> float:
    """Tokens of a whole prompt, about."""
    return REPLY + sum(MESSAGE + text_tokens(message.text) for message in messages)


class Correction:
    """A running ratio between what an endpoint counts and what we guessed.

    It rises at once and falls slowly: a guess that is too small breaks a request, one that is too
    large only shortens a history.
    """

    def __init__(self) -> None:
        self.ratio = 1.0

    def learn(self, guessed: float, counted: int) -> None:
        """Take what an endpoint reports of a prompt that we guessed at."""
        if guessed <= 0 or counted <= 0:
            return
        seen = counted / guessed
        self._set(seen if seen > self.ratio else self.ratio + FALL * (seen - self.ratio))

    def raise_by(self, share: float) -> None:
        """A prompt that should have fitted did not."""
        self._set(self.ratio * (1 + share))

    def apply(self, guessed: float) -> int:
        """The corrected number of tokens, rounded up."""
        return ceil(guessed * self.ratio)

    def _set(self, ratio: float) -> None:
        self.ratio = min(MOST, max(LEAST, ratio))
