"""Making one reply: which engine, whose turn at it, what when it is late, fails or repeats itself.

By its deadline a reply has begun. The ladder: where a late beginning is foreseen, a shorter reply;
at the deadline, an authored filler in character, and the reply behind it; where no engine of the
chain gives a word, an authored whole line. Something is always said.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from npc_server import acting
from npc_server.acting import Propose
from npc_server.brains import Brain, Brains
from npc_server.clock import Clock
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.audience import heard_by
from npc_server.conversation.model import Conversation, Member, NpcState, ReplyFinish
from npc_server.conversation.rules import Outcome
from npc_server.engines.base import Adapter, GenerateRequest, Piece, Usage
from npc_server.errors import Busy, EngineUnavailable, NpcError, TooLarge
from npc_server.library import Library
from npc_server.observability import Metrics, get_logger
from npc_server.persona import Persona
from npc_server.persona.standins import filler, whole_line
from npc_server.prompt import (
    ActionOutcome,
    Decision,
    Message,
    Prompt,
    instructed,
    speaking_messages,
    stops,
)
from npc_server.prompting import Prompter, affinity_of, owner_of, sampling_for
from npc_server.protocol import events
from npc_server.protocol.emotion import Emotion
from npc_server.reply import Instructions, Learnt, Part, ReplyParser, Sentence, learn
from npc_server.reply.repetition import other_settings
from npc_server.scheduler import Grant, Priority, Recalled
from npc_server.speech import Gate, Speech

log = get_logger(__name__)

EARLIER_REPLIES = 8
"""A reply is compared with so many of the NPC's last ones."""

LEARNT = 256
"""So many earlier replies are kept as they were learnt: those of the last few conversations."""

INDEXED = 32
"""So many instructions are kept indexed."""

RESAMPLES = 2
"""A reply that begins like an earlier one is drawn anew so often, from its first words on. The last
draw may be like one: the same question has the same answer. But where nobody asked, an NPC that
has nothing new to say is silent."""

HEADROOM_SECONDS = 0.25
"""A filler is said so long before the deadline, or a quarter of the deadline if that is less."""

LOOK_AGAIN_SECONDS = 0.01
"""While a command may be about to cut the reply, a filler is put off so long."""

STALL_LOOKS = 8
"""A stall is noticed within the time allowed for it, and at most this part of it too early."""

SMOOTHING = 0.3
"""Weight of the newest measurement in the moving average of the time to a first piece."""


@dataclass(slots=True)
class Utterance:
    """A reply in the making, and all that concerns it.

    Attributes:
        state: The conversation, with the reply in flight.
        npc: Who speaks.
        persona: As whom.
        speech: Takes what is said.
        go: Nothing is said while it is cleared.
        priority: The class of its requests to engines.
        owner: On whose account engines share their time fairly.
        propose: Commits an action and sends it to the game.
        decision: What the NPC decided before it spoke, once it has.
        outcome: What became of the action that it decided on.
        opened: Whether what it decided to feel and show was told.
        served: The engines that gave it a seat. What it still wants of them comes before others'.
    """

    state: Conversation
    npc: Member
    persona: Persona
    speech: Speech
    go: Gate
    priority: Priority
    owner: str
    propose: Propose
    decision: Decision | None = None
    outcome: ActionOutcome | None = None
    opened: bool = False
    served: set[str] = field(default_factory=set)

    @property
    def emotion(self) -> Emotion:
        """What the NPC feels as it begins."""
        return self.state.npcs.get(self.npc.id, NpcState()).emotion


