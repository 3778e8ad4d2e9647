"""Making one reply: from the state of a conversation to text, sentences, emotions, an outcome."""

from __future__ import annotations

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from npc_server import acting
from npc_server.acting import Propose
from npc_server.brains import Brains
from npc_server.clock import Clock
from npc_server.config import Settings
from npc_server.conversation.audience import heard_by
from npc_server.conversation.model import Conversation, Member, NpcState, Reply, ReplyFinish
from npc_server.conversation.rules import Outcome
from npc_server.engines.base import GenerateRequest, Piece
from npc_server.errors import EngineUnavailable, NpcError
from npc_server.library import Library
from npc_server.observability import Metrics, get_logger
from npc_server.persona import Persona, Sampling
from npc_server.prompt import (
    Prompt,
    PromptInput,
    instructed,
    lay_out,
    shrink,
    speaking_messages,
    stops,
    texts_to_count,
)
from npc_server.protocol import events
from npc_server.protocol.emotion import Emotion
from npc_server.reply import Feeling, Gesture, Opening, Part, ReplyParser, Sentence
from npc_server.reply import Speech as Spoken

log = get_logger(__name__)

PROMPTS_KEPT = 64
COUNTS_KEPT = 4_096
FIT_ATTEMPTS = 12


@dataclass(frozen=True, slots=True)
class Timing:
    """Monotonic seconds at which a reply was asked for, got its seat, and had its first text."""

    asked: float
    seated: float | None = None
    first: float | None = None


class Speech:
    """What is known of a reply while it is being made, and the events that tell of it.

    Args:
        conversation: The conversation's id.
        reply: What was announced.
        clock: Time.
        tell: Takes an event for everyone who hears the reply.
    """

    def __init__(
        self,
        conversation: str,
        reply: Reply,
        clock: Clock,
        tell: Callable[[events.Event], None],
    ) -> None:
        self.conversation = conversation
        self.reply = reply
        self.text = ""
        self.usage: events.TokenUsage | None = None
        self._sentences: list[str] = []
        self._emotion: Emotion | None = None
        self._intensity = 0.0
        self._clock = clock
        self._tell = tell
        self._timing = Timing(clock.monotonic())

    @property
    def emotion(self) -> Emotion | None:
        """What the NPC feels by now."""
        return self._emotion

    def seated(self) -> float:
        """The engine's seat was granted; returns how long that took, in seconds."""
        now = self._clock.monotonic()
        self._timing = Timing(self._timing.asked, now)
        return now - self._timing.asked

    def take(self, parts: Sequence[Part]) -> None:
        """Tell the hearers of what the parser found."""
        for part in parts:
            self._tell(self._event(part))

    def snapshot(self) -> events.ReplySnapshot:
        """What a client that comes in now has missed."""
        return events.ReplySnapshot(
            conversation=self.conversation,
            turn=self.reply.turn,
            text=self.text,
            sentences=list(self._sentences),
            restarted=False,
        )

    def outcome(
        self,
        finish: ReplyFinish,
        heard: dict[str, int],
        *,
        canned: bool = False,
    ) -> Outcome:
        """How it went, if it ends now."""
        asked, seated, first = self._timing.asked, self._timing.seated, self._timing.first
        now = self._clock.monotonic()
        return Outcome(
            text=self.text,
            finish=finish,
            at_ms=self._clock.wall_ms(),
            heard=heard,
            emotion=self._emotion,
            usage=self.usage,
            timings=events.Timings(
                queue_ms=_ms((seated or now) - asked),
                first_token_ms=None if first is None else _ms(first - asked),
                total_ms=_ms(now - asked),
            ),
            degraded="canned" if canned else None,
        )

    @property
    def first_text_seconds(self) -> float | None:
        """How long the first text took."""
        first = self._timing.first
        return None if first is None else first - self._timing.asked

    def _event(self, part: Part) -> events.Event:
        turn = self.reply.turn
        match part:
            case Spoken():
                if not self.text:
                    now = self._clock.monotonic()
                    self._timing = Timing(self._timing.asked, self._timing.seated, now)
                self.text += part.text
                return events.ReplyDelta(conversation=self.conversation, turn=turn, text=part.text)
            case Sentence():
                self._sentences.append(part.text)
                return events.ReplySentence(
                    conversation=self.conversation,
                    turn=turn,
                    index=part.index,
                    text=part.text,
                    start_char=part.start_char,
                )
            case Feeling():
                self._emotion, self._intensity = part.emotion, part.intensity
                return self._feeling(part.at_char, None)
            case Gesture():
                return self._feeling(part.at_char, part.name)

    def _feeling(self, at_char: int, gesture: str | None) -> events.ReplyEmotion:
        return events.ReplyEmotion(
            conversation=self.conversation,
            turn=self.reply.turn,
            emotion=self._emotion or "neutral",
            intensity=self._intensity,
            at_char=at_char,
            gesture=gesture,
        )


