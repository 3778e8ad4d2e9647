"""A tiny model runs through the real llama.cpp, in a real worker process."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from string import ascii_letters
from typing import Any

import jsonschema
import pytest
from engine_requests import SYSTEM, answer, ended, pieces, request
from lora_files import lora
from model_files import ggjt, llama, sentencepiece, vocabulary

from npc_server.engines.base import Adapter, ScoreRequest, Usage
from npc_server.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from npc_server.errors import ConfigError, EngineUnavailable, ModelFileError, TooLarge
from npc_server.prompt.messages import Message

Start = Callable[..., Awaitable[LlamaCppEngine]]
NAMES = "<|endoftext|><|im_start|><|im_end|><tool>"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model of 80 KB that talks nonsense."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama(changes={"llama.context_length": 1024}, step=5, size=0.3))
    return file


@pytest.fixture
async def start(model: Path) -> AsyncIterator[Start]:
    """Start an engine; by default with that model and two seats."""
    started = []

    async def begin(file: Path | None = None, **settings: Any) -> LlamaCppEngine:
        chosen = {"context": 512, "seats": 2, "threads": 1, "start_timeout": 30, **settings}
        engine = LlamaCppEngine(LlamaCppSettings(file or model, **chosen))
        started.append(engine)
        await engine.start()
        return engine

    yield begin
    for engine in started:
        await engine.close()


@pytest.fixture
async def engine(start: Start) -> LlamaCppEngine:
    """An engine with two seats, started."""
    return await start()


async def usage(engine: LlamaCppEngine, asked: Any) -> Usage:
    last = (await pieces(engine, asked))[-1]
    assert last.usage is not None
    return last.usage


async def test_a_reply_comes_through_the_real_library(engine: LlamaCppEngine) -> None:
    """Pieces stream, the last one tells finish and usage, counts agree with the prompt."""
    *texts, last = await pieces(engine, request())
    assert len(texts) > 3
    assert last.usage == Usage(await engine.count_prompt(request().messages), 0, 24)
    assert last.finish == "length"
    assert await engine.count_tokens(["hello", "", "\ud800", "a\0b"]) == [1, 0, 1, 3]
    facts = engine.capabilities
    assert (facts.engine, facts.model, facts.device) == ("llamacpp", "tiny", "cpu")
    assert (facts.context, facts.seats) == (512, 2)
    assert facts.schema
    assert facts.scores
    assert facts.adapters


async def test_the_same_request_gives_the_same_reply(engine: LlamaCppEngine) -> None:
    """In one seat or another; another seed differs, and the likeliest word needs none."""
    first = await answer(engine, request())
    assert await answer(engine, request(affinity="w/d/new")) == first
    assert await answer(engine, request(seed=8, affinity="w/d/newer")) != first
    greedy = [await answer(engine, request(seed=seed, temperature=0)) for seed in (1, 2)]
    assert greedy[0] == greedy[1]


async def test_a_reply_goes_on_from_its_prefix_and_ends_before_a_stop(
    engine: LlamaCppEngine,
) -> None:
    """The prefix is not sent again; nothing of a stop string is."""
    whole = await answer(engine, request(temperature=0, repetition_penalty=1.0))
    stop = whole[8:10]
    asked = request(temperature=0, repetition_penalty=1.0, stop=(stop,))
    *texts, last = await pieces(engine, asked)
    assert "".join(piece.text for piece in [*texts, last]) == whole[: whole.index(stop)]
    assert last.finish == "stop"
    prefixed = request(prefix="hello hello")
    assert (await usage(engine, prefixed)).prompt == (await usage(engine, request())).prompt + 3
    assert not (await answer(engine, prefixed)).startswith("hello hello")


async def test_two_replies_at_once_do_not_mix(engine: LlamaCppEngine) -> None:
    """Each seat goes on with its own conversation."""
    asked = [request("x" * 100, affinity="w/c/a"), request("y" * 100, affinity="w/c/b")]
    alone = [await answer(engine, each) for each in asked]
    together = await asyncio.gather(*(answer(engine, each) for each in asked * 2))
    assert [len(text) for text in together] == [len(text) for text in alone * 2]
    assert all([(await usage(engine, each)).cached > 100 for each in asked])


async def test_leaving_a_reply_frees_its_seat(start: Start) -> None:
    """With one seat, a reply that would go on for long gives way as soon as it is left."""
    engine = await start(context=1024, seats=1)
    async with engine.generate(request(max_tokens=900)) as stream:
        await anext(stream)
    assert (await usage(engine, request())).completion == 24


async def test_leaving_a_prompt_that_is_being_read_frees_its_seat(start: Start) -> None:
    """A warm-up in the only seat gives way to a reply, and may be cancelled."""
    engine = await start(context=1024, seats=1)
    long = request("z" * 900)
    warming = asyncio.create_task(engine.warm(long.messages, "w/c/other"))
    await asyncio.sleep(0)
    assert await answer(engine, request())
    await warming
    warming = asyncio.create_task(engine.warm(long.messages, "w/c/other"))
    await asyncio.sleep(0)
    warming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await warming
    assert await answer(engine, request())


async def test_a_prompt_read_ahead_is_cached_until_it_is_forgotten(engine: LlamaCppEngine) -> None:
    """After `warm` a reply reads only the rest; after `forget` it reads all."""
    asked = request("z" * 200)
    await engine.warm(asked.messages, asked.affinity)
    warm = await usage(engine, asked)
    assert warm.cached >= warm.prompt - 1
    await engine.forget("w/c/")
    assert (await usage(engine, asked)).cached == 0


async def test_who_returns_after_others_finds_the_prompt_read(start: Start) -> None:
    """Eight characters take turns on one seat: their states are put away and fetched."""
    engine = await start(seats=1, prompt_cache_mib=64)
    asked = [request(str(n) * 150, affinity=f"w/c/{n}", max_tokens=8) for n in range(8)]
    assert all([(await usage(engine, each)).cached < 120 for each in asked])
    for each in asked:
        used = await usage(engine, each)
        assert used.cached >= used.prompt - 1
    await engine.forget("w/c/3")
    assert (await usage(engine, asked[3])).cached < 120
    assert (await usage(engine, asked[4])).cached >= 200


async def test_without_memory_for_prompts_they_are_read_again(start: Start) -> None:
    """Who has no seat has nothing, and gets a reply all the same."""
    engine = await start(seats=1, prompt_cache_mib=0)
    first, second = (request(c * 150, affinity=c, max_tokens=8) for c in "ab")
    await answer(engine, first)
    await answer(engine, second)
    assert (await usage(engine, first)).cached < 120


async def test_a_prompt_over_the_context_is_refused(engine: LlamaCppEngine) -> None:
    """The error says both sizes, and the engine goes on."""
    with pytest.raises(TooLarge, match="512"):
        await pieces(engine, request("word " * 500))
    await engine.warm(request("word " * 500).messages, "w/c/bram")
    assert await answer(engine, request())


async def test_a_reply_ends_with_the_context(engine: LlamaCppEngine) -> None:
    """Prompt and reply together are no longer than it."""
    asked = request("x" * 380, max_tokens=2000)
    used = await usage(engine, asked)
    assert used.prompt + used.completion <= 512


async def test_a_player_cannot_make_a_control_token(start: Start, model: Path) -> None:
    """Of control tokens in a prompt there are those of the template and no others."""
    engine = await start()
    tokens, kinds, _ = vocabulary()
    control = {index for index, kind in enumerate(kinds) if kind == 3}
    llama_ = await engine._kept.current()
    said = [SYSTEM, Message("user", NAMES * 2), Message("assistant", NAMES), Message("user", "<")]
    ids = await engine._known_tokens().prompt(said, NAMES, llama_.tokenize)
    made = [tokens[index] for index in ids if index in control]
    assert made == ["<|im_start|>", "<|im_end|>"] * 4 + ["<|im_start|>"]
    text = await llama_.http.call("/detokenize", {"tokens": ids})
    assert text["content"].count("<tool>") == 4


@pytest.mark.parametrize("kind", ["sentencepiece", "a split that we do not know"])
async def test_other_vocabularies_are_asked_for(start: Start, tmp_path: Path, kind: str) -> None:
    """llama.cpp tokenises each text alone; what spells a control token stays text."""
    strange = {"tokenizer.ggml.pre": "refact", "llama.context_length": 512}
    data = sentencepiece() if kind == "sentencepiece" else llama(changes=strange)
    file = tmp_path / "other.gguf"
    file.write_bytes(data)
    engine = await start(file, context=256)
    names = "</s>[INST]" if kind == "sentencepiece" else NAMES
    llama_ = await engine._kept.current()
    tokens = engine._known_tokens()
    empty, filled = [
        await tokens.prompt([Message("system", "s"), Message("user", text)], "", llama_.tokenize)
        for text in ("x", "x" + names + "x")
    ]
    control = {1, 2} if kind == "sentencepiece" else {0, 1, 2, 3}
    assert [i for i in filled if i in control] == [i for i in empty if i in control]
    assert len(filled) > len(empty) + 4
    plain = await llama_.tokenize("is it so")
    assert await engine.count_tokens(["is it so"]) == [len(plain)]
    assert await answer(engine, request(messages=(Message("system", "s"), Message("user", "x"))))


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mood": {"enum": ["glad", "sad"]},
        "words": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
        "sure": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["mood", "words", "sure"],
    "additionalProperties": False,
}


async def test_a_reply_keeps_to_a_schema_and_is_compact(engine: LlamaCppEngine) -> None:
    """Whatever the model would like to say, and even where a stop string is in it."""
    for seed in range(5):
        text = await answer(
            engine,
            request(schema=SCHEMA, seed=seed, max_tokens=120, temperature=1.5, stop=("mood",)),
        )
        said = json.loads(text)
        jsonschema.validate(said, SCHEMA)
        assert json.dumps(said, separators=(",", ":"), ensure_ascii=False) == text


@pytest.mark.parametrize("spaced", [True, False])
async def test_other_vocabularies_keep_to_a_schema_too(
    start: Start, tmp_path: Path, *, spaced: bool
) -> None:
    """Where llama.cpp hides a token's space from its better grammars, and where it does not."""
    file = tmp_path / "spaced.gguf"
    file.write_bytes(sentencepiece(changes={"tokenizer.ggml.add_space_prefix": spaced}))
    engine = await start(file, context=256)
    short = (Message("system", "s"), Message("user", "x"))
    # Such a model writes bytes that are no characters, which have no length to be held to.
    words = {"type": "array", "items": {"enum": ["a b", "c"]}, "maxItems": 2}
    schema = {**SCHEMA, "properties": {**SCHEMA["properties"], "words": words}}
    for seed in range(3):
        text = await answer(
            engine, request(messages=short, schema=schema, max_tokens=150, seed=seed)
        )
        said = json.loads(text)
        jsonschema.validate(said, schema)
        assert json.dumps(said, separators=(",", ":"), ensure_ascii=False) == text


