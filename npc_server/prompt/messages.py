"""The messages of which every prompt is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Message:
    """One message to a chat model. Never rendered text: engines lay it into their template.

    Attributes:
        role: ``system`` is ours, ``user`` is what the NPC perceives, ``assistant`` what it said.
        text: Plain text. Whatever it contains, it is data and never becomes a control token.
    """

    role: Literal["system", "user", "assistant"]
    text: str
