"""Who heard what. Nothing else decides this, and every prompt and history comes from here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from npc_server.conversation.model import Conversation, Surroundings, Turn


def heard_by(turns: Iterable[Turn], member: str, *, replaced: bool = False) -> tuple[Turn, ...]:
    """The turns as one member heard them: cut to what reached it, without those that did not.

    What an NPC did is seen by all who heard it, although no word of it may have reached them.

    Args:
        turns: What was said and what happened, oldest first.
        member: Who heard it.
        replaced: Whether replies that were said anew are among them. For the conversation they
            were never said; they are data of those who heard them all the same.
    """
    standing = (turn for turn in turns if replaced or turn.replaced_by is None)
    heard = (_as_heard(turn, member) for turn in standing if member in turn.hearers)
    return tuple(turn for turn in heard if turn.text or turn.actions)


def was_cut(turn: Turn) -> bool:
    """Whether the one who said this was cut off."""
    return turn.finish == "interrupted" or bool(turn.heard)


def audible(state: Conversation, speaker: str) -> tuple[str, ...]:
    """Member ids of those here who hear what a member says now, the speaker first.

    Where there are groups, those of the speaker's own; otherwise, or inside of it, whoever is
    within earshot as far as distances are known.
    """
    around = state.around
    own = _group_of(around, speaker)
    near = [speaker]
    for member in state.here():
        if member.id == speaker or (around.groups and _group_of(around, member.id) != own):
            continue
        metres = around.distances.get(pair(speaker, member.id))
        if metres is None or metres <= around.earshot_m:
            near.append(member.id)
    return tuple(near)


def pair(one: str, other: str) -> str:
    """Under what the distance between two members stands."""
    return "|".join(sorted((one, other)))


def player_refs(state: Conversation, members: Iterable[str]) -> tuple[str, ...]:
    """The namespaced player ids among some members: those to whom an event is sent."""
    wanted = set(members)
    return tuple(m.ref for m in state.members if m.kind == "player" and m.id in wanted)


def _group_of(around: Surroundings, member: str) -> str | None:
    return next((name for name, group in around.groups.items() if member in group), None)


def _as_heard(turn: Turn, member: str) -> Turn:
    if any(member in act.unseen for act in turn.actions):
        seen = tuple(act for act in turn.actions if member not in act.unseen)
        turn = replace(turn, actions=seen)
    if not turn.heard:
        return turn
    heard = turn.heard.get(member)
    if heard is None and len(turn.text) not in turn.heard.values():
        return replace(turn, heard={})  # Others were cut off; this one heard all of it.
    return replace(turn, text=turn.text[:heard])
