"""What an NPC does before it speaks: decided by the model, carried out by the game.

``decide`` asks the engine for a short answer that fits a schema; ``carry_out`` has the action
committed and sent, and waits for the game where the persona says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npc_server.conversation.model import Reply
from npc_server.engines.base import Adapter, Engine, GenerateRequest, Usage
from npc_server.errors import NpcError
from npc_server.observability import get_logger
from npc_server.persona import Action, Persona, Sampling
from npc_server.prompt import (
    ActionOutcome,
    Decision,
    Message,
    decision_messages,
    decision_question,
    decision_schema,
    read_decision,
)
from npc_server.reply import Opening

log = get_logger(__name__)

MAX_TOKENS = 160
"""The longest decision."""

NOTE_TOKENS = 160
"""Room for what a prompt for speaking says of an action, as a rule."""

PREAMBLE = 64
"""Code points after which an answer without a brace will be no decision."""

SAMPLING = Sampling(temperature=0.2, top_p=0.9, repetition_penalty=1.0, max_tokens=MAX_TOKENS)
"""Nearly the likeliest answer. Repetition is no fault in JSON."""


@dataclass(frozen=True, slots=True)
class Call:
    """An action that was committed and sent to the game.

    Attributes:
        answer: Gets what the game tells of it.
        expire: Commits that the game said nothing in time; gives what became of the action, which
            is the game's answer where it came after all.
    """

    answer: asyncio.Future[ActionOutcome]
    expire: Callable[[], Awaitable[ActionOutcome]]


Propose = Callable[[Action, Mapping[str, Any]], Awaitable[Call]]
"""Commits an action and sends it to the game."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision, and what it took.

    Attributes:
        decision: What the NPC decided; one without an action where nothing could be used.
        usage: Tokens of all that was asked for it.
    """

    decision: Decision
    usage: Usage


async def decide(
    engine: Engine,
    messages: Sequence[Message],
    persona: Persona,
    *,
    affinity: str,
    seed: int,
    seconds: float,
    adapter: Adapter | None = None,
    actions: Sequence[Action] | None = None,
) -> Asked:
    """Have the model decide what the NPC feels and does. Hold a seat.

    An engine that cannot hold replies to a schema is told it, and asked once more where its answer
    cannot be used. Without a decision in time the NPC does nothing.

    Args:
        engine: The engine that the NPC speaks with.
        messages: The prompt for speaking.
        persona: Who decides.
        affinity: As for the reply.
        seed: As for the reply.
        seconds: How long it may take, both tries together.
        adapter: As for the reply.
        actions: What it may do now; by default all that the persona declares.

    Raises:
        EngineUnavailable: The engine failed.
    """
    allowed = persona.actions if actions is None else tuple(actions)
    request = GenerateRequest(
        messages=tuple(messages),
        sampling=SAMPLING,
        affinity=affinity,
        seed=seed,
        schema=decision_schema(persona, allowed),
        adapter=adapter,
    )
    spelled = not engine.capabilities.schema
    asked = Asked(Decision(), Usage(0, 0, 0))
    try:
        async with asyncio.timeout(seconds):
            for attempt in range(2 if spelled else 1):
                question = decision_messages(
                    messages, persona, allowed, spelled=spelled, problem=asked.decision.problem
                )
                again = replace(request, messages=question, seed=seed + attempt)
                text, usage = await _answer(engine, again)
                asked = Asked(read_decision(text, persona, allowed), _sum(asked.usage, usage))
                if asked.decision.problem is None:
                    break
                log.info("decision_unusable", reason=asked.decision.problem)
    except TimeoutError:
        log.warning("decision_too_slow", persona=persona.id, seconds=seconds)
    return asked


async def carry_out(
    decision: Decision,
    propose: Propose,
    *,
    actions: Sequence[Action],
    seconds: float,
) -> ActionOutcome:
    """Have the game do what was decided. Hold no seat: the game may take its time.

    Args:
        decision: With an action.
        propose: Commits and sends it.
        actions: Those among which it was chosen.
        seconds: How long the game has to confirm it; then it counts as refused.

    Returns:
        What became of it. An action that needs no confirming counts as done.
    """
    action = next(action for action in actions if action.name == decision.action)
    try:
        call = await propose(action, decision.args)
        if not action.confirm:
            return ActionOutcome(ok=True)
        told, _ = await asyncio.wait({call.answer}, timeout=seconds)
        return call.answer.result() if told else await call.expire()
    except NpcError as error:
        log.warning("action_failed", action=action.name, reason=error.message)
        return ActionOutcome(ok=False, reason=error.code)


def done_before(reply: Reply) -> tuple[Decision | None, ActionOutcome | None]:
    """What a reply that is said anew has done already: it is neither decided nor done again."""
    done = [act for act in reply.actions if act.ok is not False]
    if not done:
        return None, None
    act = done[-1]
    return Decision(action=act.name, args=act.args), ActionOutcome(ok=True)


def reserve(persona: Persona, counts: Mapping[str, int], longest: int, *, spelled: bool) -> int:
    """Tokens that a prompt has to leave free for deciding, for notes and for speaking.

    Args:
        persona: Who speaks.
        counts: Tokens of ``texts_to_reserve``.
        longest: Tokens of the longest reply.
        spelled: Whether the engine is told the schema.
    """
    if not persona.actions:
        return longest
    asking = sum(counts[text] for text in texts_to_reserve(persona, spelled=spelled))
    return max(longest + NOTE_TOKENS, asking + MAX_TOKENS + NOTE_TOKENS * spelled)


def texts_to_reserve(persona: Persona, *, spelled: bool) -> tuple[str, ...]:
    """The texts whose tokens ``reserve`` needs to know."""
    if not persona.actions:
        return ()
    return (decision_question(persona, persona.actions, spelled=spelled),)


def opening(decision: Decision) -> Opening | None:
    """With what the reply begins, for the parser; ``None`` where the words are to tell."""
    if decision.emotion is None:
        return None
    return Opening(decision.emotion, decision.intensity, decision.gesture)


async def _answer(engine: Engine, request: GenerateRequest) -> tuple[str, Usage]:
    """The answer; what begins as a chat is not waited for."""
    text, usage = "", Usage(0, 0, 0)
    async with engine.generate(request) as pieces:
        async for piece in pieces:
            text += piece.text
            usage = piece.usage or usage
            if len(text) > PREAMBLE and "{" not in text:
                break
    return text, usage


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.prompt + other.prompt, one.cached + other.cached, one.completion + other.completion
    )