async def test_a_schema_that_cannot_be_kept_is_an_error(engine: LlamaCppEngine) -> None:
    """The reason is told, and the engine goes on."""
    with pytest.raises(ValueError, match="no such type"):
        await answer(engine, request(schema={"type": "no such type"}))
    assert await answer(engine, request())


async def test_labels_are_scored(engine: LlamaCppEngine) -> None:
    """Logarithms of probabilities that add up to 1, the same ones from a cached prompt."""
    asked = ScoreRequest((SYSTEM, Message("user", "A or B?")), ("A", "B", "hello"), "w/c/bram")
    scores = await engine.score(asked)
    assert math.isclose(sum(math.exp(score) for score in scores), 1.0, abs_tol=1e-6)
    assert len({*scores}) > 1
    again = await engine.score(asked)
    assert again == pytest.approx(scores, abs=0.01)
    one = ScoreRequest(asked.messages, ("A",), "w/c/bram")
    assert await engine.score(one) == [0.0]


async def test_the_likeliest_label_is_what_the_model_would_say(engine: LlamaCppEngine) -> None:
    """Of the letters, the one that a reply without chance begins with has the highest score."""
    told = 0
    for text in ascii_letters:
        asked = request(text, temperature=0, repetition_penalty=1.0, max_tokens=8)
        first = (await answer(engine, asked))[:1]
        if first in {*ascii_letters}:
            scores = await engine.score(
                ScoreRequest(asked.messages, tuple(ascii_letters), asked.affinity)
            )
            assert scores.index(max(scores)) == ascii_letters.index(first)
            told += 1
    assert told


