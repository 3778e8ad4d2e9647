"""What a player may see of the past: its history in pages, and all that is kept of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from npc_server.conversation import rules
from npc_server.conversation.audience import heard_by, was_cut
from npc_server.conversation.model import Conversation, Member, Turn
from npc_server.conversation.rules import Addressed, Change
from npc_server.errors import NotFound
from npc_server.protocol import events
from npc_server.store import TURNS_KEPT, Store

EXPORT_PAGE = 200

TAIL_TURNS = 50
"""So many of the newest turns go out when a conversation goes back."""


async def history(
    store: Store, state: Conversation, player: Member, *, before: str | None, limit: int
) -> tuple[list[events.HistoryTurn], bool]:
    """What a player heard, oldest first, and whether there is more before it.

    Args:
        store: Where older turns are.
        state: The conversation.
        player: Who heard it.
        before: Only turns before this one.
        limit: How many turns are looked at.

    Raises:
        NotFound: There is no such turn.
    """
    end = state.next if before is None else await index_of(store, state, before)
    turns = await store.turns_before(state, end, limit + 1)
    heard = heard_by(turns[-limit:], player.id)
    return [as_told(turn) for turn in heard], len(turns) > limit


async def export(store: Store, state: Conversation, ref: str) -> list[dict[str, Any]]:
    """All that a player heard in a conversation, in pages; none where it is not in it."""
    player = state.player(ref)
    if player is None:
        return []
    turns = await store.turns_at(state.world, state.id, kept_indices(state))
    heard = [
        as_told(turn).model_dump(exclude_none=True)
        for turn in heard_by(turns, player.id, replaced=True)
    ]
    about = {
        "conversation": state.id,
        "world": state.world,
        "created_ms": state.created_ms,
        "cast": [member.model_dump() for member in rules.cast_of(state)],
        "state": [mood.model_dump() for mood in rules.moods_of(state)],
    }
    chunks = [heard[n : n + EXPORT_PAGE] for n in range(0, len(heard), EXPORT_PAGE)] or [[]]
    return [{**about, "turns": chunk} for chunk in chunks]


def kept_indices(state: Conversation) -> range:
    """The indices of all turns that may be kept, of every branch."""
    return range(max(0, state.next - TURNS_KEPT), state.next)


async def index_of(store: Store, state: Conversation, turn: str) -> int:
    """The index of a turn of this branch.

    Raises:
        NotFound: There is no such turn.
    """
    found = next((t.index for t in state.turns if t.id == turn), None)
    if found is None:
        oldest = state.turns[0].index if state.turns else 0
        older = await store.turns_before(state, oldest, TURNS_KEPT)
        found = next((t.index for t in older if t.id == turn), None)
    if found is None:
        raise NotFound("There is no such turn in this conversation.")
    return found


def as_told(turn: Turn) -> events.HistoryTurn:
    """A turn as one member heard it, in the wire's words."""
    done = [
        events.PastAction(call=a.call, name=a.name, args=a.args, ok=a.ok, reason=a.reason)
        for a in turn.actions
    ]
    return events.HistoryTurn(
        turn=turn.id,
        kind=turn.kind,
        speaker=turn.speaker,
        to=list(turn.to),
        text=turn.text,
        at_ms=turn.at_ms,
        cut=was_cut(turn),
        replaced_by=turn.replaced_by,
        actions=done or None,
        redacted=turn.redacted or None,
    )


def reset(state: Conversation) -> Change:
    """Tell every player of the cast that the conversation is another one now, as it heard it."""
    told = [Addressed(reset_for(state, player), (player.ref,)) for player in state.players()]
    return Change(state, tuple(told))


def reset_now(state: Conversation) -> list[Addressed]:
    """``reset``, as what stands in for everything that was told so far."""
    return [
        replace(item, event=item.event.model_copy(update={"seq": state.seq}))
        for item in reset(state).events
    ]


def reset_for(state: Conversation, player: Member) -> events.ConversationReset:
    """The conversation as one player heard it, in place of all that it was told before."""
    heard = heard_by(state.turns, player.id)
    return events.ConversationReset(
        conversation=state.id,
        branch=state.branch,
        branches=[branch.id for branch in state.branches],
        cast=rules.cast_of(state),
        state=rules.moods_of(state),
        tail=[as_told(turn) for turn in heard[-TAIL_TURNS:]],
    )
