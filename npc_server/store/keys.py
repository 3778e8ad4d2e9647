"""The names of the keys. ``docs/reference/redis.md`` tells their types, bounds and lifetimes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from urllib.parse import quote

ANSWER_SECONDS = 600
"""How long the answer of an accepted command is remembered."""


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """The keys of one conversation; all share a hash tag, so that one script may touch them.

    Attributes:
        tag: World and conversation, with everything but letters, digits and ``_.-~`` escaped.
    """

    tag: str

    @classmethod
    def of(cls, world: str, conversation: str) -> ConversationKeys:
        """The keys of a conversation of a world."""
        return cls(f"{quote(world, safe='')}/{quote(conversation, safe='')}")

    @property
    def state(self) -> str:
        """Hash: the state, its revision, the newest seq, the lease."""
        return f"npc:{{{self.tag}}}:state"

    @property
    def turns(self) -> str:
        """Hash: turns by index."""
        return f"npc:{{{self.tag}}}:turns"

    @property
    def events(self) -> str:
        """Stream: durable events; an entry's id is its seq."""
        return f"npc:{{{self.tag}}}:events"

    @property
    def partial(self) -> str:
        """String: the text so far of the reply in flight."""
        return f"npc:{{{self.tag}}}:partial"

    @property
    def answers(self) -> str:
        """Sorted set: the names of the answer keys, by when they lapse, to delete them by."""
        return f"npc:{{{self.tag}}}:answers"

    @property
    def listening(self) -> str:
        """String: which server has listeners to a reply that another one says."""
        return f"npc:{{{self.tag}}}:listening"

    @property
    def wakes(self) -> str:
        """Channel: that a server committed or kept more of a reply's text."""
        return f"npc:{{{self.tag}}}:wakes"

    def answer(self, player: str, command: str) -> str:
        """String: the answer of an accepted command."""
        return f"npc:{{{self.tag}}}:answer:{quote(player, safe='')}:{quote(command, safe='')}"

    def fixed(self) -> tuple[str, ...]:
        """All but the answers, and what lapses within seconds."""
        return (self.state, self.turns, self.events, self.partial, self.answers)


def player_consent(world: str, player: str) -> str:
    """String: what a player of a world allows; no key where it allows nothing."""
    return f"npc:{{{quote(world, safe='')}/@{quote(player, safe='')}}}:consent"


def states_of(world: str) -> tuple[str, str]:
    """What the names of the state keys of a world's conversations begin and end with.

    Neither holds a character that means something in a pattern.
    """
    return f"npc:{{{quote(world, safe='')}/", "}:state"


def world_index(world: str) -> str:
    """Sorted set: the conversations of a world, by when they were last known to be there."""
    return f"npc:{{{quote(world, safe='')}}}:conversations"


def checkpoint_index(world: str) -> str:
    """Hash: what is known of each save of a world, by name."""
    return f"npc:{{{quote(world, safe='')}/@}}:checkpoints"


def checkpoint_key(world: str, name: str) -> str:
    """String: the file of a save."""
    return f"npc:{{{quote(world, safe='')}/@}}:checkpoint:{quote(name, safe='')}"


def player_index(world: str, player: str) -> str:
    """Set: the conversations of a player in a world."""
    return f"npc:{{{quote(world, safe='')}/@{quote(player, safe='')}}}:conversations"


def saved_session(token: str) -> str:
    """String: a session that lost its connection.

    The token itself is not in the name: whoever reads Redis' files cannot go on with a session.
    """
    return f"npc:{{@{hashlib.sha256(token.encode()).hexdigest()}}}:session"


def session_answer(session: str, command: str) -> str:
    """String: the answer of an accepted command that concerns no single conversation."""
    return f"npc:{{@{quote(session, safe='')}}}:answer:{quote(command, safe='')}"