async def test_labels_that_begin_alike_are_refused(engine: LlamaCppEngine) -> None:
    """They cannot be told from one token."""
    with pytest.raises(ValueError, match="differ"):
        await engine.score(ScoreRequest((SYSTEM,), ("A", "A"), "w/c/bram"))
    with pytest.raises(ValueError, match="differ"):
        await engine.score(ScoreRequest((SYSTEM,), ("B", "BA", "C"), "w/c/bram"))


def adapters(folder: Path) -> tuple[Adapter, Adapter]:
    made = []
    for step in (2, 3):
        file = folder / f"adapter{step}.gguf"
        file.write_bytes(lora(seed=step))
        made.append(Adapter(file))
    return made[0], made[1]


async def test_two_adapters_speak_at_once(start: Start, tmp_path: Path) -> None:
    """Each as it does alone, and not as the bare model; a scale of 0 is the bare model."""
    asked: dict[str, Any] = {"max_tokens": 16, "temperature": 0, "repetition_penalty": 1.0}
    pair = adapters(tmp_path)
    alone = []
    for adapter in pair:
        engine = await start()
        alone.append(await answer(engine, request(adapter=adapter, **asked)))
    engine = await start(seats=3)
    bare = await answer(engine, request(affinity="bare", **asked))
    assert len({bare, *alone}) == 3
    for _ in range(2):
        together = await asyncio.gather(
            answer(engine, request(adapter=pair[0], affinity="one", **asked)),
            answer(engine, request(adapter=pair[1], affinity="two", **asked)),
            answer(engine, request(affinity="bare", **asked)),
        )
        assert [*together] == [*alone, bare]
    silent = Adapter(pair[0].path, 0.0)
    assert await answer(engine, request(adapter=silent, affinity="one", **asked)) == bare


