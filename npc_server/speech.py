"""What is known of a reply while it is being made, and the events that tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from npc_server.clock import Clock
from npc_server.conversation import model
from npc_server.conversation.model import Reply, ReplyFinish
from npc_server.conversation.rules import Outcome
from npc_server.protocol import events
from npc_server.protocol.emotion import Emotion
from npc_server.reply import Feeling, Gesture, Part, Sentence
from npc_server.reply import Speech as Spoken

Degraded = Literal["filler", "short", "canned"]

LINGERING = 0.4
"""Intensity of a feeling that the NPC has while it says a filler."""

_RUNGS: tuple[Degraded, ...] = ("short", "filler", "canned")
"""The ladder of stand-ins, from the least to the most."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Monotonic seconds at which a reply was asked for, got its seat, and had its first text."""

    asked: float
    seated: float | None = None
    first: float | None = None


class Gate:
    """Whether something may be said now: there may be several reasons against it."""

    def __init__(self) -> None:
        self._against: set[str] = set()
        self._open = asyncio.Event()
        self._open.set()

    def shut(self, reason: str) -> None:
        """Nothing is said for a while."""
        self._against.add(reason)
        self._open.clear()

    def open(self, reason: str) -> None:
        """The reason is gone."""
        self._against.discard(reason)
        if not self._against:
            self._open.set()

    def is_set(self) -> bool:
        """Whether nothing is against it."""
        return self._open.is_set()

    async def wait(self) -> None:
        """Wait until nothing is against it."""
        await self._open.wait()


