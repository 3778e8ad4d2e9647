"""Where a reply is over: at a token of a chat template, or at somebody else's line.

A label is a name and a colon, at the beginning of the reply or of a line, or after the end of a
sentence or of a stage direction; marks such as ``**`` may stand around it. The NPC's own label is
taken out, anybody else's ends the reply.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import regex

from npc_server.reply.parts import Atom, Finished, Mark

TOKENS = regex.compile(
    r"""<[|｜]
    |</?s>|\[/?INST\]|<</?SYS>>
    |</?(?:bos|eos|pad|unk|eot|sep|cls|mask|start_of_turn|end_of_turn)>
    |\#{2,6}[ \t]{0,2}(?:instruction|response|input|output|system|user|assistant|human
        |지시|명령|질문|답변|응답|입력)""",
    flags=regex.IGNORECASE | regex.VERBOSE,
)
"""What chat templates are made of, and what the plain ones write between turns."""

STRANGERS = (
    *("User", "Human", "Player", "You", "System", "Narrator"),
    *("사용자", "플레이어", "시스템", "내레이터", "나레이터", "해설", "인간"),
)
"""Labels that are never the NPC's, in any cast."""

MACHINES = ("Assistant", "AI", "NPC", "Response", "어시스턴트", "답변")
"""Labels that models give themselves: taken out where the reply begins, else they end it."""

_LEAD = r"""[*_\#>"“”'‘「(\[~\-–—•+ \t]"""
_MARKS = frozenset("*_#>\"“”'‘「([~-–—•+")
_FINALS = frozenset(".!?…~。！？\"”’'*_)]」』）】>")
_TOKENS_BEGIN = frozenset("<[#")
_EMPHASIS = frozenset("*_")
_QUOTES = frozenset('"“「')


def _names(names: Iterable[str]) -> str:
    written = {r"[ \t]{1,3}".join(map(regex.escape, name.split())) for name in names}
    return "|".join(sorted(written, key=lambda name: (-len(name), name))) or r"(?!)"


def labels_of(own: Sequence[str], others: Iterable[str]) -> regex.Pattern[str]:
    """The pattern of all labels.

    Args:
        own: The names of the NPC that speaks.
        others: The names of everybody else.
    """
    mine = {name.casefold() for name in own}
    rest = [name for name in (*others, *STRANGERS) if name.casefold() not in mine]
    machines = [name for name in MACHINES if name.casefold() not in mine]
    return regex.compile(
        rf"(?P<lead>{_LEAD}{{0,8}})"
        rf"(?:(?P<own>{_names(own)})|(?P<machine>{_names(machines)})|(?P<other>{_names(rest)}))"
        r"""[*_\])"”']{0,4}(?:[ \t]{0,2}[(（][^()（）\n]{0,40}[)）])?[*_]{0,3}[ \t]{0,2}[:：﹕]""",
        flags=regex.IGNORECASE,
    )


class Gate:
    """Lets characters through until the reply is over; holds back what may become its end.

    Args:
        labels: What a label looks like, as ``labels_of`` says it.

    Attributes:
        finished: Why the reply is over; ``None`` while it goes on.
    """

    def __init__(self, labels: regex.Pattern[str]) -> None:
        self.finished: Finished | None = None
        self._label = labels
        self._held = ""
        self._marks: list[tuple[int, Mark]] = []
        self._skip = ""
        self._border = True  # whether a label may begin here
        self._final = False  # whether one may begin after white space
        self._begun = False

    def push(self, atom: Atom) -> list[Atom]:
        """Take one atom; give what is certain now."""
        if self.finished:
            return []
        if self._held or self._border or self._skip or isinstance(atom, Mark):
            return self._settled(atom)
        if atom.isalnum():
            self._begun, self._final = True, False
        elif atom in _TOKENS_BEGIN:
            return self._settled(atom)
        elif self._final or atom != " ":
            self._pass(atom)
        return [atom]

    def end(self) -> list[Atom]:
        """The stream is over: give what was held back, unless it is half a template token."""
        out: list[Atom] = []
        while self._held and not self.finished:
            if len(self._held) > 1 and self._match(TOKENS):
                self._held = ""
                break
            self._release(out)
        self._give_marks(out)
        return out

    def _settled(self, atom: Atom) -> list[Atom]:
        """Hold an atom back, and give what is certain now."""
        if isinstance(atom, Mark):
            self._marks.append((len(self._held), atom))
            self._border = self._border or not self._held
        elif self._skip and atom == self._skip[0]:
            self._skip = self._skip[1:]
        else:
            self._skip = ""
            self._held += atom
        out: list[Atom] = []
        while self._settle(out):
            pass
        if not self._held or self.finished:
            self._give_marks(out)
        return out

    def _settle(self, out: list[Atom]) -> bool:
        """Decide about the first held character; ``False`` if that is not possible yet."""
        if not self._held:
            return False
        if self._border and self._held == " ":
            return False
        token = self._match(TOKENS) if self._held[0] in _TOKENS_BEGIN else None
        label = self._match(self._label) if self._border else None
        if token and not token.partial:
            self._finish("template")
        elif label and not label.partial:
            self._take_label(label)
        elif token or label:
            return False
        else:
            self._release(out)
        return True

    def _match(self, pattern: regex.Pattern[str]) -> regex.Match[str] | None:
        return pattern.match(self._held, partial=True)

    def _take_label(self, label: regex.Match[str]) -> None:
        if label["other"] or (label["machine"] and self._begun):
            self._finish("speaker")
            return
        lead = label["lead"]
        self._skip = "".join(c for c in lead if c in _EMPHASIS)[::-1]
        quotes = "".join(c for c in lead if c in _QUOTES)
        rest = self._held[label.end() :]
        gone = len(self._held) - len(rest) - len(quotes)
        self._held = quotes + rest
        self._marks = [(max(0, at - gone), mark) for at, mark in self._marks]

    def _finish(self, why: Finished) -> None:
        self.finished = why
        self._held = ""
        self._marks = []

    def _release(self, out: list[Atom]) -> None:
        while self._marks and self._marks[0][0] == 0:
            out.append(self._marks.pop(0)[1])
        together = not self._marks and self._held.isalnum()
        size = len(self._held) if together else 1
        atom, self._held = self._held[:size], self._held[size:]
        self._marks = [(at - 1, mark) for at, mark in self._marks]
        out.append(atom)
        self._pass(atom)

    def _pass(self, char: str) -> None:
        """Note that a character is let through, or several letters."""
        self._begun = self._begun or not (char.isspace() or char in _MARKS)
        if char == "\n":
            self._border = True
        elif char.isspace():
            self._border = self._border or self._final
        elif char not in _MARKS:
            self._border = False
        self._final = char in _FINALS or (self._final and char.isspace())

    def _give_marks(self, out: list[Atom]) -> None:
        out.extend(mark for _, mark in self._marks)
        self._marks = []
