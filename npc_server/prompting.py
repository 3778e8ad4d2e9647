"""From the state of a conversation to a prompt that fits an engine's context."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from npc_server import acting
from npc_server.brains import Brain
from npc_server.conversation.audience import audible, heard_by
from npc_server.conversation.model import Conversation, Member, NpcState
from npc_server.errors import EngineUnavailable
from npc_server.library import Library
from npc_server.persona import Persona, Sampling
from npc_server.prompt import Prompt, PromptInput, gather, lay_out, shrink, texts_to_count

PROMPTS_KEPT = 64
COUNTS_KEPT = 4_096
FIT_ATTEMPTS = 12


class Prompter:
    """Lays prompts out, and keeps the newest for people who tune personas.

    Args:
        library: The personas at hand.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._prompts: OrderedDict[str, tuple[str, Prompt]] = OrderedDict()
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def prompt(
        self, brain: Brain, state: Conversation, npc: Member, persona: Persona
    ) -> Prompt:
        """The prompt for the next line of an NPC.

        Raises:
            EngineUnavailable: The persona does not fit into the context, or the engine is down.
        """
        able = brain.engine.capabilities
        longest, spelled = sampling_for(brain, persona).max_tokens, not able.schema
        asking = await self._count(brain, acting.texts_to_reserve(persona, spelled=spelled))
        allowed = able.context - acting.reserve(persona, asking, longest, spelled=spelled)
        names = {other.id: other.name for other in self._library.all()}
        material = gather(perceived(state, npc, persona, names))
        counts = await self._count(brain, texts_to_count(material))
        budget = allowed
        for _ in range(FIT_ATTEMPTS):
            prompt = lay_out(material, budget, counts)
            total = await brain.engine.count_prompt(prompt.messages)
            if total <= allowed:
                return prompt
            budget = shrink(prompt.tokens, total, allowed)
        raise EngineUnavailable(
            f"The persona '{persona.id}' does not fit into the model's context of {able.context} "
            "tokens. Shorten it, or raise NPC_CONTEXT."
        )

    def keep(self, state: Conversation, turn: str, prompt: Prompt) -> None:
        """Remember the prompt of a reply for a while."""
        self._prompts[turn] = (owner_of(state), prompt)
        while len(self._prompts) > PROMPTS_KEPT:
            self._prompts.popitem(last=False)

    def forget(self, state: Conversation) -> None:
        """Drop everything of a conversation."""
        gone = [turn for turn, (owner, _) in self._prompts.items() if owner == owner_of(state)]
        for turn in gone:
            del self._prompts[turn]
        self._counts.clear()

    def shown(self, turn: str) -> dict[str, Any] | None:
        """The effective prompt of a recent reply as JSON knows it."""
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

    async def _count(self, brain: Brain, texts: Sequence[str]) -> dict[str, int]:
        known = {text: self._counts.get((brain.name, text)) for text in texts}
        counts = {text: count for text, count in known.items() if count is not None}
        unknown = [text for text in known if text not in counts]
        if unknown:
            # Others forget counts meanwhile: what was known is taken along.
            counted = await brain.engine.count_tokens(unknown)
            counts.update(zip(unknown, counted, strict=True))
        for text in texts:
            self._counts[brain.name, text] = counts[text]
            self._counts.move_to_end((brain.name, text))
        while len(self._counts) > COUNTS_KEPT:
            self._counts.popitem(last=False)
        return counts


def perceived(
    state: Conversation, npc: Member, persona: Persona, names: Mapping[str, str]
) -> PromptInput:
    """All that an NPC may know of a conversation: what it heard, whom it perceives, what holds.

    Args:
        state: The conversation.
        npc: Who.
        persona: As whom.
        names: Names of personas by their id.
    """
    around = state.around
    return PromptInput(
        persona=persona,
        speaker=npc,
        cast=_acquainted(state, npc),
        turns=heard_by(state.turns, npc.id),
        locale=state.locale,
        facts=state.facts,
        here=frozenset(audible(state, npc.id)),
        settled=_is_settled(state),
        place=around.place,
        role=around.roles.get(npc.id),
        objects=around.objects,
        mood=state.npcs.get(npc.id, NpcState()).mood,
        names=names,
    )


def _acquainted(state: Conversation, npc: Member) -> tuple[Member, ...]:
    """Those whom an NPC knows of: who is here, and whomever it heard while it was."""
    if all(m.presence != "gone" for m in state.members):
        return state.members
    heard = {turn.speaker for turn in heard_by(state.turns, npc.id)}
    return tuple(m for m in state.members if m.presence != "gone" or m.id in heard)


def _is_settled(state: Conversation) -> bool:
    """Whether whoever is here has been from the beginning, and all hear one another."""
    around = state.around
    npcs = [m for m in state.members if m.kind == "npc"]
    players = [m for m in state.members if m.kind == "player"]
    return (
        not around.groups
        and not around.distances
        and len(players) == 1
        and all(npc.presence == "here" and npc.since == 0 for npc in npcs)
    )


def sampling_for(brain: Brain, persona: Persona) -> Sampling:
    """The persona's sampling, its replies bounded so that a prompt has room beside them."""
    longest = max(8, brain.engine.capabilities.context // 3)
    wanted = persona.sampling
    return wanted.model_copy(update={"max_tokens": min(wanted.max_tokens, longest)})


def owner_of(state: Conversation) -> str:
    """What every affinity of a conversation begins with."""
    return f"{state.world}/{state.id}/"


def affinity_of(state: Conversation, npc: Member) -> str:
    """What an NPC of a conversation is known by to engines: the same one, the same seat."""
    return owner_of(state) + npc.id