class Speaker:
    """Makes replies with the engines of a server.

    Args:
        brains: The engines.
        library: The personas at hand.
        settings: Time-outs, and where adapters are.
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
        self._brains = brains
        self._library = library
        self._timeouts = settings.timeouts
        self._models_dir = settings.models_dir
        self._metrics = metrics
        self._clock = clock
        self._prompter = Prompter(library)
        self._first_piece: dict[str, float] = {}
        self._learn = lru_cache(LEARNT)(learn)
        self._index = lru_cache(INDEXED)(Instructions)

    def queue_position(
        self, state: Conversation, npc: str | None, owner: str, priority: Priority
    ) -> int:
        """How many replies would be made before one that is asked of an NPC now."""
        return self._brain(state, npc).scheduler.position(priority, owner)

    def admit(self, state: Conversation, npc: str | None, priority: Priority) -> None:
        """Check that one more reply could be made by an NPC.

        Raises:
            Busy: The queue is full.
        """
        self._brain(state, npc).scheduler.admit(priority)

    def greeting(self, state: Conversation) -> str | None:
        """A line with which the first NPC begins, the same for the same conversation."""
        greetings = self._library.get(state.npc_members()[0].ref).greetings
        return greetings[state.seed % len(greetings)] if greetings else None

    async def speak(
        self,
        state: Conversation,
        speech: Speech,
        go: Gate,
        *,
        propose: Propose,
        priority: Priority = Priority.PLAYER,
        owner: str = "",
    ) -> Outcome:
        """Make the reply that was announced, telling of it as it comes.

        Args:
            state: With the reply in flight.
            speech: Takes what is found.
            go: Nothing is said while it is cleared.
            propose: Commits an action and sends it to the game.
            priority: The class of the request.
            owner: On whose account engines share their time fairly.

        Raises:
            EngineUnavailable: The engine failed after something was said.
            NotFound: The persona is gone.
        """
        npc = _npc(state, speech.reply.speaker)
        persona = _as_allowed(self._library.get(npc.ref), state.npcs.get(npc.id))
        utterance = Utterance(state, npc, persona, speech, go, priority, owner, propose)
        utterance.decision, utterance.outcome = acting.done_before(speech.reply)
        if speech.reply.line is not None:
            speech.seated()
            await self._recite(utterance, speech.reply.line)
            return speech.outcome("stop", {})
        with self._filler_by_deadline(utterance):
            finish = await self._from_chain(utterance)
        if not speech.answered and rules.is_unasked(speech.reply):
            finish = "cancelled"
        elif not speech.answered:
            speech.degrade("canned")
            await self._recite(utterance, whole_line(persona, _chance(state, speech)))
            finish = "stop"
        self._count(speech)
        return speech.outcome(finish, {})

    async def warm(self, state: Conversation, npc: Member, owner: str = "") -> None:
        """Read the prompt so far into the model, so that the next reply begins sooner.

        Args:
            state: As it is, or as it would be if what a player has typed so far were said.
            npc: Who is going to answer.
            owner: On whose account.
        """
        try:
            persona = self._library.get(npc.ref)
            brain = self._brains.of(persona.engine)
            prompt = await self._prompter.prompt(brain, state, npc, persona)
            async with brain.scheduler.seat(Priority.WARM, owner) as grant:
                adapter = self._adapter(brain, persona)
                affinity = affinity_of(state, npc)
                await grant.run(brain.engine.warm(prompt.messages, affinity, adapter))
        except (NpcError, Recalled) as error:
            log.debug("not_warmed", reason=str(error))

    async def rerun(
        self, state: Conversation, npc: Member, messages: Sequence[Message], seed: int
    ) -> tuple[str, Usage]:
        """What the model of an NPC says to an edited prompt; nothing of it is kept.

        Args:
            state: The conversation.
            npc: Who would say it.
            messages: The prompt.
            seed: From what chance is drawn.

        Raises:
            EngineUnavailable: The engine cannot answer.
            TooLarge: The prompt is too long.
            Busy: Every seat is taken and the queue is full.
        """
        persona = self._library.get(npc.ref)
        brain = self._brains.of(persona.engine)
        request = GenerateRequest(
            messages=tuple(messages),
            sampling=sampling_for(brain, persona),
            affinity="rerun",
            stop=stops(state.members),
            seed=seed,
            adapter=self._adapter(brain, persona),
        )
        while True:
            text, usage = "", Usage(0, 0, 0)
            try:
                async with (
                    brain.scheduler.seat(Priority.BACKGROUND, owner_of(state)) as grant,
                    brain.engine.generate(request) as pieces,
                    aclosing(grant.until_recalled(pieces)) as stream,
                ):
                    async for piece in stream:
                        text += piece.text
                        usage = piece.usage or usage
            except Recalled:
                continue
            return text, usage

    async def forget(self, state: Conversation) -> None:
        """Drop everything that engines and memory hold of a conversation."""
        self._prompter.forget(state)
        self._learn.cache_clear()
        self._index.cache_clear()
        for brain in self._brains.all():
            await brain.engine.forget(owner_of(state))

    def prompt_of(self, turn: str) -> dict[str, Any] | None:
        """The effective prompt of a recent reply, for people who tune personas."""
        return self._prompter.shown(turn)

    def _brain(self, state: Conversation, npc: str | None) -> Brain:
        member = state.member(npc) if npc else None
        speaker = member or state.npc_members()[0]
        return self._brains.of(self._library.get(speaker.ref).engine)

    async def _from_chain(self, utterance: Utterance) -> ReplyFinish:
        """The reply from the first engine that gives one; nothing is said where none does."""
        for brain in self._brains.chain(utterance.persona.engine):
            try:
                return await self._from(brain, utterance)
            except (EngineUnavailable, Busy, TooLarge) as error:
                if utterance.speech.answered:
                    raise
                self._metrics.engine_failures.labels(brain.name).inc()
                log.warning("engine_failed", engine=brain.name, reason=error.message)
        return "stop"

    async def _from(self, brain: Brain, utterance: Utterance) -> ReplyFinish:
        """The reply from one engine; one that begins like an earlier one goes on in another way."""
        state, speech, persona = utterance.state, utterance.speech, utterance.persona
        prompt = await self._prompter.prompt(brain, state, utterance.npc, persona)
        self._prompter.keep(state, speech.reply.turn, prompt)
        parser = await self._act(brain, utterance, prompt)
        prompt = await self._told(brain, utterance, prompt)
        self._prompter.keep(state, speech.reply.turn, prompt)
        request = GenerateRequest(
            messages=prompt.messages,
            sampling=sampling_for(brain, persona),
            affinity=affinity_of(state, utterance.npc),
            stop=stops(state.members),
            seed=_seed(state, speech),
            adapter=self._adapter(brain, persona),
        )
        finish = await self._scheduled(brain, utterance, request, parser)
        for attempt in range(1, RESAMPLES + 1):
            if parser.finished != "repetition":
                break
            self._metrics.repetitions.labels("resampled" if parser.resumable else "cut").inc()
            if not parser.resumable:
                break
            given = parser.text
            lenient = attempt == RESAMPLES and not rules.is_unasked(speech.reply)
            parser = self._parser(utterance, prompt, earlier=() if lenient else None, after=parser)
            again = replace(
                request,
                sampling=other_settings(request.sampling, attempt),
                seed=request.seed + attempt,
                prefix=given,
            )
            finish = await self._scheduled(brain, utterance, again, parser)
        return finish

    async def _act(self, brain: Brain, utterance: Utterance, prompt: Prompt) -> ReplyParser:
        """Have the NPC decide and act, if it can; the parser for what it says then."""
        persona = utterance.persona
        if not persona.actions or utterance.decision is not None:
            return self._parser(utterance, prompt)
        asked = await self._decide(brain, utterance, prompt)
        utterance.decision = decision = asked.decision
        parser = self._parser(utterance, prompt)
        await utterance.go.wait()
        utterance.speech.take(parser.feed(""))
        utterance.opened = True
        self._account(utterance.speech, asked.usage)
        if decision.action is not None:
            utterance.outcome = await acting.carry_out(
                decision,
                utterance.propose,
                actions=persona.actions,
                seconds=self._timeouts.confirm,
            )
        return parser

    async def _decide(self, brain: Brain, utterance: Utterance, prompt: Prompt) -> acting.Asked:
        """Ask for a decision; recalled for a player's sake, it is asked for anew."""
        while True:
            try:
                async with self._seat(brain, utterance) as grant:
                    return await grant.run(
                        acting.decide(
                            brain.engine,
                            _instructed(utterance, prompt),
                            utterance.persona,
                            affinity=affinity_of(utterance.state, utterance.npc),
                            seed=_seed(utterance.state, utterance.speech),
                            seconds=self._timeouts.decision,
                            adapter=self._adapter(brain, utterance.persona),
                        )
                    )
            except Recalled:
                continue

    async def _told(self, brain: Brain, utterance: Utterance, prompt: Prompt) -> Prompt:
        """The prompt with what the game wants and what the NPC did, where there is room for it."""
        messages = _instructed(utterance, prompt)
        decision, outcome = utterance.decision, utterance.outcome
        if decision is not None and outcome is not None:
            messages = speaking_messages(messages, utterance.persona, decision, outcome)
        if messages == prompt.messages:
            return prompt
        longest = sampling_for(brain, utterance.persona).max_tokens
        room = brain.engine.capabilities.context - longest
        fits = await brain.engine.count_prompt(messages) <= room
        return replace(prompt, messages=messages) if fits else prompt

    async def _scheduled(
        self, brain: Brain, utterance: Utterance, request: GenerateRequest, parser: ReplyParser
    ) -> ReplyFinish:
        """One generation; recalled for a player's sake, it goes on from where it was."""
        made: list[str] = []
        while True:
            try:
                async with self._seat(brain, utterance) as grant:
                    self._foresee(brain, utterance.speech)
                    async with (
                        brain.engine.generate(_rest(request, made)) as pieces,
                        aclosing(grant.until_recalled(pieces)) as stream,
                    ):
                        return await self._listen(brain, utterance, stream, parser, made)
            except Recalled:
                continue

    @asynccontextmanager
    async def _seat(self, brain: Brain, utterance: Utterance) -> AsyncIterator[Grant]:
        """Hold a seat; who had one comes back to the head of the line, and is never refused."""
        again = brain.name in utterance.served
        async with brain.scheduler.seat(utterance.priority, utterance.owner, again=again) as grant:
            utterance.served.add(brain.name)
            utterance.speech.seated()
            yield grant

    def _foresee(self, brain: Brain, speech: Speech) -> None:
        """Where the reply is likely to begin late, have it be short."""
        expected = self._clock.monotonic() + self._first_piece.get(brain.name, 0.0)
        if speech.deadline is not None and expected > speech.deadline:
            speech.degrade("short")

    async def _listen(
        self,
        brain: Brain,
        utterance: Utterance,
        pieces: AsyncIterator[Piece],
        parser: ReplyParser,
        made: list[str],
    ) -> ReplyFinish:
        """Take an engine's pieces as they come, until the reply is over.

        Args:
            brain: Whose pieces they are.
            utterance: Where what is said goes.
            pieces: The engine's stream.
            parser: Finds out what is said.
            made: Takes the text of every piece.

        Raises:
            EngineUnavailable: Nothing came for too long.
        """
        loop, speech, go = asyncio.get_running_loop(), utterance.speech, utterance.go
        began = loop.time()
        end = began + self._timeouts.reply
        looked = 0.0
        before, told = len(made), False
        finish: ReplyFinish = "stop"
        short = speech.degraded == "short"
        try:
            async with asyncio.timeout_at(min(end, began + self._timeouts.first_token)) as limit:
                async for piece in pieces:
                    now = loop.time()
                    if not made:
                        self._learn_pace(brain, now - began)
                    made.append(piece.text)
                    if now - looked > self._timeouts.stall / STALL_LOOKS:
                        # A timer for each piece would cost as much as taking it.
                        looked = now
                        limit.reschedule(min(end, now + self._timeouts.stall))
                    if not go.is_set():
                        waited = loop.time()
                        limit.reschedule(None)
                        await go.wait()
                        looked = loop.time()
                        end += looked - waited
                        limit.reschedule(min(end, looked + self._timeouts.stall))
                    parts = parser.feed(piece.text)
                    if short and (first := _first_sentence(parts)):
                        speech.take(first)
                        return "stop"
                    speech.take(parts)
                    if piece.usage is not None:
                        told = True
                        self._account(speech, piece.usage)
                    finish = piece.finish or finish
                    if parser.finished:
                        break
        except TimeoutError:
            if loop.time() < end:
                raise EngineUnavailable(
                    "The model was silent for too long. Look at its load, or raise NPC_TIMEOUTS__*."
                ) from None
            return "deadline"
        finally:
            if not told:
                speech.untold += len(made) - before
        await go.wait()
        speech.take(parser.end())
        return "stop" if parser.finished else finish

    @contextmanager
    def _filler_by_deadline(self, utterance: Utterance) -> Iterator[None]:
        """See to it that something is said shortly before the deadline."""
        speech = utterance.speech
        if speech.deadline is None:
            yield
            return
        loop = asyncio.get_running_loop()
        left = max(0.0, speech.deadline - self._clock.monotonic())
        timer: asyncio.TimerHandle

        def fill() -> None:
            nonlocal timer
            if not utterance.go.is_set():
                timer = loop.call_later(LOOK_AGAIN_SECONDS, fill)
            elif not speech.text:
                line = filler(utterance.persona, _chance(utterance.state, speech))
                speech.fill(line, utterance.emotion)

        timer = loop.call_later(left - min(HEADROOM_SECONDS, left / 4), fill)
        try:
            yield
        finally:
            timer.cancel()

    async def _recite(self, utterance: Utterance, line: str) -> None:
        """Say an authored line."""
        parser = self._parser(utterance)
        for word in line.split(" "):
            await utterance.go.wait()
            utterance.speech.take(parser.feed(word + " "))
            await asyncio.sleep(0)
        utterance.speech.take(parser.end())

    def _parser(
        self,
        utterance: Utterance,
        prompt: Prompt | None = None,
        *,
        earlier: Sequence[Learnt] | None = None,
        after: ReplyParser | None = None,
    ) -> ReplyParser:
        """A parser; with a prompt, what the model says is held against it and the last replies.

        Args:
            utterance: What is said.
            prompt: What must not be recited; ``None`` for an authored line.
            earlier: What must not be repeated; by default the NPC's last replies.
            after: Another that has given the reply's first words.
        """
        state, npc, persona = utterance.state, utterance.npc, utterance.persona
        if earlier is None:
            earlier = [*map(self._learn, _earlier(state, npc))] if prompt else ()
        decision = utterance.decision
        parser = ReplyParser(
            names=(npc.name, *persona.nicknames),
            others=tuple(m.name for m in state.members if m.id != npc.id),
            gestures=persona.gestures,
            expressions=persona.expressions,
            emotion=after.emotion if after else utterance.emotion,
            instructions=self._index(prompt.guard) if prompt else None,
            languages=persona.languages,
            earlier=earlier,
            decided=None if decision is None else acting.opening(decision),
            said=after.text if after else "",
            patient=prompt is not None and rules.is_unasked(utterance.speech.reply),
        )
        if utterance.opened:
            parser.feed("")  # With what it begins, which another draw or engine keeps to.
        return parser

    def _adapter(self, brain: Brain, persona: Persona) -> Adapter | None:
        """The persona's adapter, for the engine that it was made for."""
        wanted = persona.adapter
        if wanted is None or brain is not self._brains.of(persona.engine):
            return None
        return Adapter(self._models_dir / wanted.path, wanted.scale)

    def _learn_pace(self, brain: Brain, seconds: float) -> None:
        known = self._first_piece.get(brain.name, seconds)
        self._first_piece[brain.name] = known + SMOOTHING * (seconds - known)

    def _account(self, speech: Speech, usage: Usage) -> None:
        before = speech.usage or events.TokenUsage(prompt=0, cached=0, completion=0)
        speech.usage = events.TokenUsage(
            prompt=before.prompt + usage.prompt,
            cached=before.cached + usage.cached,
            completion=before.completion + usage.completion,
        )
        for kind in ("prompt", "cached", "completion"):
            self._metrics.tokens.labels(kind).inc(getattr(usage, kind))

    def _count(self, speech: Speech) -> None:
        if speech.first_text_seconds is not None:
            self._metrics.first_token.observe(speech.first_text_seconds)
        if speech.degraded:
            self._metrics.degraded.labels(speech.degraded).inc()


