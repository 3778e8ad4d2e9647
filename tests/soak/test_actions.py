"""What an NPC does in a game is always valid: arguments of actions against their schemas."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from soak_progress import Progress

from npc_server.config import EngineSettings
from npc_server.engines.base import Engine, GenerateRequest
from npc_server.engines.create import create_engine
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

ACTIONS = 300
Json = dict[str, Any]

ITEMS = ("iron nail", "horseshoe", "검", "약초 다발", "lantern", "the miller's key", "떡 한 접시")
PLACES = ("smithy", "mill bridge", "시장", "우물가", "north pasture")
PATTERNS = (r"^[A-Z]{2}-[0-9]{3}$", r"^[가-힣]{1,8}$", r"^(day|night) [1-9]$", r"^#[0-9a-f]{6}$")
NAMES = ("item", "place", "count", "target", "note", "when", "to", "options", "대상", "이유")


@pytest.mark.parametrize("name", ["llamacpp", "ctransformers"])
async def test_every_argument_is_valid(name: str, smollm2: Path, progress: Progress) -> None:
    """300 actions with random schemas at temperature 1: all are whole JSON and satisfy them."""
    engine = await started(name, smollm2)
    try:
        assert engine.capabilities.engine == name
        assert engine.capabilities.schema, f"{name} cannot hold replies to a schema"
        for number in progress.left(ACTIONS):
            wanted = schema_of(random.Random(number))
            text = await arguments(engine, wanted, number)
            problems = [e.message for e in Draft202012Validator(wanted).iter_errors(parsed(text))]
            assert not problems, f"action {number}: {text} for {json.dumps(wanted)}"
    finally:
        await engine.close()


async def started(name: str, model: Path) -> Engine:
    settings = EngineSettings.model_validate(
        {"engine": name, "model": str(model), "context": 1024, "seats": 1}
    )
    engine = create_engine(settings, models_dir=model.parent, start_timeout=180)
    await engine.start()
    return engine


async def arguments(engine: Engine, wanted: Json, number: int) -> str:
    """What the model makes of an action's schema, and that it came to its end by itself."""
    request = GenerateRequest(
        (
            Message("system", f"You act in a game. Answer in JSON: {json.dumps(wanted)}"),
            Message("user", "마을 사람을 도와주세요. Do what helps the villager."),
        ),
        Sampling(temperature=1, top_p=1, top_k=0, repetition_penalty=1, max_tokens=400),
        "soak/actions/npc",
        seed=number,
        schema=wanted,
    )
    text = ""
    async with engine.generate(request) as pieces:
        async for piece in pieces:
            text += piece.text
            assert piece.finish in {None, "stop"}, f"action {number} was cut: {text}"
    return text


def parsed(text: str) -> Any:
    return json.loads(text)


def schema_of(chance: random.Random) -> Json:
    """A schema as an author would write one: bounded, some of it nested."""
    return _object(chance, chance.randint(1, 4), depth=2)


def _object(chance: random.Random, count: int, depth: int) -> Json:
    names = chance.sample(NAMES, count)
    required = [name for name in names if chance.random() < 0.7]
    return {
        "type": "object",
        "properties": {name: _value(chance, depth) for name in names},
        "required": required,
        "additionalProperties": False,
    }


def _value(chance: random.Random, depth: int) -> Json:
    kinds = ["choice", "number", "flag", "line", "pattern", *(["list", "object"] if depth else [])]
    match chance.choice(kinds):
        case "choice":
            return {"type": "string", "enum": chance.sample(ITEMS, chance.randint(1, 4))}
        case "number":
            low = chance.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 500)}
        case "flag":
            return {"type": "boolean"}
        case "line":
            return {"type": "string", "minLength": 1, "maxLength": chance.randint(4, 24)}
        case "pattern":
            return {"type": "string", "pattern": chance.choice(PATTERNS)}
        case "list":
            items = chance.choice([{"type": "string", "enum": list(PLACES)}, _value(chance, 0)])
            return {
                "type": "array",
                "items": items,
                "minItems": 1,
                "maxItems": chance.randint(1, 3),
            }
        case _:
            return _object(chance, chance.randint(1, 3), depth - 1)
