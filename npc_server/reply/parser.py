"""A stream of text pieces -> speech, sentences, feelings, gestures.

Every character runs through six stages: template tokens and labels in the raw text, markup and
directions, the same tokens and labels again in what is left, the guard of the instructions, the
monitor of repetitions, the voice. Each is a small machine that knows nothing of pieces, so that the
result cannot depend on how the text was cut into them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import regex

from npc_server.protocol.emotion import EMOTIONS, Emotion
from npc_server.reply.gate import Gate
from npc_server.reply.guard import Guard
from npc_server.reply.markup import Markup
from npc_server.reply.parts import Atom, Finished, Mark, Opening, Part
from npc_server.reply.repetition import RepetitionMonitor, Verdict
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
        prompt_text: The instructions that must not come out.
        languages: BCP 47 tags of the languages that the NPC speaks.
        decided: With what it chose to begin. Its parts come with the first call of ``feed``, be
            it with an empty text; without, the first words tell what it feels.
        earlier: The NPC's last replies, which it should not repeat.

    Attributes:
        text: What was spoken so far: all ``Speech`` joined.
        finished: Why the reply is over although the model goes on; ``None`` while it is not. A
            repetition may also show in ``end`` only.
        repetition: What was repeated, where ``finished`` is ``repetition``.
    """

    def __init__(
        self,
        names: Iterable[str],
        *,
        others: Iterable[str] = (),
        gestures: Sequence[str] = (),
        expressions: Sequence[Emotion] = EMOTIONS,
        emotion: Emotion = "neutral",
        prompt_text: str = "",
        languages: Sequence[str] = ("en", "ko"),
        decided: Opening | None = None,
        earlier: Sequence[str] = (),
    ) -> None:
        own, rest = tuple(names), tuple(others)
        self._raw = Gate(own, rest)
        self._markup = Markup()
        self._clean = Gate(own, rest)
        self._guard = Guard(prompt_text)
        self._repetition = RepetitionMonitor(earlier)
        self._voice = Voice(
            gestures,
            expressions,
            emotion,
            korean=any(tag.startswith("ko") for tag in languages),
            decided=decided,
        )
        self._ended = False

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
    def emotion(self) -> Emotion:
        """What the NPC feels by now."""
        return self._voice.emotion

    def feed(self, text: str) -> list[Part]:
        """Take a piece of text; give the parts that are certain now.

        Once ``finished`` is set, the last parts have been given and every further piece is ignored.
        """
        for char in _visible(text):
            if self._ended:
                break
            self._through(self._raw.push(char))
            if self.finished:
                self._finish()
        return self._voice.parts()

    def end(self) -> list[Part]:
        """The model is done: give what was held back. Called again it gives nothing."""
        if not self._ended:
            self._through(self._raw.end())
            self._finish()
        return self._voice.parts()

    def _finish(self) -> None:
        self._ended = True
        self._cleanly(self._markup.end())
        self._guarded(self._clean.end())
        self._fresh(self._guard.end())
        self._voice.speak(self._repetition.end())
        self._voice.end()

    def _through(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            self._cleanly([atom] if isinstance(atom, Mark) else self._markup.push(atom))

    def _cleanly(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            self._guarded(self._clean.push(atom))

    def _guarded(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            self._fresh(self._guard.push(atom))

    def _fresh(self, atoms: Iterable[Atom]) -> None:
        for atom in atoms:
            self._voice.speak(self._repetition.push(atom))


def _visible(text: str) -> str:
    return _INVISIBLE.sub(lambda match: match[0] if match[0] in "\n\t" else "", text)
