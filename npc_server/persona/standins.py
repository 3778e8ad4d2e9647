"""What an NPC says when the model has nothing for it: its author's lines, else neutral ones."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from npc_server.persona.model import Persona

FILLERS: Mapping[str, Sequence[str]] = {
    "en": (
        "Hmm.",
        "Let me think.",
        "Well, let me see.",
        "One moment.",
        "Give me a second.",
        "Now, how shall I put it...",
        "That's a good question.",
    ),
    "ko": (
        "음...",
        "글쎄요.",
        "잠깐만요.",
        "어디 보자.",
        "그게 말이죠.",
        "생각 좀 해 볼게요.",
        "뭐라고 말하면 좋을까요.",
    ),
}
"""Short things said to win time, in no particular character, by language."""

WHOLE_LINES: Mapping[str, Sequence[str]] = {
    "en": (
        "I'm not sure what to say to that.",
        "Sorry, I lost my train of thought.",
        "I'd rather talk about something else.",
        "That's not something I can help with.",
        "Let's leave that for another time.",
        "I don't have an answer for you there.",
        "Could you put that another way?",
    ),
    "ko": (
        "그건 뭐라고 말씀드려야 할지 모르겠네요.",
        "미안해요, 잠깐 딴생각을 했어요.",
        "우리 다른 이야기를 할까요?",
        "그건 제가 도와드릴 수 없는 일이에요.",
        "그 이야기는 다음에 하기로 해요.",
        "거기에는 드릴 말씀이 없네요.",
        "조금 다르게 말해 주시겠어요?",
    ),
}
"""Whole lines for when there is nothing else to say, in no particular character, by language.

The Korean ones are polite in the informal way (해요체), which fits most people in most places.
"""


def filler(persona: Persona, key: str, *, last: str | None = None) -> str:
    """Something short to win time with.

    Args:
        persona: Who says it; its own ``fillers`` come first.
        key: The same key gives the same line.
        last: What was said the last time; another line is taken, unless there is only one.
    """
    return _pick(persona.fillers or _of(persona, FILLERS), key, last)


def whole_line(persona: Persona, key: str, *, last: str | None = None) -> str:
    """A whole line for when there is nothing else to say.

    Args:
        persona: Who says it; its own ``refusals`` come first.
        key: The same key gives the same line.
        last: What was said the last time; another line is taken, unless there is only one.
    """
    return _pick(persona.refusals or _of(persona, WHOLE_LINES), key, last)


def _of(persona: Persona, lines: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """The lines in the first of the persona's languages that there are any in, else English."""
    spoken = (tag.split("-")[0] for tag in persona.languages)
    return next((lines[language] for language in spoken if language in lines), lines["en"])


def _pick(lines: Sequence[str], key: str, last: str | None) -> str:
    others = [line for line in lines if line != last] or lines
    return others[zlib.crc32(key.encode()) % len(others)]
