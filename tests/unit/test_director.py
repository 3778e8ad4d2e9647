"""Who is found to speak next: weights, silence, the fallback by words, chains and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from npc_server.brains import Brain, Brains
from npc_server.clock import Clock
from npc_server.config import DEFAULT_ENGINE, Settings, Timeouts
from npc_server.conversation import rules
from npc_server.conversation.model import Ambient, Ask, Conversation, Member, Surroundings
from npc_server.director import CHIME_IN, Director, Pick
from npc_server.engines.scripted import Script, ScriptedEngine
from npc_server.library import Library, builtin_personas
from npc_server.observability import Metrics
from npc_server.scheduler import Scheduler

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
NPCS = tuple(Member(m, "npc", m.capitalize(), m) for m in ("bram", "ysolde", "pip"))
NOBODY = "D"
NOW = 10_000_000


@cache
def personas() -> Library:
    """Those that come along; reading them takes a while, and nothing here changes them."""
    library = Library([builtin_personas()])
    library.load()
    return library


def director(rule: Mapping[str, Any] | None = None, **rest: Any) -> tuple[Director, ScriptedEngine]:
    """A director whose model answers by one rule; content-free questions get no answer."""
    rules_ = [] if rule is None else [{"match": "Minsu:|\\[", **rule}]
    engine = ScriptedEngine(Script.model_validate({"rules": rules_, **rest}))
    brain = Brain(DEFAULT_ENGINE, engine, Scheduler(1, 8, Metrics()))
    settings = Settings(timeouts=Timeouts(director=0.05))
    clock = Clock(wall_ms=lambda: NOW)
    return Director(Brains({DEFAULT_ENGINE: brain}), personas(), settings, clock), engine


def table(text: str = "It is late.", **around: Any) -> Conversation:
    """Something was said to nobody in particular."""
    state = rules.begin(
        "c", "w", MINSU, NPCS, locale=None, now_ms=0, seed=1, around=Surroundings(**around)
    )
    return rules.said(state, MINSU, text, to=(), whisper=False, turn="a", now_ms=0).state


ASK = Ask(None, "a", "a", MINSU.ref)


async def test_the_likeliest_speaks() -> None:
    """What the model finds decides, where all else is alike."""
    for label, npc in (("A", "bram"), ("B", "ysolde"), ("C", "pip")):
        made, _ = director({"choose": label})
        assert await made.pick(table(), ASK) == Pick(npc)


async def test_talkativeness_and_silence_count() -> None:
    """Of two who are as likely, whoever talks more speaks; and whoever has not for long."""
    made, _ = director({"choose": {"A": 1, "C": 1}})
    assert await made.pick(table(talkativeness={"bram": 0.2, "pip": 0.9}), ASK) == Pick("pip")
    state = table(talkativeness={"bram": 0.9, "pip": 0.2})
    assert await made.pick(state, ASK) == Pick("bram")
    state = table()
    for turn, npc in (("b", "pip"), ("c", "bram")):
        waiting = Ask(npc, None, None, MINSU.ref, line="Aye.")
        state = rules.begun(state, waiting, turn=turn, queue_position=0, now_ms=0).state
        state = rules.reply_done(state, rules.Outcome("Aye.", "stop", 0)).state
    assert await made.pick(state, ASK) == Pick("pip")


@pytest.mark.parametrize(
    ("text", "must", "silent"),
    [("It is late.", False, True), ("Is it late?", False, False), ("It is late.", True, False)],
)
async def test_silence_is_a_choice(text: str, must: bool, silent: bool) -> None:
    """Where the model is sure that nobody answers; a question and what must be answered are."""
    made, _ = director({"choose": NOBODY})
    pick = await made.pick(table(text), replace(ASK, must=must))
    assert pick is not None
    assert pick.silence == ("quiet" if silent else None)


async def test_half_sure_is_not_sure() -> None:
    """Where somebody might answer, somebody does."""
    made, _ = director({"choose": {NOBODY: 1, "B": 1}})
    assert await made.pick(table(), ASK) == Pick("ysolde")


@pytest.mark.parametrize(
    "trouble", [{"choose": "C", "fail": "unavailable"}, {"choose": "C", "first_ms": 60_000}]
)
async def test_words_decide_where_the_model_does_not(trouble: Mapping[str, Any]) -> None:
    """A model that fails or is too slow is done without, and nobody chooses silence then."""
    made, engine = director(trouble)
    assert await made.pick(table("I saw a wolf."), ASK) == Pick("bram")
    assert engine.choices


async def test_nobody_is_asked_of_what_it_did_not_hear() -> None:
    """The model reads what all who might answer heard; whispers to one of them are left out."""
    made, engine = director({"choose": "A"})
    state = table("It is late.")
    fields: dict[str, Any] = {"to": ("bram",), "whisper": True, "turn": "b", "now_ms": 0}
    state = rules.said(state, MINSU, "The canary is Zanzibarra.", **fields).state
    event = rules.happened(state, "Thunder.", to=(), hearers=(), turn="e", now_ms=0).state
    await made.pick(event, Ask(None, "e", "e", MINSU.ref))
    asked = engine.choices[0].messages[-1].text
    assert "Minsu: It is late." in asked
    assert "[Thunder.]" in asked
    assert "Zanzibarra" not in asked


async def test_one_or_none_need_no_model() -> None:
    """A single NPC that heard it answers; where none did, nobody does."""
    made, engine = director({"choose": "A"})
    groups = {"bar": ("minsu", "pip"), "fire": ("bram", "ysolde"), "yard": ()}
    assert await made.pick(table(groups=groups), ASK) == Pick("pip")
    groups = {"bar": ("minsu",), "fire": ("bram", "ysolde", "pip")}
    assert await made.pick(table(groups=groups), ASK) is None
    assert not engine.choices


async def test_who_begins_is_drawn_by_the_seed() -> None:
    """Unasked, the same conversation draws the same NPC; others draw others; budgets hold."""
    made, engine = director()
    alone = Ask(None, None, None, MINSU.ref, ambient=True)
    drawn = [await made.pick(replace(table(), seed=seed), alone) for seed in range(40)]
    again = [await made.pick(replace(table(), seed=seed), alone) for seed in range(40)]
    assert drawn == again
    assert {pick.npc for pick in drawn if pick} == {"bram", "ysolde", "pip"}
    spent = replace(table(), unasked=(NOW - 1,) * 4)
    pick = await made.pick(spent, alone)
    assert pick is not None
    assert pick.silence == "budget"
    assert not engine.choices


@pytest.mark.parametrize(
    ("unasked", "left"),
    [
        ((), True),
        ((NOW - 1,) * 3, True),
        ((NOW - 1,) * 4, False),
        ((NOW - 60_000, NOW - 9, NOW - 8, NOW - 7), True),
        ((NOW - 59_999, NOW - 9, NOW - 8, NOW - 7), False),
    ],
)
def test_a_budget_is_of_the_last_minute(unasked: tuple[int, ...], left: bool) -> None:
    """So many replies in sixty seconds, whenever those begin."""
    made, _ = director()
    assert made.has_budget(replace(table(), unasked=unasked)) == left


def replying(text_chain: int = 0, **around: Any) -> Conversation:
    waiting = Ask("bram", "a", "a", MINSU.ref, chain=text_chain)
    state = table(**around)
    return rules.begun(state, waiting, turn="r", queue_position=0, now_ms=0).state


def following(state: Conversation, text: str) -> list[str | None]:
    made, _ = director()
    assert state.reply is not None
    return [ask.speaker for ask in made.following(state, state.reply, text)]


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("Ysolde, what do you say?", ["ysolde"]),
        ("Pip, Ysolde, what do you say?", ["pip"]),
        ("I told Ysolde about it.", []),
        ("Who knows?", []),
        ("   ", []),
    ],
)
def test_whom_an_npc_calls_answers_it(text: str, who: list[str]) -> None:
    """Only one, called by name; to be spoken of is not to be called."""
    assert following(replying(), text) == who


def test_a_chain_has_an_end() -> None:
    """As long as the surroundings allow, and the budget; an authored line is never answered."""
    call = "Ysolde, what do you say?"
    assert following(replying(1), call) == ["ysolde"]
    assert following(replying(2), call) == []
    assert following(replying(0, ambient=Ambient(chain=0)), call) == []
    assert following(replace(replying(), unasked=(NOW - 1,) * 4), call) == []
    state = replying()
    assert state.reply is not None
    assert following(replace(state, reply=replace(state.reply, line=call)), call) == []


def test_who_did_not_hear_it_does_not_follow() -> None:
    """A whispered reply that calls another is not answered by it."""
    state = replying()
    assert state.reply is not None
    heard = replace(state.reply, hearers=("bram", "minsu", "pip"))
    assert following(replace(state, reply=heard), "Ysolde, what do you say?") == []


def test_a_follow_up_carries_its_root() -> None:
    """It comes from the same turn, on the same account, one link further."""
    made, _ = director()
    state = replying(1)
    assert state.reply is not None
    (ask,) = made.following(state, state.reply, "Ysolde, what do you say?")
    assert (ask.answers, ask.root, ask.player, ask.chain) == ("r", "a", MINSU.ref, 2)
    assert ask.ambient
    assert rules.is_unasked(ask)


def test_npcs_chime_in_now_and_then() -> None:
    """Where they speak unasked, about as often as the most talkative of them would."""
    talk = {"ysolde": 0.8, "pip": 0.1}
    state = replying(ambient=Ambient(on=True), talkativeness=talk)
    drawn = [following(replace(state, seed=seed), "It is late.") for seed in range(400)]
    assert {tuple(who) for who in drawn} == {(), ("ysolde",)}
    share = sum(map(bool, drawn)) / len(drawn)
    assert abs(share - CHIME_IN * 0.8) < 0.07


def test_of_all_who_are_spoken_to_three_answer() -> None:
    """The eager first; the rest keep silent."""
    made, _ = director()
    four = (*NPCS, Member("vesper", "npc", "Vesper", "vesper"))
    around = Surroundings(talkativeness={"pip": 0.9, "bram": 0.8, "vesper": 0.7, "ysolde": 0.1})
    state = rules.begin("c", "w", MINSU, four, locale=None, now_ms=0, around=around)
    found = made.addressed(state, "minsu", "Hello everybody!")
    fields: dict[str, Any] = {"to": found.members, "whisper": False, "turn": "a", "now_ms": 0}
    state = rules.said(state, MINSU, "Hello everybody!", **fields).state
    asks = made.asks(state, state.turns[-1], MINSU, found)
    assert [ask.speaker for ask in asks] == ["pip", "bram", "vesper"]
