"""Going back to an earlier turn, and to how it went otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from npc_server.conversation.model import Branch, Conversation, NpcState, Turn
from npc_server.conversation.rules.change import Change, in_memory
from npc_server.conversation.rules.floor import settling
from npc_server.errors import Conflict, NotFound

BRANCHES = 64
"""So many branches are kept; the one that was left the longest ago goes."""

Run = tuple[int, int]


def runs_upto(runs: Sequence[Run], index: int) -> tuple[Run, ...]:
    """Runs of turn indices, without those behind an index."""
    return tuple((first, min(last, index)) for first, last in runs if first <= index)


def newest_of(runs: Sequence[Run], count: int, before: int | None = None) -> list[int]:
    """The newest indices of some runs, oldest first.

    Args:
        runs: First and last index of each, oldest first.
        count: How many.
        before: Only those before this one.
    """
    found: list[int] = []
    for first, last in reversed(runs):
        upto = last if before is None else min(last, before - 1)
        missing = count - len(found)
        if missing <= 0:
            break
        found.extend(range(upto, max(first, upto - missing + 1) - 1, -1))
    return found[::-1]


def rewound(
    state: Conversation, index: int, turns: Sequence[Turn], *, branch: str, now_ms: int
) -> Change:
    """Go back: the turn of an index becomes the newest, and this branch is kept aside.

    How the NPCs felt is as it was then, as far as the turns tell; facts stay as they are, for the
    game alone knows what holds.

    Args:
        state: Without a reply in flight.
        index: Of a turn of this branch.
        turns: The newest turns of this branch up to it.
        branch: The id of the new branch.
        now_ms: Unix milliseconds.
    """
    kept = in_memory(tuple(turns))
    after = replace(
        state,
        turns=kept,
        asks=(),
        branch=branch,
        inherited=runs_upto(state.path(), index),
        first=state.next,
        branches=_with_this(state, now_ms),
        npcs=_as_they_felt(state.npcs, kept),
    )
    return settling(state, Change(after))


def returned(state: Conversation, branch: Branch, turns: Sequence[Turn], *, now_ms: int) -> Change:
    """Go on where a branch was left; this one is kept aside.

    Args:
        state: Without a reply in flight.
        branch: One of its branches.
        turns: The newest turns of that branch.
        now_ms: Unix milliseconds.
    """
    others = tuple(b for b in _with_this(state, now_ms) if b.id != branch.id)
    known = {**state.npcs, **branch.npcs}
    after = replace(
        state,
        turns=in_memory(tuple(turns)),
        asks=(),
        branch=branch.id,
        inherited=branch.path(),
        first=state.next,
        branches=others,
        npcs=known,
        facts=dict(branch.facts),
    )
    return settling(state, Change(after))


def branch_of(state: Conversation, branch: str) -> Branch:
    """The branch of an id.

    Raises:
        Conflict: It is this one.
        NotFound: There is none.
    """
    if branch == state.branch:
        raise Conflict("This branch goes on now. Name another one.")
    found = next((b for b in state.branches if b.id == branch), None)
    if found is None:
        raise NotFound("There is no such branch in this conversation.")
    return found


def _with_this(state: Conversation, now_ms: int) -> tuple[Branch, ...]:
    this = Branch(
        id=state.branch,
        inherited=state.inherited,
        first=state.first,
        last=state.next - 1,
        npcs=dict(state.npcs),
        facts=dict(state.facts),
        left_ms=now_ms,
    )
    others = tuple(b for b in state.branches if b.id != state.branch)
    return (*others, this)[-BRANCHES:]


def _as_they_felt(npcs: Mapping[str, NpcState], turns: Sequence[Turn]) -> dict[str, NpcState]:
    felt = {t.speaker: t.emotion for t in turns if t.emotion is not None}
    return {
        member: replace(npc, emotion=felt.get(member, "neutral")) for member, npc in npcs.items()
    }
