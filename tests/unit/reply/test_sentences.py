"""Where sentences end."""

from __future__ import annotations

import pytest

from npc_server.reply import ReplyParser, Sentence
from npc_server.reply.sentences import LONGEST


def sentences(text: str, languages: tuple[str, ...] = ("en", "ko")) -> list[str]:
    parser = ReplyParser(("Bram",), languages=languages)
    parts = parser.feed(text) + parser.end()
    found = [part for part in parts if isinstance(part, Sentence)]
    assert [s.index for s in found] == list(range(len(found)))
    for s in found:
        assert parser.text[s.start_char : s.start_char + len(s.text)] == s.text
    return [s.text for s in found]


@pytest.mark.parametrize(
    "text",
    [
        "Hello.|How are you?|Fine!",
        "What?!|No!!|Never.",
        "Mr. Smith met Dr. Kim at 3.14 p.m. today.|He left.",
        "He came at 3 p.m.|Then he left.",
        "See No. 5, e.g. that.|No.|I said no.",
        "The U.S. army came.|It was I.|J. R. Smith said so.",
        "Well... maybe.|Wait...|Then what?",
        "Well… maybe.|Wait…|Then.",
        'Yes.|"Really?" he asked.|"Yes."|"No."',
        "He said (twice.)|Then he left.",
        "1. Iron.|2. Coal.",
        "Iron, coal etc. and more.|Iron etc.|Then go.",
        "... Hello.",
        "안녕하세요.|저는 민지예요.|반가워요!",
        "안녕하세요~|오늘 날씨 좋네요.",
        "그는 “안녕하세요~”|그녀는 웃었다.",
        'He cried "Yes!"|Then he left.',
        "음… 글쎄.|그렇군요…|알겠어요.",
        "안녕하세요|저는 민지입니다|반가워요",
        "그건 필요 없어.|하니까 되네.",
        "정말요?|네。",
        "그는 “정말?” 하고 물었다.",
    ],
)
def test_sentences_of_english_and_korean(text: str) -> None:
    """The text, written here with bars at the borders, is split exactly there."""
    assert sentences(text.replace("|", " ")) == text.split("|")


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("안녕하세요.반가워요.", ["안녕하세요.", "반가워요."]),
        ("그래?진짜!정말。좋아", ["그래?", "진짜!", "정말。", "좋아"]),
        ("What?No.", ["What?", "No."]),
        ("First line\nsecond line", ["First line", "second line"]),
        ("example.org is 3.14", ["example.org is 3.14"]),
    ],
)
def test_korean_needs_no_space_after_a_mark(text: str, split: list[str]) -> None:
    """Korean sentences end at a mark without a space; numbers and addresses do not."""
    assert sentences(text) == split


def test_unmarked_endings_need_a_persona_that_speaks_korean() -> None:
    """Without Korean among the languages a polite ending alone splits nothing."""
    assert sentences("안녕하세요 저는 민지", ("en",)) == ["안녕하세요 저는 민지"]


def test_a_sentence_comes_as_soon_as_it_is_complete() -> None:
    """White space after the mark is enough; nothing waits for the next word."""
    parser = ReplyParser(("Bram",))
    assert not any(isinstance(part, Sentence) for part in parser.feed("Hello there."))
    assert parser.feed(" ") == [Sentence(0, "Hello there.", 0)]


def test_what_never_ends_is_cut_at_a_space() -> None:
    """Without marks a sentence is cut before its limit, without spaces at the limit."""
    words = sentences(" ".join(f"{n}word" for n in range(100)))
    assert all(len(s) <= LONGEST and s.endswith("word") for s in words)
    endless = "".join(chr(ord("가") + n) for n in range(450))
    assert [len(s) for s in sentences(endless)] == [200, 200, 50]


def test_a_single_huge_grapheme_is_cut_too() -> None:
    """A letter under hundreds of accents cannot hold a sentence open."""
    assert [len(s) for s in sentences("a" + "\u0301\u0302\u0303\u0304\u0308" * 50)] == [200, 51]
