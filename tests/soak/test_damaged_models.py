"""A model file that was cut anywhere: a clear error, and the server goes on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from soak_progress import Progress

from npc_server.config import EngineSettings
from npc_server.engines.base import Engine, GenerateRequest
from npc_server.engines.create import create_engine
from npc_server.errors import ModelFileError
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

CUTS = 50
HEADER = 2 << 20


@pytest.mark.parametrize("name", ["llamacpp", "ctransformers"])
async def test_a_cut_file_is_a_clear_error(
    name: str, smollm2: Path, tmp_path: Path, progress: Progress
) -> None:
    """50 cuts, half of them in the header: each is told as an error for people, none ends us.

    At the end the same process loads the whole file and gets an answer.
    """
    size = smollm2.stat().st_size  # noqa: ASYNC240 - nothing else runs here
    for number in progress.left(CUTS):
        chance = random.Random(number)
        length = chance.randrange(HEADER if number % 2 else size)
        damaged = tmp_path / "damaged.gguf"
        shutil.copyfile(smollm2, damaged)
        with damaged.open("r+b") as file:
            file.truncate(length)
        message = await refusal(engine_of(name, damaged))
        assert damaged.name in message, f"cut at {length}: {message}"
        assert "Traceback" not in message
        assert len(message.splitlines()) <= 3
    assert await answer(engine_of(name, smollm2), name)


def engine_of(name: str, model: Path) -> Engine:
    settings = EngineSettings.model_validate(
        {"engine": name, "model": str(model), "context": 512, "seats": 1}
    )
    return create_engine(settings, models_dir=model.parent, start_timeout=60)


async def refusal(engine: Engine) -> str:
    """The error's text with which an engine does not start."""
    try:
        with pytest.raises(ModelFileError) as caught:
            await engine.start()
    finally:
        await engine.close()
    return caught.value.message


async def answer(engine: Engine, name: str) -> str:
    """What an engine says to a greeting."""
    await engine.start()
    try:
        assert engine.capabilities.engine == name
        asked = (Message("system", "You are a smith."), Message("user", "Good day!"))
        request = GenerateRequest(asked, Sampling(max_tokens=8), "soak/damaged/npc")
        async with engine.generate(request) as pieces:
            return "".join([piece.text async for piece in pieces])
    finally:
        await engine.close()
