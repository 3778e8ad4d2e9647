"""Replies that are held to a JSON Schema satisfy it, whatever the model wants to say."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from model_files import llama
from schemas import Schema, random_schema

from npc_server.engines.bpe import BpeVocabulary
from npc_server.engines.gguf import read_header
from npc_server.engines.json_mask import ESCAPED, INSIDE, OUTSIDE, JsonMasks, string_state
from npc_server.errors import BadMessage

ENDS = (0, 2)
OBJECT = {
    "type": "object",
    "properties": {"relationship": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["relationship", "n"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> BpeVocabulary:
    """A byte-level vocabulary with a few longer tokens."""
    file = tmp_path_factory.mktemp("model") / "tiny.gguf"
    file.write_bytes(llama())
    return BpeVocabulary(read_header(file))


@pytest.fixture(scope="module")
def masks(vocabulary: BpeVocabulary) -> JsonMasks:
    """Masks for it."""
    return JsonMasks(vocabulary, ENDS)


def babble(
    masks: JsonMasks, vocabulary: BpeVocabulary, schema: Schema, *, limit: int, seed: int
) -> tuple[str, int]:
    """What comes of drawing any allowed token, and how many tokens that took."""
    chance = np.random.default_rng(seed)
    mask = masks.start(schema)
    said: list[int] = []
    while len(said) < limit and not mask.ended:
        drawn = int(chance.choice(np.flatnonzero(mask.allowed())))
        left = limit - len(said)
        token = None if drawn in ENDS else mask.within(drawn, left)
        if token is None:
            break
        said += mask.take(token, left)
    return b"".join(map(vocabulary.piece, said)).decode(), len(said)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([250, 400]))
def test_nonsense_is_valid_json(
    masks: JsonMasks, vocabulary: BpeVocabulary, seed: int, limit: int
) -> None:
    """Random schemas, random tokens: within the limit the text is complete, valid and compact."""
    schema = random_schema(np.random.default_rng(seed))
    shortest = masks.start(schema)._end
    assert shortest is not None
    assume(len(shortest) <= limit)
    text, count = babble(masks, vocabulary, schema, limit=limit, seed=seed)
    assert count <= limit
    value = json.loads(text)
    jsonschema.validate(value, schema)
    spaced = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert text.count(" ") >= spaced.count(" ")
    assert not any(letter in text for letter in "\n\t\r")


@pytest.mark.parametrize("limit", [40, 41, 45, 60])
def test_a_text_ends_within_few_tokens(
    masks: JsonMasks, vocabulary: BpeVocabulary, limit: int
) -> None:
    """A string without a bound ends in time for all that has to follow it."""
    for seed in range(10):
        text, count = babble(masks, vocabulary, OBJECT, limit=limit, seed=seed)
        jsonschema.validate(json.loads(text), OBJECT)
        assert count <= limit


def test_too_few_tokens_cut_the_text(masks: JsonMasks, vocabulary: BpeVocabulary) -> None:
    """Where nothing can be complete within the limit, the text is a beginning, and not longer."""
    text, count = babble(masks, vocabulary, OBJECT, limit=10, seed=1)
    assert count == 10
    assert '{"relationship":"","n":1}'.startswith(text[:10])


def test_what_must_follow_follows_at_once(masks: JsonMasks, vocabulary: BpeVocabulary) -> None:
    """Behind the first brace comes the first name with its colon, without a choice."""
    mask = masks.start(OBJECT)
    (brace,) = vocabulary.encode("{")
    taken = mask.take(brace, 100)
    text = b"".join(map(vocabulary.piece, taken)).decode()
    assert text.startswith('{"relationship":')
    assert not mask.complete


def test_a_reply_can_be_gone_on_with(masks: JsonMasks, vocabulary: BpeVocabulary) -> None:
    """From a prefix on only what fits is allowed; a prefix that fits nothing is refused."""
    mask = masks.start(OBJECT, '{"relationship":"a \\"friend\\"","n":1')
    (brace,) = vocabulary.encode("}")
    assert mask.allowed()[brace]
    mask.take(brace, 10)
    assert (mask.complete, mask.ended) == (True, True)
    with pytest.raises(BadMessage, match="prefix"):
        masks.start(OBJECT, "Well, ")


def test_the_end_is_allowed_where_the_text_is_complete(
    masks: JsonMasks, vocabulary: BpeVocabulary
) -> None:
    """A number may go on or end; an empty text may not end, and no control token may come."""
    mask = masks.start({"type": "integer"})
    assert not mask.allowed()[list(ENDS)].any()
    mask.take(vocabulary.encode("7")[0], 10)
    allowed = mask.allowed()
    assert allowed[list(ENDS)].all()
    assert not allowed[[1, 3]].any()
    assert len(allowed) == vocabulary.size


UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"not": {"type": "string"}}, "not"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({"$ref": "https://example.org/schema"}, "example.org"),
    ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, "minLength"),
    ({"type": "sandwich"}, "sandwich"),
]


@pytest.mark.parametrize(("schema", "named"), UNUSABLE)
def test_a_schema_that_cannot_be_enforced_is_refused(
    masks: JsonMasks, schema: dict[str, Any], named: str
) -> None:
    """The message names the keyword."""
    with pytest.raises(BadMessage, match=named):
        masks.start(schema)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ('{"a', INSIDE),
        ('{"a"', OUTSIDE),
        ('{"a\\', ESCAPED),
        ('{"a\\"', INSIDE),
        ('{"a\\\\"', OUTSIDE),
        ('{"가', INSIDE),
    ],
)
def test_strings_are_followed(text: str, state: int) -> None:
    """Quotes open and close, unless they stand behind a backslash; in any cuts."""
    data = text.encode()
    assert string_state(OUTSIDE, data) == state
    for cut in range(len(data)):
        assert string_state(string_state(OUTSIDE, data[:cut]), data[cut:]) == state


def test_a_byte_is_never_lost(masks: JsonMasks) -> None:
    """Text to tokens and back is the same text, also where it is not UTF-8."""
    pieces = masks._pieces
    for data in ('hello "안녕" 😀'.encode(), b"\xff\xfe hello", b""):
        assert b"".join(pieces.bytes[token] for token in pieces(data)) == data
        assert b"".join(pieces.bytes[token] for token in pieces.longest(data)) == data


def test_few_schemas_are_kept(vocabulary: BpeVocabulary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled schemas are used again, and the oldest is dropped."""
    monkeypatch.setattr("npc_server.engines.json_mask.SCHEMAS_KEPT", 2)
    masks = JsonMasks(vocabulary, ENDS)
    for most in (1, 2, 1, 3):
        masks.start({"type": "integer", "maximum": most})
    assert [json.loads(key)["maximum"] for key in masks._grammars] == [1, 3]
