"""Text to token ids for llama.cpp, each text alone and never a whole prompt.

Our own tokenizer does it where it knows the model's; else llama.cpp is asked.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from npc_server.engines.bpe import CONTROL, KNOWN_SPLITS, UNKNOWN, BpeVocabulary
from npc_server.engines.gguf import Header
from npc_server.engines.templates import Template, render
from npc_server.engines.vocabulary import encode_parts, encode_text, end_tokens
from npc_server.errors import EngineUnavailable, ModelFileError
from npc_server.prompt.messages import Message

Ask = Callable[[str], Awaitable[list[int]]]
T = TypeVar("T")

REMEMBERED_PROMPTS = 16
CHARS_PER_TOKEN = 8
"""So many prompts of so long tokens are remembered, each as long as the context. What is forgotten
is encoded again; a single prompt must fit in any case."""

LONG_CHARS = 16_384
# Whole texts, then the pieces that they are cut into around control tokens' names, then halves.
ROUNDS = 40


class Texts:
    """The token ids of texts, the latest remembered: a conversation only grows.

    It is a ``Vocabulary`` that knows the texts which it was taught, and notes those it was not.

    Args:
        header: The model's header.
        most: How many characters of texts are remembered.

    Raises:
        ModelFileError: The vocabulary is damaged.
    """

    def __init__(self, header: Header, most: int) -> None:
        tokens = header.texts("tokenizer.ggml.tokens")
        kinds = header.metadata.get("tokenizer.ggml.token_type", [])
        if not tokens or not isinstance(kinds, list):
            raise ModelFileError("The model's vocabulary is damaged. Fetch the file again.")
        self.size = len(tokens)
        self.control: Mapping[int, str] = {
            index: token
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
            if kind in (CONTROL, UNKNOWN)
        }
        self.bos = _id(header, "bos", self.size)
        self.eos = _id(header, "eos", self.size)
        self.unknown: set[str] = set()
        self._most = most
        self._chars = 0
        # A list would hold an object for each id, eight times the memory.
        self._known: OrderedDict[str, array[int]] = OrderedDict()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; where they are not known, none, and the text is noted."""
        ids = self._known.get(text)
        if ids is None:
            self.unknown.add(text)
            return []
        self._known.move_to_end(text)
        return ids.tolist()

    def learn(self, text: str, ids: list[int]) -> None:
        """Remember a text, and forget what was not asked for longest."""
        self.unknown.discard(text)
        if text not in self._known:
            self._chars += len(text)
        self._known[text] = array("i", ids)
        while self._chars > self._most and len(self._known) > 1:
            forgotten, _ = self._known.popitem(last=False)
            self._chars -= len(forgotten)

    def forget(self) -> None:
        """Forget every text."""
        self._known.clear()
        self._chars = 0

    def piece(self, token: int) -> bytes:
        """Not known here: llama.cpp itself makes text of tokens."""
        raise NotImplementedError


class PromptTokens:
    """Prompts as token ids, in which every control token is of the template's making.

    Args:
        header: The model's header.
        template: How the model was taught to be talked to.
        context: The most tokens of a prompt.

    Raises:
        ModelFileError: The vocabulary is damaged.
    """

    def __init__(self, header: Header, template: Template, context: int) -> None:
        self.template = template
        self._texts = Texts(header, REMEMBERED_PROMPTS * CHARS_PER_TOKEN * context)
        self._own = BpeVocabulary(header) if _is_known(header) else None
        ends = end_tokens(self._texts)
        self.barred = sorted(self._texts.control.keys() - ends)

    async def count(self, text: str, ask: Ask) -> int:
        """How many tokens a text takes."""
        return len(await self._settled(lambda: encode_text(self._texts, text), ask))

    async def prompt(self, messages: Sequence[Message], prefix: str, ask: Ask) -> list[int]:
        """The ids of a whole prompt, one at least.

        Args:
            messages: The conversation.
            prefix: What the reply already begins with.
            ask: Gives llama.cpp's ids of a text, of which none was looked for as a control token.

        Raises:
            EngineUnavailable: llama.cpp answers strangely.
        """
        parts = render(self.template, messages, prefix)
        marks = self.template.marks
        return await self._settled(lambda: encode_parts(self._texts, parts, marks), ask) or [0]

    def forget(self) -> None:
        """Forget every text: it may be what somebody said."""
        self._texts.forget()

    async def _settled(self, encode: Callable[[], list[int]], ask: Ask) -> list[int]:
        for _ in range(ROUNDS):
            ids = encode()
            if not self._texts.unknown:
                return ids
            unknown, self._texts.unknown = self._texts.unknown, set()
            for text in unknown:
                self._texts.learn(text, await self._encoded(text, ask))
        raise EngineUnavailable("llama.cpp splits a text into tokens in ever new ways.")

    async def _encoded(self, text: str, ask: Ask) -> list[int]:
        if self._own is None:
            return await ask(text)
        if len(text) < LONG_CHARS:
            return self._own.encode(text)
        return await asyncio.to_thread(self._own.encode, text)


def _is_known(header: Header) -> bool:
    return (
        header.text("tokenizer.ggml.model") == "gpt2"
        and header.text("tokenizer.ggml.pre") in KNOWN_SPLITS
    )


def _id(header: Header, name: str, size: int) -> int | None:
    token = header.number(f"tokenizer.ggml.{name}_token_id")
    return token if token is not None and 0 <= token < size else None
