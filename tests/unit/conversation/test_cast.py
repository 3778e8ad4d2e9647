"""Coming and going: who is told, who is refused, and what goes with whoever leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from npc_server.conversation import rules
from npc_server.conversation.audience import heard_by
from npc_server.conversation.model import Ask, Conversation, Member, Surroundings
from npc_server.conversation.rules import Change, Outcome
from npc_server.errors import Conflict, NotFound
from npc_server.protocol import events

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
ANA = Member("ana", "player", "Ana", "key:ana")
BRAM = Member("bram", "npc", "Bram", "bram")
YSOLDE = Member("ysolde", "npc", "Ysolde", "ysolde")


def table() -> Conversation:
    state = rules.begin("c", "w", MINSU, [BRAM, YSOLDE], locale=None, now_ms=0)
    return rules.opened(state, ANA).state


def said(state: Conversation, player: Member, turn: str) -> Conversation:
    return rules.said(state, player, "Hello", to=(), whisper=False, turn=turn, now_ms=0).state


def kinds(change: Change) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.event.type, item.audience) for item in change.events]  # type: ignore[attr-defined]


def test_opening_comes_first_and_the_others_are_told() -> None:
    """A newcomer gets its opening, then everybody, the newcomer too, hears who joined."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=0)
    change = rules.opened(state, ANA)
    assert kinds(change) == [
        ("conversation.opened", ("key:ana",)),
        ("cast.changed", ("key:minsu", "key:ana")),
    ]
    again = rules.opened(change.state, ANA)
    assert kinds(again) == [("conversation.opened", ("key:ana",))]


def test_who_closes_is_away_and_the_others_are_told() -> None:
    """It stays in the cast as away, is told by its own event, and joins again when it opens."""
    change = rules.closed(table(), ANA)
    assert kinds(change) == [
        ("conversation.closed", ("key:ana",)),
        ("cast.changed", ("key:minsu",)),
    ]
    assert [m.away for m in rules.cast_of(change.state)] == [None, None, None, True]
    assert not change.state.closed
    back = rules.opened(change.state, ANA)
    assert kinds(back)[1] == ("cast.changed", ("key:minsu", "key:ana"))


def test_who_leaves_is_in_no_cast() -> None:
    """It is gone from cast, groups and moods; those who were here are told, it too."""
    state = table()
    groups: dict[str, tuple[str, ...]] = {"bar": ("ana", "minsu", "bram", "ysolde")}
    state = rules.in_scene(state, Surroundings(groups=groups)).state
    change = rules.left(state, "ysolde")
    assert kinds(change) == [("cast.changed", ("key:minsu", "key:ana"))]
    assert [m.member for m in rules.cast_of(change.state)] == ["minsu", "bram", "ana"]
    assert [m.member for m in rules.moods_of(change.state)] == ["bram"]
    assert change.state.around.groups == {"bar": ("ana", "minsu", "bram")}
    gone = rules.left(change.state, "ana")
    assert kinds(gone) == [("cast.changed", ("key:minsu", "key:ana"))]
    with pytest.raises(NotFound):
        rules.left(gone.state, "ana")
    assert gone.state.player("key:ana") is None


def test_a_conversation_without_players_is_closed() -> None:
    """With the last player all that waits is dropped and settled; the next one opens it again."""
    state = said(rules.closed(table(), ANA).state, MINSU, "a")
    event = rules.happened(state, "Bang", to=(), hearers=(), turn="e", now_ms=0).state
    state = rules.asked(event, [Ask("bram", t, t, MINSU.ref) for t in ("a", "e")]).state
    for change in (rules.closed(state, MINSU), rules.left(state, "minsu")):
        assert change.state.closed
        assert change.state.asks == ()
        idle = [i.event.turn for i in change.events if isinstance(i.event, events.SceneIdle)]
        assert idle == ["a", "e"]
        with pytest.raises(Conflict):
            said(change.state, MINSU, "b")
    assert not rules.joined(change.state, replace(ANA, id="eve", ref="key:eve"), 16).state.closed


def test_what_one_asked_goes_with_it() -> None:
    """Its own questions wait no more; those of others and of the game do."""
    state = said(said(table(), MINSU, "a"), ANA, "b")
    state = rules.happened(state, "Bang", to=(), hearers=(), turn="e", now_ms=0).state
    asks = [Ask("bram", t, t, MINSU.ref) for t in ("a", "b", "e")]
    state = rules.asked(state, asks).state
    assert [a.root for a in rules.closed(state, MINSU).state.asks] == ["b", "e"]


def test_who_was_to_answer_is_gone() -> None:
    """An NPC that leaves is silent to each question that waits for it."""
    state = said(said(table(), MINSU, "a"), ANA, "b")
    asks = [Ask("bram", "a", "a", MINSU.ref), *(Ask("ysolde", t, t, MINSU.ref) for t in "ab")]
    change = rules.left(rules.asked(state, asks).state, "ysolde")
    told = [(e.event.answers, e.event.reason) for e in change.events
            if isinstance(e.event, events.ReplySilent)]  # fmt: skip
    assert told == [("a", "gone"), ("b", "gone")]
    assert [i.event.turn for i in change.events if isinstance(i.event, events.SceneIdle)] == ["b"]


@pytest.mark.parametrize(
    ("newcomer", "reason"),
    [
        (replace(BRAM, ref="pip"), "somebody else"),
        (replace(ANA, id="minsu"), "somebody else"),
        (replace(ANA, id="minsu", kind="npc"), "somebody else"),
        (replace(ANA, id="anna"), "already"),
        (ANA, "here already"),
        (YSOLDE, "here already"),
        (Member("pip", "npc", "Pip", "pip"), "no room"),
    ],
)
def test_who_may_not_come_in(newcomer: Member, reason: str) -> None:
    """Ids that are taken, whoever is in already, and more than there is room for."""
    with pytest.raises(Conflict, match=reason):
        rules.joined(table(), newcomer, 4)


def test_an_id_stays_its_owners() -> None:
    """Whoever left may come back under its id and new name; nobody else may take it."""
    state = rules.left(table(), "ysolde").state
    with pytest.raises(Conflict, match="somebody else"):
        rules.joined(state, replace(YSOLDE, ref="pip"), 16)
    back = rules.joined(state, replace(YSOLDE, name="Old Yso"), 16).state
    assert [m.name for m in back.npc_members()] == ["Bram", "Old Yso"]


@pytest.mark.parametrize("heard", [0, 4, 99])
def test_who_walks_out_keeps_what_reached_it(heard: int) -> None:
    """A reply goes on without it: no event of the rest, no more in its memory than it heard."""
    state = said(table(), MINSU, "a")
    ask = Ask("bram", "a", "a", MINSU.ref)
    state = rules.begun(state, ask, turn="r", queue_position=0, now_ms=0).state
    for member in ("ana", "ysolde"):
        state = rules.walked_out(state, member, heard).state
    fields: dict[str, Any] = {"text": "Mind the sparks.", "finish": "stop", "at_ms": 0}
    change = rules.reply_done(state, Outcome(**fields))
    assert ("reply.done", ("key:minsu",)) in kinds(change)
    for member in ("ana", "ysolde"):
        kept = [t.text for t in heard_by(change.state.turns, member) if t.kind == "reply"]
        assert kept == [part for part in ["Mind the sparks."[:heard]] if part]
    assert heard_by(change.state.turns, "minsu")[-1].text == "Mind the sparks."
