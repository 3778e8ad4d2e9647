"""What each command does to a conversation, and what becomes of a reply that is cut."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.conversation import rules
from npc_server.conversation.audience import heard_by, player_refs, was_cut
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.conversation.rules import Change, Outcome
from npc_server.errors import BadMessage, Conflict, Forbidden, NotFound
from npc_server.protocol import events

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
BRAM = Member("bram", "npc", "Bram", "bram")
TEXT = "Hot iron. 뜨거워요! 👨‍👩‍👧 Mind your fingers."


def fresh() -> Conversation:
    return rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=5)


def spoken(state: Conversation, text: str = "Hello", **options: object) -> Change:
    choices = {"to": (), "whisper": False, "turn": f"t{len(state.turns)}", "now_ms": 7}
    return rules.said(state, MINSU, text, **{**choices, **options})  # type: ignore[arg-type]


def answers(state: Conversation, turn: str = "r", speaker: str = "bram", **options: Any) -> Change:
    """An NPC begins to answer the newest turn, if there is one."""
    last = state.turns[-1] if state.turns else None
    answered = last.id if last else None
    fields = {"player": MINSU.ref, "line": None if last else "Hello.", **options}
    ask = Ask(speaker, answered, answered, **fields)
    return rules.begun(state, ask, turn=turn, queue_position=0, now_ms=7)


def done(text: str = TEXT, **options: object) -> Outcome:
    return Outcome(**{"text": text, "finish": "stop", "at_ms": 9, **options})  # type: ignore[arg-type]


def kinds(change: Change) -> list[str]:
    return [item.event.type for item in change.events]  # type: ignore[attr-defined]


def test_a_conversation_needs_an_npc() -> None:
    """None, or two of one id, are refused with the field's name."""
    for npcs in ([], [BRAM, BRAM]):
        with pytest.raises(BadMessage) as caught:
            rules.begin("c", "w", MINSU, npcs, locale=None, now_ms=5)
        assert caught.value.details == {"field": "npcs"}


def test_player_and_npc_need_different_ids() -> None:
    """A player who is called like the NPC is told to give it another member id."""
    with pytest.raises(BadMessage, match="member"):
        rules.begin("c", "w", replace(MINSU, id="bram"), [BRAM], locale=None, now_ms=5)


def test_opening_tells_cast_and_state() -> None:
    """The event of an opening lists everyone and how the NPCs are."""
    change = rules.opened(replace(fresh(), closed=True), MINSU)
    assert not change.state.closed
    (item,) = change.events
    assert item.audience == ("key:minsu",)
    assert isinstance(item.event, events.ConversationOpened)
    assert [m.npc for m in item.event.cast] == [None, "bram"]
    assert item.event.state[0].emotion == "neutral"


def test_a_closed_conversation_takes_nothing() -> None:
    """After closing, speaking and closing again are conflicts that say what to do."""
    shut = rules.closed(fresh(), MINSU).state
    with pytest.raises(Conflict, match="open"):
        spoken(shut)
    with pytest.raises(Conflict, match="closed already"):
        rules.closed(shut, MINSU)


def test_what_is_said_becomes_a_turn() -> None:
    """A say is put last, numbered, addressed to the NPC and heard by both."""
    state = spoken(spoken(fresh()).state, "Again", command="c9").state
    assert [t.index for t in state.turns] == [0, 1]
    assert state.turns[1].to == ("bram",)
    assert state.turns[1].hearers == ("minsu", "bram")


def test_a_whisper_is_heard_by_its_addressees_only() -> None:
    """Hearers of a whisper are the speaker and those whom it names."""
    third = replace(fresh(), members=(MINSU, BRAM, Member("ana", "npc", "Ana", "ana")))
    turn = spoken(third, whisper=True, to=("ana",)).state.turns[-1]
    assert turn.hearers == ("minsu", "ana")


def test_an_unknown_addressee_is_not_found() -> None:
    """The error lists who is there."""
    with pytest.raises(NotFound, match="minsu, bram"):
        spoken(fresh(), to=("ana",))


