"""What is spoken, as typed parts: the last stage of the parser."""

from __future__ import annotations

from collections.abc import Sequence

from npc_server.protocol.emotion import Emotion
from npc_server.reply.emotions import rate, shown
from npc_server.reply.gestures import find_gesture
from npc_server.reply.parts import (
    Atom,
    Feeling,
    Gesture,
    Mark,
    Opening,
    Part,
    Sentence,
    Speech,
)
from npc_server.reply.sentences import Splitter

LINGERING = 0.4
"""Intensity of a feeling that the NPC brings along from before the reply."""

CALM_AFTER = 2
"""So many sentences in a row that show nothing bring the NPC back to neutral."""

_CLINGING = frozenset(".,!?;:…~")


class Voice:
    """Turns what may be spoken into parts.

    White space is held back until something follows it, so that a reply neither begins nor ends
    with it. The first feeling comes before anything else; a later one stands at the beginning of
    the sentence that shows it, and comes right before that sentence.

    Args:
        gestures: The gestures that the NPC can make; empty for any.
        expressions: The emotions that it can show.
        emotion: What it feels as it begins.
        korean: Whether Korean sentences may end without a mark.
        decided: The feeling with its intensity, and the gesture, that it chose to begin with.

    Attributes:
        begun: Whether the first feeling is known.
    """

    def __init__(
        self,
        gestures: Sequence[str],
        expressions: Sequence[Emotion],
        emotion: Emotion,
        *,
        korean: bool,
        decided: Opening | None = None,
    ) -> None:
        self._gestures = gestures
        self._expressions = expressions
        self.begun = False
        self._feeling: tuple[Emotion, float] | None = None
        self._before: Emotion = emotion
        self._splitter = Splitter(korean=korean)
        self._said: list[str] = []
        self._length = 0
        self._pending = ""
        self._after_mark = False
        self._directions: list[str] = []
        self._calm = 0
        self._chunk: list[str] = []
        self._parts: list[Part] = []
        if decided is not None:
            self._feel(shown(decided.emotion, decided.intensity, expressions), 0)
            if decided.gesture is not None:
                self._add(Gesture(decided.gesture, 0))

    @property
    def text(self) -> str:
        """All that was spoken."""
        return "".join((*self._said, *self._chunk))

    @property
    def emotion(self) -> Emotion:
        """What the NPC feels by now."""
        return self._feeling[0] if self._feeling else self._before

    def parts(self) -> list[Part]:
        """The parts since the last call, neighbouring speech joined."""
        self._close_chunk()
        parts, self._parts = self._parts, []
        return parts

    def speak(self, atoms: Sequence[Atom]) -> None:
        """Take what is certain to be part of the reply; until it has begun, letters one by one."""
        for at, atom in enumerate(atoms):
            if isinstance(atom, Mark):
                self._mark(atom)
            elif atom.isspace():
                self._space(atom)
            else:
                if self._feeling is None:
                    self._begin("".join(a for a in atoms[at:] if isinstance(a, str)))
                self._visible(atom)

    def end(self) -> None:
        """The reply is over."""
        self._tell(self._splitter.end())

    def _begin(self, words: str) -> None:
        found = rate(words, self._directions) or (self._before, LINGERING)
        self._feel(shown(*found, self._expressions), 0)

    def _mark(self, mark: Mark) -> None:
        self._after_mark = True
        self._directions.append(mark.words)
        name = find_gesture(mark.words, self._gestures)
        if name is None:
            return
        if self._feeling is None:
            self._begin("")
        self._add(Gesture(name, self._length))

    def _space(self, char: str) -> None:
        if not self._length:
            return
        if self._pending != "\n":
            self._pending = char
        if sentences := self._splitter.pause(char):
            self._tell(sentences)

    def _visible(self, atom: str) -> None:
        if self._pending:
            if not (self._after_mark and atom in _CLINGING and self._pending == " "):
                self._splitter.space(self._pending)
                self._say(self._pending)
            self._pending = ""
        self._after_mark = False
        for piece in (atom,) if len(atom) <= self._splitter.room else atom:
            if sentences := self._splitter.push(piece, self._length):
                self._tell(sentences)
            self._say(piece)

    def _say(self, atom: str) -> None:
        self._chunk.append(atom)
        self._length += len(atom)

    def _tell(self, sentences: Sequence[Sentence]) -> None:
        for sentence in sentences:
            self._feel_sentence(sentence)
            self._add(sentence)

    def _feel_sentence(self, sentence: Sentence) -> None:
        found = rate(sentence.text, self._directions)
        self._directions = []
        self._calm = 0 if found else self._calm + 1
        if found is None and self._calm < CALM_AFTER:
            return
        feeling = shown(*(found or ("neutral", 0.0)), self._expressions)
        if self._feeling is None or feeling[0] != self._feeling[0]:
            self._feel(feeling, sentence.start_char)

    def _feel(self, feeling: tuple[Emotion, float], at: int) -> None:
        self.begun = True
        self._feeling = feeling
        self._add(Feeling(*feeling, at))

    def _add(self, part: Part) -> None:
        self._close_chunk()
        self._parts.append(part)

    def _close_chunk(self) -> None:
        if self._chunk:
            text = "".join(self._chunk)
            self._parts.append(Speech(text))
            self._said.append(text)
            self._chunk = []
