"""What is told of a reply in the making."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from npc_server.clock import Clock
from npc_server.conversation.model import Reply
from npc_server.reply import Opening, ReplyParser
from npc_server.speech import Speech

REPLY = Reply("r", 1, "bram", ("minsu",), ("minsu", "bram"))
WORDS = st.lists(
    st.sampled_from(("Aye.", "I know", "*nods*", "the mare!", "네,", "좋아요.", "\n", "hm…")),
    max_size=12,
)


def speech(told: list[dict[str, Any]], deadline_ms: int | None = None) -> Speech:
    return Speech(
        "c", REPLY, Clock(), lambda e: told.append(e.model_dump()), deadline_ms=deadline_ms
    )


@given(words=WORDS, filler=st.sampled_from(("Hm. Let me see.", "글쎄…", "Well now.")))
def test_what_follows_a_filler_keeps_its_places(words: list[str], filler: str) -> None:
    """Deltas join to the text, and sentences and feelings stand where they say, filler first."""
    told: list[dict[str, Any]] = []
    made = speech(told)
    made.fill(filler, "happy")
    parser = ReplyParser(("Bram",))
    for word in words:
        made.take(parser.feed(f"{word} "))
    made.take(parser.end())
    assert "".join(e["text"] for e in told if e["type"] == "reply.delta") == made.text
    assert made.text == f"{filler} {parser.text}".rstrip()
    sentences = [e for e in told if e["type"] == "reply.sentence"]
    assert [s["index"] for s in sentences] == list(range(len(sentences)))
    assert sentences[0]["text"] == filler
    for sentence in sentences:
        begin = sentence["start_char"]
        assert made.text[begin : begin + len(sentence["text"])] == sentence["text"]
    assert told[0]["type"] == "reply.emotion"
    assert made.answered == bool(parser.text)
    assert made.snapshot().sentences == [s["text"] for s in sentences]


def test_a_filler_keeps_to_what_was_shown() -> None:
    """A feeling that was chosen before stays while a filler is said, and behind it."""
    told: list[dict[str, Any]] = []
    made = speech(told)
    made.take(ReplyParser(("Bram",), decided=Opening("angry", 0.8)).feed(""))
    made.fill("Hm.", "happy")
    assert [e["emotion"] for e in told if e["type"] == "reply.emotion"] == ["angry"]
    assert made.emotion == "angry"


def test_of_several_stand_ins_the_gravest_is_told() -> None:
    """A whole authored line says more than a filler, and a filler more than a short reply."""
    made = speech([])
    for rung, worst in (("short", "short"), ("canned", "canned"), ("filler", "canned")):
        made.degrade(rung)  # type: ignore[arg-type]
        assert made.outcome("stop", {}).degraded == worst


def test_a_deadline_counts_from_the_request() -> None:
    """The deadline is so many milliseconds after the reply was asked for; none is none."""
    clock = Clock()
    before = clock.monotonic()
    made = speech([], deadline_ms=1_500)
    assert made.deadline is not None
    assert before + 1.5 <= made.deadline <= clock.monotonic() + 1.5
    assert speech([]).deadline is None