class Speaker:
    """Makes replies with an engine.

    Args:
        brains: The engines.
        library: The personas at hand.
        settings: Time-outs.
        metrics: Where it counts.
        clock: Time.
    """

    def __init__(
        self,
        brains: Brains,
        library: Library,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self._engine = brains.default.engine
        self._scheduler = brains.default.scheduler
        self._library = library
        self._timeouts = settings.timeouts
        self._metrics = metrics
        self._clock = clock
        self._prompts: OrderedDict[str, tuple[str, Prompt]] = OrderedDict()
        self._counts: OrderedDict[str, int] = OrderedDict()

    @property
    def queue_position(self) -> int:
        """How many replies would be made before one that is asked for now."""
        return self._scheduler.position

    def admit(self) -> None:
        """Check that one more reply could be made.

        Raises:
            Busy: The queue is full.
        """
        self._scheduler.admit()

    def greeting(self, state: Conversation) -> str | None:
        """A line with which the NPC begins, the same for the same conversation."""
        persona = self._library.get(state.npc_members()[0].ref)
        return _pick(persona.greetings, state.id)

    async def speak(
        self,
        state: Conversation,
        speech: Speech,
        go: asyncio.Event,
        canned: str | None,
        propose: Propose,
    ) -> Outcome:
        """Make the reply that was announced, telling of it as it comes.

        Args:
            state: With the reply in flight.
            speech: Takes what is found.
            go: Nothing is said while it is cleared.
            canned: An authored line to say instead of asking the engine.
            propose: Commits an action and sends it to the game.

        Raises:
            EngineUnavailable: The engine failed, or was silent for too long.
            Busy: The queue is full.
            NotFound: The persona is gone.
        """
        npc = _npc(state, speech.reply.speaker)
        persona = self._library.get(npc.ref)
        if canned is not None:
            speech.seated()
            return await self._say(persona, state, speech, go, canned, canned=False)
        prompt = await self._prompt(state, npc, persona)
        self._keep_prompt(state, speech.reply.turn, prompt)
        parser, prompt = await self._act(state, npc, persona, prompt, speech, go, propose)
        self._keep_prompt(state, speech.reply.turn, prompt)
        async with self._scheduler.seat():
            self._metrics.queue_wait.observe(speech.seated())
            finish = await self._generate(state, npc, persona, prompt, speech, go, parser)
        if not speech.text:
            line = _pick(persona.refusals, speech.reply.turn) or "…"
            return await self._say(persona, state, speech, go, line, canned=True)
        return speech.outcome(finish, {})

    async def warm(self, state: Conversation) -> None:
        """Read the prompt so far into the model, so that the next reply begins sooner."""
        npc = state.npc_members()[0]
        try:
            persona = self._library.get(npc.ref)
            prompt = await self._prompt(state, npc, persona)
            await self._engine.warm(prompt.messages, _affinity(state, npc))
        except NpcError as error:
            log.debug("not_warmed", reason=error.message)

    async def forget(self, state: Conversation) -> None:
        """Drop everything that engine and memory hold of a conversation."""
        gone = [turn for turn, (owner, _) in self._prompts.items() if owner == _owner(state)]
        for turn in gone:
            del self._prompts[turn]
        self._counts.clear()
        await self._engine.forget(_owner(state))

    def prompt_of(self, turn: str) -> dict[str, Any] | None:
        """The effective prompt of a recent reply, for people who tune personas."""
        found = self._prompts.get(turn)
        if found is None:
            return None
        _, prompt = found
        return {
            "turn": turn,
            "messages": [{"role": m.role, "text": m.text} for m in prompt.messages],
            "sections": [
                {"source": s.source, "text": s.text, "tokens": s.tokens} for s in prompt.sections
            ],
            "dropped": prompt.dropped.as_dict(),
        }

    async def _act(
        self,
        state: Conversation,
        npc: Member,
        persona: Persona,
        prompt: Prompt,
        speech: Speech,
        go: asyncio.Event,
        propose: Propose,
    ) -> tuple[ReplyParser, Prompt]:
        """Decide and act before speaking: the parser that begins so, the prompt that tells it."""
        messages, decided = prompt.messages, None
        if speech.reply.instructions is not None:
            messages = instructed(messages, persona, speech.reply.instructions)
        parser = self._parser(state, npc, persona, guard=prompt.guard)
        if persona.actions:
            async with self._scheduler.seat():
                asked = await acting.decide(
                    self._engine,
                    messages,
                    persona,
                    affinity=_affinity(state, npc),
                    seed=zlib.crc32(speech.reply.turn.encode()),
                    seconds=self._timeouts.decision,
                )
            decision = asked.decision
            decided = acting.opening(decision)
            parser = self._parser(state, npc, persona, guard=prompt.guard, decided=decided)
            await go.wait()
            speech.take(parser.feed(""))
            if decision.action is not None:
                outcome = await acting.carry_out(
                    decision, propose, actions=persona.actions, seconds=self._timeouts.confirm
                )
                messages = speaking_messages(messages, persona, decision, outcome)
        if messages is not prompt.messages:
            total = await self._engine.count_prompt(messages)
            if total + self._sampling(persona).max_tokens > self._engine.capabilities.context:
                return parser, prompt
        return parser, replace(prompt, messages=messages)

    async def _generate(
        self,
        state: Conversation,
        npc: Member,
        persona: Persona,
        prompt: Prompt,
        speech: Speech,
        go: asyncio.Event,
        parser: ReplyParser,
    ) -> ReplyFinish:
        request = GenerateRequest(
            messages=prompt.messages,
            sampling=self._sampling(persona),
            affinity=_affinity(state, npc),
            stop=stops(state.members),
            seed=zlib.crc32(speech.reply.turn.encode()),
        )
        finish: ReplyFinish = "stop"
        try:
            async with (
                asyncio.timeout(self._timeouts.reply),
                self._engine.generate(request) as pieces,
            ):
                async for piece in self._paced(pieces):
                    await go.wait()
                    speech.take(parser.feed(piece.text))
                    self._account(speech, piece)
                    finish = piece.finish or finish
                    if parser.finished:
                        finish = "stop"
                        break
        except TimeoutError:
            raise EngineUnavailable(
                "The model was silent for too long. Look at its load, or raise NPC_TIMEOUTS__*."
            ) from None
        await go.wait()
        speech.take(parser.end())
        if speech.first_text_seconds is not None:
            self._metrics.first_token.observe(speech.first_text_seconds)
        return finish

    async def _paced(self, pieces: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
        allowed = self._timeouts.first_token
        while True:
            try:
                async with asyncio.timeout(allowed):
                    piece = await anext(pieces)
            except StopAsyncIteration:
                return
            yield piece
            allowed = self._timeouts.stall

    def _account(self, speech: Speech, piece: Piece) -> None:
        if piece.usage is not None:
            usage = piece.usage
            speech.usage = events.TokenUsage(
                prompt=usage.prompt, cached=usage.cached, completion=usage.completion
            )
            for kind in ("prompt", "cached", "completion"):
                self._metrics.tokens.labels(kind).inc(getattr(usage, kind))

    async def _say(
        self,
        persona: Persona,
        state: Conversation,
        speech: Speech,
        go: asyncio.Event,
        line: str,
        *,
        canned: bool,
    ) -> Outcome:
        npc = _npc(state, speech.reply.speaker)
        parser = self._parser(state, npc, persona, guard="")
        for word in line.split(" "):
            await go.wait()
            speech.take(parser.feed(word + " "))
            await asyncio.sleep(0)
        speech.take(parser.end())
        return speech.outcome("stop", {}, canned=canned)

    def _parser(
        self,
        state: Conversation,
        npc: Member,
        persona: Persona,
        *,
        guard: str,
        decided: Opening | None = None,
    ) -> ReplyParser:
        return ReplyParser(
            names=(npc.name, *persona.nicknames),
            others=tuple(m.name for m in state.members if m.id != npc.id),
            gestures=persona.gestures,
            expressions=persona.expressions,
            emotion=state.npcs.get(npc.id, NpcState()).emotion,
            prompt_text=guard,
            languages=persona.languages,
            decided=decided,
        )

    async def _prompt(self, state: Conversation, npc: Member, persona: Persona) -> Prompt:
        context = self._engine.capabilities.context
        spelled = not self._engine.capabilities.schema
        counts = await self._count(acting.texts_to_reserve(persona, spelled=spelled))
        longest = self._sampling(persona).max_tokens
        allowed = context - acting.reserve(persona, counts, longest, spelled=spelled)
        given = PromptInput(
            persona=persona,
            speaker=npc,
            cast=state.members,
            turns=heard_by(state.turns, npc.id),
            locale=state.locale,
            names={other.id: other.name for other in self._library.all()},
        )
        counts = await self._count(texts_to_count(given))
        budget = allowed
        for _ in range(FIT_ATTEMPTS):
            prompt = lay_out(given, budget, counts)
            total = await self._engine.count_prompt(prompt.messages)
            if total <= allowed:
                return prompt
            budget = shrink(prompt.tokens, total, allowed)
        raise EngineUnavailable(
            f"The persona '{persona.id}' does not fit into the model's context of {context} "
            "tokens. Shorten it, or raise NPC_CONTEXT."
        )

    def _sampling(self, persona: Persona) -> Sampling:
        """The persona's sampling, its replies bounded so that a prompt has room beside them."""
        longest = max(8, self._engine.capabilities.context // 3)
        wanted = persona.sampling
        return wanted.model_copy(update={"max_tokens": min(wanted.max_tokens, longest)})

    async def _count(self, texts: Sequence[str]) -> dict[str, int]:
        unknown = [text for text in texts if text not in self._counts]
        if unknown:
            counted = await self._engine.count_tokens(unknown)
            self._counts.update(zip(unknown, counted, strict=True))
        counts = {text: self._counts[text] for text in texts}
        for text in texts:
            self._counts.move_to_end(text)
        while len(self._counts) > COUNTS_KEPT:
            self._counts.popitem(last=False)
        return counts

    def _keep_prompt(self, state: Conversation, turn: str, prompt: Prompt) -> None:
        self._prompts[turn] = (_owner(state), prompt)
        while len(self._prompts) > PROMPTS_KEPT:
            self._prompts.popitem(last=False)


def _npc(state: Conversation, member: str) -> Member:
    npc = state.member(member)
    if npc is None:
        raise RuntimeError(f"the speaker {member} has left the cast")
    return npc


def _owner(state: Conversation) -> str:
    return f"{state.world}/{state.id}/"


def _affinity(state: Conversation, npc: Member) -> str:
    return _owner(state) + npc.id


def _pick(lines: Sequence[str], key: str) -> str | None:
    return lines[zlib.crc32(key.encode()) % len(lines)] if lines else None


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