async def test_an_adapter_is_added_while_another_reply_goes_on(
    start: Start, tmp_path: Path
) -> None:
    """The reply ends where it began; those who want the adapter wait for one start, not for two."""
    engine = await start(context=1024)
    adapter, _ = adapters(tmp_path)
    pid = engine.pid
    assert pid is not None
    async with engine.generate(request(max_tokens=300)) as stream:
        assert (await anext(stream)).text
        both = [request(adapter=adapter, affinity=name) for name in "ab"]
        assert all(await asyncio.gather(*(answer(engine, each) for each in both)))
        assert not ended(pid)
        rest = [piece async for piece in stream]
    assert rest[-1].finish is not None
    async with asyncio.timeout(10):
        while engine._retiring:
            await asyncio.gather(*engine._retiring)
    assert ended(pid)
    assert engine.pid is not None
    await engine.warm(both[0].messages, "c", adapter)
    assert (await usage(engine, request(adapter=adapter, affinity="c"))).cached > 0


async def test_closing_ends_a_worker_that_was_to_end_later(start: Start, tmp_path: Path) -> None:
    """The one whose reply still goes on, and the one that took its place."""
    engine = await start(context=1024)
    adapter, _ = adapters(tmp_path)
    old = engine.pid
    async with engine.generate(request(max_tokens=300)) as stream:
        await anext(stream)
        assert await answer(engine, request(adapter=adapter, affinity="other"))
        new = engine.pid
        await engine.close()
    assert old is not None
    assert new is not None
    assert ended(old)
    assert ended(new)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "cut off"),
        (llama(), "no LoRA adapter"),
        (lora(seed=2, changes={"general.architecture": "gemma"}), "gemma"),
        (lora(seed=2)[:-200], "cut off"),
        (
            lora(seed=2).replace(b"blk.0.attn_q.weight.lora_b", b"blk.0.attn_q.weight.lora_x"),
            "tiny",
        ),
    ],
    ids=["empty", "a model", "another kind", "cut off", "half a pair"],
)
async def test_a_bad_adapter_fails_its_own_request_only(
    engine: LlamaCppEngine, tmp_path: Path, data: bytes, told: str
) -> None:
    """The error names the file; the worker that runs goes on."""
    file = tmp_path / "bad.gguf"
    file.write_bytes(data)
    pid = engine.pid
    for _ in range(2):
        with pytest.raises(ModelFileError, match=r"bad\.gguf") as caught:
            await answer(engine, request(adapter=Adapter(file)))
        assert told in caught.value.message
    assert engine.pid == pid
    assert await answer(engine, request())


