"""Texts as llama.cpp's tokens: remembered, and forgotten with the conversation."""

from __future__ import annotations

from pathlib import Path

import model_files

from npc_server.engines.gguf import read_header
from npc_server.engines.llamacpp_tokens import PromptTokens
from npc_server.engines.templates import named


async def test_texts_are_asked_for_once_until_they_are_forgotten(tmp_path: Path) -> None:
    """What was read is known; behind a conversation's end no text of it is kept."""
    file = tmp_path / "model.gguf"
    file.write_bytes(model_files.sentencepiece(version=3))
    tokens = PromptTokens(read_header(file), named("plain"))
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