@pytest.mark.parametrize("text", ["", "  \n "])
def test_silence_is_no_turn(text: str) -> None:
    """A blank text is refused."""
    with pytest.raises(BadMessage, match="empty"):
        spoken(fresh(), text)


def test_a_reply_answers_and_is_heard_by_the_same() -> None:
    """A reply goes to who spoke and is heard by who heard that; a greeting to the players."""
    state = answers(spoken(fresh()).state).state
    assert state.reply is not None
    assert (state.reply.to, state.reply.answers) == (("minsu",), "t0")
    greeting = answers(fresh()).state.reply
    assert greeting is not None
    assert (greeting.to, greeting.answers) == (("minsu",), None)


def test_a_whole_reply_ends_idle() -> None:
    """A reply that nobody cut is kept whole and ends in scene.idle for what it answers."""
    change = rules.reply_done(answers(spoken(fresh()).state).state, done())
    assert kinds(change) == ["reply.done", "scene.idle"]
    assert change.events[1].event.turn == "t0"  # type: ignore[attr-defined]
    assert change.state.reply is None
    assert change.state.turns[-1].text == TEXT
    assert not was_cut(change.state.turns[-1])


def test_a_change_of_emotion_is_told_and_kept() -> None:
    """npc.state comes once when the emotion changes, and not when it stays."""
    first = rules.reply_done(answers(fresh()).state, done(emotion="happy"))
    assert kinds(first) == ["reply.done", "npc.state", "scene.idle"]
    assert first.state.npcs["bram"].emotion == "happy"
    again = rules.reply_done(answers(first.state, "r2").state, done(emotion="happy"))
    assert kinds(again) == ["reply.done", "scene.idle"]


def test_no_reply_no_end() -> None:
    """Ending a reply when there is none is a conflict."""
    with pytest.raises(Conflict):
        rules.reply_done(fresh(), done())


@given(st.integers(-3, len(TEXT) + 3))
def test_a_cut_reply_keeps_what_was_heard(heard: int) -> None:
    """At every cut the transcript holds the heard part only, whole characters, and says so."""
    outcome = done(finish="interrupted", heard={"minsu": heard})
    change = rules.reply_done(answers(spoken(fresh()).state).state, outcome)
    turn = change.state.turns[-1]
    assert TEXT.startswith(turn.text)
    assert len(turn.text) <= max(0, heard)
    assert "\u200d" not in turn.text[-1:]
    assert was_cut(turn)
    told = [i.event for i in change.events if isinstance(i.event, events.ReplyHeard)]
    assert [e.heard for e in told] == ([len(turn.text)] if heard < len(TEXT) else [])
    for member in ("minsu", "bram"):
        assert [t.text for t in heard_by(change.state.turns, member)][1:] == (
            [turn.text] if turn.text else []
        )
    whole = next(i.event for i in change.events if isinstance(i.event, events.ReplyDone))
    assert whole.text == TEXT


@given(st.integers(0, len(TEXT)), st.integers(0, len(TEXT)))
def test_a_later_cut_only_shortens(first: int, second: int) -> None:
    """Cutting a finished reply twice leaves the shorter of the two."""
    state = rules.reply_done(answers(spoken(fresh()).state).state, done()).state
    for heard in (first, second):
        state = rules.heard_less(state, "r", "minsu", heard).state
    assert len(state.turns[-1].text) <= min(first, second)
    assert TEXT.startswith(state.turns[-1].text)


def test_hearing_all_changes_nothing() -> None:
    """A cut behind the end is no cut."""
    state = rules.reply_done(answers(fresh()).state, done()).state
    assert rules.heard_less(state, "r", "minsu", 999) == Change(state)


def test_only_replies_can_be_cut() -> None:
    """A player's own turn, or an unknown one, is not found."""
    state = spoken(fresh()).state
    for turn in ("t0", "nope"):
        with pytest.raises(NotFound):
            rules.heard_less(state, turn, "minsu", 1)


