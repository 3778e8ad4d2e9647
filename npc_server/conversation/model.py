"""The state of one conversation: who is in it, what was said, and which reply is being spoken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from npc_server.protocol.emotion import Emotion

ReplyFinish = Literal["stop", "length", "interrupted", "deadline", "cancelled", "error"]
Degraded = Literal["filler", "short", "canned"]


@dataclass(frozen=True, slots=True)
class Member:
    """Someone in a conversation.

    Attributes:
        id: Unique in its conversation; clients name members by it.
        kind: A human or an NPC.
        name: What the others call it.
        ref: For an NPC its persona's id; for a player the namespaced player id.
    """

    id: str
    kind: Literal["player", "npc"]
    name: str
    ref: str


@dataclass(frozen=True, slots=True)
class Gesture:
    """Something that an NPC did while it spoke.

    Attributes:
        at_char: Where in the turn's text, in code points.
        name: As the persona or the server calls it, such as ``nod``.
    """

    at_char: int
    name: str


@dataclass(frozen=True, slots=True)
class Act:
    """Something that an NPC does in the game.

    Attributes:
        call: By which the game tells what became of it; unique.
        name: One of the persona's actions.
        args: Its arguments.
        confirm: Whether the NPC waits for the game before it speaks.
        until_ms: By when the game may tell, in Unix milliseconds.
        ok: Whether the game did it; ``None`` while it has not said, or never said otherwise.
        reason: Why it did not.
    """

    call: str
    name: str
    args: dict[str, Any]
    confirm: bool
    until_ms: int
    ok: bool | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """Something that was said, or that happened, once it is settled.

    Attributes:
        id: UUIDv7.
        index: Position in the conversation, from 0, without gaps.
        kind: ``say`` by a player, ``reply`` by an NPC, ``event`` by nobody.
        speaker: Member id; empty for an event.
        to: Member ids of the addressees.
        hearers: Member ids of all who perceived it, the speaker among them.
        text: What was said. Of a reply that was cut, only what somebody heard.
        at_ms: When it was committed, in Unix milliseconds.
        finish: How a reply ended; ``None`` for the rest.
        heard: For hearers who heard less than all of ``text``: how many code points.
        answers: For a reply, the turn that it answers; ``None`` for a greeting.
        degraded: Which stand-in was spoken instead of a reply, if one was.
        gestures: What the NPC did meanwhile. They are not in ``text``.
        replaced_by: The reply that was said in its place; it is heard no more.
        actions: For a reply, what the NPC did with it; every hearer perceived that.
    """

    id: str
    index: int
    kind: Literal["say", "reply", "event"]
    speaker: str
    to: tuple[str, ...]
    hearers: tuple[str, ...]
    text: str
    at_ms: int
    finish: ReplyFinish | None = None
    heard: dict[str, int] = field(default_factory=dict)
    answers: str | None = None
    degraded: Degraded | None = None
    gestures: tuple[Gesture, ...] = ()
    replaced_by: str | None = None
    actions: tuple[Act, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply that was announced and is not done yet.

    Attributes:
        turn: The id that its turn will have.
        attempt: Raised by whoever takes the reply over.
        speaker: Member id of the NPC.
        to: Member ids of the addressees.
        hearers: Member ids of all who hear it, the speaker among them.
        answers: The turn that it answers; ``None`` for a greeting.
        replaces: The reply that it is said in place of, if any.
        ambient: Whether nobody waits for it: it answers no player.
        instructions: What the game wants it to be about.
        actions: What the NPC did by now.
    """

    turn: str
    attempt: int
    speaker: str
    to: tuple[str, ...]
    hearers: tuple[str, ...]
    answers: str | None = None
    replaces: str | None = None
    ambient: bool = False
    instructions: str | None = None
    actions: tuple[Act, ...] = ()


@dataclass(frozen=True, slots=True)
class NpcState:
    """How an NPC is doing in this conversation.

    Attributes:
        emotion: The expression that it wears.
        affinity: What it thinks of the player, from -1 to 1.
    """

    emotion: Emotion = "neutral"
    affinity: float = 0.0


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of a world.

    Attributes:
        id: Chosen by the client or by the server; unique in its world.
        world: The playthrough that it belongs to.
        revision: Rises by one with every commit; 0 is not stored yet.
        seq: The number of the newest durable event.
        members: The cast, in order of arrival.
        turns: The newest turns, oldest first; older ones may be in the store only.
        reply: The reply in flight, if any.
        npcs: State of each NPC by member id.
        locale: BCP 47 tag in which the NPCs should speak, if the client asked for one.
        created_ms: When it was opened first, in Unix milliseconds.
        closed: Whether it was closed; it can be opened again.
    """

    id: str
    world: str
    members: tuple[Member, ...]
    created_ms: int
    revision: int = 0
    seq: int = 0
    turns: tuple[Turn, ...] = ()
    reply: Reply | None = None
    npcs: dict[str, NpcState] = field(default_factory=dict)
    locale: str | None = None
    closed: bool = False

    def member(self, member_id: str) -> Member | None:
        """The member of that id, or ``None``."""
        return next((m for m in self.members if m.id == member_id), None)

    def player(self, ref: str) -> Member | None:
        """The member that is the player of that namespaced id, or ``None``."""
        return next((m for m in self.members if m.kind == "player" and m.ref == ref), None)

    def npc_members(self) -> tuple[Member, ...]:
        """The NPCs of the cast."""
        return tuple(m for m in self.members if m.kind == "npc")
