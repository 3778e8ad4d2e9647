"""Holds a reply to a JSON Schema: which tokens may come next, and how the text can still end.

The grammars are llguidance's. It gets the bytes of every token and a tokenizer that gives back
exactly the bytes that it was given, because SentencePiece puts a space in front of a text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import orjson
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from numpy.typing import NDArray

from npc_server.engines.vocabulary import Vocabulary, encode_text
from npc_server.errors import BadMessage, EngineUnavailable

SCHEMAS_KEPT = 32
LONGEST_END = 512
MESSAGE_CHARS = 300

OUTSIDE, INSIDE, ESCAPED = range(3)
QUOTE, BACKSLASH = b'"\\'
# What ends a text soonest: outside of strings what closes, then what is short; inside the quote.
# A pattern such as `a+z` never ends by its first letter, so the other way round comes next.
LETTERS = bytes(byte for byte in range(0x20, 0x100) if byte not in (QUOTE, 0x7F))
STRUCTURE = b'}],:10"23456789-ntf[{.eE+'
ORDERS = ((STRUCTURE, b'"' + LETTERS, LETTERS), (STRUCTURE, b'"' + LETTERS[::-1], LETTERS))


class JsonMasks:
    """Makes masks for one vocabulary.

    Args:
        vocabulary: The model's tokens.
        ends: The tokens that end a reply.
    """

    def __init__(self, vocabulary: Vocabulary, ends: Collection[int]) -> None:
        self._vocabulary = vocabulary
        self._ends = sorted(ends)
        self._grammars: OrderedDict[bytes, LLMatcher] = OrderedDict()

    def start(self, schema: Mapping[str, Any], prefix: str = "") -> JsonMask:
        """The mask of a new reply.

        Args:
            schema: The JSON Schema.
            prefix: What the reply already begins with.

        Raises:
            BadMessage: The schema asks for something that cannot be enforced, or no text that
                satisfies it begins with the prefix.
        """
        matcher = self._matcher(orjson.dumps(schema))
        data = prefix.encode(errors="replace")
        if not matcher.consume_tokens(self._pieces.longest(data)):
            raise BadMessage("No reply that satisfies the JSON Schema begins with the prefix.")
        return JsonMask(matcher, self._pieces, self._ends, string_state(OUTSIDE, data))

    def _matcher(self, schema: bytes) -> LLMatcher:
        matcher = self._grammars.get(schema) or self._compiled(schema.decode())
        self._grammars[schema] = matcher
        self._grammars.move_to_end(schema)
        if len(self._grammars) > SCHEMAS_KEPT:
            self._grammars.popitem(last=False)
        return matcher.deep_copy()

    def _compiled(self, schema: str) -> LLMatcher:
        grammar = LLMatcher.grammar_from_json_schema(
            schema,
            overrides={"whitespace_flexible": False, "item_separator": ",", "key_separator": ":"},
        )
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise BadMessage(
                f"The JSON Schema cannot be enforced: {matcher.get_error()[:MESSAGE_CHARS]}. "
                "Say it with other keywords."
            )
        return matcher

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self._vocabulary)

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        return LLTokenizer(TokenizerWrapper(self._pieces))


class Pieces:
    """The bytes of every token, and bytes to tokens without a byte more or less.

    The public attributes are what llguidance looks for in a tokenizer.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.size = vocabulary.size
        self.bytes = [vocabulary.piece(token) for token in range(self.size)]
        self._ids: dict[bytes, int] = {}
        for token, data in enumerate(self.bytes):
            self._ids.setdefault(data, token)
        self._longest = max(map(len, self.bytes))
        # One token more, which no model can say, stands for the end.
        self.eos_token_id = self.size
        self.bos_token_id = None
        self.special_token_ids = [*vocabulary.control, self.eos_token_id]
        self.tokens = [*self.bytes, b"\xff<end>"]
        for token, name in vocabulary.control.items():
            self.tokens[token] = b"\xff" + name.encode(errors="replace")
        self.orders = [[self._alone(letters) for letters in order] for order in ORDERS]

    def __call__(self, data: bytes) -> list[int]:
        """The model's own tokens of these bytes where they give them back, else the longest."""
        own = encode_text(self._vocabulary, data.decode(errors="ignore"))
        return own if b"".join(self.bytes[token] for token in own) == data else self.longest(data)

    def longest(self, data: bytes) -> list[int]:
        """The longest token at each place; a byte that no token begins with is left out."""
        found, at = [], 0
        while at < len(data):
            sizes = range(min(self._longest, len(data) - at), 0, -1)
            size = next((size for size in sizes if data[at : at + size] in self._ids), 0)
            if size:
                found.append(self._ids[data[at : at + size]])
            at += size or 1
        return found

    def _alone(self, letters: bytes) -> list[int]:
        """The tokens of single bytes, those that there are."""
        alone = [bytes([byte]) for byte in letters]
        return [self._ids[byte] for byte in alone if byte in self._ids]


