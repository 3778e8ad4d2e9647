"""The state of one conversation: who is in it, what was said, and which reply is being spoken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from npc_server.persona.conditions import Scalar
from npc_server.protocol.emotion import Emotion

ReplyFinish = Literal["stop", "length", "interrupted", "deadline", "cancelled", "error"]
Degraded = Literal["filler", "short", "canned"]
Presence = Literal["here", "away", "gone"]


@dataclass(frozen=True, slots=True)
class Member:
    """Someone in a conversation.

    Attributes:
        id: Unique in its conversation; clients name members by it.
        kind: A human or an NPC.
        name: What the others call it.
        ref: For an NPC its persona's id; for a player the namespaced player id.
        presence: Whether it is ``here`` and hears; ``away`` is a player who closed the conversation
            and may open it again; ``gone`` has left the cast.
        since: The index of the first turn that it could hear; of one that came back, since then.
    """

    id: str
    kind: Literal["player", "npc"]
    name: str
    ref: str
    presence: Presence = "here"
    since: int = 0


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
        unseen: Hearers of the reply who had left when it happened.
    """

    call: str
    name: str
    args: dict[str, Any]
    confirm: bool
    until_ms: int
    ok: bool | None = None
    reason: str | None = None
    unseen: tuple[str, ...] = ()


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
        private: Whether it was meant for its hearers only: what answers it is so too.
        emotion: For a reply, what the NPC felt at its end, if it showed that.
        redacted: Whether its text was taken out.
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
    private: bool = False
    emotion: Emotion | None = None
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """An NPC is to speak, as soon as the floor is free.

    Attributes:
        speaker: Member id of the NPC; ``None`` where it is still to be found out who, if anybody.
        answers: The turn that it answers; ``None`` where it begins of itself.
        root: The accepted turn of a player or of the game from which this came; ``None`` where the
            NPCs are among themselves. When nothing of a root is left, ``scene.idle`` tells so.
        player: The namespaced id of the player on whose account this is.
        chain: How many NPCs have spoken since a player or the game did.
        ambient: Whether nobody waits for it.
        instructions: What the game wants it to be about.
        must: Whether silence is no choice.
        line: What it says, where that is authored.
    """

    speaker: str | None
    answers: str | None
    root: str | None
    player: str
    chain: int = 0
    ambient: bool = False
    instructions: str | None = None
    must: bool = False
    line: str | None = None


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
        root, player, chain, line: As in the ``Ask`` that it came from.
        private: Whether it is meant for its hearers only.
        cut_by: Players who cut it at another server than the one that says it, each with how much
            it heard, in code points; -1 is all that was sent.
        number: By it chance is drawn: the same in a game that was loaded and played the same way.
        left: Members who went away while it was spoken, each with how much of it reached them, in
            code points. They are no hearers any more.
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
    root: str | None = None
    player: str = ""
    chain: int = 0
    line: str | None = None
    private: bool = False
    cut_by: dict[str, int] = field(default_factory=dict)
    number: int = 0
    left: dict[str, int] = field(default_factory=dict)

    @property
    def spoken(self) -> tuple[str, int]:
        """Which reply this is, and in which attempt."""
        return self.turn, self.attempt


