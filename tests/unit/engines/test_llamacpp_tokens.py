"""Which texts' token ids are remembered, until when, and how much memory that may take."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from model_files import llama, sentencepiece

from npc_server.engines.gguf import Header, read_header
from npc_server.engines.llamacpp_tokens import REMEMBERED_PROMPTS, PromptTokens, Texts
from npc_server.engines.templates import named
from npc_server.prompt.messages import Message


def header(tmp_path: Path) -> Header:
    """A tiny model's, whose tokens are letters."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama())
    return read_header(file)


def test_what_was_asked_for_longest_ago_is_forgotten(tmp_path: Path) -> None:
    """As many characters are remembered as may be; what was used since stays."""
    texts = Texts(header(tmp_path), 9)
    for text in ("one", "two", "six"):
        texts.learn(text, [1, 2, 3])
    assert texts.encode("one") == [1, 2, 3]
    texts.learn("ten", [4])
    assert (texts.encode("one"), texts.encode("ten")) == ([1, 2, 3], [4])
    assert texts.encode("two") == []
    assert texts.unknown == {"two"}


def test_remembered_ids_take_a_few_bytes_each(tmp_path: Path) -> None:
    """A long text's ids are numbers side by side, not objects."""
    texts = Texts(header(tmp_path), 1_000_000)
    count = 100_000
    tracemalloc.start()
    try:
        texts.learn("long", list(range(1_000, 1_000 + count)))
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 5 * count


async def test_a_prompt_that_fills_the_context_is_remembered_whole(tmp_path: Path) -> None:
    """However small the context, one prompt never pushes itself out, even at many letters a token.

    Other prompts do so, and then it is encoded anew, to the same ids.
    """

    async def ask(text: str) -> list[int]:
        raise AssertionError(f"our own tokenizer knows {text!r}")

    context = 64
    tokens = PromptTokens(header(tmp_path), named("chatml"), context)

    def asked(n: int) -> list[Message]:
        return [Message("user", f"{n} {line} {'a' * 40}") for line in range(8)]

    first = await tokens.prompt(asked(0), "", ask)
    for n in range(1, 4 * REMEMBERED_PROMPTS):
        assert await tokens.prompt(asked(n), "", ask) != first
    assert await tokens.prompt(asked(0), "", ask) == first


async def test_texts_are_asked_for_once_until_they_are_forgotten(tmp_path: Path) -> None:
    """What was read is known; behind a conversation's end no text of it is kept."""
    file = tmp_path / "model.gguf"
    file.write_bytes(sentencepiece(version=3))
    tokens = PromptTokens(read_header(file), named("plain"), 64)
    asked: list[str] = []

    async def ask(text: str) -> list[int]:
        asked.append(text)
        return [40] * len(text)

    for _ in range(2):
        assert await tokens.count("secret", ask) == len("secret")
    assert asked == ["secret"]
    tokens.forget()
    await tokens.count("secret", ask)
    assert asked == ["secret", "secret"]
