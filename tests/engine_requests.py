"""What tests of engines share."""

from __future__ import annotations

from typing import Any

import psutil

from npc_server.engines.base import Engine, GenerateRequest, Piece
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

SYSTEM = Message("system", "You are Bram, a gruff blacksmith. Answer in one short sentence.")


def request(text: str = "Hello!", **fields: Any) -> GenerateRequest:
    """A request of one user message; ``max_tokens`` and the like go into its sampling."""
    names = Sampling.model_fields.keys() & fields.keys()
    sampling = Sampling(**{"max_tokens": 24, **{name: fields.pop(name) for name in names}})
    messages = fields.pop("messages", (SYSTEM, Message("user", text)))
    return GenerateRequest(messages, sampling, **{"affinity": "w/c/bram", "seed": 7, **fields})


async def pieces(engine: Engine, asked: GenerateRequest) -> list[Piece]:
    """Everything that an engine answers."""
    async with engine.generate(asked) as stream:
        return [piece async for piece in stream]


async def answer(engine: Engine, asked: GenerateRequest) -> str:
    """The text of an answer."""
    return "".join(piece.text for piece in await pieces(engine, asked))


def ended(pid: int) -> bool:
    """Whether a process is no more; one that nobody has waited for yet counts as ended."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
