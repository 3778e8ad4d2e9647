"""Deciding and acting with an engine and a game that are made up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from npc_server import acting
from npc_server.acting import Call
from npc_server.engines.scripted import Script, ScriptedEngine
from npc_server.errors import Busy
from npc_server.persona import Action, Persona
from npc_server.prompt import ActionOutcome, Decision, Message

PROMPT = (Message("system", "You are Bram."), Message("user", "A knife?"))
GIVE = Action(name="give", description="d", confirm=True)
WAVE = Action(name="wave", description="d")
BRAM = Persona(
    id="bram",
    name="Bram",
    summary="s",
    description="d",
    personality="p",
    speech="t",
    actions=(GIVE, WAVE),
)
GIVES: dict[str, Any] = {"emotion": "sad", "intensity": 1, "action": "give"}


def engine(*rules: dict[str, Any], **settings: Any) -> ScriptedEngine:
    return ScriptedEngine(Script.model_validate({"rules": rules, **settings}))


async def decided(scripted: ScriptedEngine, seconds: float = 10, **options: Any) -> acting.Asked:
    return await acting.decide(
        scripted, PROMPT, BRAM, affinity="w/c/bram", seed=7, seconds=seconds, **options
    )


async def test_a_decision_is_asked_for() -> None:
    """One short, cool request with the schema; what comes back is read, and its tokens counted."""
    scripted = engine({"json": GIVES})
    asked = await decided(scripted)
    assert asked.decision == Decision("sad", 0.2, None, "give")
    assert asked.usage.completion > 0
    (request,) = scripted.requests
    assert request.messages[:-1] == PROMPT[:-1]
    assert request.sampling.max_tokens == acting.MAX_TOKENS
    assert (request.affinity, request.schema is not None) == ("w/c/bram", True)


async def test_only_what_is_allowed_is_done() -> None:
    """An action that the game does not allow now is not one, although the persona has it."""
    asked = await decided(engine({"json": GIVES}), actions=(WAVE,))
    assert asked.decision.action is None


async def test_who_cannot_keep_to_a_schema_is_asked_twice() -> None:
    """A second answer may be better; both are paid for. Endless talk is cut short."""
    scripted = engine(
        {"match": "could not be used", "reply": '{"emotion": "happy", "action": "wave"}'},
        {"reply": "Once upon a time there was a smith who talked and talked. " * 20},
        schema=False,
    )
    asked = await decided(scripted)
    assert (asked.decision.action, asked.decision.emotion) == ("wave", "happy")
    assert len(scripted.requests) == 2
    assert [request.seed for request in scripted.requests] == [7, 8]


async def test_too_slow_is_no_decision() -> None:
    """A decision that does not come in time is one to do nothing."""
    asked = await decided(engine({"fail": "stall"}), seconds=0.01)
    assert asked.decision == Decision()
    assert acting.opening(asked.decision) is None


async def carried_out(
    action: Action, answer: ActionOutcome | None = None, *, fails: bool = False
) -> ActionOutcome:
    future: asyncio.Future[ActionOutcome] = asyncio.get_running_loop().create_future()
    if answer is not None:
        future.set_result(answer)

    async def expire() -> ActionOutcome:
        return ActionOutcome(ok=False, reason="timeout")

    async def propose(proposed: Action, args: Mapping[str, Any]) -> Call:
        assert (proposed, args) == (action, {"n": 1})
        if fails:
            raise Busy("No.")
        return Call(future, expire)

    decision = Decision("sad", 0.2, None, action.name, {"n": 1})
    return await acting.carry_out(decision, propose, actions=BRAM.actions, seconds=0.01)


async def test_the_game_has_the_last_word() -> None:
    """Its answer counts, its silence refuses; what needs no confirming counts as done."""
    refused = ActionOutcome(ok=False, reason="no room")
    assert await carried_out(GIVE, refused) == refused
    assert (await carried_out(GIVE)).reason == "timeout"
    assert await carried_out(WAVE, refused) == ActionOutcome(ok=True)


async def test_what_cannot_be_committed_is_not_done() -> None:
    """An action that could not be sent counts as refused, and the NPC speaks all the same."""
    assert await carried_out(GIVE, fails=True) == ActionOutcome(ok=False, reason="busy")


def test_room_is_kept_for_deciding() -> None:
    """A prompt leaves room for the longer of question with answer, and note with reply."""
    (question,) = acting.texts_to_reserve(BRAM, spelled=False)
    small, big = ({question: tokens} for tokens in (10, 1000))
    assert acting.reserve(BRAM, small, 120, spelled=False) == 120 + acting.NOTE_TOKENS
    assert acting.reserve(BRAM, big, 120, spelled=False) == 1000 + acting.MAX_TOKENS
    idle = BRAM.model_copy(update={"actions": ()})
    assert acting.texts_to_reserve(idle, spelled=True) == ()
    assert acting.reserve(idle, {}, 120, spelled=True) == 120


def test_a_reply_begins_as_decided() -> None:
    """Feeling, strength and gesture go to the parser."""
    begins = acting.opening(Decision("happy", 0.8, "nod"))
    assert begins is not None
    assert (begins.emotion, begins.intensity, begins.gesture) == ("happy", 0.8, "nod")