def test_each_hearer_keeps_what_it_heard() -> None:
    """With two players of whom one was cut off, the text stays whole for the other."""
    ana = Member("ana", "player", "Ana", "key:ana")
    both = replace(fresh(), members=(MINSU, ana, BRAM))
    outcome = done("Mind the fire.", heard={"minsu": 4})
    state = rules.reply_done(answers(both).state, outcome).state
    assert heard_by(state.turns, "minsu")[0].text == "Mind"
    assert heard_by(state.turns, "ana")[0].text == "Mind the fire."
    assert heard_by(state.turns, "bram")[0].text == "Mind the fire."
    assert player_refs(state, ("minsu", "bram", "ana")) == ("key:minsu", "key:ana")


def test_a_turn_that_one_did_not_hear_is_not_there() -> None:
    """Who is no hearer has no trace of the turn."""
    third = replace(fresh(), members=(MINSU, BRAM, Member("ana", "npc", "Ana", "ana")))
    state = spoken(third, "psst", whisper=True, to=("bram",)).state
    assert heard_by(state.turns, "ana") == ()
    assert heard_by(state.turns, "bram")[0].text == "psst"


def test_a_state_carries_the_newest_turns_only() -> None:
    """Beyond the bound the oldest leave it, many at a time, and the numbering goes on."""
    state, begins, all_turns = fresh(), [], []
    for _ in range(rules.TURNS_IN_MEMORY + 2 * rules.TURNS_DROPPED):
        state = spoken(state).state
        all_turns.append(state.turns[-1])
        begins.append(state.turns[0].index)
        assert rules.in_memory(tuple(all_turns)) == state.turns
    assert len(state.turns) == rules.TURNS_IN_MEMORY
    assert sorted(set(begins)) == [0, rules.TURNS_DROPPED, 2 * rules.TURNS_DROPPED]
    assert state.next == len(all_turns)


def test_members_are_found() -> None:
    """A conversation finds its members by id, and players by their namespaced id."""
    state = fresh()
    assert state.member("bram") is BRAM
    assert state.member("x") is None
    assert state.player("key:minsu") is MINSU
    assert state.player("bram") is None
    assert state.npc_members() == (BRAM,)


def test_what_is_typed_is_only_supposed() -> None:
    """What a player types makes a state with one more turn; blanks and a closed scene make none."""
    state = fresh()
    supposed = rules.typing(state, MINSU, "Good mor")
    assert [turn.text for turn in supposed.turns] == ["Good mor"]
    assert heard_by(supposed.turns, "bram") == supposed.turns
    assert rules.typing(state, MINSU, "  ") is state
    closed = replace(state, closed=True)
    assert rules.typing(closed, MINSU, "Good") is closed


def proposed(state: Conversation, call: str = "c", *, confirm: bool = True) -> Change:
    return rules.action_proposed(
        state, call=call, name="give", args={"n": 1}, confirm=confirm, now_ms=10, timeout_ms=50
    )


def settled(state: Conversation, **options: object) -> Change:
    choices = {"ok": True, "reason": None, "now_ms": 20, "by": "minsu"}
    return rules.action_settled(state, "c", **{**choices, **options})  # type: ignore[arg-type]


def test_an_action_is_kept_with_its_reply() -> None:
    """Proposing adds to the reply in flight and tells all who hear it, to be done by none yet."""
    change = proposed(answers(spoken(fresh()).state).state)
    assert change.state.reply is not None
    (act,) = change.state.reply.actions
    assert (act.call, act.ok, act.until_ms) == ("c", None, 60)
    (item,) = change.events
    assert isinstance(item.event, events.ReplyAction)
    assert (item.event.turn, item.event.execute) == ("r", False)
    assert item.audience == ("key:minsu",)
    with pytest.raises(Conflict, match="in flight"):
        proposed(fresh())


