"""What was said, as words between pauses: sentences of tokens, without quotations and asides."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import regex

_QUOTED = regex.compile(
    r"""“[^”]{0,500}”|「[^」]{0,500}」|『[^』]{0,500}』|«[^»]{0,500}»|"[^"]{0,500}"
    |‘[^’]{0,500}’(?!\w)|(?<!\w)'(?:[^']|'\w){0,200}'(?!\w)""",
    regex.VERBOSE,
)
"""The lengths are bounded, lest a text of open quotes take long."""

_ASIDE = regex.compile(
    r"""\*+(?<in>[^*\s]{1,99}\s[^*\n]{1,400})\*+|\((?<in>[^)\s]{1,99}\s[^)\n]{1,400})\)
    |\[(?<in>[^\]\s]{1,99}\s[^\]\n]{1,400})\]|\((?<in>\p{Hangul}{1,99})\)""",
    regex.VERBOSE,
)
"""One English word between asterisks is stressed and no aside: ``*Bram*, wake up``."""

_ABBREVIATED = r"(?i:mr|mrs|ms|dr|st|prof|capt|sgt)\."
_LETTER = r"[\p{L}\p{M}\p{N}--[\u3131-\u318E]]"
_NARRATES = regex.compile(
    r"I (?:say|ask|shout|whisper|reply|answer|call|yell|mutter|tell|turn|look|smile|nod)\b"
    r"|(?:나는|내가|난)\s.*(?:말한다|묻는다|외친다|속삭인다|부른다|말했다|물었다|외쳤다|속삭였다)$"
)
_TOKEN = regex.compile(
    rf"""(?P<smiley><3+|[:;=]-?[)(DPpOo3|]|\^_*\^|[Tt]_[Tt])
    |(?P<word>(?<!\w){_ABBREVIATED}|{_LETTER}+(?:[-'’]{_LETTER}+|(?<=\d)[.,](?=\d)\d+)*|&)
    |(?P<pause>\.{{2,}}|…)
    |(?P<end>[.!?。！？\n]+)
    |(?P<mark>\S)""",
    regex.VERBOSE | regex.V1,
)
_MARKS = regex.compile(r"\p{Mn}")


@dataclass(frozen=True, slots=True)
class Token:
    """A word, or a pause: a comma, a dash, an emoji and whatever else parts words.

    Attributes:
        text: As it was written.
        folded: The word as words are compared; empty for a pause.
    """

    text: str
    folded: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """Tokens up to the end of a sentence.

    Attributes:
        tokens: What stands in it, its end mark left out.
        question: Whether a question mark ends it.
    """

    tokens: tuple[Token, ...]
    question: bool

    def before(self, at: int) -> list[str]:
        """The words between the last pause before a place and that place."""
        found: list[str] = []
        for token in reversed(self.tokens[:at]):
            if not token.folded:
                break
            found.append(token.folded)
        return found[::-1]

    def after(self, at: int) -> list[str]:
        """The words from a place to the next pause."""
        return next(self.phrases(at))

    def phrases(self, at: int) -> Iterator[list[str]]:
        """From a place on, the words between one pause and the next; at least one list."""
        found: list[str] = []
        for token in self.tokens[at:]:
            if token.folded:
                found.append(token.folded)
            else:
                yield found
                found = []
        yield found

    def is_behind(self, at: int, mark: str) -> bool:
        """Whether a mark, such as ``@``, stands right before a place."""
        return at > 0 and self.tokens[at - 1].text == mark

    def begins(self, at: int) -> bool:
        """Whether no word stands before a place."""
        return not any(token.folded for token in self.tokens[:at])


def fold(text: str) -> str:
    """A text without case and diacritics, as names are compared."""
    bare = _MARKS.sub("", unicodedata.normalize("NFD", text.casefold()))
    return unicodedata.normalize("NFC", bare).replace("’", "'")


def words(text: str) -> tuple[str, ...]:
    """The folded words of a name or a phrase."""
    return tuple(token.folded for line in sentences(text) for token in line.tokens if token.folded)


def spoken(text: str) -> tuple[str, tuple[str, ...]]:
    """What is said in the speaker's own voice, and the asides: ``*turns to Bram*``, ``(to Bram)``.

    A quotation is somebody's voice at some other time. It is speech where all of it is quoted, or
    where the rest tells that it is being said: ``"Come here," I say to Bram.``
    """
    quoted = _QUOTED.fullmatch(text.strip())
    if quoted:
        text = quoted.group()[1:-1]
    elif _NARRATES.match(told := _QUOTED.sub("", text).strip(" ,.\n")):
        return "\n".join(found.group()[1:-1] for found in _QUOTED.finditer(text)), (told,)
    asides = tuple(found["in"] for found in _ASIDE.finditer(text))
    said = _QUOTED.sub(" … ", _ASIDE.sub("\n", text))
    return said, asides


def sentences(text: str) -> Iterator[Sentence]:
    """The sentences of a text, in order."""
    tokens: list[Token] = []
    for found in _TOKEN.finditer(text):
        if found.lastgroup != "end":
            is_word = found.lastgroup == "word"
            tokens.append(Token(found.group(), fold(found.group()) if is_word else ""))
        elif tokens:
            yield Sentence(tuple(tokens), "?" in found.group() or "？" in found.group())
            tokens = []
    if tokens:
        yield Sentence(tuple(tokens), question=False)