@dataclass(frozen=True, slots=True)
class NpcState:
    """How an NPC is doing in this conversation.

    Attributes:
        emotion: The expression that it wears.
        affinity: What it thinks of the player, from -1 to 1.
        mood: A few words of the game on how it feels, if it gave any.
        actions: The names of the actions that it may take now; ``None`` is all of its persona's.
    """

    emotion: Emotion = "neutral"
    affinity: float = 0.0
    mood: str | None = None
    actions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Ambient:
    """What NPCs do of themselves.

    Attributes:
        on: Whether they speak unasked.
        after_s: After so many seconds of silence one of them begins.
        per_minute: At most so many replies a minute that no player asked for.
        chain: So many NPCs may speak one after another before a player does.
    """

    on: bool = False
    after_s: float = 20.0
    per_minute: int = 4
    chain: int = 2


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the conversation takes place, and who can hear whom there.

    Attributes:
        scene: The id of the scene file, if there is one.
        place: Where it is, in words.
        groups: Members by the name of their group: who shares one hears one another. Those who are
            in none are together.
        distances: By two member ids, smaller first, joined by ``|``: metres between them.
        earshot_m: Who is farther away than that does not hear.
        objects: What is to be seen, by name.
        roles: By member id, what it does here.
        talkativeness: By member id, from 0 to 1; .5 where nothing is said.
        ambient: What NPCs do of themselves.
    """

    scene: str | None = None
    place: str | None = None
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    distances: dict[str, float] = field(default_factory=dict)
    earshot_m: float = 10.0
    objects: dict[str, str] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    talkativeness: dict[str, float] = field(default_factory=dict)
    ambient: Ambient = Ambient()


@dataclass(frozen=True, slots=True)
class Branch:
    """How the conversation went before somebody rewound it.

    Attributes:
        id: By which it can be returned to.
        inherited: First and last index of each run of turns that it shares with older ones.
        first: The index of its own first turn.
        last: The index of its newest turn.
        npcs: How the NPCs were.
        facts: What held.
        left_ms: When it was left, in Unix milliseconds.
    """

    id: str
    inherited: tuple[tuple[int, int], ...]
    first: int
    last: int
    npcs: dict[str, NpcState]
    facts: dict[str, Scalar]
    left_ms: int

    def path(self) -> tuple[tuple[int, int], ...]:
        """First and last index of each run of its turns, oldest first."""
        return _path(self.inherited, self.first, self.last)


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation of a world.

    Attributes:
        id: Chosen by the client or by the server; unique in its world.
        world: The playthrough that it belongs to.
        revision: Rises by one with every commit; 0 is not stored yet.
        seq: The number of the newest durable event.
        members: Everybody who is or was in the cast, in order of arrival.
        turns: The newest turns of this branch, oldest first; older ones may be in the store only.
        next: The index of the next turn. None is ever used twice.
        reply: The reply in flight, if any.
        asks: Who is to speak next, in this order.
        npcs: State of each NPC by member id.
        locale: BCP 47 tag in which the NPCs should speak, if the client asked for one.
        created_ms: When it was opened first, in Unix milliseconds.
        closed: Whether every player closed it; it can be opened again.
        invite: Who has this may come in.
        around: Where it takes place.
        facts: The state of the game, by name.
        hold: Whether the NPCs are held silent.
        instructions: What the game wants everything to be about.
        branch: The id of this branch.
        inherited: First and last index of each run of turns that it shares with other branches.
        first: The index of its own first turn.
        branches: How it went otherwise.
        seed: From it all chance of this conversation is drawn.
        unasked: When the newest replies began that no player asked for, in Unix milliseconds.
    """

    id: str
    world: str
    members: tuple[Member, ...]
    created_ms: int
    revision: int = 0
    seq: int = 0
    turns: tuple[Turn, ...] = ()
    next: int = 0
    reply: Reply | None = None
    asks: tuple[Ask, ...] = ()
    npcs: dict[str, NpcState] = field(default_factory=dict)
    locale: str | None = None
    closed: bool = False
    invite: str = ""
    around: Surroundings = Surroundings()
    facts: dict[str, Scalar] = field(default_factory=dict)
    hold: bool = False
    instructions: str | None = None
    branch: str = "main"
    inherited: tuple[tuple[int, int], ...] = ()
    first: int = 0
    branches: tuple[Branch, ...] = ()
    seed: int = 0
    unasked: tuple[int, ...] = ()

    def member(self, member_id: str) -> Member | None:
        """The member of that id, here or not, or ``None``."""
        return next((m for m in self.members if m.id == member_id), None)

    def player(self, ref: str) -> Member | None:
        """The member that is the player of that namespaced id and has not left, or ``None``."""
        return next((m for m in self.players() if m.ref == ref), None)

    def players(self) -> tuple[Member, ...]:
        """The players of the cast, also those who are away."""
        return tuple(m for m in self.members if m.kind == "player" and m.presence != "gone")

    def npc_members(self) -> tuple[Member, ...]:
        """The NPCs of the cast."""
        return tuple(m for m in self.here() if m.kind == "npc")

    def here(self) -> tuple[Member, ...]:
        """Those who are here now."""
        return tuple(m for m in self.members if m.presence == "here")

    def path(self) -> tuple[tuple[int, int], ...]:
        """First and last index of each run of turns of this branch, oldest first."""
        return _path(self.inherited, self.first, self.next - 1)

    def turn(self, turn_id: str) -> Turn | None:
        """The turn of that id among the newest, or ``None``."""
        return next((t for t in reversed(self.turns) if t.id == turn_id), None)


def _path(
    inherited: tuple[tuple[int, int], ...], first: int, last: int
) -> tuple[tuple[int, int], ...]:
    own = ((first, last),) if last >= first else ()
    return (*inherited, *own)
