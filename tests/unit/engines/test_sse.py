"""Server-sent events are read in any cuts, and with what is wrong in them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.sse import LONGEST_LINE, EventStream, LineTooLong

STREAM = (
    ': comment\r\n\r\nevent: x\r\ndata: {"a":"안녕"}\r\n\r\n'
    'data:{"b":1}\n\ndata: {"c":\ndata: 2}\n\rdata: garbage\n\n'
    'data: [1]\n\ndata: {"d":\n\ndata: {"e":5}\rdata: {"f":6}\ndata: [DONE]\n\ndata: {"g":7}\n\n'
).encode()
FOUND = [{"a": "안녕"}, {"b": 1}, {"c": 2}, {"e": 5}, {"f": 6}]


def read(parts: list[bytes]) -> tuple[list[dict[str, Any]], bool]:
    events = EventStream()
    found = [item for part in parts for item in events.feed(part)]
    return found + events.end(), events.done


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_cuts_make_no_difference(cuts: list[int]) -> None:
    """Cut in a character or a CRLF, the same objects are found, none behind [DONE]."""
    ends = [*sorted(cuts), len(STREAM)]
    parts = [STREAM[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    assert read(parts) == (FOUND, True)
    assert read([bytes([byte]) for byte in STREAM]) == (FOUND, True)


def test_the_last_line_needs_no_end() -> None:
    """What the connection ends with counts."""
    assert read([b'data: {"a":1}']) == ([{"a": 1}], False)
    assert read([b'data: {"a":1}\r']) == ([{"a": 1}], False)
    assert read([b'data: {"a":']) == ([], False)


def test_what_never_ends_is_bounded() -> None:
    """A line without an end is an error; an object over too many lines is dropped."""
    with pytest.raises(LineTooLong):
        EventStream().feed(b"data: " + b"x" * LONGEST_LINE)
    events = EventStream()
    line = b'data: {"x": [' + b"1," * 1_000 + b"\n"
    for _ in range(40):
        assert events.feed(line) == []
    assert events.feed(b'data: {"a":1}\n') == [{"a": 1}]


@given(st.lists(st.binary(max_size=40)))
def test_no_bytes_break_it(parts: list[bytes]) -> None:
    """Whatever comes, objects come out or nothing."""
    found, _ = read(parts)
    assert all(isinstance(item, dict) for item in found)
