"""Takes markup and stage directions out of a stream of characters.

What is left can be read aloud: no asterisks, no brackets, no heading, list or code marks, no tags.
Where a direction was, a ``Mark`` stands, and a space, so that the words around it stay apart.
``directions`` says what counts as one. Double quotes go where the reply begins with one, for then
they only say that it is speech.
"""

from __future__ import annotations

from npc_server.reply.directions import parenthesised, starred, stressed
from npc_server.reply.parts import Atom, Mark

LONGEST_ASIDE = 60
"""After so many code points a parenthesis inside a sentence is speech, closed or not."""

LONGEST_TAG = 40
_KEPT = 200
_CLOSERS = {"(": ")", "（": "）", "[": "]", "【": "】", "<": ">", "*": "*", "_": "_"}
_ROUND = frozenset("(（")
_SQUARE = frozenset("[【")
_LIST_MARKS = frozenset("#>-+•–=")
_QUOTES = frozenset('"“”「」『』')
_FINALS = frozenset(".!?…~。！？")
_CLOSING_QUOTES = frozenset("\"”’'")
_SMILEYS = frozenset(":;=")


class Markup:
    """A small machine over characters; every step takes one and gives none or some.

    Letters outside of markup come out together as they came in.
    """

    def __init__(self) -> None:
        self._out: list[Atom] = []
        self._last = "\n"
        self._visible = ""
        self._at_border = True
        self._run = ""
        self._open = ""
        self._stars = 0
        self._inner = ""
        self._size = 0
        self._depth = 0
        self._border = True
        self._swallow = ""
        self._language: str | None = None
        self._quoted = False
        self._hidden = False

    def push(self, atom: Atom) -> list[Atom]:
        """Take one atom; give what is certain now."""
        if isinstance(atom, Mark):
            return [atom]
        if not (self._open or self._run or self._language is not None):
            if atom.isalnum():
                self._swallow = ""
                self._last = self._visible = atom[-1]
                self._at_border = False
                return [atom]
            if atom == " " and not self._last.isspace():
                self._swallow = ""
                self._last = atom
                return [atom]
        return self._stepped(atom)

    def end(self) -> list[Atom]:
        """The stream is over: what is still open is a direction."""
        if self._open:
            self._close(closed=False, ending=True)
        self._run = ""
        if self._language:
            self._emit_all(self._language)
        out, self._out = self._out, []
        return out

    def _stepped(self, atom: str) -> list[Atom]:
        for char in atom:
            self._step(char)
        out, self._out = self._out, []
        return out

    def _step(self, char: str) -> None:
        if self._swallow and char == self._swallow[0]:
            self._swallow = self._swallow[1:]
            return
        self._swallow = ""
        if self._open:
            self._inside(char)
        elif self._language is not None:
            self._fence(char)
        elif self._run and char == self._run[0]:
            self._run += char if len(self._run) < 3 or char == "_" else ""
        elif self._run:
            run, self._run = self._run, ""
            self._after_run(run, char)
        else:
            self._text(char)

    def _text(self, char: str) -> None:
        if char in "*`<" or (char == "_" and not self._last.isalnum()):
            self._run = char
        elif char in _SQUARE or (char in _ROUND and self._last not in _SMILEYS):
            self._begin(char, 1)
        elif char in _LIST_MARKS and self._last == "\n":
            self._run = char
        elif char in _QUOTES and (self._quoted or not self._visible):
            self._quoted = True
        else:
            self._emit(char)

    def _after_run(self, run: str, char: str) -> None:
        """What a run of one mark was, now that the next character is known."""
        mark = run[0]
        if mark in "*_":
            self._after_stars(run, char)
        elif mark == "`":
            if len(run) == 3 and self._last == "\n":
                self._language = ""
            self._step(char)
        elif mark == "<":
            self._after_angle(run, char)
        else:
            if not (char.isspace() or len(run) == 3 or run in ("•", "##")):
                self._emit_all(run)
            self._step(char)

    def _after_stars(self, run: str, char: str) -> None:
        stars, left = len(run), self._last
        if run[0] == "_" and stars > 2:
            self._emit_all(run)
            self._step(char)
        elif char.isspace():
            if stars == 1 and self._visible.isdigit() and left != "\n":
                self._emit("×")
                self._step(char)
            elif left.isspace() and char != "\n":
                self._begin(run[0], 0)
            else:
                self._step(char)
        elif left.isdigit() and char.isdigit():
            self._emit("×")
            self._step(char)
        elif not (left.isspace() or _opens(char)):
            self._step(char)
        else:
            self._begin(run[0], stars)
            self._inside(char)

    def _after_angle(self, run: str, char: str) -> None:
        if len(run) == 1 and (char.isalpha() or char == "/"):
            self._begin("<", 1)
            self._inside(char)
        else:
            self._emit_all(run)
            self._step(char)

    def _begin(self, opener: str, stars: int) -> None:
        self._open, self._stars = opener, stars
        self._inner, self._size, self._depth = "", 0, 1
        self._border = self._at_border or self._last == "\n"

    def _inside(self, char: str) -> None:
        if self._hidden:
            self._inside_hidden(char)
            return
        if char == self._open and char not in "*_<":
            self._depth += 1
        elif char == _CLOSERS[self._open]:
            self._depth -= 1
            if not self._depth:
                self._close(closed=True)
                return
        if char == "\n" or (char == "<" and self._open == "<"):
            self._close(closed=False)
            self._step(char)
            return
        self._size += 1
        if self._size <= _KEPT:
            self._inner += char
        if self._is_speech_by_now():
            self._speak_inner(closed=False)

    def _inside_hidden(self, char: str) -> None:
        self._inner = (self._inner + char)[-8:]
        if self._inner.endswith("</think>"):
            self._open, self._hidden = "", False

    def _is_speech_by_now(self) -> bool:
        if self._open == "<":
            return self._size > LONGEST_TAG
        if self._open in _ROUND:
            aside = not self._border and self._size > LONGEST_ASIDE
            return aside and not parenthesised(self._inner, at_border=False)
        return (self._stars != 1 and self._size >= _KEPT) or (
            not self._stars and self._size > LONGEST_ASIDE
        )

    def _close(self, *, closed: bool, ending: bool = False) -> None:
        opener, stars = self._open, self._stars
        if self._hidden:
            self._open = ""
        elif self._open == "<" and closed and self._inner.strip().casefold() == "think":
            self._hidden = True
        elif self._is_direction(closed=closed, ending=ending):
            self._drop()
        else:
            self._speak_inner(closed=closed)
        if closed and opener in "*_":
            self._swallow = opener * max(0, stars - 1)

    def _is_direction(self, *, closed: bool, ending: bool) -> bool:
        if self._open in "*_":
            if not self._stars and not closed:
                return False
            emphasis = closed and not self._border and stressed(self._inner)
            return not emphasis and starred(
                self._inner, self._stars or 1, closed=closed, at_border=self._border
            )
        if self._open in _ROUND:
            return ending or parenthesised(self._inner, at_border=self._border)
        return closed or ending or self._open in _SQUARE

    def _drop(self) -> None:
        words = self._inner.strip()
        self._open = ""
        self._out.append(Mark(words))
        self._at_border = True
        if self._last not in " \n":
            self._emit(" ")

    def _speak_inner(self, *, closed: bool) -> None:
        opener, inner = self._open, self._inner
        self._open = ""
        if opener not in "*_":
            self._emit(opener)
        for char in inner:
            self._step(char)
        if closed and opener not in "*_":
            self._step(_CLOSERS[opener])

    def _fence(self, char: str) -> None:
        language = self._language or ""
        if char.isalnum() and len(language) < 16:
            self._language = language + char
            return
        self._language = None
        if char != "\n":
            self._emit_all(language)
        self._step(char)

    def _emit_all(self, chars: str) -> None:
        for char in chars:
            self._emit(char)

    def _emit(self, char: str) -> None:
        if char.isspace():
            char = "\n" if char == "\n" else " "
            if self._last == "\n" or self._last == char:
                return
        else:
            self._visible = char
            self._at_border = char in _FINALS or (self._at_border and char in _CLOSING_QUOTES)
        self._last = char
        self._out.append(char)


def _opens(char: str) -> bool:
    return char.isalnum() or char in "\"“'‘(（[…~"
