"""Tokens' bytes become whole characters, and stop strings never show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.text_stream import EchoFilter, StopFilter, Utf8Stream

TEXT = st.text(st.sampled_from("ab<|im_end>한국어😀👩‍🚀é \n"), max_size=40)


@given(text=st.text(), cuts=st.lists(st.integers(1, 5), min_size=1))
def test_any_cut_of_utf8_gives_the_text(text: str, cuts: list[int]) -> None:
    """However the bytes are cut, the text is the same and no piece holds half a character."""
    data = text.encode(errors="replace")
    stream, pieces, at = Utf8Stream(), [], 0
    while at < len(data):
        size = cuts[at % len(cuts)]
        pieces.append(stream.feed(data[at : at + size]))
        at += size
    assert "".join(pieces) == data.decode()


def test_hangul_and_emoji_come_whole() -> None:
    """Byte by byte, a syllable or an emoji appears with its last byte and not before."""
    stream = Utf8Stream()
    assert [stream.feed(bytes([byte])) for byte in "각😀".encode()] == [
        "", "", "각", "", "", "", "😀",
    ]  # fmt: skip


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    """A model that emits broken bytes breaks nothing; an unfinished character is left out."""
    stream = Utf8Stream()
    assert stream.feed(b"a\xffb\xed\x95") == "a�b"


@given(
    text=TEXT,
    stops=st.lists(st.text(st.sampled_from("ab<|im_end>한"), max_size=4), max_size=4),
    size=st.integers(1, 5),
)
def test_a_text_ends_before_its_first_stop_string(text: str, stops: list[str], size: int) -> None:
    """What is given out is the text up to the first stop, at each moment a prefix of it."""
    real = [stop for stop in stops if stop]
    ends = [at for at in (text.find(stop) for stop in real) if at >= 0]
    filtered = StopFilter(stops)
    shown = ""
    for at in range(0, len(text), size):
        shown += filtered.feed(text[at : at + size])
        assert not any(stop in shown for stop in real)
    shown += filtered.end()
    if size == 1:
        assert shown == text[: _first_completed(text, real)]
    assert text.startswith(shown)
    assert filtered.stopped == bool(ends)


def test_only_the_space_before_the_beginning_goes() -> None:
    """What is held back as half a stop string is a beginning too: the space behind it stays."""
    for begun, beginning in ((False, "US citizens"), (True, "  US citizens")):
        stream = StopFilter(["USER:"], begun=begun)
        said = [stream.feed(piece) for piece in (" ", " ", "US", " citizens")]
        assert "".join([*said, stream.end()]) == beginning


def _first_completed(text: str, stops: list[str]) -> int:
    for end in range(1, len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            return min(found)
    return len(text)


def test_a_partial_stop_is_held_back_and_then_released() -> None:
    """Half a stop string waits; when it turns out to be none, it is given out."""
    filtered = StopFilter(["<|im_end|>"])
    assert filtered.feed("Hello <|im") == "Hello "
    assert filtered.feed("possible") == "<|impossible"
    assert filtered.feed("<|") == ""
    assert filtered.end() == "<|"


def test_nothing_comes_after_a_stop() -> None:
    """Once stopped, further text is swallowed."""
    filtered = StopFilter(["\nMinsu:"])
    assert filtered.feed("Yes.\nMinsu: no") == "Yes."
    assert (filtered.feed("more"), filtered.end()) == ("", "")


@pytest.mark.parametrize(
    ("said", "answer", "new"),
    [
        ("", "Hello", "Hello"),
        ("I am", " here.", " here."),
        ("I am", "I am here.", " here."),
        (" I am ", " I am here.", "here."),
        ("I am", "I", "I"),
        ("I am", "I amble.", "ble."),
        ("I am.", "Sit.", " Sit."),
        ("I am.", "I am.", ""),
        ("I am. ", " Sit.", "Sit."),
        ("I am!", '"Sit."', '"Sit."'),
        ("그래", "그래요.", "요."),
    ],
)
def test_an_echo_is_taken_out(said: str, answer: str, new: str) -> None:
    """What repeats the beginning is dropped, what goes on stays, in pieces of any size."""
    for size in (1, 3, 100):
        echo = EchoFilter(said)
        parts = [answer[at : at + size] for at in range(0, len(answer), size)]
        assert "".join(map(echo.feed, parts)) + echo.end() == new
