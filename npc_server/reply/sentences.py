"""Sentences of English and Korean, split while they stream.

A sentence ends at a line break; at ``.``, ``!``, ``?`` with the closing quotes and brackets behind
them, once white space follows; at ``。``, ``！``, ``？`` at once; at ``~`` and ``…`` where what
stands before is a Korean sentence ending, or the next word is capitalised. No sentence ends at an
abbreviation, a number or a list number; before a small letter, or a Korean 하고 or 라고, that
follows a closing quote; or without a letter or digit in it. Korean sentences need no space between
them, and, where they end politely, no mark: ``안녕하세요 저는 민지예요``. What has run on for
``LONGEST`` code points is cut at its last space.
"""

from __future__ import annotations

import regex

from npc_server.protocol.text import cut
from npc_server.reply.parts import Sentence

LONGEST = 200
"""Code points after which a sentence without an end is cut."""

NEVER = frozenset(
    (
        *("mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "mt.", "capt.", "col.", "gen.", "lt."),
        *(
            "sgt.",
            "rev.",
            "hon.",
            "e.g.",
            "i.e.",
            "vs.",
            "cf.",
            "approx.",
            "viz.",
            "mx.",
            "messrs.",
        ),
    )
)
"""Abbreviations that never end a sentence."""

MAYBE = frozenset(
    (
        *("etc.", "a.m.", "p.m.", "inc.", "ltd.", "co.", "corp.", "jr.", "sr.", "dept.", "est."),
        *("jan.", "feb.", "mar.", "apr.", "aug.", "sept.", "oct.", "nov.", "dec.", "ph.d."),
    )
)
"""Abbreviations that end a sentence where the next word is capitalised."""

NUMBERED = frozenset(("no.", "nos.", "p.", "pp.", "vol.", "ch.", "fig.", "sec.", "art."))
"""Abbreviations where a number follows, else words."""

_ENDS = frozenset(".!?。！？…~")
_WIDE = frozenset("。！？")
_CLOSERS = "\"'”’)]」』）】*"
_INITIALS = regex.compile(r"(?:^|[\s(\"“'‘])(?:(?:\p{L}\.){2,}|(?!I\.)\p{Lu}\.)$")
_ENDING_KO = frozenset("요다죠까네지야군나래냐게걸라자어아해")
_POLITE_ENDS = frozenset("요다까죠")
_POLITE = regex.compile(r"[가-힣]{2,}요$|[가-힣]+니다$|[가-힣]+니까$|[가-힣]+죠$")
_NO_ENDING = ("불필요", "대수요", "하니까", "이니까", "으니까")
_REPORTS_KO = frozenset("하라이")
_BIEUP = 17
_HANGUL_FIRST, _FINALS_IN_BLOCK = 0xAC00, 28


class Splitter:
    """Finds the sentences of a text that comes character by character.

    Args:
        korean: Whether Korean sentences may end without a mark.
    """

    def __init__(self, *, korean: bool) -> None:
        self._korean = korean
        self._buffer = ""
        self._start = 0
        self._index = 0

    @property
    def room(self) -> int:
        """How much the sentence may grow before it is cut."""
        return LONGEST - len(self._buffer)

    def push(self, atom: str, at: int) -> list[Sentence]:
        """Take a visible character that stands at ``at`` in the text, or letters that fit in."""
        done = self._take(len(self._buffer)) if self._ends_before(atom[0]) else []
        if not self._buffer:
            self._start = at
        self._buffer += atom
        return done + self._cut_long() if len(self._buffer) > LONGEST else done

    def space(self, char: str) -> None:
        """Take one character of white space, after ``pause``."""
        if self._buffer:
            self._buffer += char

    def pause(self, char: str) -> list[Sentence]:
        """What is complete if white space follows, whether or not it becomes part of the text."""
        ends = bool(self._buffer) and (char == "\n" or self._ends_before(" "))
        return self._take(len(self._buffer)) if ends else []

    def end(self) -> list[Sentence]:
        """The text is over: what is left is a sentence."""
        return self._take(len(self._buffer)) if self._buffer else []

    def _ends_before(self, char: str) -> bool:
        word = self._buffer[-2:].rstrip()
        if word[-1:].isalnum() and not (self._korean and word[-1] in _POLITE_ENDS):
            return False
        tail = self._buffer[-1:]
        if tail and (char == " " or tail.isspace() or tail in _ENDS or tail in _CLOSERS):
            return ends(self._buffer, char, korean=self._korean)
        return False

    def _cut_long(self) -> list[Sentence]:
        length = max(self._buffer.rfind(" "), self._buffer.rfind("\n"))
        if length <= 0:
            length = len(cut(self._buffer, LONGEST)) or LONGEST
        return self._take(length)

    def _take(self, length: int) -> list[Sentence]:
        text, rest = self._buffer[:length].rstrip(), self._buffer[length:]
        sentence = Sentence(self._index, text, self._start)
        self._index += 1
        self._buffer = rest.lstrip()
        self._start += length + len(rest) - len(self._buffer)
        return [sentence]


def ends(text: str, char: str, *, korean: bool = True) -> bool:
    """Whether ``text``, the sentence so far, is complete now that ``char`` follows."""
    tail = text.rstrip()
    core = tail.rstrip(_CLOSERS)
    spaced, closed = len(tail) < len(text), len(core) < len(tail)
    if not spaced and (char in _ENDS or char in _CLOSERS):
        return False
    if not any(c.isalnum() for c in core):
        return False
    if core[-1] not in _ENDS:
        return korean and (spaced or char.isspace()) and not closed and _polite(core)
    if core[-1] in _WIDE:
        return True
    if char.isspace():
        return _ends_at_space(core, closed=closed)
    if not spaced:
        return _ends_inside(core, char)
    return _ends_before_word(core, char, closed=closed)


def _ends_at_space(core: str, *, closed: bool) -> bool:
    if closed or core.endswith(("..", "…")):
        return False
    if core[-1] == "~":
        return _informal(core.rstrip("~"))
    return core[-1] in "!?" or not _is_open(core)


def _ends_inside(core: str, char: str) -> bool:
    if core.endswith(("..", "…", "~")):
        return False
    if core[-1] in "!?":
        return char.isalnum()
    return _is_hangul(core[-2:-1]) and _is_hangul(char)


def _ends_before_word(core: str, char: str, *, closed: bool) -> bool:
    if closed and (char.islower() or char in _REPORTS_KO):
        return False
    if core.endswith(("..", "…")):
        return char.isupper() or (_is_hangul(char) and _informal(core.rstrip(".…")))
    if core[-1] == "~":
        return _informal(core.rstrip("~"))
    if core[-1] in "!?":
        return True
    word = _last_word(core)
    if word in NUMBERED:
        return not char.isdigit()
    if word in MAYBE:
        return char.isupper()
    return not _is_open(core)


def _is_open(core: str) -> bool:
    """Whether the full stop at the end belongs to an abbreviation or a list number."""
    word = _last_word(core)
    if word in NEVER or word in MAYBE or word in NUMBERED:
        return True
    return core[:-1].isdigit() or bool(_INITIALS.search(core))


def _last_word(core: str) -> str:
    return core.rsplit(None, 1)[-1].lstrip("\"'“‘([").casefold()


def _polite(core: str) -> bool:
    word = core.rsplit(None, 1)[-1]
    if not _POLITE.search(word) or word.endswith(_NO_ENDING):
        return False
    return not word.endswith(("니다", "니까")) or _has_bieup(word[-3:-2])


def _informal(core: str) -> bool:
    return core[-1:] in _ENDING_KO


def _has_bieup(char: str) -> bool:
    """Whether a syllable ends in the consonant of -ㅂ니다 (Unicode, section 3.12)."""
    return _is_hangul(char) and (ord(char) - _HANGUL_FIRST) % _FINALS_IN_BLOCK == _BIEUP


def _is_hangul(char: str) -> bool:
    return "가" <= char <= "힣"
