"""Who speaks next, or nobody.

Names come first: ``conversation.addressee`` finds out from the words to whom they are. Where they
are to nobody in particular, a model is asked who would answer; its answer is weighed with how
talkative each one is and how long it has been silent. Chance is drawn from the conversation's seed,
so that a loaded game goes the same way again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from npc_server.brains import Brain, Brains
from npc_server.clock import Clock
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.addressee import Addressees, Candidate, Exchange, addressees
from npc_server.conversation.audience import audible, heard_by
from npc_server.conversation.model import Ask, Conversation, Member, Reply, Turn
from npc_server.conversation.rules import Silence
from npc_server.engines.choose import Chooser, Question
from npc_server.errors import NotFound, NpcError
from npc_server.library import Library
from npc_server.observability import get_logger
from npc_server.persona import Persona
from npc_server.prompt import Message
from npc_server.prompt.plain import plain
from npc_server.scheduler import Priority, Recalled

log = get_logger(__name__)

RECENT = 6
"""So many of the newest turns tell with whom somebody talks."""

ANSWERERS = 3
"""So many NPCs answer what is said to all of them."""

TALKATIVE = 0.5
"""How talkative an NPC is of which the scene says nothing."""

CHIME_IN = 0.25
"""The chance that the most talkative NPC joins in a talk that goes on without it."""

NOBODY = 0.6
"""So sure must a model be that nobody answers."""

FRESH = 8
"""After so many turns an NPC has been silent for long."""

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Pick:
    """Who speaks; without anybody, who might have and why it is silent."""

    npc: str
    silence: Silence | None = None


class Director:
    """Decides who speaks next.

    Args:
        brains: The engines, asked where words name nobody.
        library: The personas at hand.
        settings: How long a model may take to say who answers.
        clock: Time.
    """

    def __init__(self, brains: Brains, library: Library, settings: Settings, clock: Clock) -> None:
        self._brains = brains
        self._library = library
        self._patience = settings.timeouts.director
        self._clock = clock
        self._choosers: dict[str, Chooser] = {}

    def addressed(
        self,
        state: Conversation,
        speaker: str,
        text: str,
        *,
        to: Sequence[str] = (),
        gaze: str | None = None,
        hearers: Sequence[str] = (),
    ) -> Addressees:
        """To which NPCs somebody speaks.

        Args:
            state: Before the words are a turn in it.
            speaker: Member id of a player or an NPC.
            text: The words.
            to: Whom the client named; it stands.
            gaze: At whom the speaker looks.
            hearers: Who hears it; by default whoever is near.
        """
        near = (*hearers, *to) if hearers else audible(state, speaker)
        npcs = [npc for npc in state.npc_members() if npc.id in near and npc.id != speaker]
        asker = state.member(speaker)
        if len(npcs) == 1 and not to and asker is not None and asker.kind == "player":
            return Addressees((npcs[0].id,), "only_one")
        recent = [turn for turn in heard_by(state.turns, speaker) if turn.kind != "event"]
        return addressees(
            text,
            speaker=speaker,
            candidates=[Candidate(npc.id, self._names(npc)) for npc in npcs],
            to=tuple(to),
            gaze=gaze,
            recent=[Exchange(turn.speaker, turn.to) for turn in recent[-RECENT:]],
            absent=self._absent(state, near),
        )

    def asks(
        self, state: Conversation, turn: Turn, player: Member, found: Addressees
    ) -> tuple[Ask, ...]:
        """Who is to answer a turn that a player said; one without a speaker is still open.

        Args:
            state: With the turn.
            turn: What was said.
            player: By whom.
            found: To whom.
        """
        npcs = [npc.id for npc in state.npc_members() if npc.id in turn.hearers]
        among_players = found.reason == "to" and not any(m in npcs for m in turn.to)
        if not npcs or among_players:
            return ()
        if len(npcs) == 1:
            chosen: Sequence[str | None] = npcs
        elif found.reason == "everyone":
            chosen = self._by_eagerness(state, npcs)[:ANSWERERS]
        else:
            chosen = [npc for npc in found.members if npc in npcs] or [None]
        return tuple(Ask(npc, turn.id, turn.id, player.ref) for npc in chosen)

    def following(self, state: Conversation, reply: Reply, text: str) -> tuple[Ask, ...]:
        """Which NPC answers the reply of another, if any.

        It does where it is called by name; where it was spoken to, or where NPCs may speak unasked,
        as talkative as it is. The chain and the budget of the surroundings bound it.

        Args:
            state: With the reply in flight.
            reply: The reply.
            text: All of it.
        """
        ambient = state.around.ambient
        others = [
            npc.id
            for npc in state.npc_members()
            if npc.id in reply.hearers and npc.id != reply.speaker
        ]
        if not others or not text.strip() or reply.line is not None:
            return ()
        if reply.chain >= ambient.chain or not self.has_budget(state):
            return ()
        found = self.addressed(state, reply.speaker, text, hearers=reply.hearers)
        named = [npc for npc in found.members if npc in others and found.reason == "named"]
        spoken_to = [npc for npc in reply.to if npc in others]
        chance = _dice(state, f"{reply.number}/follow").random()
        if named:
            npc = named[0]
        elif spoken_to and chance < self._talkative(state, spoken_to[0]):
            npc = spoken_to[0]
        elif ambient.on:
            npc = self._by_eagerness(state, others)[0]
            if chance >= CHIME_IN * self._talkative(state, npc):
                return ()
        else:
            return ()
        chain = reply.chain + 1
        return (Ask(npc, reply.turn, reply.root, reply.player, chain=chain, ambient=True),)

    def has_budget(self, state: Conversation) -> bool:
        """Whether NPCs may speak once more without having been asked."""
        since = self._clock.wall_ms() - MINUTE_MS
        spoken = sum(at > since for at in state.unasked)
        return spoken < state.around.ambient.per_minute

    async def pick(self, state: Conversation, ask: Ask) -> Pick | None:
        """Who speaks where that is open.

        Args:
            state: The ask waits in it.
            ask: Without a speaker.

        Returns:
            ``None`` where there is nobody who could.
        """
        turn = state.turn(ask.answers) if ask.answers else None
        npcs = [npc for npc in state.npc_members() if turn is None or npc.id in turn.hearers]
        if not npcs:
            return None
        if rules.is_unasked(ask) and not self.has_budget(state):
            return Pick(npcs[0].id, "budget")
        if len(npcs) == 1:
            return Pick(npcs[0].id)
        if turn is None:
            return Pick(self._drawn(state, [npc.id for npc in npcs]))
        weights = await self._relevance(state, turn, npcs, ask)
        *each, nobody = weights
        talk = [0.5 + self._talkative(state, npc.id) for npc in npcs]
        waited = [1 + self._silence(state, npc.id) / (4 * FRESH) for npc in npcs]
        scores = [a * b * c for a, b, c in zip(each, talk, waited, strict=True)]
        best = npcs[scores.index(max(scores))].id
        question = turn.kind == "say" and turn.text.rstrip().endswith(("?", "\uff1f"))
        if nobody > NOBODY and not ask.must and not question:
            return Pick(best, "quiet")
        return Pick(best)

    async def _relevance(
        self, state: Conversation, turn: Turn, npcs: Sequence[Member], ask: Ask
    ) -> list[float]:
        """How likely each NPC is to answer, and last that nobody is; by a model, else by words."""
        personas = [self._persona(npc) for npc in npcs]
        by_words = [1.0 + self._known(persona, turn.text) for persona in personas]
        try:
            brain = self._brains.background(personas[0].engine if personas[0] else None)
            question = _question(npcs, personas)
            messages = self._overheard(state, turn, npcs, personas)
            async with asyncio.timeout(self._patience):
                while True:
                    try:
                        async with brain.scheduler.seat(Priority.PLAYER, ask.player) as grant:
                            found = await grant.run(
                                self._chooser(brain).choose(messages, question, "director")
                            )
                            break
                    except Recalled:
                        continue
        except (NpcError, TimeoutError) as error:
            log.debug("director_went_by_words", reason=str(error))
            return [*(w / sum(by_words) for w in by_words), 0.0]
        each = [p * w for p, w in zip(found, by_words, strict=False)]
        return [*each, found[-1]]

    def _overheard(
        self,
        state: Conversation,
        turn: Turn,
        npcs: Sequence[Member],
        personas: Sequence[Persona | None],
    ) -> list[Message]:
        """What all who might answer have heard: nobody is chosen by what it does not know."""
        heard = [{t.id: t for t in heard_by(state.turns, npc.id)} for npc in npcs]
        known = set.intersection(*(set(turns) for turns in heard))
        least = [min((turns[t] for turns in heard), key=_length) for t in heard[0] if t in known]
        shared = [t for t in least if t.text and t.index <= turn.index]
        names = {m.id: plain(m.name) for m in state.members}
        lines = [
            f"[{plain(t.text)}]" if t.kind == "event" else f"{names[t.speaker]}: {plain(t.text)}"
            for t in shared[-RECENT:]
        ]
        korean = _is_korean(personas)
        system = (
            "당신은 대화에 대한 질문에 답합니다."
            if korean
            else "You answer questions about a conversation."
        )
        return [Message("system", system), Message("user", "\n".join(lines) or "...")]

    def _chooser(self, brain: Brain) -> Chooser:
        return self._choosers.setdefault(brain.name, Chooser(brain.engine))

    def _by_eagerness(self, state: Conversation, npcs: Sequence[str]) -> list[str]:
        """Who would speak first: the talkative, then those who have been silent for long."""
        return sorted(
            npcs,
            key=lambda npc: -(self._talkative(state, npc) + self._silence(state, npc) / FRESH / 2),
        )

    def _drawn(self, state: Conversation, npcs: Sequence[str]) -> str:
        weights = [
            (0.1 + self._talkative(state, npc)) * (0.1 + self._silence(state, npc)) for npc in npcs
        ]
        return _dice(state, f"{state.next}/begin").choices(npcs, weights)[0]

    def _talkative(self, state: Conversation, npc: str) -> float:
        return state.around.talkativeness.get(npc, TALKATIVE)

    def _silence(self, state: Conversation, npc: str) -> int:
        """For how many of the newest turns an NPC has said nothing, ``FRESH`` at most."""
        newest = reversed(state.turns[-FRESH:])
        return next((n for n, turn in enumerate(newest) if turn.speaker == npc), FRESH)

    def _known(self, persona: Persona | None, text: str) -> float:
        """Whether words bring up what a persona knows of."""
        if persona is None:
            return 0.0
        said = text.casefold()
        keys = (key for knowledge in persona.knowledge for key in knowledge.keys)
        return float(any(key.casefold() in said for key in keys))

    def _names(self, npc: Member) -> tuple[str, ...]:
        persona = self._persona(npc)
        return (npc.name, *(persona.nicknames if persona else ()))

    def _absent(self, state: Conversation, near: Sequence[str]) -> tuple[str, ...]:
        """Names of those who are known and cannot hear it."""
        here = {name for m in state.here() if m.id in near for name in self._all_names(m)}
        far = [m.name for m in state.members if m.id not in near]
        known = [persona.name for persona in self._library.all()]
        return tuple(name for name in dict.fromkeys((*far, *known)) if name not in here)

    def _all_names(self, member: Member) -> tuple[str, ...]:
        return self._names(member) if member.kind == "npc" else (member.name,)

    def _persona(self, npc: Member) -> Persona | None:
        try:
            return self._library.get(npc.ref)
        except NotFound:
            return None


def _length(turn: Turn) -> int:
    return len(turn.text)


def _dice(state: Conversation, what: str) -> Random:
    """The chance of one thing in a conversation: the same whenever it is drawn."""
    return Random(f"{state.seed}/{what}")  # noqa: S311 (a game's dice, not a secret)


def _question(npcs: Sequence[Member], personas: Sequence[Persona | None]) -> Question:
    korean = _is_korean(personas)
    options = [
        f"{plain(npc.name)} ({persona.summary[:80]})" if persona else plain(npc.name)
        for npc, persona in zip(npcs, personas, strict=True)
    ]
    options = [
        f"{n}. {option}" if options.count(option) > 1 else option
        for n, option in enumerate(options, start=1)
    ]
    if korean:
        return Question("방금 한 말에 누가 대답할까요?", (*options, "아무도 안 함"), "ko")
    return Question("Who answers the last line?", (*options, "Nobody"), "en")


def _is_korean(personas: Sequence[Persona | None]) -> bool:
    first = next((persona for persona in personas if persona is not None), None)
    return first is not None and first.languages[0].startswith("ko")
