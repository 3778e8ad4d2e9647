"""What a prompt is made from, and what comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from npc_server.conversation.model import Member, Turn
from npc_server.persona.conditions import Scalar
from npc_server.persona.model import Persona
from npc_server.prompt.messages import Message


@dataclass(frozen=True, slots=True)
class PromptInput:
    """Everything that a prompt may be made from.

    Attributes:
        persona: Who the NPC is.
        speaker: The NPC as a member of the conversation.
        cast: All members, the speaker among them.
        turns: What the speaker heard, oldest first; see ``conversation.audience.heard_by``.
        locale: BCP 47 tag of the language that was asked for, if any.
        facts: The state of the game just now, by name. Those whose name begins with ``_`` are for
            conditions only: the NPC is not told them.
        names: Names of other personas by their id, so that the NPC recalls what it thinks of one
            who is absent when the name is mentioned.
        here: Member ids of those whom the NPC perceives now; ``None`` is the whole cast.
        settled: Whether that has not changed and will hardly do: then it stands in the fixed zone,
            else in the tail, where changes cost little.
        place: Where it is, in words; then the persona's own scenario does not hold.
        role: What it does there.
        objects: What it can see there, by name.
        mood: How it feels, in the game's words.
    """

    persona: Persona
    speaker: Member
    cast: tuple[Member, ...]
    turns: tuple[Turn, ...] = ()
    locale: str | None = None
    facts: Mapping[str, Scalar | None] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    here: frozenset[str] | None = None
    settled: bool = True
    place: str | None = None
    role: str | None = None
    objects: Mapping[str, str] = field(default_factory=dict)
    mood: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the instructions, as it stands in the prompt.

    Attributes:
        source: Where it comes from, such as ``persona.speech``.
        text: Its words.
        rank: Where the prompt is too long, sections go in the order of falling rank; 0 stays.
        guarded: Whether it is an instruction that must not be recited.
    """

    source: str
    text: str
    rank: int = 0
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """One turn as the NPC perceives it.

    Attributes:
        source: Where it comes from, such as ``history.12``.
        text: With the speaker's name in front where that is needed.
        own: Whether the NPC said it itself.
        index: The turn's position in the conversation; for an example its number.
    """

    source: str
    text: str
    own: bool
    index: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A text that went into the prompt, where it comes from and how many tokens it takes."""

    source: str
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What did not go into the prompt for want of room.

    Attributes:
        examples: Exchanges of example dialogue.
        turns: Turns of the history, the oldest.
        sections: Sources of sections.
        cut_chars: Code points cut from the end of the newest turn.
    """

    examples: int = 0
    turns: int = 0
    sections: tuple[str, ...] = ()
    cut_chars: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The same, as JSON knows it."""
        return {
            "examples": self.examples,
            "turns": self.turns,
            "sections": list(self.sections),
            "cut_chars": self.cut_chars,
        }


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is given.

    Attributes:
        messages: The system message first, a user message last.
        dropped: What had to stay out.
        sections: What went in, in order.
        guard: The instructions that must not come out again.
        tokens: How many tokens the messages take, by the counts that were given.
    """

    messages: tuple[Message, ...]
    dropped: Dropped
    sections: tuple[Placed, ...]
    guard: str
    tokens: int
