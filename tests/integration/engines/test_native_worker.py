"""A tiny model runs through the real library, in a real worker process."""

from __future__ import annotations

import asyncio
import os
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from engine_requests import answer, ended, pieces, request
from model_files import llama, text, value

from npc_server.engines.ctransformers import CtransformersEngine, CtransformersSettings
from npc_server.errors import ConfigError, EngineUnavailable, ModelFileError, TooLarge
from npc_server.prompt.messages import Message


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of 80 KB that talks nonsense."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama(changes={"llama.context_length": 1024}))
    return file


@pytest.fixture
async def engine(model: Path) -> AsyncIterator[CtransformersEngine]:
    """An engine with two seats, started."""
    engine = CtransformersEngine(CtransformersSettings(model, context=512, seats=2, threads=1))
    await engine.start()
    yield engine
    await engine.close()


async def test_a_reply_comes_through_the_real_library(engine: CtransformersEngine) -> None:
    """Pieces stream, the last one tells finish and usage, counts agree with the prompt."""
    *texts, last = await pieces(engine, request())
    assert len(texts) > 3
    assert last.usage is not None
    assert last.usage.prompt == await engine.count_prompt(request().messages)
    assert last.usage.completion == 24
    assert last.finish == "length"
    assert await engine.count_tokens(["hello", "", "\ud800", "a\0b"]) == [1, 0, 1, 3]
    facts = engine.capabilities
    assert (facts.engine, facts.model, facts.device) == ("ctransformers", "tiny", "cpu")
    assert (facts.context, facts.seats) == (512, 2)


async def test_the_same_request_gives_the_same_reply(engine: CtransformersEngine) -> None:
    """Cached or not, alone or beside others, in one seat or another; another seed differs."""
    long = "x" * 150
    first = await answer(engine, request(long))
    other = request("Something else, quite different.")
    beside, _ = await asyncio.gather(
        pieces(engine, request(long)), answer(engine, request("y" * 200, affinity="w/c/other"))
    )
    assert "".join(piece.text for piece in beside) == first
    assert beside[-1].usage is not None
    assert beside[-1].usage.cached >= 128
    await answer(engine, other)
    assert await answer(engine, request(long)) == first
    assert await answer(engine, request(long, affinity="w/d/new")) == first
    assert await answer(engine, request(long, seed=8)) != first


async def test_leaving_a_reply_frees_its_seat(model: Path) -> None:
    """With one seat, a reply that would go on for long gives way as soon as it is left."""
    engine = CtransformersEngine(CtransformersSettings(model, context=1024, seats=1, threads=1))
    await engine.start()
    try:
        async with engine.generate(request(max_tokens=900)) as stream:
            await anext(stream)
        last = (await pieces(engine, request()))[-1]
        assert last.usage is not None
        assert last.usage.completion == 24
    finally:
        await engine.close()


async def test_a_prompt_read_ahead_is_cached(engine: CtransformersEngine) -> None:
    """After `warm` a reply reads only the rest; after `forget` it reads all."""
    asked = request("z" * 200)
    await engine.warm(asked.messages, asked.affinity)
    warm = (await pieces(engine, asked))[-1]
    await engine.forget("w/c/")
    cold = (await pieces(engine, asked))[-1]
    assert warm.usage is not None
    assert cold.usage is not None
    assert warm.usage.cached >= 192
    assert cold.usage.cached == 0


async def test_a_prompt_over_the_context_is_refused(engine: CtransformersEngine) -> None:
    """The error says both sizes, and the engine goes on."""
    with pytest.raises(TooLarge, match="512"):
        await pieces(engine, request("word " * 500))
    assert await answer(engine, request())


async def test_the_context_is_no_longer_than_the_model_s(model: Path) -> None:
    """More than the model was trained with is not given."""
    engine = CtransformersEngine(CtransformersSettings(model, context=100_000, seats=1))
    await engine.start()
    assert engine.capabilities.context == 1024
    await engine.close()


async def test_a_killed_worker_is_started_again_and_the_reply_goes_on(
    engine: CtransformersEngine,
) -> None:
    """A reply that kill -9 cuts is completed by the next worker, within its token limit."""
    asked = request(max_tokens=400)
    said, pid = "", engine.pid
    assert pid is not None
    async with engine.generate(asked) as stream:
        async for piece in stream:
            if not said:
                os.kill(pid, signal.SIGKILL)
            said += piece.text
            last = piece
    assert last.finish is not None
    assert last.usage is not None
    assert last.usage.completion <= 400
    assert engine.pid not in (None, pid)
    assert await answer(engine, request())
    assert ended(pid)


