"""The instructions never come out.

Words are compared without case, punctuation and markup. A word is a run of letters and digits, in
Korean an eojeol; apostrophes do not part words. Once ``RUN`` words in a row stand in the same order
in the instructions, the reply is over and all but the first ``FREE`` of them are never spoken. The
first ones are let through at once: nearly every reply begins with a word that stands somewhere in
the instructions, and holding that back would cost the player the time of several tokens. Later
words of a run are let through as soon as it breaks.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict

from npc_server.reply.parts import Atom, Finished

RUN = 8
"""So many words in a row are a recital; fewer are chance."""

FREE = 2
"""So many words of a run are spoken before it is known for one."""

_APOSTROPHES = "'’"
_SPELLED = re.compile(r"[^\W_]+")


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared."""
    for apostrophe in _APOSTROPHES:
        text = text.replace(apostrophe, "")
    return [word.casefold() for word in _SPELLED.findall(text)]


class Instructions:
    """An index of the text that must not come out. It never changes, so parsers may share it.

    Args:
        text: The instructions.

    Attributes:
        places: Where each word stands, counted in words.
    """

    def __init__(self, text: str = "") -> None:
        self.places: dict[str, list[int]] = defaultdict(list)
        for place, word in enumerate(words_of(text)):
            self.places[word].append(place)
        self._sorted = sorted(self.places)

    def has_beginning(self, letters: str) -> bool:
        """Whether a word begins with these letters."""
        at = bisect_left(self._sorted, letters)
        return at < len(self._sorted) and self._sorted[at].startswith(letters)


class Guard:
    """Lets a reply through as long as it does not recite.

    Args:
        instructions: What must not come out.

    Attributes:
        finished: ``prompt`` once the reply recited.
    """

    def __init__(self, instructions: Instructions) -> None:
        self.finished: Finished | None = None
        self._instructions = instructions
        self._run: list[list[Atom]] = []
        self._lengths: dict[int, int] = {}
        self._word = ""
        self._broken = False
        self._longest = 0

    def push(self, atom: Atom) -> list[Atom]:
        """Take one atom; give what is certain to be no recital."""
        if self.finished:
            return []
        if isinstance(atom, str):
            if atom.isalnum():
                return self._letters(atom)
            if atom in _APOSTROPHES:
                return self._keep(atom)
        if self._broken:
            self._word, self._broken = "", False
            return [atom]
        return self._close_word() + self._keep(atom)

    def end(self) -> list[Atom]:
        """The stream is over: give what was held back, unless it is a recital."""
        return self._close_word() + self._release(0)

    def _letters(self, letters: str) -> list[Atom]:
        if self._broken:
            return [letters]
        if not self._word and self._longest >= FREE:
            self._run.append([])
        self._word += letters.casefold()
        given = self._keep(letters)
        if self._instructions.has_beginning(self._word):
            return given
        self._broken = True
        self._lengths, self._longest = {}, 0
        return given or self._release(0)

    def _keep(self, atom: Atom) -> list[Atom]:
        if self.finished:
            return []
        if not self._run:
            return [atom]
        self._run[-1].append(atom)
        return []

    def _close_word(self) -> list[Atom]:
        word, self._word = self._word, ""
        if self._broken or not word:
            self._broken = False
            return []
        places = self._instructions.places.get(word, ())
        self._lengths = {place: self._lengths.get(place - 1, 0) + 1 for place in places}
        self._longest = max(self._lengths.values(), default=0)
        kept = max(0, self._longest - FREE)
        released = self._release(kept)
        if self._longest >= RUN:
            self.finished = "prompt"
            self._run = []
        return released

    def _release(self, kept: int) -> list[Atom]:
        gone = len(self._run) - kept
        out = [atom for word in self._run[:gone] for atom in word]
        self._run = self._run[gone:]
        return out
