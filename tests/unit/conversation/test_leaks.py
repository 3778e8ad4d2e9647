"""Nobody is ever given what it did not hear, whatever happens in a conversation of several."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
from leak_machine import KINDS, Leak, Leaks, run, settings_for

from npc_server.conversation import audience, rules
from npc_server.conversation.model import Conversation, Turn

STEPS = 2_000
HEARD_BY, AUDIBLE, PLAYER_REFS = audience.heard_by, audience.audible, audience.player_refs


def test_nobody_knows_what_it_did_not_hear() -> None:
    """2,000 random steps of three players and four NPCs, in which all that can happen does.

    After each, the history, the prompt, the export and the training rows of every member, all
    events to players and what the director sees hold what was heard, and no other canary.
    """
    happened = run(Leaks, settings_for(STEPS))
    assert happened["step"] >= STEPS
    assert {kind for kind in KINDS if not happened[kind]} == set()


def deaf_to_hearers(turns: Iterable[Turn], member: str, **options: Any) -> tuple[Turn, ...]:
    """``heard_by``, if everybody heard everything."""
    everybody = [replace(turn, hearers=(*turn.hearers, member)) for turn in turns]
    return HEARD_BY(everybody, member, **options)


def through_walls(state: Conversation, speaker: str) -> tuple[str, ...]:
    """``audible``, if groups kept nothing in."""
    return AUDIBLE(replace(state, around=replace(state.around, groups={})), speaker)


def at_any_distance(state: Conversation, speaker: str) -> tuple[str, ...]:
    """``audible``, if distance kept nothing away."""
    return AUDIBLE(replace(state, around=replace(state.around, distances={})), speaker)


def whole(turn: Turn, member: str) -> Turn:
    """``_as_heard``, if nothing was ever cut."""
    return turn


def to_everyone(state: Conversation, members: Iterable[str]) -> tuple[str, ...]:
    """``player_refs``, if every event went to every player."""
    return PLAYER_REFS(state, [m.id for m in state.members])


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("heard_by", deaf_to_hearers),
        ("audible", through_walls),
        ("audible", at_any_distance),
        ("_as_heard", whole),
        ("player_refs", to_everyone),
    ],
)
def test_a_broken_audience_is_found_out(
    name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With each function of the audience broken in its own way, the same check fails."""
    sound = getattr(audience, name)
    for module in [m for key, m in sys.modules.items() if key.startswith("npc_server")]:
        if getattr(module, name, None) is sound:
            monkeypatch.setattr(module, name, broken)
    with pytest.raises(Leak):
        run(Leaks, settings_for(STEPS))


def test_hearing_on_after_leaving_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """If who left in mid-reply were told the rest of it, the same check would fail."""
    monkeypatch.setattr(rules, "walked_out", lambda state, _who, _heard: rules.Change(state))
    with pytest.raises(Leak):
        run(Leaks, settings_for(STEPS))
