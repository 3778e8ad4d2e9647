"""What players say and what happens in the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from npc_server.conversation.audience import audible, player_refs
from npc_server.conversation.model import Conversation, Member, Turn
from npc_server.conversation.rules.change import (
    Addressed,
    Change,
    refuse_closed,
    refuse_strangers,
    with_turn,
)
from npc_server.errors import BadMessage, Forbidden, NotFound
from npc_server.protocol import events


def said(
    state: Conversation,
    player: Member,
    text: str,
    *,
    to: Sequence[str],
    whisper: bool,
    turn: str,
    now_ms: int,
    hearers: Sequence[str] = (),
    command: str | None = None,
) -> Change:
    """A player says something.

    Args:
        state: A reply may be in flight; it goes on.
        player: The speaker.
        text: What was said, clean.
        to: Member ids of the addressees; empty means the NPCs that hear it.
        whisper: Whether only the addressees hear it.
        turn: The id of the new turn.
        now_ms: Unix milliseconds.
        hearers: Member ids of those who hear it besides ``to``, as the game decides; empty leaves
            that to the surroundings.
        command: The command's id, for the event's ``re``.

    Raises:
        BadMessage: The text is blank.
        Conflict: The conversation is closed.
        NotFound: An addressee is not here.
    """
    refuse_closed(state)
    if not text.strip():
        raise BadMessage("The text is empty. Say something.", details={"field": "text"})
    refuse_strangers(state, (*to, *hearers))
    near = audible(state, player.id)
    npcs = {npc.id for npc in state.npc_members()}
    addressed = tuple(dict.fromkeys(to))
    if hearers:
        perceive = tuple(dict.fromkeys((player.id, *hearers, *addressed)))
    elif whisper:
        aim = addressed or tuple(m for m in near if m in npcs)
        perceive = (player.id, *(m for m in near if m in aim and m != player.id))
    else:
        perceive = near
    new = Turn(
        id=turn,
        index=state.next,
        kind="say",
        speaker=player.id,
        to=addressed or tuple(m for m in perceive if m in npcs),
        hearers=perceive,
        text=text,
        at_ms=now_ms,
        private=whisper or bool(hearers),
    )
    return turned(state, new, command)


def happened(
    state: Conversation,
    text: str,
    *,
    to: Sequence[str],
    hearers: Sequence[str],
    turn: str,
    now_ms: int,
    command: str | None = None,
) -> Change:
    """Something happens in the world.

    Args:
        state: A reply may be in flight; it goes on.
        text: What happens, clean.
        to: Member ids of those whom it concerns; empty means the NPCs that perceive it.
        hearers: Member ids of those who perceive it, besides ``to``; empty means everyone.
        turn: The id of the new turn.
        now_ms: Unix milliseconds.
        command: The command's id, for the event's ``re``.

    Raises:
        BadMessage: The text is blank.
        Conflict: The conversation is closed.
        NotFound: A member is not here.
    """
    refuse_closed(state)
    if not text.strip():
        raise BadMessage("The text is empty. Tell what happens.", details={"field": "text"})
    refuse_strangers(state, (*to, *hearers))
    perceive = tuple(dict.fromkeys((*hearers, *to))) if hearers else ()
    perceive = perceive or tuple(m.id for m in state.here())
    npcs = tuple(npc.id for npc in state.npc_members() if npc.id in perceive)
    new = Turn(
        id=turn,
        index=state.next,
        kind="event",
        speaker="",
        to=tuple(dict.fromkeys(to)) or npcs,
        hearers=perceive,
        text=text,
        at_ms=now_ms,
        private=bool(hearers),
    )
    return turned(state, new, command)


def typing(state: Conversation, player: Member, text: str, to: Sequence[str] = ()) -> Conversation:
    """The state as it would be if a player said what it has typed so far. Never to be stored."""
    if state.closed or not text.strip():
        return state
    return said(state, player, text, to=to, whisper=False, turn="typing", now_ms=0).state


def redacted(state: Conversation, turn: Turn, by: Member | None) -> Change:
    """The words of a turn are taken out, for everybody and in every branch.

    Args:
        state: The turn need not be among its newest.
        turn: Which.
        by: The player who asks for it; ``None`` for a host.

    Raises:
        NotFound: The player did not hear it.
        Forbidden: It is not the player's own.
    """
    if by is not None and by.id not in turn.hearers:
        raise NotFound("There is no such turn in this conversation.")
    if by is not None and turn.speaker != by.id:
        raise Forbidden("Only a host may take out what somebody else said.")
    turns = tuple(without_words(t) if t.id == turn.id else t for t in state.turns)
    event = events.TurnRedacted(conversation=state.id, turn=turn.id)
    audience = player_refs(state, turn.hearers)
    return Change(replace(state, turns=turns), (Addressed(event, audience),))


def without_words(turn: Turn) -> Turn:
    """A turn of which nothing is left but that it was there."""
    return replace(turn, text="", heard={}, gestures=(), actions=(), redacted=True)


def turned(state: Conversation, new: Turn, command: str | None) -> Change:
    """The state with one more turn of a player or of the game, and the event that tells of it."""
    event = events.Turn(
        conversation=state.id,
        re=command,
        turn=new.id,
        kind="event" if new.kind == "event" else "say",
        speaker=new.speaker,
        to=list(new.to),
        hearers=list(new.hearers),
        text=new.text,
    )
    return Change(with_turn(state, new), (Addressed(event, player_refs(state, new.hearers)),))
