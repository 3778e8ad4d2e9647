"""Going back and returning: which turns a branch has, and that none is ever lost or mixed up."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from npc_server.conversation import rules
from npc_server.conversation.audience import heard_by
from npc_server.conversation.model import Ask, Conversation, Member, Turn
from npc_server.conversation.rules import Outcome
from npc_server.conversation.rules.branches import BRANCHES
from npc_server.errors import Conflict, NotFound

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
BRAM = Member("bram", "npc", "Bram", "bram")

RUNS = st.lists(st.integers(0, 4), max_size=6).map(
    lambda steps: tuple(
        (sum(steps[:n]) + 3 * n, sum(steps[: n + 1]) + 3 * n) for n in range(len(steps))
    )
)


def spelled(runs: tuple[tuple[int, int], ...]) -> list[int]:
    return [index for first, last in runs for index in range(first, last + 1)]


@given(RUNS, st.integers(-1, 60))
def test_runs_up_to_an_index(runs: tuple[tuple[int, int], ...], index: int) -> None:
    """Exactly the indices that are no greater, none of them empty."""
    found = rules.runs_upto(runs, index)
    assert spelled(found) == [n for n in spelled(runs) if n <= index]
    assert all(first <= last for first, last in found)


@given(RUNS, st.integers(0, 30), st.none() | st.integers(0, 60))
def test_the_newest_of_runs(
    runs: tuple[tuple[int, int], ...], count: int, before: int | None
) -> None:
    """The last so many before an index, oldest first."""
    wanted = [n for n in spelled(runs) if before is None or n < before]
    assert rules.newest_of(runs, count, before) == (wanted[-count:] if count else [])


def test_feelings_go_back_and_facts_do_not() -> None:
    """The turns that are left tell how an NPC felt; a branch keeps the facts that it had."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=0)
    state = rules.with_facts(state, {"gold": 1}, by_player=False).state
    for turn, emotion in (("a", "happy"), ("b", "angry")):
        ask = Ask("bram", None, None, MINSU.ref, line="Aye.")
        state = rules.begun(state, ask, turn=turn, queue_position=0, now_ms=0).state
        outcome = Outcome("Aye.", "stop", 0, emotion=emotion)  # type: ignore[arg-type]
        state = rules.reply_done(state, outcome).state
    back = rules.rewound(state, 0, state.turns[:1], branch="b1", now_ms=7).state
    assert back.npcs["bram"].emotion == "happy"
    back = rules.with_facts(back, {"gold": 2}, by_player=False).state
    (left,) = back.branches
    assert (left.id, left.left_ms, left.facts) == ("main", 7, {"gold": 1})
    again = rules.returned(back, left, state.turns, now_ms=8).state
    assert (again.npcs["bram"].emotion, again.facts) == ("angry", {"gold": 1})
    assert again.branches[0].facts == {"gold": 2}
    with pytest.raises(Conflict):
        rules.branch_of(again, "main")
    with pytest.raises(NotFound):
        rules.branch_of(again, "nope")


def test_the_oldest_branch_goes() -> None:
    """No more than so many are kept."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=0)
    state = rules.said(state, MINSU, "Hi", to=(), whisper=False, turn="a", now_ms=0).state
    for n in range(BRANCHES + 3):
        state = rules.rewound(state, 0, state.turns[:1], branch=f"b{n}", now_ms=n).state
    assert len(state.branches) == BRANCHES
    assert state.branches[0].id == "b2"
    assert state.branch == f"b{BRANCHES + 2}"


class Branching(RuleBasedStateMachine):
    """A conversation that goes back and forth, beside a model that copies whole histories."""

    @initialize()
    def begin(self) -> None:
        self.state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=0)
        self.stored: dict[int, Turn] = {}
        self.model: dict[str, list[str]] = {"main": []}
        self.number = 0

    def commit(self, state: Conversation) -> None:
        """As the store does: turns of the new state are written under their indices."""
        self.state = state
        self.stored |= {turn.index: turn for turn in state.turns}

    def name(self) -> str:
        self.number += 1
        return f"t{self.number}"

    def turns(self, indices: list[int]) -> list[Turn]:
        return [self.stored[n] for n in indices]

    @rule()
    def speak(self) -> None:
        turn = self.name()
        fields = {"to": (), "whisper": False, "now_ms": 0}
        self.commit(rules.said(self.state, MINSU, turn, turn=turn, **fields).state)  # type: ignore[arg-type]
        reply = self.name()
        ask = Ask("bram", turn, turn, MINSU.ref)
        state = rules.begun(self.state, ask, turn=reply, queue_position=0, now_ms=0).state
        self.commit(rules.reply_done(state, Outcome(reply, "stop", 0)).state)
        self.model[self.state.branch] += [turn, reply]

    @precondition(lambda self: self.state.turns and self.state.turns[-1].kind == "reply")
    @rule()
    def say_anew(self) -> None:
        turn, old = self.name(), self.state.turns[-1].id
        state = rules.regenerated(self.state, MINSU, old, turn=turn, queue_position=0).state
        self.commit(state)
        self.commit(rules.reply_done(state, Outcome(turn, "stop", 0)).state)
        self.model[self.state.branch][-1] = turn

    @precondition(lambda self: self.model[self.state.branch])
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        kept = self.model[self.state.branch]
        count = data.draw(st.integers(1, len(kept)))
        path = self.turns(rules.newest_of(self.state.path(), 1000))
        index = next(t.index for t in path if t.id == kept[count - 1] and t.replaced_by is None)
        turns = self.turns(rules.newest_of(rules.runs_upto(self.state.path(), index), 1000))
        branch = self.name()
        self.commit(rules.rewound(self.state, index, turns, branch=branch, now_ms=0).state)
        self.model[branch] = kept[:count]

    @precondition(lambda self: self.state.branches)
    @rule(data=st.data())
    def return_to(self, data: st.DataObject) -> None:
        branch = data.draw(st.sampled_from(self.state.branches))
        turns = self.turns(rules.newest_of(branch.path(), 1000))
        self.commit(rules.returned(self.state, branch, turns, now_ms=0).state)

    @invariant()
    def each_branch_is_as_it_was(self) -> None:
        here = [t.id for t in heard_by(self.state.turns, "minsu")]
        assert here == self.model[self.state.branch]
        path = self.turns(rules.newest_of(self.state.path(), 1000))
        assert [t.id for t in heard_by(path, "minsu")] == here
        for branch in self.state.branches:
            turns = self.turns(rules.newest_of(branch.path(), 1000))
            assert [t.id for t in heard_by(turns, "minsu")] == self.model[branch.id]
        indices = rules.newest_of(self.state.path(), 1000)
        assert indices == sorted(set(indices))


TestBranching = Branching.TestCase
TestBranching.__doc__ = Branching.__doc__
TestBranching.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_old_turns_stay_where_they_were() -> None:
    """A rewind changes no turn: it only says which indices go on."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=0)
    for turn in "abc":
        state = rules.said(state, MINSU, turn, to=(), whisper=False, turn=turn, now_ms=0).state
    back = rules.rewound(state, 1, state.turns[:2], branch="b1", now_ms=0).state
    assert back.turns == state.turns[:2]
    assert (back.inherited, back.first, back.next) == (((0, 1),), 3, 3)
    after = rules.said(back, MINSU, "d", to=(), whisper=False, turn="d", now_ms=0).state
    assert after.path() == ((0, 1), (3, 3))
    assert replace(after.turns[-1], text="d").index == 3
