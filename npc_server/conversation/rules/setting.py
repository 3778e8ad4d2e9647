"""What the game sets: facts, the scene, how an NPC is, what may happen now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from npc_server.conversation.model import Conversation, NpcState, Surroundings
from npc_server.conversation.rules.change import Addressed, Change, everybody, refuse_strangers
from npc_server.errors import BadMessage, Forbidden, NotFound
from npc_server.persona.conditions import Scalar
from npc_server.protocol import events

FACTS = 256
FACT_CHARS = 500
OWN_FACTS = "player."
"""What a player may set of itself begins so."""


def with_facts(
    state: Conversation, facts: Mapping[str, Scalar | None], *, by_player: bool
) -> Change:
    """Facts of the game change; ``None`` takes one away.

    Raises:
        Forbidden: A player sets what is not its own.
        BadMessage: One is too long, or there would be too many.
    """
    for name, value in facts.items():
        if by_player and not name.startswith(OWN_FACTS):
            raise Forbidden(f"A player may set '{OWN_FACTS}...' only; '{name}' is the game's.")
        if isinstance(value, str) and len(value) > FACT_CHARS:
            raise BadMessage(
                f"The fact '{name}' takes more than {FACT_CHARS} characters. Shorten it.",
                details={"field": "facts"},
            )
    merged = {**state.facts, **facts}
    kept = {name: value for name, value in merged.items() if value is not None}
    if len(kept) > FACTS:
        raise BadMessage(
            f"There are more than {FACTS} facts. Remove some with null.",
            details={"field": "facts"},
        )
    return Change(replace(state, facts=kept))


def in_scene(state: Conversation, around: Surroundings) -> Change:
    """The surroundings change.

    Raises:
        NotFound: A group names somebody who is not in the cast.
        BadMessage: A member is in two groups.
    """
    grouped = [member for group in around.groups.values() for member in group]
    refuse_strangers(state, grouped, away=True)
    if len(grouped) != len(set(grouped)):
        raise BadMessage("Each member is in one group at most.", details={"field": "groups"})
    event = events.SceneChanged(conversation=state.id, **scene_view(around).model_dump())
    return Change(replace(state, around=around), (Addressed(event, everybody(state)),))


def scene_view(around: Surroundings) -> events.SceneView:
    """The surroundings as clients see them."""
    return events.SceneView(
        scene=around.scene,
        groups={name: list(group) for name, group in around.groups.items()},
        objects=around.objects,
    )


def npc_set(
    state: Conversation, member: str, *, mood: str | None, affinity: float | None
) -> Change:
    """The game sets how an NPC is.

    Raises:
        NotFound: There is no such NPC.
    """
    before = state.npcs.get(member)
    if before is None:
        raise NotFound(f"'{member}' is no NPC of this conversation.")
    changes: dict[str, Any] = {"mood": mood or None if mood is not None else before.mood}
    if affinity is not None:
        changes["affinity"] = affinity
    return npc_changed(state, member, replace(before, **changes), everybody(state))


def conversation_set(
    state: Conversation,
    *,
    ambient: bool | None,
    hold: bool | None,
    instructions: str | None,
    actions: Mapping[str, tuple[str, ...] | None],
) -> Change:
    """What may happen from now on; ``None`` leaves it as it is.

    Args:
        state: The conversation.
        ambient: Whether NPCs speak unasked.
        hold: Whether they are held silent.
        instructions: What everything is to be about; empty takes it away.
        actions: By member, the actions that it may take; ``None`` is all of its persona's.

    Raises:
        NotFound: There is no such NPC.
    """
    for member in actions:
        if member not in state.npcs:
            raise NotFound(f"'{member}' is no NPC of this conversation.")
    npcs = {
        member: replace(npc, actions=actions[member]) if member in actions else npc
        for member, npc in state.npcs.items()
    }
    around = state.around
    if ambient is not None:
        around = replace(around, ambient=replace(around.ambient, on=ambient))
    return Change(
        replace(
            state,
            npcs=npcs,
            around=around,
            hold=state.hold if hold is None else hold,
            instructions=state.instructions if instructions is None else instructions or None,
        )
    )


def npc_changed(
    state: Conversation, member: str, npc: NpcState, audience: tuple[str, ...]
) -> Change:
    """An NPC is otherwise than it was; those of an audience are told."""
    event = events.NpcStateEvent(
        conversation=state.id,
        member=member,
        emotion=npc.emotion,
        affinity=npc.affinity,
        mood=npc.mood,
    )
    return Change(replace(state, npcs={**state.npcs, member: npc}), (Addressed(event, audience),))