class JsonMask:
    """Where one reply stands in its grammar. Made by ``JsonMasks.start``."""

    def __init__(self, matcher: LLMatcher, pieces: Pieces, ends: Sequence[int], state: int) -> None:
        self._matcher = matcher
        self._pieces = pieces
        self._ends = ends
        self._state = state
        self._orders = pieces.orders
        self._end = self._shortest_end(state)

    @property
    def complete(self) -> bool:
        """Whether the text satisfies the schema as it stands."""
        return self._matcher.is_accepting()

    @property
    def ended(self) -> bool:
        """Whether nothing can follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> NDArray[np.bool_]:
        """Whether each token may come next; the tokens that end a reply where it may end.

        Raises:
            EngineUnavailable: The grammar became too complex to be followed.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        bits = np.unpackbits(mask, bitorder="little")[: self._pieces.size + 1].astype(np.bool_)
        if self._matcher.is_error():
            raise EngineUnavailable(
                f"The JSON Schema is too complex: {self._matcher.get_error()[:MESSAGE_CHARS]}"
            )
        bits[self._ends] = bits[-1]
        return bits[:-1]

    def within(self, token: int, left: int) -> int | None:
        """The token, or what to say in its place where too few would be left to end the text.

        Args:
            token: One that is allowed.
            left: How many tokens may come, this one included.

        Returns:
            A token that is allowed; ``None`` to end here.

        Raises:
            EngineUnavailable: The grammar cannot be followed any more.
        """
        if self._end and token == self._end[0]:
            return token
        if not self._matcher.consume_token(token):
            raise EngineUnavailable("The JSON Schema could not be followed any more.")
        end = self._shortest_end(string_state(self._state, self._pieces.bytes[token]))
        self._matcher.rollback(1)
        needed = 1 + (LONGEST_END if end is None else len(end))
        if needed > left and self._end is not None and len(self._end) <= left:
            return self._end[0] if self._end else None
        self._end = None if end is None else [token, *end]
        return token

    def take(self, token: int, left: int) -> list[int]:
        """Go on behind a token that ``within`` gave.

        Returns:
            The token, and those that must follow: ``left`` in all at most.
        """
        self._matcher.consume_token(token)
        forced = self._matcher.compute_ff_tokens()[: left - 1]
        self._matcher.consume_tokens(forced)
        taken = [token, *forced]
        self._state = self._state_behind(taken)
        if self._end is not None and self._end[: len(taken)] == taken:
            del self._end[: len(taken)]
        else:
            self._end = self._shortest_end(self._state)
        return taken

    def _state_behind(self, tokens: Sequence[int]) -> int:
        data = b"".join(self._pieces.bytes[token] for token in tokens)
        return string_state(self._state, data)

    def _shortest_end(self, state: int) -> list[int] | None:
        """Few tokens that complete the text, found by closing whatever can be closed."""
        ends = (self._end_by(order, state) for order in self._orders)
        return next((end for end in ends if end is not None), None)

    def _end_by(self, order: Sequence[Sequence[int]], state: int) -> list[int] | None:
        matcher = self._matcher
        end: list[int] = []
        try:
            while not matcher.is_accepting() and len(end) < LONGEST_END:
                tokens = matcher.compute_ff_tokens() or self._first(order[state])
                if not tokens or not matcher.consume_tokens(tokens):
                    return None
                end += tokens
                for token in tokens:
                    state = string_state(state, self._pieces.bytes[token])
            return end if matcher.is_accepting() else None
        finally:
            matcher.rollback(len(end))

    def _first(self, order: Sequence[int]) -> list[int]:
        valid = self._matcher.validate_tokens
        return next(([token] for token in order if valid([token])), [])


def string_state(state: int, data: bytes) -> int:
    """Whether JSON text is inside a string behind some more bytes.

    Args:
        state: ``OUTSIDE``, ``INSIDE`` or ``ESCAPED`` (behind a backslash), in front of them.
        data: The bytes.
    """
    for byte in data:
        if state == ESCAPED:
            state = INSIDE
        elif byte == QUOTE:
            state = OUTSIDE if state == INSIDE else INSIDE
        elif byte == BACKSLASH and state == INSIDE:
            state = ESCAPED
    return state
