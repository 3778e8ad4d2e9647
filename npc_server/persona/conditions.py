"""Conditions: a small language over the facts of a game, in which an author says when something is.

::

    quest.dragon_dead and not (player.gold < 10 or player.class in ["thief", "spy"])

Names are facts; literals are text in quotes, numbers, ``true`` and ``false``. ``or`` binds loosest,
then ``and``, then ``not``, then comparisons. A fact that is missing counts as false, and every
comparison with it is false. Numbers compare with numbers and text with text; nothing is converted.

It is read by hand. Python's own parser refuses names such as ``player.class``, counts positions in
bytes and warns on the console; libraries of expressions bring calls, arithmetic and attributes,
which would have to be locked out again.
"""

from __future__ import annotations

import operator
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

MAX_CHARACTERS = 200
MAX_DEPTH = 16
"""So many parentheses and ``not`` may stand inside of each other."""

Scalar = str | int | float | bool
"""The value of a fact."""

_TOKENS = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.]))
    |(?P<name>[^\W\d][\w-]*(?:\.[\w-]+)*)
    |(?P<sign>[=!<>]=|[<>()\[\],])""",
    re.VERBOSE,
)
_ORDERS: Mapping[str, Callable[..., bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LITERALS = {"true": True, "false": False}
_WORDS = frozenset(("and", "or", "not", "in", *_LITERALS))
_MISSING = "a fact that is missing counts as false: write 'not' and its name"
_HINTS = {
    "=": "compare with '=='",
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not'",
    '"': "the quote is not closed",
    "'": "the quote is not closed",
    "null": _MISSING,
    "none": _MISSING,
    **{word: f"write '{word}'" for word in _WORDS},
}


class ConditionError(ValueError):
    """A condition cannot be read.

    Args:
        reason: What is wrong, and what was expected.
        position: Where, in code points, from 1.
    """

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} (at character {position})")
        self.position = position


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read; ``parse`` makes one.

    Attributes:
        text: As its author wrote it.
        names: The facts that it reads.
    """

    text: str
    names: frozenset[str]
    _root: _Node = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.text

    def holds(self, facts: Mapping[str, object]) -> bool:
        """Whether it is so by these facts; any JSON will do as their values."""
        return bool(_value(self._root, facts))


def parse(text: str) -> Condition:
    """Read a condition.

    Raises:
        ConditionError: It is none, it is too long, or it is nested too deeply.
    """
    text = unicodedata.normalize("NFC", text)
    if len(text) > MAX_CHARACTERS:
        raise ConditionError(f"is longer than {MAX_CHARACTERS} characters", MAX_CHARACTERS + 1)
    reader = _Reader(text)
    root = reader.whole()
    return Condition(text, frozenset(reader.names), root)


@dataclass(frozen=True, slots=True)
class _Literal:
    value: Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class _Fact:
    name: str


@dataclass(frozen=True, slots=True)
class _Not:
    inner: _Node


@dataclass(frozen=True, slots=True)
class _Joined:
    word: str
    parts: tuple[_Node, ...]


@dataclass(frozen=True, slots=True)
class _Compared:
    left: _Node
    sign: str
    right: _Node


_Node = _Literal | _Fact | _Not | _Joined | _Compared


def _value(node: _Node, facts: Mapping[str, object]) -> object:
    match node:
        case _Literal(value):
            return value
        case _Fact(name):
            return facts.get(name)
        case _Not(inner):
            return not _value(inner, facts)
        case _Joined(word, parts):
            each = (bool(_value(part, facts)) for part in parts)
            return all(each) if word == "and" else any(each)
        case _Compared(left, sign, right):
            return _compare(_value(left, facts), sign, _value(right, facts))


def _compare(left: object, sign: str, right: object) -> bool:
    if left is None or right is None:
        return False
    if isinstance(right, tuple):
        return any(_same(left, each) for each in right)
    if sign in _ORDERS:
        return _kind(left) == _kind(right) in ("number", "text") and _ORDERS[sign](left, right)
    return _same(left, right) == (sign == "==")


