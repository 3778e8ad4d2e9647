"""Schemas, scores and adapters through the real library, with tiny models that talk nonsense."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from engine_requests import SYSTEM, answer, pieces, request
from lora_files import SHAPES, lora
from model_files import WIDTH, ggjt, llama, sentencepiece, vocabulary
from schemas import random_schema

from npc_server.engines.base import Adapter, GenerateRequest, ScoreRequest
from npc_server.engines.ctransformers import CtransformersEngine, CtransformersSettings
from npc_server.errors import BadMessage, ModelFileError
from npc_server.prompt.messages import Message

SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["joy", "anger"]}, "words": {"type": "string"}},
    "required": ["mood", "words"],
    "additionalProperties": False,
}
LONGER = {"llama.context_length": 2048}


async def started(file: Path, **settings: Any) -> CtransformersEngine:
    engine = CtransformersEngine(
        CtransformersSettings(file, **{"context": 1024, "seats": 2, "threads": 1, **settings})
    )
    await engine.start()
    return engine


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A byte-level model of today."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama(tied=False, changes=LONGER))
    return file


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[CtransformersEngine]:
    """An engine with two seats."""
    engine = await started(model)
    yield engine
    await engine.close()


def scored(*labels: str, **fields: Any) -> ScoreRequest:
    messages = (SYSTEM, Message("user", fields.pop("text", "Friend or foe?")))
    return ScoreRequest(messages, labels, **{"affinity": "w/c/bram", **fields})


def adapted(file: Path, **fields: Any) -> GenerateRequest:
    return request(adapter=Adapter(file), temperature=0, max_tokens=16, **fields)


@pytest.fixture
def adapters(tmp_path: Path) -> tuple[Path, Path]:
    """Two adapters that change much."""
    shapes = {**SHAPES, "output.weight": (WIDTH, len(vocabulary()[0]))}
    for seed in (1, 2):
        (tmp_path / f"lora{seed}.gguf").write_bytes(lora(seed=seed, shapes=shapes))
    return tmp_path / "lora1.gguf", tmp_path / "lora2.gguf"


async def test_what_it_can_do_is_told(engine: CtransformersEngine) -> None:
    """Schemas, scores and adapters."""
    facts = engine.capabilities
    assert (facts.schema, facts.scores, facts.adapters) == (True, True, True)


async def test_twenty_of_twenty_are_valid(engine: CtransformersEngine) -> None:
    """Random schemas at temperature 1, two replies at a time: complete, valid and compact JSON."""
    schemas = [random_schema(np.random.default_rng(seed)) for seed in range(20)]

    async def ask(seed: int) -> str:
        asked = request(
            f"Fill in form {seed}.", schema=schemas[seed], seed=seed, temperature=1, top_p=1,
            top_k=0, max_tokens=300, affinity=f"w/c/{seed}",
        )  # fmt: skip
        *_, last = await pieces(engine, asked)
        assert last.finish == "stop"
        return await answer(engine, asked)

    for seed, text in enumerate(await asyncio.gather(*map(ask, range(20)))):
        value = json.loads(text)
        jsonschema.validate(value, schemas[seed])
        assert not text[:1].isspace()


async def test_a_schema_holds_for_models_of_2023(tmp_path: Path) -> None:
    """SentencePiece GGUF and GGJT: the space that they put in front of text is not in the JSON."""
    for name, content in (("old.gguf", sentencepiece()), ("old.bin", ggjt())):
        file = tmp_path / name
        file.write_bytes(content)
        engine = await started(file, context=256, seats=1, template="plain")
        for seed in range(5):
            asked = request("Hi", schema=SCHEMA, temperature=1, seed=seed, max_tokens=80)
            text = await answer(engine, asked)
            jsonschema.validate(json.loads(text), SCHEMA)
            assert text.startswith('{"mood":')
        assert sum(map(math.exp, await engine.score(scored("a", "b")))) == pytest.approx(1)
        assert engine.capabilities.adapters == name.endswith(".gguf")
        await engine.close()


async def test_a_schema_that_cannot_be_enforced_is_refused(engine: CtransformersEngine) -> None:
    """The message names the keyword; the next reply works."""
    with pytest.raises(BadMessage, match="uniqueItems"):
        await answer(engine, request(schema={"type": "array", "uniqueItems": True}))
    assert await answer(engine, request())


async def test_labels_are_scored(engine: CtransformersEngine) -> None:
    """The probabilities add up to one, and are those of drawing: the likeliest is what is said."""
    labels = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    found = await engine.score(scored(*labels))
    assert sum(map(math.exp, found)) == pytest.approx(1)
    assert found == await engine.score(scored(*labels, affinity="w/d/other"))
    allowed = {"enum": [int(digit) for digit in "123456789"]}
    asked = request(messages=scored().messages, schema=allowed, temperature=0, max_tokens=8)
    digits = await engine.score(scored(*"123456789"))
    assert await answer(engine, asked) == "123456789"[int(np.argmax(digits))]
    with pytest.raises(ValueError, match="told apart"):
        await engine.score(scored("hello", "hello"))


async def test_a_score_finds_its_prompt_cached(engine: CtransformersEngine) -> None:
    """A reply after a score, and a score after a reply, read only what is new."""
    text = "z" * 300
    await engine.score(scored("A", "B", text=text))
    last = (await pieces(engine, request(text)))[-1]
    assert last.usage is not None
    assert last.usage.cached >= 256


async def test_a_cancelled_score_or_hint_frees_its_seat(model: Path) -> None:
    """With one seat: whoever gives up waiting leaves it to the next."""
    engine = await started(model, seats=1, context=2000)
    try:
        long = scored("A", "B", text="q" * 1500)
        for work in (engine.score(long), engine.warm(long.messages, "w/c/x")):
            task = asyncio.create_task(work)
            await engine.count_tokens(["by now it was sent"])
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await answer(engine, request(max_tokens=8))
    finally:
        await engine.close()


async def test_two_adapters_at_the_same_time(model: Path, adapters: tuple[Path, Path]) -> None:
    """Each one's first 16 greedy tokens are those that it gives alone, and the bare model's too."""
    alone = []
    for adapter in (*adapters, None):
        engine = await started(model)
        chosen = Adapter(adapter) if adapter else None
        asked = request(temperature=0, max_tokens=16, adapter=chosen)
        alone.append(await answer(engine, asked))
        await engine.close()
    assert len(set(alone)) == 3
    engine = await started(model, seats=3)
    together = await asyncio.gather(
        *(answer(engine, adapted(file, affinity=f"w/c/{file.stem}")) for file in adapters),
        answer(engine, request(temperature=0, max_tokens=16)),
    )
    assert together == alone
    assert await answer(engine, adapted(adapters[1])) == alone[1]
    await engine.close()
    assert len(list(model.parent.glob("*.merged.gguf"))) == 2


async def test_adapters_share_one_seat(model: Path, adapters: tuple[Path, Path]) -> None:
    """With a single seat they take turns, and each keeps its voice; a scale of 0 is the model's."""
    engine = await started(model, seats=1)
    first = [await answer(engine, adapted(file)) for file in adapters]
    bare = await answer(engine, request(temperature=0, max_tokens=16))
    assert [await answer(engine, adapted(file)) for file in adapters] == first
    none = request(temperature=0, max_tokens=16, adapter=Adapter(adapters[0], 0.0))
    assert await answer(engine, none) == bare
    await engine.warm(request().messages, "w/c/bram", Adapter(adapters[0]))
    warm = (await pieces(engine, adapted(adapters[0])))[-1]
    assert warm.usage is not None
    assert warm.usage.cached > 0
    scores = await engine.score(scored(*"ABCDEFGH", adapter=Adapter(adapters[0])))
    assert scores != await engine.score(scored(*"ABCDEFGH"))
    await engine.close()


async def test_a_bad_adapter_fails_its_request_alone(
    engine: CtransformersEngine, tmp_path: Path
) -> None:
    """Missing, cut off, or no adapter: a clear error, and the engine goes on."""
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(lora()[:-100])
    for file, told in ((bad, "bad.gguf"), (tmp_path / "none.gguf", "no adapter")):
        with pytest.raises(ModelFileError, match=told):
            await answer(engine, adapted(file))
        with pytest.raises(ModelFileError, match=told):
            await engine.score(scored("A", "B", adapter=Adapter(file)))
        await engine.warm(request().messages, "w/c/bram", Adapter(file))
    assert await answer(engine, request())