class Speech:
    """One reply in the making. Everything that is said of it goes through here, in order.

    Args:
        conversation: The conversation's id.
        reply: What was announced.
        clock: Time.
        tell: Takes an event for everyone who hears the reply.
        deadline_ms: By when after now its first sentence is to have begun; ``None`` is whenever.

    Attributes:
        text: All that was said.
        degraded: Which stand-in was used, if one was; of several the one that says most.
        answered: Whether more than a filler was said.
        usage: Tokens, once the engine told.
        untold: Pieces of generations that ended before the engine told of their tokens.
    """

    def __init__(
        self,
        conversation: str,
        reply: Reply,
        clock: Clock,
        tell: Callable[[events.Event], None],
        *,
        deadline_ms: int | None = None,
    ) -> None:
        self.conversation = conversation
        self.reply = reply
        self.text = ""
        self.degraded: Degraded | None = None
        self.answered = False
        self.usage: events.TokenUsage | None = None
        self.untold = 0
        self._sentences: list[str] = []
        self._marks: list[dict[str, Any]] = []
        self._gestures: list[model.Gesture] = []
        self._emotion: Emotion | None = None
        self._intensity = 0.0
        self._clock = clock
        self._tell = tell
        self._timing = Timing(clock.monotonic())
        self._deadline_ms = deadline_ms
        self._before = (0, 0)

    @property
    def asked(self) -> float:
        """When it was asked for, in monotonic seconds."""
        return self._timing.asked

    @property
    def emotion(self) -> Emotion | None:
        """What the NPC feels by now."""
        return self._emotion

    @property
    def deadline(self) -> float | None:
        """By when its first sentence is to have begun, in monotonic seconds."""
        if self._deadline_ms is None:
            return None
        return self._timing.asked + self._deadline_ms / 1000

    @property
    def queued(self) -> float:
        """How long it has waited for its seat, in seconds."""
        return (self._timing.seated or self._clock.monotonic()) - self._timing.asked

    @property
    def first_text_seconds(self) -> float | None:
        """How long the first text took."""
        first = self._timing.first
        return None if first is None else first - self._timing.asked

    @property
    def spent(self) -> int:
        """Tokens for which it is to be charged: what was cached costs nothing."""
        used = self.usage
        return self.untold + (used.prompt - used.cached + used.completion if used else 0)

    @property
    def marks(self) -> tuple[dict[str, Any], ...]:
        """What was told of it besides its text, as it is stored: see ``Partial``."""
        return tuple(self._marks)

    def seated(self) -> None:
        """A seat of the engine was granted; of several the first one counts."""
        if self._timing.seated is None:
            self._timing = Timing(self._timing.asked, self._clock.monotonic(), self._timing.first)

    def degrade(self, to: Degraded) -> None:
        """Note that a stand-in is used."""
        if self.degraded is None or _RUNGS.index(to) > _RUNGS.index(self.degraded):
            self.degraded = to

    def fill(self, line: str, emotion: Emotion) -> None:
        """Say something in character to win time. What is said later stands behind it.

        Args:
            line: What.
            emotion: What the NPC feels, unless it has shown that already.
        """
        self.degrade("filler")
        if self._emotion is None:
            self._feel(Feeling(emotion, 0.0 if emotion == "neutral" else LINGERING, 0))
        self._say(line)
        self._finish_sentence(Sentence(0, line, 0))
        self._before = (len(line) + 1, 1)

    def take(self, parts: Sequence[Part]) -> None:
        """Tell the hearers of what the parser found."""
        chars, sentences = self._before
        for part in parts:
            match part:
                case Spoken():
                    self._say(part.text if self.answered or not chars else f" {part.text}")
                    self.answered = True
                case Sentence():
                    at = part.start_char + chars
                    self._finish_sentence(Sentence(part.index + sentences, part.text, at))
                case Feeling():
                    self._feel(Feeling(part.emotion, part.intensity, part.at_char + chars))
                case Gesture():
                    self._gestures.append(model.Gesture(part.at_char + chars, part.name))
                    self._show(part.at_char + chars, part.name)

    def snapshot(self) -> events.ReplySnapshot:
        """What a client that comes in now has missed."""
        return events.ReplySnapshot(
            conversation=self.conversation,
            turn=self.reply.turn,
            text=self.text,
            sentences=list(self._sentences),
            restarted=self.reply.attempt > 1,
        )

    def outcome(self, finish: ReplyFinish, heard: dict[str, int]) -> Outcome:
        """How it went, if it ends now."""
        asked, seated, first = self._timing.asked, self._timing.seated, self._timing.first
        now = self._clock.monotonic()
        return Outcome(
            text=self.text,
            finish=finish,
            at_ms=self._clock.wall_ms(),
            heard=heard,
            emotion=self._emotion,
            usage=self.usage,
            timings=events.Timings(
                queue_ms=_ms((seated or now) - asked),
                first_token_ms=None if first is None else _ms(first - asked),
                total_ms=_ms(now - asked),
            ),
            degraded=self.degraded,
            gestures=tuple(self._gestures),
        )

    def _say(self, text: str) -> None:
        if not self.text:
            now = self._clock.monotonic()
            self._timing = Timing(self._timing.asked, self._timing.seated, now)
        self.text += text
        turn = self.reply.turn
        self._tell(events.ReplyDelta(conversation=self.conversation, turn=turn, text=text))

    def _finish_sentence(self, sentence: Sentence) -> None:
        self._sentences.append(sentence.text)
        self._mark(
            events.ReplySentence(
                conversation=self.conversation,
                turn=self.reply.turn,
                index=sentence.index,
                text=sentence.text,
                start_char=sentence.start_char,
            )
        )

    def _mark(self, event: events.ReplySentence | events.ReplyEmotion) -> None:
        self._marks.append({"at": len(self.text), **event.model_dump(exclude_none=True)})
        self._tell(event)

    def _feel(self, feeling: Feeling) -> None:
        self._emotion, self._intensity = feeling.emotion, feeling.intensity
        self._show(feeling.at_char, None)

    def _show(self, at_char: int, gesture: str | None) -> None:
        self._mark(
            events.ReplyEmotion(
                conversation=self.conversation,
                turn=self.reply.turn,
                emotion=self._emotion or "neutral",
                intensity=self._intensity,
                at_char=at_char,
                gesture=gesture,
            )
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
