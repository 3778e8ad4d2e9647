"""Who is in the cast: opening, closing, coming in and leaving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from npc_server.conversation.model import Conversation, Member, NpcState, Surroundings
from npc_server.conversation.rules.change import Addressed, Change, everybody
from npc_server.conversation.rules.floor import asker, settling, silent
from npc_server.errors import BadMessage, Conflict, NotFound
from npc_server.persona.conditions import Scalar
from npc_server.protocol import events

EVER = 256
"""So many members may ever have been in a conversation: their names stand in its history."""


def begin(
    conversation: str,
    world: str,
    player: Member,
    npcs: Sequence[Member],
    *,
    locale: str | None,
    now_ms: int,
    invite: str = "",
    seed: int = 0,
    around: Surroundings | None = None,
    facts: Mapping[str, Scalar] | None = None,
) -> Conversation:
    """A new conversation, not stored yet.

    Raises:
        BadMessage: There is no NPC, or two members have one id.
    """
    if not npcs:
        raise BadMessage(
            "A new conversation needs an NPC: send 'npcs': [\"bram\"], or a 'scene'.",
            details={"field": "npcs"},
        )
    ids = [player.id, *(npc.id for npc in npcs)]
    twice = next((each for each in ids if ids.count(each) > 1), None)
    if twice is not None:
        raise BadMessage(
            f"Two members are both called '{twice}'. Give the NPC another 'member' id.",
            details={"field": "npcs"},
        )
    return Conversation(
        id=conversation,
        world=world,
        members=(player, *npcs),
        created_ms=now_ms,
        npcs={npc.id: NpcState() for npc in npcs},
        locale=locale,
        invite=invite,
        seed=seed,
        around=around or Surroundings(),
        facts=dict(facts or {}),
    )


def opened(state: Conversation, player: Member, most: int = EVER) -> Change:
    """A player comes in, for the first time or again; the others are told if it was not here.

    Args:
        state: The conversation.
        player: Who. It need not be in the cast yet.
        most: How many may be here.

    Raises:
        Conflict: Its id is somebody else's, or there are too many.
    """
    change = Change(replace(state, closed=False))
    known = state.player(player.ref)
    if known is None:
        change = joined(change.state, player, most)
    elif known.presence != "here":
        change = _present(change.state, known, "here", "joined")
    now = change.state
    event = events.ConversationOpened(
        conversation=now.id,
        cast=cast_of(now),
        state=moods_of(now),
        tail=[],
        invite=now.invite or None,
        branch=now.branch,
    )
    told = change.events
    return Change(now, (Addressed(event, (player.ref,)), *told))


def closed(state: Conversation, player: Member) -> Change:
    """A player closes the conversation for itself; it is kept, and the player hears no more.

    Raises:
        Conflict: It is closed already.
    """
    if state.closed or player.presence != "here":
        raise Conflict("The conversation is closed already. Open it again to go on.")
    event = Addressed(events.ConversationClosed(conversation=state.id), (player.ref,))
    change = _present(state, player, "away", "left")
    after = _shut_if_empty(_without_asks_of(change.state, player))
    return settling(state, Change(after, (event, *change.events)))


def joined(state: Conversation, newcomer: Member, most: int) -> Change:
    """Somebody comes into the cast, for the first time or again: it hears what is said from now on.

    Args:
        state: The conversation.
        newcomer: Who.
        most: How many may be here.

    Raises:
        Conflict: It is here already, its id is somebody else's, or there are too many.
    """
    known = state.member(newcomer.id)
    if known is not None and (known.kind, known.ref) != (newcomer.kind, newcomer.ref):
        raise Conflict(f"'{newcomer.id}' is somebody else here. Choose another 'member' id.")
    if known is not None and known.presence == "here":
        raise Conflict(f"'{newcomer.id}' is here already.")
    other = state.player(newcomer.ref) if newcomer.kind == "player" else None
    if other is not None and other.id != newcomer.id:
        raise Conflict(f"This player is in the cast already, as '{other.id}'.")
    if len(state.here()) >= most or (known is None and len(state.members) >= EVER):
        raise Conflict(f"There is no room for another: {most} members may be here.")
    state = replace(state, closed=state.closed and newcomer.kind == "npc")
    if known is None:
        state = replace(state, members=(*state.members, replace(newcomer, presence="gone")))
        if newcomer.kind == "npc":
            state = replace(state, npcs={**state.npcs, newcomer.id: NpcState()})
    elif known.name != newcomer.name:
        renamed = tuple(
            replace(m, name=newcomer.name) if m.id == newcomer.id else m for m in state.members
        )
        state = replace(state, members=renamed)
    return _present(state, newcomer, "here", "joined")


def left(state: Conversation, member_id: str) -> Change:
    """Somebody leaves the cast; what it heard stays its own.

    Args:
        state: The member's own reply is not in flight: the caller has settled it.
        member_id: Who.

    Raises:
        NotFound: It is not here.
        Conflict: It is the last NPC.
    """
    member = state.member(member_id)
    if member is None or member.presence == "gone":
        raise NotFound(f"'{member_id}' is not in this conversation.")
    if member.kind == "npc" and len(state.npc_members()) == 1:
        raise Conflict("This is the last NPC. Close the conversation, or bring another in first.")
    silences = Change(state)
    for ask in state.asks:
        if ask.speaker == member_id:
            silences = silences.then(silent(silences.state, ask, member_id, "gone"))
    state = silences.state
    change = _present(state, member, "gone", "left")
    after = _without_asks_of(change.state, member)
    groups = {
        name: tuple(m for m in group if m != member_id)
        for name, group in after.around.groups.items()
    }
    after = _shut_if_empty(replace(after, around=replace(after.around, groups=groups)))
    return silences.then(settling(state, Change(after, change.events)))


def cast_of(state: Conversation) -> list[events.CastMember]:
    """The cast as clients see it."""
    return [cast_member(m) for m in state.members if m.presence != "gone"]


def cast_member(member: Member) -> events.CastMember:
    """A member as clients see it."""
    npc = member.ref if member.kind == "npc" else None
    away = True if member.presence == "away" else None
    return events.CastMember(
        member=member.id, kind=member.kind, name=member.name, npc=npc, away=away
    )


def moods_of(state: Conversation) -> list[events.NpcMood]:
    """The NPCs' states as clients see them."""
    here = {m.id for m in state.here()}
    return [
        events.NpcMood(member=member, emotion=npc.emotion, affinity=npc.affinity, mood=npc.mood)
        for member, npc in state.npcs.items()
        if member in here
    ]


def _present(
    state: Conversation,
    member: Member,
    presence: Literal["here", "away", "gone"],
    change: Literal["joined", "left"],
) -> Change:
    since = state.next if presence == "here" else None
    members = tuple(
        replace(m, presence=presence, since=m.since if since is None else since)
        if m.id == member.id
        else m
        for m in state.members
    )
    after = replace(state, members=members)
    now = after.member(member.id) or member
    event = events.CastChanged(
        conversation=state.id, change=change, member=cast_member(now), cast=cast_of(after)
    )
    audience = tuple(dict.fromkeys((*everybody(state), *everybody(after))))
    if presence == "away":
        audience = tuple(ref for ref in audience if ref != member.ref)
    return Change(after, (Addressed(event, audience),))


def _shut_if_empty(state: Conversation) -> Conversation:
    """The state, closed where no player is here any more."""
    if any(m.kind == "player" for m in state.here()):
        return state
    return replace(state, closed=True, asks=())


def _without_asks_of(state: Conversation, member: Member) -> Conversation:
    return replace(state, asks=tuple(a for a in state.asks if asker(state, a) != member.id))
