"""Nothing that a template could read as a control token leaves for an endpoint."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.neutral import has_marks, neutral
from npc_server.engines.templates import TEMPLATES

MARKS = sorted({mark for template in TEMPLATES.values() for mark in template.marks})
OTHERS = [
    "<s>",
    "</s>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<|eot_id|>",
    "<|START_OF_TURN_TOKEN|>",
    "<｜User｜>",
    "<｜end▁of▁sentence｜>",
    "＜｜User｜＞",
    "<tool_call>",
    "<think>",
    "<extra_id_0>",
    "[TOOL_CALLS]",
    "[/AVAILABLE_TOOLS]",
    "[gMASK]",
    "[UNUSED_TOKEN_145]",
    "### Human:",
]


@pytest.mark.parametrize("mark", MARKS + OTHERS)
def test_every_known_mark_is_broken_up(mark: str) -> None:
    """Alone, nested in itself or between words it is gone, and no letter is lost."""
    for text in (mark, f"a{mark}b {mark}", f"{mark[:2]}{mark}{mark[2:]}"):
        told = neutral(text)
        assert mark not in told
        assert not has_marks(told)
        assert told.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I <3 you, 2 < 3 and 5 > 4.",
        "[a bell rings] (quietly) {x}",
        "«안녕» <기생충> 봤어? |왼쪽|오른쪽|",
        "Use a | pipe, # hash, ## heads, the USER and the assistant.",
        "\ttabs\r\nand lines\x00 🙂",
    ],
)
def test_text_without_marks_stays_as_it_is(text: str) -> None:
    """What people write is not touched."""
    assert neutral(text) == text


PIECES = st.sampled_from(
    [*MARKS, *OTHERS, "<", "|", ">", "[", "/", "INST", "]", " ", "x", "#", ":"]
)


@given(st.lists(PIECES | st.text(max_size=3)).map("".join))
def test_nothing_is_left_and_nothing_else_is_changed(text: str) -> None:
    """After it there is no mark; a second time changes nothing; only spaces were put in."""
    told = neutral(text)
    assert not has_marks(told)
    assert neutral(told) == told
    assert told.replace(" ", "") == text.replace(" ", "")
    assert (told == text) is (not has_marks(text))