def _same(left: object, right: object) -> bool:
    return _kind(left) == _kind(right) and left == right


def _kind(value: object) -> str:
    """What JSON calls it. To Python ``true`` is the number 1."""
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKENS.match(text, at)
        if found is None:
            raise _unreadable(text[at], at + 1)
        kind, word = str(found.lastgroup), found.group()
        if kind == "name" and word not in _WORDS and word.casefold() in _HINTS:
            raise _unreadable(word, at + 1)
        if kind != "space":
            yield _Token(word if kind == "sign" or word in _WORDS else kind, word, at + 1)
        at = found.end()
    yield _Token("end", "the end", len(text) + 1)


def _unreadable(text: str, position: int) -> ConditionError:
    hint = _HINTS.get(text.casefold())
    return ConditionError(f"cannot read {text}{': ' + hint if hint else ''}", position)


class _Reader:
    """Reads token by token; each rule of the language is a method."""

    def __init__(self, text: str) -> None:
        self.names: set[str] = set()
        self._tokens = _tokens(text)
        self._token = next(self._tokens)
        self._depth = 0

    def whole(self) -> _Node:
        root = self._either()
        if self._token.kind != "end":
            raise self._unexpected("'and', 'or' or the end")
        return root

    def _either(self) -> _Node:
        return self._joined("or", self._both)

    def _both(self) -> _Node:
        return self._joined("and", self._negated)

    def _joined(self, word: str, part: Callable[[], _Node]) -> _Node:
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return _Joined(word, tuple(parts)) if len(parts) > 1 else parts[0]

    def _negated(self) -> _Node:
        return _Not(self._inside(self._negated)) if self._take("not") else self._compared()

    def _compared(self) -> _Node:
        left = self._operand()
        if self._token.kind == "not":
            raise self._unexpected("a comparison, for 'not' stands in front: not a in [1, 2]")
        if self._take("in"):
            return _Compared(left, "in", self._list())
        sign = self._take("==", "!=", *_ORDERS)
        if sign is None:
            return left
        node = _Compared(left, sign, self._operand())
        if self._token.kind in ("==", "!=", "in", *_ORDERS):
            raise self._unexpected("one comparison; join two with 'and'")
        return node

    def _operand(self) -> _Node:
        if self._take("("):
            node = self._inside(self._either)
            self._demand(")")
            return node
        token = self._token
        if token.kind == "name":
            self._next()
            self.names.add(token.text)
            return _Fact(token.text)
        return _Literal(self._literal())

    def _list(self) -> _Node:
        self._demand("[")
        items = [self._literal()]
        while self._take(","):
            items.append(self._literal())
        self._demand("]")
        return _Literal(tuple(items))

    def _literal(self) -> Scalar:
        kind, text = self._token.kind, self._token.text
        value: Scalar
        if kind == "text":
            value = text[1:-1]
        elif kind == "number":
            value = int(text) if text.lstrip("-").isdigit() else float(text)
        elif kind in _LITERALS:
            value = _LITERALS[kind]
        else:
            raise self._unexpected("a value")
        self._next()
        return value

    def _inside(self, rule: Callable[[], _Node]) -> _Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ConditionError("is nested too deeply", self._token.position)
        node = rule()
        self._depth -= 1
        return node

    def _take(self, *kinds: str) -> str | None:
        kind = self._token.kind
        if kind not in kinds:
            return None
        self._next()
        return kind

    def _demand(self, kind: str) -> None:
        if not self._take(kind):
            raise self._unexpected(f"'{kind}'")

    def _next(self) -> None:
        self._token = next(self._tokens)

    def _unexpected(self, expected: str) -> ConditionError:
        found = self._token
        return ConditionError(f"expected {expected}, found {found.text}", found.position)