def test_a_result_settles_an_action_once() -> None:
    """What the game told stands; it ends in the turn, and a second result is a conflict."""
    state = proposed(answers(spoken(fresh()).state).state).state
    change = settled(state, ok=False, reason="no room")
    (item,) = change.events
    assert isinstance(item.event, events.ActionSettled)
    assert (item.event.ok, item.event.reason) == (False, "no room")
    with pytest.raises(Conflict, match=r"refused \(no room\)"):
        settled(change.state)
    ended = rules.reply_done(change.state, done()).state
    assert ended.turns[-1].actions[0].reason == "no room"
    with pytest.raises(Conflict, match="settled already"):
        settled(ended)
    assert settled(state, reason="ignored").state.reply.actions[0].reason is None  # type: ignore[union-attr]


def test_who_may_tell_and_until_when() -> None:
    """The addressed player and hosts, in time, of actions that there are."""
    state = proposed(answers(spoken(fresh()).state).state).state
    settled(state, by=None)
    with pytest.raises(Forbidden, match="addresses"):
        settled(state, by="yuna")
    with pytest.raises(Conflict, match="too late"):
        settled(state, now_ms=61)
    with pytest.raises(NotFound, match="no such action"):
        rules.action_settled(state, "d", ok=True, reason=None, now_ms=20, by=None)


def test_silence_refuses() -> None:
    """An action that expires is refused for the time-out, unless the game told before."""
    state = proposed(answers(spoken(fresh()).state).state).state
    expired = rules.action_expired(state, "c")
    assert expired.state.reply is not None
    assert expired.state.reply.actions[0].reason == "timeout"
    told = settled(state).state
    assert rules.action_expired(told, "c") == Change(told)


def test_a_reply_that_ends_settles_what_it_waited_for() -> None:
    """Cut while it waits, the action is refused; one that needs no confirming stays open."""
    state = answers(spoken(fresh()).state).state
    waiting = rules.reply_done(proposed(state).state, done("", finish="interrupted"))
    assert kinds(waiting)[:2] == ["action.settled", "reply.done"]
    turn = waiting.state.turns[-1]
    assert (turn.actions[0].ok, turn.actions[0].reason) == (False, "interrupted")
    assert heard_by(waiting.state.turns, "minsu")[-1] == turn
    free = rules.reply_done(proposed(state, confirm=False).state, done()).state
    assert free.turns[-1].actions[0].ok is None
    late = settled(free, ok=False, reason="none left").state
    assert late.turns[-1].actions[0].reason == "none left"
    assert late.turns[:-1] == free.turns[:-1]


def happening(state: Conversation, **options: object) -> Change:
    choices = {"to": (), "hearers": (), "turn": "e", "now_ms": 7}
    return rules.happened(state, "Rain.", **{**choices, **options})  # type: ignore[arg-type]


def test_what_happens_becomes_a_turn_of_nobody() -> None:
    """An event concerns the NPCs and is perceived by all, unless the game says whom and by whom."""
    turn = happening(fresh(), command="c1").state.turns[-1]
    assert (turn.kind, turn.speaker, turn.to) == ("event", "", ("bram",))
    assert turn.hearers == ("minsu", "bram")
    secret = happening(fresh(), to=("bram",), hearers=("bram",))
    assert secret.state.turns[-1].hearers == ("bram",)
    assert secret.events[0].audience == ()
    with pytest.raises(NotFound):
        happening(fresh(), hearers=("yuna",))
    with pytest.raises(BadMessage, match="empty"):
        rules.happened(fresh(), " ", to=(), hearers=(), turn="e", now_ms=7)
    with pytest.raises(Conflict):
        happening(replace(fresh(), closed=True))


def test_a_reaction_is_to_the_players() -> None:
    """A reply to an event addresses the players that perceive it, and carries what it is about."""
    state = happening(fresh()).state
    change = answers(state, ambient=True, instructions="Run.")
    reply = change.state.reply
    assert reply is not None
    assert (reply.to, reply.ambient, reply.instructions) == (("minsu",), True, "Run.")


def answered(text: str = TEXT) -> Conversation:
    return rules.reply_done(answers(spoken(fresh()).state).state, done(text)).state


def anew(state: Conversation, old: str = "r", new: str = "r2") -> Change:
    return rules.regenerated(state, MINSU, old, turn=new, queue_position=0)