async def test_a_killed_worker_is_started_again_and_the_reply_goes_on(
    engine: LlamaCppEngine,
) -> None:
    """A reply that kill -9 cuts is completed by the next worker, within its token limit."""
    said, pid = "", engine.pid
    assert pid is not None
    async with engine.generate(request(max_tokens=400)) as stream:
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


async def test_closing_leaves_no_process(start: Start) -> None:
    """Close during a reply ends the reply with an error and the worker for good; twice is fine."""
    engine = await start(context=1024, seats=1)
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
    await engine.warm(request().messages, "w/c/bram")
    await engine.forget("w/")
    with pytest.raises(EngineUnavailable):
        await engine.start()


async def test_a_worker_does_not_outlive_its_server(model: Path) -> None:
    """Kill -9 of the server ends the worker too."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from npc_server.engines.llamacpp import *\n"
        "async def main():\n"
        "    engine = LlamaCppEngine(LlamaCppSettings(Path(sys.argv[1])))\n"
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


HOSTILE = {
    "cut in its numbers": llama()[:-5000],
    "cut by one byte": llama()[:-33],
    "cut in its tensors": llama()[:9000],
    "cut in its vocabulary": llama()[:3000],
    "cut in its magic": llama()[:3],
    "no layers": llama(changes={"llama.block_count": 7}),
    "a lie about the width": llama(changes={"llama.embedding_length": 64}),
    "no key heads": llama(changes={"llama.attention.head_count_kv": 0}),
    "strange rope": llama(changes={"llama.rope.dimension_count": 9999}),
    "an unknown kind": llama(changes={"general.architecture": "nonesuch"}),
    "no vocabulary": llama(changes={"tokenizer.ggml.tokens": None}),
    "of 2023": ggjt(),
}


@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_bad_model_is_one_clear_error(tmp_path: Path, kind: str) -> None:
    """Whether it is refused or crashes the library, the message names it and the server lives."""
    file = tmp_path / "bad.gguf"
    file.write_bytes(HOSTILE[kind])
    engine = LlamaCppEngine(LlamaCppSettings(file, start_timeout=30))
    with pytest.raises(ModelFileError, match=r"bad\.gguf|vocabulary"):
        await engine.start()
    assert engine.pid is None
    with pytest.raises(EngineUnavailable):
        await answer(engine, request())
    await engine.close()


async def test_settings_that_cannot_be_met_are_told(model: Path, tmp_path: Path) -> None:
    """A missing file and an unknown template each get their own error."""
    with pytest.raises(ModelFileError, match="missing"):
        await LlamaCppEngine(LlamaCppSettings(tmp_path / "missing.gguf")).start()
    with pytest.raises(ConfigError, match="chatml"):
        await LlamaCppEngine(LlamaCppSettings(model, template="chatlm")).start()


async def test_the_context_is_no_longer_than_the_model_s(start: Start) -> None:
    """More than the model was trained with is not given; flash attention works too."""
    engine = await start(context=100_000, seats=1, flash_attention="on")
    assert engine.capabilities.context == 1024
    assert (await usage(engine, request(max_tokens=8))).completion == 8