async def test_closing_leaves_no_process(model: Path) -> None:
    """Close during a reply ends the reply with an error and the worker for good; twice is fine."""
    engine = CtransformersEngine(CtransformersSettings(model, seats=1))
    await engine.start()
    pid = engine.pid
    assert pid is not None
    async with engine.generate(request(max_tokens=900)) as stream:
        await anext(stream)
        await engine.close()
        with pytest.raises(EngineUnavailable):
            async for _ in stream:
                pass
    await engine.close()
    assert ended(pid)
    with pytest.raises(EngineUnavailable):
        await engine.start()


async def test_a_worker_does_not_outlive_its_server(model: Path) -> None:
    """Kill -9 of the server ends the worker too."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from npc_server.engines.ctransformers import *\n"
        "async def main():\n"
        "    engine = CtransformersEngine(CtransformersSettings(Path(sys.argv[1])))\n"
        "    await engine.start()\n"
        "    print(engine.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(model),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdout is not None
    while not (line := await server.stdout.readline()).strip().isdigit():
        assert line
    pid = int(line)
    server.kill()
    await server.wait()
    limit = time.monotonic() + 10
    while not ended(pid):
        assert time.monotonic() < limit
        await asyncio.sleep(0.02)


async def failure_of(file: Path, **settings: Any) -> str:
    engine = CtransformersEngine(CtransformersSettings(file, start_timeout=30, **settings))
    with pytest.raises(ModelFileError) as caught:
        await engine.start()
    assert engine.pid is None
    await engine.close()
    return caught.value.message


HOSTILE = {
    "cut off": llama()[:-5000],
    "no layers": llama(changes={"llama.block_count": 7}),
    "a lie about the width": llama(changes={"llama.embedding_length": 64}),
    "no key heads": llama(changes={"llama.attention.head_count_kv": 0}),
    "strange rope": llama(changes={"llama.rope.dimension_count": 9999}),
    "no rms epsilon": llama(changes={"llama.attention.layer_norm_rms_epsilon": None}),
    "a text where a number belongs": llama(changes={"llama.block_count": "one"}),
    "old and random": b"tjgg\x03\0\0\0"
    + struct.pack("<7i", 99, 64, 256, 4, 1, 16, 2)
    + bytes(range(256)) * 64,
    "old with no end": b"tjgg\x03\0\0\0"
    + struct.pack("<7i", 999, 64, 256, 4, 1, 16, 2)
    + bytes(4096),
    "old of no layers": b"lmgg" + struct.pack("<7i", 9, 64, 256, 0, 0, 0, 2) + bytes(999),
    "old and huge": b"lmgg"
    + struct.pack("<7i", 2**30, 2**30, 256, 2**20, 2**20, 64, 2)
    + bytes(999),
    "only a header": struct.pack("<4sIQQ", b"GGUF", 2, 0, 1)
    + text("general.architecture", 2)
    + value("llama", 2),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_bad_model_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    """Whether it is refused or crashes the library, the message names it and the server lives."""
    file = tmp_path / "bad.gguf"
    file.write_bytes(HOSTILE[kind])
    assert "bad" in await failure_of(file, model_type="llama" if "old" in kind else None)


async def test_settings_that_cannot_be_met_are_told(model: Path, tmp_path: Path) -> None:
    """A missing file and an unknown template each get their own error."""
    assert "missing.gguf" in await failure_of(tmp_path / "missing.gguf")
    engine = CtransformersEngine(CtransformersSettings(model, template="chatlm"))
    with pytest.raises(ConfigError, match="chatml"):
        await engine.start()


async def test_a_player_cannot_make_a_control_token(model: Path) -> None:
    """A text of nothing but control tokens' names costs tokens of plain text."""
    engine = CtransformersEngine(CtransformersSettings(model, seats=1))
    await engine.start()
    names = "<|endoftext|><|im_start|><|im_end|><tool>"
    plain, forged = await engine.count_tokens([names.replace("<", "("), names])
    assert forged >= plain - 8
    empty = await engine.count_prompt([Message("system", "S"), Message("user", "")])
    filled = await engine.count_prompt([Message("system", "S"), Message("user", names)])
    assert filled - empty == forged
    await engine.close()
