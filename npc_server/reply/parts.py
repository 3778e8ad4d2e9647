"""What a reply is made of, and the atoms that run between the stages of the parser."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from npc_server.protocol.emotion import Emotion

Finished = Literal["speaker", "template", "prompt", "repetition"]
"""Why a reply is over before the model ended it: it began to speak for somebody else, it wrote a
token of a chat template, it began to recite its instructions, or it repeated what was said."""


@dataclass(frozen=True, slots=True)
class Speech:
    """Words that are spoken. All of them joined are the reply's text."""

    text: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that is complete.

    Attributes:
        index: From 0, without gaps.
        text: The sentence, without white space around it.
        start_char: Where it begins in the reply's text, in code points.
    """

    index: int
    text: str
    start_char: int


@dataclass(frozen=True, slots=True)
class Feeling:
    """The expression that the NPC wears from here on.

    Attributes:
        emotion: One of the persona's expressions.
        intensity: From 0 to 1.
        at_char: From where in the reply's text, in code points.
    """

    emotion: Emotion
    intensity: float
    at_char: int


@dataclass(frozen=True, slots=True)
class Gesture:
    """Something that the NPC does while it speaks.

    Attributes:
        name: The persona's name for it, or one of ``gestures.VERBS``.
        at_char: Where in the reply's text, in code points.
    """

    name: str
    at_char: int


@dataclass(frozen=True, slots=True)
class Opening:
    """With what an NPC chose to begin a reply.

    Attributes:
        emotion: What it feels.
        intensity: From 0 to 1.
        gesture: One of the persona's, if any.
    """

    emotion: Emotion
    intensity: float
    gesture: str | None = None


Part = Speech | Sentence | Feeling | Gesture


@dataclass(frozen=True, slots=True)
class Mark:
    """The place where a stage direction was taken out.

    Attributes:
        words: What the direction said.
    """

    words: str


Atom = str | Mark
"""Some letters and digits that stand together, or one character of any other kind, or the place of
a stage direction. No stage depends on whether letters come together or one by one."""

_ATOMS = re.compile(r"[^\W_]+|.", flags=re.DOTALL)


def atoms_of(text: str) -> list[str]:
    """A text as atoms, letters and digits together as far as they go."""
    return _ATOMS.findall(text)
