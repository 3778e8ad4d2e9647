"""Frames become typed commands, or the documented error."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.config import Limits
from npc_server.errors import BadJson, BadMessage, NpcError, TooLarge, UnknownType
from npc_server.protocol import commands
from npc_server.protocol.parse import COMMAND_TYPES, command_id, depth, parse

LIMITS = Limits()


def frame(**fields: object) -> bytes:
    return orjson.dumps(fields)


def test_a_say_is_read_whole() -> None:
    """A well-formed command becomes its model, with its defaults filled in."""
    said = parse(frame(type="say", id="1", conversation="c", text="Hi"), LIMITS)
    assert isinstance(said, commands.Say)
    assert (said.text, said.to, said.respond, said.whisper) == ("Hi", [], "auto", False)


def test_what_players_say_is_not_kept_aside() -> None:
    """The parser keeps no copy of texts and ids: each reading makes its own."""
    raw = frame(type="say", id="a-command", conversation="smithy", text="A secret of mine.")
    first, second = parse(raw, LIMITS), parse(raw, LIMITS)
    assert first == second
    assert first.text is not second.text
    assert first.id is not second.id


def test_unknown_fields_are_ignored() -> None:
    """A newer client's extra field does not break an older server."""
    assert parse(frame(type="ping", shiny=True), LIMITS).t is None


@pytest.mark.parametrize(
    ("raw", "error", "says"),
    [
        (b"", BadJson, "not valid JSON"),
        (b"{", BadJson, "not valid JSON"),
        (b'{"type":"ping"', BadJson, "not valid JSON"),
        (b"\xff\xfe", BadJson, "not valid JSON"),
        (b'{"type":"say","id":"1","conversation":"c","text":"\\ud800"}', BadJson, "JSON"),
        (b"[]", BadMessage, "not a JSON object"),
        (b"null", BadMessage, "not a JSON object"),
        (b"3", BadMessage, "not a JSON object"),
        (b"{}", BadMessage, "no 'type'"),
        (b'{"type":"shout"}', UnknownType, "'shout'"),
        (b'{"type":"sai"}', UnknownType, "Did you mean 'say'"),
        (b'{"type":7}', UnknownType, "'7'"),
        (b'{"type":"say","id":"1"}', BadMessage, "'conversation'"),
        (b'{"type":"say","id":"1","conversation":"c","text":5}', BadMessage, "'text'"),
        (b'{"type":"say","id":"","conversation":"c","text":"x"}', BadMessage, "'id'"),
        (b'{"type":"conversation.open","id":"1","npcs":[{}]}', BadMessage, "npcs.0"),
        (b'{"type":"hello","id":"1","protocol":1,"player":{"id":"p","name":"a\\nb"}}',
         BadMessage, "one line"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(raw: bytes, error: type[NpcError], says: str) -> None:
    """Each kind of bad frame gets its own error, which names the place."""
    with pytest.raises(error, match=says):
        parse(raw, LIMITS)


def test_deep_nesting_is_refused_before_parsing() -> None:
    """A frame nested deeper than the limit is bad JSON, one at the limit is not."""
    deep = b'{"type":"ping","x":' + b"[" * 32 + b"]" * 32 + b"}"
    with pytest.raises(BadJson, match="32 deep"):
        parse(deep, LIMITS)
    parse(b'{"type":"ping","x":' + b"[" * 31 + b"]" * 31 + b"}", LIMITS)


def test_brackets_in_strings_do_not_nest() -> None:
    """A player may type as many brackets as it likes."""
    text = "[{" * 500 + '"' + "\\"
    said = parse(frame(type="say", id="1", conversation="c", text=text), LIMITS)
    assert said.text == text


def test_a_long_text_is_too_large() -> None:
    """One code point over the limit is refused with the limit in the details."""
    with pytest.raises(TooLarge) as caught:
        parse(frame(type="say", id="1", conversation="c", text="가" * 4001), LIMITS)
    assert caught.value.details == {"limit": 4000, "length": 4001}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"id":"abc","type":9}', "abc"),
        (b'{"id":5}', None),
        (b'{"id":""}', None),
        (b"[1]", None),
        (b"{", None),
    ],
)
def test_the_id_of_a_bad_frame(raw: bytes, expected: str | None) -> None:
    """An error can say which command it is about wherever that can be known."""
    assert command_id(raw) == expected


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@given(st.binary(max_size=200) | json_values.map(lambda v: orjson.dumps(v, default=str)))
def test_nothing_but_our_errors_comes_out(raw: bytes) -> None:
    """Whatever the bytes, parsing ends in a command or in one of our errors."""
    try:
        outcome = parse(raw, LIMITS).type
    except NpcError as error:
        outcome = error.code
    assert outcome in {*COMMAND_TYPES, "bad_json", "bad_message", "unknown_type", "too_large"}


@given(json_values)
def test_depth_is_that_of_the_value(value: object) -> None:
    """The depth that is counted in the bytes is the depth of the value."""

    def deep(v: object) -> int:
        if isinstance(v, dict):
            return 1 + max(map(deep, v.values()), default=0)
        if isinstance(v, list):
            return 1 + max(map(deep, v), default=0)
        return 0

    assert depth(orjson.dumps(value), 0) == deep(value)