def _npc(state: Conversation, member: str) -> Member:
    npc = state.member(member)
    if npc is None:
        raise RuntimeError(f"the speaker {member} has left the cast")
    return npc


def _as_allowed(persona: Persona, npc: NpcState | None) -> Persona:
    """The persona with the actions that the game lets it take now."""
    if npc is None or npc.actions is None:
        return persona
    allowed = tuple(action for action in persona.actions if action.name in npc.actions)
    return persona.model_copy(update={"actions": allowed})


def _instructed(utterance: Utterance, prompt: Prompt) -> tuple[Message, ...]:
    own = utterance.speech.reply.instructions
    wanted = " ".join(filter(None, (utterance.state.instructions, own)))
    if not wanted:
        return prompt.messages
    return instructed(prompt.messages, utterance.persona, wanted)


def _earlier(state: Conversation, npc: Member) -> tuple[str, ...]:
    """What it must not say again: its own last lines, and of NPCs among themselves the others'."""
    among = state.reply is not None and state.reply.ambient
    said = [
        turn.text
        for turn in heard_by(state.turns, npc.id)
        if turn.speaker == npc.id or (among and turn.kind == "reply")
    ]
    return tuple(said[-EARLIER_REPLIES:])


def _rest(request: GenerateRequest, made: Sequence[str]) -> GenerateRequest:
    """The request for what is still to be said."""
    if not made:
        return request
    left = max(1, request.sampling.max_tokens - len(made))
    return replace(
        request,
        prefix=request.prefix + "".join(made),
        sampling=request.sampling.model_copy(update={"max_tokens": left}),
    )


def _first_sentence(parts: Sequence[Part]) -> Sequence[Part]:
    """The parts up to the end of the first sentence; none if no sentence ends here."""
    ends = [at for at, part in enumerate(parts) if isinstance(part, Sentence)]
    return parts[: ends[0] + 1] if ends else ()


def _seed(state: Conversation, speech: Speech) -> int:
    return zlib.crc32(_chance(state, speech).encode())


def _chance(state: Conversation, speech: Speech) -> str:
    """From what the chance of a reply is drawn: its place in the conversation, not the hour."""
    return f"{state.seed}/{speech.reply.number}"
