"""A stream of text pieces -> speech, sentences, feelings, gestures.

Every atom runs through six stages: template tokens and labels in the raw text, markup and
directions, the same tokens and labels again in what is left, the guard of the instructions, the
monitor of repetitions, the voice. Each is a small machine that knows nothing of pieces, so that the
result cannot depend on how the text was cut into them. Where nothing is doubtful, letters that came
together run through together: most of a reply is plain words, and this costs every token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import regex

from npc_server.protocol.emotion import EMOTIONS, Emotion
from npc_server.reply.gate import Gate, labels_of
from npc_server.reply.guard import Guard, Instructions
from npc_server.reply.markup import Markup
from npc_server.reply.parts import Atom, Finished, Mark, Opening, Part, Speech, atoms_of
from npc_server.reply.repetition import Learnt, PatientMonitor, RepetitionMonitor, Verdict
from npc_server.reply.voice import Voice

_INVISIBLE = regex.compile(r"[\p{Cc}\p{Cs}\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


class ReplyParser:
    """Parses one reply while it streams.

    Args:
        names: What the NPC that speaks is called, its nicknames among them.
        others: What the other members of the cast are called.
        gestures: The gestures that the NPC can make; empty for any.
        expressions: The emotions that the NPC can show.
        emotion: What it feels as it begins.
        instructions: What must not come out; ``None`` for nothing.
        languages: BCP 47 tags of the languages that the NPC speaks.
        decided: With what it chose to begin. Its parts come with the first call of ``feed``, be
            it with an empty text; without, the first words tell what it feels.
        earlier: What ``learn`` says of the NPC's last replies, which it should not repeat.
        said: With what the reply begins. It was given before, and its parts are not given again.
        patient: Whether nobody waits for it, so that it may come sentence by sentence.

    Attributes:
        text: What was spoken so far: all ``Speech`` joined.
        finished: Why the reply is over although the model goes on; ``None`` while it is not. A
            repetition may also show in ``end`` only.
        repetition: What was repeated, where ``finished`` is ``repetition``.
        resumable: Whether no more was given than words with which many replies begin, so that the
            model can go on from ``text`` otherwise. Then a repetition leaves the sentence open.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        others: Iterable[str] = (),
        gestures: Sequence[str] = (),
        expressions: Sequence[Emotion] = EMOTIONS,
        emotion: Emotion = "neutral",
        instructions: Instructions | None = None,
        languages: Sequence[str] = ("en", "ko"),
        decided: Opening | None = None,
        earlier: Sequence[Learnt] = (),
        said: str = "",
        patient: bool = False,
    ) -> None:
        labels = labels_of(tuple(names), others)
        self._raw = Gate(labels)
        self._markup = Markup()
        self._clean = Gate(labels)
        self._guard = Guard(instructions or Instructions())
        self._repetition = PatientMonitor(earlier) if patient else RepetitionMonitor(earlier)
        self._voice = Voice(
            gestures,
            expressions,
            emotion,
            korean=any(tag.startswith("ko") for tag in languages),
            decided=decided,
        )
        self._ended = False
        self._unsaid = len(said)
        if said:
            self.feed(said)

    @property
    def text(self) -> str:
        """What was spoken so far: all ``Speech`` joined."""
        return self._voice.text

    @property
    def finished(self) -> Finished | None:
        """Why the reply is over although the model goes on; ``None`` while it is not."""
        if self.repetition:
            return "repetition"
        return self._raw.finished or self._clean.finished or self._guard.finished

    @property
    def repetition(self) -> Verdict | None:
        """What was repeated, where ``finished`` is ``repetition``."""
        return self._repetition.verdict

    @property
    def resumable(self) -> bool:
        """Whether the model can go on from ``text`` in another way."""
        return not self._repetition.begun

    @property
    def emotion(self) -> Emotion:
        """What the NPC feels by now."""
        return self._voice.emotion

    def feed(self, text: str) -> list[Part]:
        """Take a piece of text; give the parts that are certain now.

        Once ``finished`` is set, the last parts have been given and every further piece is ignored.
        """
        for atom in atoms_of(_visible(text)):
            if self._ended:
                break
            self._through(self._raw.push(atom))
            if self._is_over():
                self._finish()
        return self._not_said(self._voice.parts())

    def end(self) -> list[Part]:
        """The model is done: give what was held back. Called again it gives nothing."""
        if not self._ended:
            self._through(self._raw.end())
            self._finish()
        return self._not_said(self._voice.parts())

    def _not_said(self, parts: list[Part]) -> list[Part]:
        """The parts that come after what was said before."""
        if not self._unsaid:
            return parts
        rest: list[Part] = []
        for part in parts:
            if not self._unsaid:
                rest.append(part)
            elif isinstance(part, Speech):
                if new := part.text[self._unsaid :]:
                    rest.append(Speech(new))
                self._unsaid = max(0, self._unsaid - len(part.text))
        return rest

    def _finish(self) -> None:
        self._ended = True
        for atom in self._markup.end():
            self._cleanly(self._clean.push(atom))
        self._cleanly(self._clean.end())
        for atom in self._guard.end():
            self._voice.speak(self._repetition.push(atom))
        self._voice.speak(self._repetition.end())
        if not (self.repetition and self.resumable):
            self._voice.end()

    def _is_over(self) -> bool:
        """Whether ``finished`` is set; it is asked for at every atom."""
        if self._raw.finished or self._clean.finished or self._guard.finished:
            return True
        return self._repetition.verdict is not None

    def _through(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            for plain in self._markup.push(atom):
                self._cleanly(self._clean.push(plain))

    def _cleanly(self, atoms: Iterable[Atom]) -> None:
        """Take what the gates and the markup left; the first feeling goes by single letters."""
        for atom in atoms if self._voice.begun else _one_by_one(atoms):
            for guarded in self._guard.push(atom):
                self._voice.speak(self._repetition.push(guarded))


def _one_by_one(atoms: Iterable[Atom]) -> Iterator[Atom]:
    for atom in atoms:
        yield from (atom,) if isinstance(atom, Mark) else atom


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return _INVISIBLE.sub(lambda match: match[0] if match[0] in "\n\t" else "", text)
