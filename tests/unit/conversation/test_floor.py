"""The floor by its rules: who keeps it, what waits, and that every root is settled exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from npc_server.conversation import rules
from npc_server.conversation.audience import heard_by, was_cut
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.conversation.rules import Change, Outcome
from npc_server.conversation.rules.floor import ASKS
from npc_server.errors import NpcError
from npc_server.protocol import events
from npc_server.protocol.text import clean

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
ANA = Member("ana", "player", "Ana", "key:ana")
BRAM = Member("bram", "npc", "Bram", "bram")
YSOLDE = Member("ysolde", "npc", "Ysolde", "ysolde")
PIP = Member("pip", "npc", "Pip", "pip")


def table() -> Conversation:
    """Two players and three NPCs."""
    state = rules.begin("c", "w", MINSU, [BRAM, YSOLDE, PIP], locale=None, now_ms=0)
    return rules.joined(state, ANA, 16).state


def said(state: Conversation, player: Member, turn: str, **options: Any) -> Conversation:
    fields = {"to": (), "whisper": False, "turn": turn, "now_ms": 0, **options}
    return rules.said(state, player, "Hello", **fields).state


def ask(speaker: str | None, turn: str | None, player: Member = MINSU, **options: Any) -> Ask:
    return Ask(speaker, turn, turn, player.ref, **options)


def begun(state: Conversation, waiting: Ask, turn: str = "r") -> Conversation:
    return rules.begun(state, waiting, turn=turn, queue_position=0, now_ms=0).state


def done(state: Conversation, text: str = "Aye.", **options: Any) -> Change:
    fields = {"text": text, "finish": "stop", "at_ms": 0, **options}
    return rules.reply_done(state, Outcome(**fields))


def idles(change: Change) -> list[str | None]:
    return [e.event.turn for e in change.events if isinstance(e.event, events.SceneIdle)]


def test_players_go_before_npcs() -> None:
    """What a player asked is answered before what NPCs would say to one another, in order."""
    state = said(said(table(), MINSU, "a"), ANA, "b")
    chained = replace(ask("pip", "a"), chain=1)
    alone = Ask(None, None, None, MINSU.ref, ambient=True)
    waiting = rules.asked(state, (chained, alone, ask("bram", "a"))).state
    waiting = rules.asked(waiting, (ask("ysolde", "b", ANA),)).state
    assert [a.speaker for a in waiting.asks] == ["bram", "ysolde", "pip", None]


def test_what_there_is_no_room_for_is_settled() -> None:
    """A root of which nothing can wait is settled at once; one that waits already is not."""
    state = said(said(table(), MINSU, "a"), ANA, "b")
    full = rules.asked(state, [ask("bram", "a", must=bool(n % 2)) for n in range(ASKS)])
    assert idles(full) == []
    assert idles(rules.asked(full.state, (ask("pip", "b", ANA),))) == ["b"]
    assert idles(rules.asked(full.state, (ask("pip", "a"),))) == []
    chains = [ask("bram", "a", chain=1) for _ in range(ASKS)]
    pushed = rules.asked(rules.asked(state, chains[:1]).state, [ask("pip", "b", ANA)] * ASKS)
    assert idles(pushed) == ["a"]


@pytest.mark.parametrize(
    ("to", "player", "takes"),
    [
        (("minsu",), MINSU, True),
        (("minsu",), ANA, False),
        (("minsu", "ana"), ANA, True),
        (("ysolde",), ANA, True),
        ((), MINSU, True),
    ],
)
def test_who_takes_the_floor(to: tuple[str, ...], player: Member, takes: bool) -> None:
    """Whom a reply is for may end it; what is for no player, any player may."""
    state = begun(said(table(), MINSU, "a"), ask("bram", "a"))
    assert state.reply is not None
    state = replace(state, reply=replace(state.reply, to=to))
    assert rules.takes_floor(state, player) == takes
    assert not rules.takes_floor(replace(state, reply=None), player)


def test_a_reply_to_who_has_left_is_of_nobody() -> None:
    """When the player whom it is for is gone, anybody may end it."""
    state = begun(said(table(), MINSU, "a"), ask("bram", "a"))
    assert not rules.takes_floor(state, ANA)
    assert rules.takes_floor(rules.closed(state, MINSU).state, ANA)


def test_a_silence_is_told_to_whom_it_answers() -> None:
    """Whoever heard the question learns that it is not answered, wherever the NPC is."""
    state = rules.in_scene(
        table(), replace(table().around, groups={"bar": ("minsu", "bram"), "fire": ("ysolde",)})
    ).state
    state = said(state, MINSU, "a", to=("ysolde",))
    change = rules.silent(state, ask("ysolde", "a"), "ysolde", "out_of_earshot")
    assert [item.audience for item in change.events] == [("key:minsu",)]


class Floor(RuleBasedStateMachine):
    """Whatever happens, in whatever order: each turn that was sent is settled exactly once."""

    @initialize()
    def begin(self) -> None:
        self.state = table()
        self.settled: Counter[str | None] = Counter()
        self.sent: list[str] = []
        self.number = 0

    def take(self, change: Change) -> None:
        """A commit."""
        for item in change.events:
            if isinstance(item.event, events.SceneIdle):
                self.settled[item.event.turn] += 1
        self.state = change.state

    def attempt(self, make: Any) -> None:
        """What a command does, unless it is refused."""
        try:
            self.take(make())
        except NpcError:
            return

    def name(self) -> str:
        self.number += 1
        return f"t{self.number}"

    @rule(
        player=st.sampled_from([MINSU, ANA]),
        speakers=st.lists(st.sampled_from(["bram", "ysolde", "pip", None]), max_size=3),
        aside=st.booleans(),
    )
    def say(self, player: Member, speakers: list[str | None], aside: bool) -> None:
        if (self.state.member(player.id) or player).presence != "here" or self.state.closed:
            return
        turn = self.name()

        def make() -> Change:
            state, change = self.state, Change(self.state)
            if not aside:
                if rules.takes_floor(state, player):
                    change = rules.reply_done(
                        state, Outcome("Ay", "interrupted", 0, {player.id: 1})
                    )
                change = change.then(rules.yielded(change.state, player))
            spoken = rules.said(
                change.state, player, "Hi", to=(), whisper=False, turn=turn, now_ms=0
            )
            change = change.then(spoken)
            asks = [] if aside else [ask(who, turn, player) for who in speakers]
            if not asks:
                return change.then(rules.idle(change.state, turn))
            return change.then(rules.asked(change.state, asks))

        self.take(make())
        self.sent.append(turn)

    @rule(who=st.lists(st.sampled_from(["bram", "pip"]), max_size=2), count=st.integers(1, 12))
    def happen(self, who: list[str], count: int) -> None:
        if self.state.closed:
            return
        for _ in range(count):
            turn = self.name()
            change = rules.happened(self.state, "Bang", to=(), hearers=(), turn=turn, now_ms=0)
            if who:
                asks = [ask(npc, turn) for npc in who]
                change = change.then(rules.asked(change.state, asks))
            else:
                change = change.then(rules.idle(change.state, turn))
            self.take(change)
            self.sent.append(turn)

    @rule()
    def begin_next(self) -> None:
        if self.state.reply is not None or not self.state.asks or self.state.closed:
            return
        waiting = self.state.asks[0]
        known = replace(waiting, speaker=waiting.speaker or self.state.npc_members()[0].id)
        asks = tuple(known if a is waiting else a for a in self.state.asks)
        state = replace(self.state, asks=asks)
        self.take(rules.begun(state, known, turn=self.name(), queue_position=0, now_ms=0))

    @rule(chain=st.booleans(), finish=st.sampled_from(["stop", "error", "interrupted"]))
    def finish(self, chain: bool, finish: Any) -> None:
        reply = self.state.reply
        if reply is None:
            return
        follow = Ask("pip", reply.turn, reply.root, reply.player, chain=reply.chain + 1)
        following = (follow,) if chain and finish == "stop" else ()
        self.take(rules.reply_done(self.state, Outcome("Aye.", finish, 0), following))

    @rule(reason=st.sampled_from(["quiet", "budget", "gone"]))
    def keep_silent(self, reason: Any) -> None:
        if self.state.asks:
            waiting = self.state.asks[0]
            self.take(rules.silent(self.state, waiting, waiting.speaker or "bram", reason))

    @rule()
    def stir(self) -> None:
        alone = Ask(None, None, None, MINSU.ref, ambient=True)
        if not self.state.closed:
            self.take(rules.asked(self.state, (alone,)))

    @rule(member=st.sampled_from([MINSU, ANA, YSOLDE, PIP]), close=st.booleans())
    def leave(self, member: Member, close: bool) -> None:
        def make() -> Change:
            reply = self.state.reply
            own = reply is not None and reply.speaker == member.id
            if own or (member.kind == "player" and rules.is_only_for(self.state, member)):
                change = rules.reply_done(self.state, Outcome("Ay", "cancelled", 0))
            else:
                change = rules.walked_out(self.state, member.id, 1)
            now = change.state.member(member.id) or member
            if close and member.kind == "player":
                return change.then(rules.closed(change.state, now))
            return change.then(rules.left(change.state, member.id))

        self.attempt(make)

    @rule(member=st.sampled_from([MINSU, ANA, YSOLDE, PIP]))
    def come(self, member: Member) -> None:
        if member.kind == "player":
            self.attempt(lambda: rules.opened(self.state, member))
        else:
            self.attempt(lambda: rules.joined(self.state, member, 16))

    @rule(back=st.integers(0, 5))
    def rewind(self, back: int) -> None:
        if self.state.reply is not None:
            self.take(rules.reply_done(self.state, Outcome("Ay", "cancelled", 0)))
        turns = self.state.turns
        if len(turns) <= back:
            return
        kept = turns[: len(turns) - back]
        branch = self.name()
        self.take(rules.rewound(self.state, kept[-1].index, kept, branch=branch, now_ms=0))

    @invariant()
    def never_twice(self) -> None:
        pending = [root for root in rules.roots(self.state) if root is not None]
        for turn in self.sent:
            assert self.settled[turn] + (turn in pending) == 1
        assert all(count <= 1 for turn, count in self.settled.items() if turn is not None)
        assert len(self.state.asks) <= ASKS


TestFloor = Floor.TestCase
TestFloor.__doc__ = Floor.__doc__
TestFloor.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# What stays of a reply that is cut

TEXT = clean(
    "Aye! 뜨거워요, 조심해. "
    "\u1112\u1161\u11ab\u1100\u1173\u11af"  # 한글, decomposed
    " 👨\u200d👩\u200d👧\u200d👦 and 🇰🇷🇫🇮 e\u0301 👍🏽 done."
)


def is_whole(part: str) -> bool:
    """Whether a beginning of the text ends where a character does, as a reader sees it."""
    rest = TEXT[len(part) :]
    joins = ("\u200d", "\u0301", "🏽")
    halved = part.endswith("\u200d") or rest.startswith(joins)
    flags = sum(0x1F1E6 <= ord(char) <= 0x1F1FF for char in part) % 2 == 1
    return TEXT.startswith(part) and not halved and not flags


def cut_at(heard: dict[str, int]) -> Conversation:
    state = begun(said(table(), MINSU, "a"), ask("bram", "a"))
    return done(state, TEXT, finish="interrupted", heard=heard).state


def test_hangul_comes_composed() -> None:
    """Decomposed input is one code point a syllable by the time that it is counted."""
    assert "한글" in TEXT
    assert "\u1112" not in TEXT


@pytest.mark.parametrize("heard", range(len(TEXT) + 3))
def test_a_cut_keeps_exactly_what_was_heard(heard: int) -> None:
    """At every position: transcript, prompts and memories hold that much, in whole characters."""
    state = cut_at({"minsu": heard, "ana": heard})
    turn = state.turns[-1]
    assert is_whole(turn.text)
    assert len(turn.text) <= heard
    longer = range(len(turn.text) + 1, min(heard, len(TEXT)) + 1)
    assert not any(is_whole(TEXT[:n]) for n in longer)
    for member in ("minsu", "ana", "bram", "ysolde"):
        memory = [t for t in heard_by(state.turns, member) if t.kind == "reply"]
        assert [t.text for t in memory] == ([turn.text] if turn.text else [])
        assert all(was_cut(t) for t in memory)


@given(st.integers(0, len(TEXT) + 2), st.integers(0, len(TEXT) + 2), st.booleans())
def test_each_hears_for_itself(minsu: int, ana: int, late: bool) -> None:
    """Two hearers with cuts of their own, at once or one after the other: each keeps its own."""
    if late:
        state = begun(said(table(), MINSU, "a"), ask("bram", "a"))
        state = done(state, TEXT).state
        for member, heard in (("ana", ana), ("minsu", minsu)):
            state = rules.heard_less(state, "r", member, heard).state
    else:
        state = cut_at({"minsu": minsu, "ana": ana})
    turn = state.turns[-1]
    for member, heard in (("minsu", minsu), ("ana", ana)):
        part = next((t.text for t in heard_by([turn], member)), "")
        assert is_whole(part)
        assert len(part) <= heard
        assert not any(is_whole(TEXT[:n]) for n in range(len(part) + 1, min(heard, len(TEXT)) + 1))
    longest = max((t.text for m in ("minsu", "ana") for t in heard_by([turn], m)), default="")
    for npc in ("bram", "ysolde"):
        assert next((t.text for t in heard_by([turn], npc)), "") == longest == turn.text


def test_who_heard_all_of_it_knows_of_no_cut() -> None:
    """A reply that one player cut while it played was whole to the other, and to the NPCs."""
    state = done(begun(said(table(), MINSU, "a"), ask("bram", "a")), TEXT).state
    state = rules.heard_less(state, "r", "minsu", 4).state
    cuts = {m: was_cut(heard_by(state.turns, m)[-1]) for m in ("minsu", "ana", "bram", "ysolde")}
    assert cuts == {"minsu": True, "ana": False, "bram": False, "ysolde": False}
    state = rules.heard_less(state, "r", "ana", 9).state
    cuts = {m: was_cut(heard_by(state.turns, m)[-1]) for m in ("minsu", "ana", "bram", "ysolde")}
    assert cuts == {"minsu": True, "ana": True, "bram": True, "ysolde": True}
