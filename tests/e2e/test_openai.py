"""The engine for chat endpoints, against llama.cpp's own HTTP server with the real model."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import jsonschema
import orjson
import pytest
from engine_requests import SYSTEM, answer, pieces, request

from npc_server.engines.base import ScoreRequest
from npc_server.engines.choose import Chooser, Question
from npc_server.engines.openai import OpenAIEngine, OpenAISettings
from npc_server.errors import TooLarge
from npc_server.prompt.messages import Message

SERVER = """
import sys
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.port = 2048, 2, 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""
SCHEMA = {
    "type": "object",
    "properties": {"mood": {"enum": ["good", "bad"]}, "gold": {"type": "integer"}},
    "required": ["mood", "gold"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def address(smollm2: Path) -> Iterator[str]:
    """llama.cpp's server, until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(smollm2)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield f"{process.stdout.readline().strip()}/v1"
        process.stdin.close()
        process.kill()


@pytest.fixture
async def engine(address: str) -> AsyncIterator[OpenAIEngine]:
    """An engine that has started."""
    engine = OpenAIEngine(OpenAISettings(address, "smollm2", context=4096, seats=2))
    await engine.start()
    yield engine
    await engine.close()


async def test_the_start_finds_out_what_is_offered(engine: OpenAIEngine) -> None:
    """Schemas and probabilities are; the context is the server's, of one seat."""
    facts = engine.capabilities
    assert (facts.schema, facts.scores, facts.context) == (True, True, 1024)


async def test_a_reply_streams(engine: OpenAIEngine) -> None:
    """Pieces, usage and the end are told; the same request finds its prompt cached."""
    await pieces(engine, request(max_tokens=12))
    *texts, last = await pieces(engine, request(max_tokens=12))
    assert len(texts) > 3
    assert last.usage is not None
    assert last.usage.completion in range(3, 13)
    assert last.usage.cached > 10
    assert await engine.count_prompt(request().messages) >= last.usage.prompt * 0.9


async def test_control_tokens_of_a_player_are_letters(engine: OpenAIEngine) -> None:
    """A player who types the template's marks uses more tokens than the marks would."""

    async def prompt(text: str) -> int:
        usage = (await pieces(engine, request(text, max_tokens=8)))[-1].usage
        assert usage is not None
        return usage.prompt

    marks = 10
    assert await prompt("<|im_end|>" * marks) - await prompt("") >= 4 * marks


async def test_a_prefix_is_gone_on_from(engine: OpenAIEngine) -> None:
    """What comes is behind the prefix and does not repeat it."""
    text = await answer(engine, request("Who are you?", prefix="I am Bram, the", max_tokens=12))
    assert text
    assert not text.lstrip().startswith("I am Bram")


async def test_a_reply_keeps_to_a_schema(engine: OpenAIEngine) -> None:
    """The whole reply is one JSON value of that form."""
    asked = request("How are you, and how much gold have you?", schema=SCHEMA, max_tokens=60)
    jsonschema.validate(orjson.loads(await answer(engine, asked)), SCHEMA)


async def test_labels_have_probabilities(engine: OpenAIEngine) -> None:
    """They add up to 1, and follow the words: what the prompt says to answer is likelier."""
    logs = {}
    for letter in "AB":
        messages = (SYSTEM, Message("user", f"Say the letter {letter}. Only {letter}!"))
        logs[letter] = await engine.score(ScoreRequest(messages, ("A", "B"), "w/c/bram"))
        assert sum(map(math.exp, logs[letter])) == pytest.approx(1)
    assert logs["A"][0] > logs["B"][0]


async def test_a_choice_is_made(engine: OpenAIEngine) -> None:
    """One probability for each option."""
    question = Question("What does the speaker feel?", ("joy", "anger", "nothing"))
    said = (SYSTEM, Message("user", "What a wonderful day!"))
    found = await Chooser(engine).choose(said, question, "w/c/bram")
    assert len(found) == 3
    assert sum(found) == pytest.approx(1)


async def test_a_prompt_over_the_context_is_too_large(engine: OpenAIEngine) -> None:
    """The server's own error is understood."""
    with pytest.raises(TooLarge):
        await pieces(engine, request("word " * 3000))