def test_a_reply_said_anew_takes_the_place_of_the_old() -> None:
    """The new reply has the old one's addressees, hearers and question; the old is not heard."""
    whisper = spoken(fresh(), whisper=True, to=("bram",)).state
    state = rules.reply_done(answers(whisper).state, done("First")).state
    change = anew(state)
    (item,) = change.events
    assert isinstance(item.event, events.ReplyStarted)
    assert (item.event.replaces, item.event.answers) == ("r", "t0")
    assert item.audience == ("key:minsu",)
    old, reply = change.state.turns[-1], change.state.reply
    assert reply is not None
    assert (reply.to, reply.hearers, reply.replaces) == (old.to, old.hearers, "r")
    assert old.replaced_by == "r2"
    after = rules.reply_done(change.state, done("Second")).state
    for member in ("minsu", "bram"):
        assert [t.text for t in heard_by(after.turns, member)] == ["Hello", "Second"]
        everything = heard_by(after.turns, member, replaced=True)
        assert [t.text for t in everything] == ["Hello", "First", "Second"]


def test_a_greeting_can_be_said_anew() -> None:
    """It answers nothing, and so does the one in its place."""
    state = rules.reply_done(answers(fresh()).state, done()).state
    reply = anew(state).state.reply
    assert reply is not None
    assert (reply.answers, reply.to) == (None, ("minsu",))


def test_what_is_felt_goes_on_when_a_reply_is_said_anew() -> None:
    """The NPC keeps the emotion that it had after the replaced reply."""
    state = rules.reply_done(answers(fresh()).state, done(emotion="happy")).state
    assert anew(state).state.npcs["bram"].emotion == "happy"


def test_only_the_newest_reply_that_stands_can_be_said_anew() -> None:
    """One in flight, an older or a replaced one, any in a closed conversation: conflicts."""
    state = answered()
    in_flight = answers(spoken(state).state, "next").state
    replaced = rules.reply_done(anew(state).state, done()).state
    for before, turn, text in (
        (in_flight, "next", "interrupt"),
        (in_flight, "r", "newest"),
        (spoken(state).state, "r", "newest"),
        (replaced, "r", "already"),
        (rules.closed(state, MINSU).state, "r", "closed"),
    ):
        with pytest.raises(Conflict, match=text):
            anew(before, turn)
    assert anew(replaced, "r2", "r3").state.turns[-1].replaced_by == "r3"


def test_what_one_did_not_hear_cannot_be_said_anew() -> None:
    """A player's own turn, an unknown one, and a reply to another's ear are not found."""
    ana = Member("ana", "player", "Ana", "key:ana")
    both = replace(fresh(), members=(MINSU, ana, BRAM))
    whisper = spoken(both, whisper=True, to=("bram",)).state
    state = rules.reply_done(answers(whisper).state, done()).state
    for turn, player in (("t0", MINSU), ("nope", MINSU), ("r", ana)):
        with pytest.raises(NotFound):
            rules.regenerated(state, player, turn, turn="x", queue_position=0)


@given(st.lists(st.sampled_from(["say", "anew", "cut"]), max_size=12))
def test_each_question_has_one_answer_that_stands(steps: list[str]) -> None:
    """However often replies are said anew or cut, one turn at most answers each other turn."""
    state, asked = fresh(), 0
    for number, step in enumerate(steps):
        newest = state.turns[-1] if state.turns else None
        if step == "say" or newest is None:
            state = answers(spoken(state).state, f"r{number}").state
            asked += 1
        elif step == "anew":
            state = anew(state, newest.id, f"r{number}").state
        else:
            state = rules.heard_less(state, newest.id, "minsu", 3).state
        if state.reply:
            state = rules.reply_done(state, done(f"Reply {number}")).state
    standing = [t.answers for t in heard_by(state.turns, "minsu") if t.kind == "reply"]
    assert len(standing) == len(set(standing)) == asked
    replaced = [t for t in state.turns if t.replaced_by]
    assert {t.replaced_by for t in replaced} <= {t.id for t in state.turns}
    assert [t.index for t in state.turns] == list(range(len(state.turns)))
