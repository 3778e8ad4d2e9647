"""Prompts that are laid out while other conversations come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from npc_server import prompting
from npc_server.brains import Brain
from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Member
from npc_server.engines.scripted import ScriptedEngine
from npc_server.library import Library, builtin_personas
from npc_server.observability import Metrics
from npc_server.prompting import Prompter
from npc_server.scheduler import Scheduler


class Slow(ScriptedEngine):
    """Counts tokens only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.let = asyncio.Event()

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        self.asked.set()
        await self.let.wait()
        return await super().count_tokens(texts)


def conversation(said: str) -> Conversation:
    """Bram is spoken to."""
    player = Member("minsu", "player", "Minsu", "minsu")
    state = rules.begin(
        "c", "w", player, [Member("bram", "npc", "Bram", "bram")], locale=None, now_ms=0
    )
    return rules.said(state, player, said, to=(), whisper=False, turn=said, now_ms=0).state


@pytest.mark.parametrize("kept", [2, prompting.COUNTS_KEPT])
async def test_counts_may_be_forgotten_meanwhile(
    kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation that ends, or a full cache, takes no count from a prompt in the making."""
    monkeypatch.setattr(prompting, "COUNTS_KEPT", kept)
    library = Library([builtin_personas()])
    library.load()
    engine = Slow()
    brain = Brain("default", engine, Scheduler(1, 1, Metrics()))
    prompter = Prompter(library)
    state, bram = conversation("Hello"), library.get("bram")
    engine.let.set()
    known = await prompter.prompt(brain, state, state.npc_members()[0], bram)
    engine.let.clear()
    engine.asked.clear()
    said = conversation("Hello again")
    making = asyncio.create_task(prompter.prompt(brain, said, said.npc_members()[0], bram))
    await engine.asked.wait()
    prompter.forget(state)
    engine.let.set()
    made = await making
    assert made.messages[0] == known.messages[0]
    assert made.messages[-1].text == "Hello again"
