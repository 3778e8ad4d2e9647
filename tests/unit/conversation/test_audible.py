"""Who hears whom: groups, distances, and those who are not here."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.conversation import rules
from npc_server.conversation.audience import audible, pair
from npc_server.conversation.model import Conversation, Member, Surroundings

IDS = ("minsu", "ana", "bram", "ysolde")


def table(around: Surroundings) -> Conversation:
    members = [Member(m, "player" if m in {"minsu", "ana"} else "npc", m, f"k:{m}") for m in IDS]
    state = rules.begin("c", "w", members[0], members[2:], locale=None, now_ms=0, around=around)
    return rules.joined(state, members[1], 16).state


def hears(state: Conversation, speaker: str) -> set[str]:
    found = audible(state, speaker)
    assert found[0] == speaker
    assert len(set(found)) == len(found)
    return set(found) - {speaker}


@pytest.mark.parametrize(
    ("around", "heard"),
    [
        (Surroundings(), {"ana", "bram", "ysolde"}),
        (Surroundings(groups={"bar": ("minsu", "bram"), "fire": ("ana",)}), {"bram"}),
        (Surroundings(groups={"bar": (), "fire": ()}), {"ana", "bram", "ysolde"}),
        (Surroundings(groups={"bar": ("bram",)}), {"ana", "ysolde"}),
        (Surroundings(distances={pair("ana", "minsu"): 10.0}), {"ana", "bram", "ysolde"}),
        (Surroundings(distances={pair("ana", "minsu"): 10.1}), {"bram", "ysolde"}),
        (Surroundings(distances={pair("ana", "minsu"): 3.0}, earshot_m=2.0), {"bram", "ysolde"}),
        (
            Surroundings(
                groups={"bar": ("minsu", "bram", "ana")}, distances={pair("bram", "minsu"): 99.0}
            ),
            {"ana"},
        ),
    ],
)
def test_groups_and_distances(around: Surroundings, heard: set[str]) -> None:
    """One's own group, or whoever is in none where one is in none; within earshot, if known."""
    assert hears(table(around), "minsu") == heard


def test_who_is_not_here_hears_nothing() -> None:
    """Neither who closed the conversation nor who left it."""
    state = table(Surroundings())
    away = rules.closed(state, Member("ana", "player", "ana", "k:ana")).state
    assert hears(away, "minsu") == {"bram", "ysolde"}
    assert hears(rules.left(away, "bram").state, "minsu") == {"ysolde"}


@given(
    st.dictionaries(st.sampled_from(IDS), st.sampled_from(["bar", "fire"])),
    st.dictionaries(
        st.sampled_from([pair(a, b) for a in IDS for b in IDS if a < b]),
        st.floats(0, 20),
    ),
)
def test_hearing_is_mutual(placed: dict[str, str], distances: dict[str, float]) -> None:
    """Whoever hears somebody is heard by it."""
    groups = {name: tuple(m for m in IDS if placed.get(m) == name) for name in ("bar", "fire")}
    state = table(Surroundings(groups=groups, distances=distances))
    for one in IDS:
        for other in hears(state, one):
            assert one in hears(state, other)


def test_a_newcomer_shares_no_old_turn() -> None:
    """Who comes later is no hearer of what was said, and a comeback keeps what it heard."""
    state = table(Surroundings())
    minsu = replace(state.members[0])
    state = rules.left(state, "bram").state
    fields = {"to": (), "whisper": False, "now_ms": 0}
    state = rules.said(state, minsu, "One", turn="a", **fields).state  # type: ignore[arg-type]
    bram = Member("bram", "npc", "bram", "k:bram")
    state = rules.joined(state, bram, 16).state
    assert "bram" not in state.turns[-1].hearers
    assert (state.member("bram") or bram).since == state.next
