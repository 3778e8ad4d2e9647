"""The demo's model answers through llama.cpp."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jsonschema
from engine_requests import SYSTEM, answer, pieces, request

from npc_server.engines.base import ScoreRequest
from npc_server.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from npc_server.prompt.messages import Message

TEXTS = (
    "Good morning, blacksmith! How's the forge?",
    "안녕하세요, 대장장이님. 오늘 날씨가 참 좋네요!",
    "It costs 1234567.89 gold, i.e. 12 % more than in 1999.",
    "for i in range(10):\n\tprint(i)   # three  spaces\r\n\n\n",
    "Ünïcödé — «naïve» 🙂👩‍👩‍👧 ﷺ \u200b\ufeff",
    "  leading and trailing  ",
    "I'll we've DON'T they'd",
)


@asynccontextmanager
async def running(model: Path, **settings: Any) -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(LlamaCppSettings(model, context=1024, **settings))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


async def test_our_tokens_are_llama_cpp_s(smollm2: Path) -> None:
    """Texts of several scripts, and a whole prompt, come out as the same ids."""
    async with running(smollm2, seats=1) as engine:
        llama = await engine._kept.current()
        tokens = engine._known_tokens()
        for text in TEXTS:
            assert await engine.count_tokens([text]) == [len(await llama.tokenize(text))]
        said = [SYSTEM, *(Message("user", text.strip()) for text in TEXTS)]
        ids = await tokens.prompt(said, "", llama.tokenize)
        text = (await llama.http.call("/detokenize", {"tokens": ids}))["content"]
        body = {"content": text, "add_special": False, "parse_special": True}
        assert (await llama.http.call("/tokenize", body))["tokens"] == ids


async def test_replies_make_sense(smollm2: Path) -> None:
    """Words, a reply in JSON, a score for the right answer."""
    async with running(smollm2, seats=2) as engine:
        asked = (
            Message("system", "You are a helpful assistant."),
            Message("user", "Name the largest ocean."),
        )
        said = await answer(engine, request(messages=asked, temperature=0, repetition_penalty=1.0))
        assert "Pacific" in said
        schema = {
            "type": "object",
            "properties": {"mood": {"enum": ["happy", "sad"]}, "line": {"type": "string"}},
            "required": ["mood", "line"],
            "additionalProperties": False,
        }
        text = await answer(engine, request("Greet me.", schema=schema, max_tokens=200))
        jsonschema.validate(json.loads(text), schema)
        question = (
            Message("system", "Answer with one word."),
            Message("user", "Is the sky blue or green?"),
        )
        scores = await engine.score(ScoreRequest(question, ("Blue", "Car", "Seven"), "w/c/judge"))
        assert scores[0] == max(scores)
        assert math.isclose(sum(math.exp(score) for score in scores), 1, abs_tol=1e-6)


async def test_a_conversation_is_read_once(smollm2: Path) -> None:
    """The second turn reads what is new; the other seat's reply does not disturb it."""
    async with running(smollm2, seats=2) as engine:
        first = request("Tell me of your village.", max_tokens=16)
        said = await answer(engine, first)
        await answer(engine, request("And yours?", affinity="w/c/mia", max_tokens=16))
        later = (*first.messages, Message("assistant", said), Message("user", "And the king?"))
        last = (await pieces(engine, request(messages=later, max_tokens=16)))[-1]
        assert last.usage is not None
        assert last.usage.prompt - last.usage.cached < 24


async def test_what_was_read_may_be_stored_in_less(smollm2: Path) -> None:
    """With a KV cache of eight bits, and flash attention, replies come and are cached."""
    async with running(smollm2, kv_cache="q8_0", flash_attention="on", seats=1) as engine:
        assert await answer(engine, request())
        await answer(engine, request(affinity="w/c/mia"))
        last = (await pieces(engine, request()))[-1]
        assert last.usage is not None
        assert last.usage.cached == last.usage.prompt - 1
