"""What chat endpoints say is read without trust, and what they refuse is learned."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.base import Usage
from npc_server.engines.openai_wire import (
    FORMS_KEPT,
    Ask,
    Problem,
    Quirks,
    body_of,
    chosen_label,
    chunk_of,
    is_too_long,
    label_logs,
    problem_of,
    retry_after,
)
from npc_server.prompt.messages import Message

ASK = Ask((Message("system", "You."), Message("user", "Hi")), 20, stop=("x",), logprobs=True)
SCHEMA = {"type": "object"}


NAMES = st.sampled_from(
    [
        *("choices", "delta", "message", "content", "text", "error", "logprobs", "top_logprobs"),
        *("finish_reason", "usage", "prompt_tokens", "token", "logprob", "prompt_tokens_details"),
    ]
)


def shares(top: list[tuple[str, float]], *labels: str) -> list[float]:
    logs = label_logs([(token, math.log(share)) for token, share in top], labels)
    return [round(math.exp(log), 4) for log in logs]


def test_labels_collect_the_tokens_that_stand_for_them() -> None:
    """Space marks of any tokenizer are left out, `A)` is A, `AB` is not, the floor is the last."""
    top = [("A", 0.2), (" A", 0.1), ("▁B", 0.05), ("ĠB", 0.1), ("A)", 0.05), ("AB", 0.3)]
    assert shares(top, "A", "B") == [0.7, 0.3]
    assert shares([("A", 0.6), ("The", 0.2)], "A", "B") == [0.75, 0.25]
    assert shares([("The", 0.5)], "A", "B") == [0.5, 0.5]
    assert shares([("ha", 0.5), ("s", 0.4), ("x", 0.1)], "happy", "sad", "sorry") == [
        round(5 / 7, 4),
        round(1 / 7, 4),
        round(1 / 7, 4),
    ]


LABELS = st.lists(st.sampled_from("ABCDEFGHIJ"), min_size=2, unique=True)
TOP = st.lists(st.tuples(st.text(max_size=3), st.floats(allow_nan=False, max_value=5)), max_size=20)


@given(TOP, LABELS)
def test_probabilities_of_labels_add_up(top: list[tuple[str, float]], labels: list[str]) -> None:
    """Whatever an endpoint lists, there is one finite number for each label."""
    logs = label_logs(top, labels)
    assert len(logs) == len(labels)
    assert sum(map(math.exp, logs)) == pytest.approx(1)


def test_a_label_in_words_is_found() -> None:
    """The first one that stands alone; letters of words do not count."""
    assert chosen_label("Actually, it is (B).", ["A", "B"]) == 1
    assert chosen_label('{"answer":"A"}', ["A", "B"]) == 0
    assert chosen_label("None of them", ["A", "B"]) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    """Both forms of the standard; the past is now, nonsense is nothing."""
    assert retry_after(header, now=60.0) == seconds


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ({"error": {"message": "m", "code": "c", "param": "p"}}, Problem("m", "c", "p")),
        ({"error": {"message": "m", "code": 503, "type": "t"}}, Problem("m", "t", "", 503)),
        ({"error": {"message": "m", "code": None, "type": "t"}}, Problem("m", "t")),
        ({"error": "model\nnot found"}, Problem("model not found")),
        ({"message": "m", "object": "error"}, Problem("m")),
        ({"error": {"message": None, "code": [1], "param": 3}}, Problem("None", "[1]", "3")),
    ],
)
def test_errors_are_read_in_every_form(found: object, problem: Problem) -> None:
    """OpenAI's, llama.cpp's, Ollama's and vLLM's."""
    assert problem_of(found) == problem


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
    )
)
def test_no_object_breaks_the_reader(found: object) -> None:
    """Any JSON in any place gives a chunk."""
    chunk_of(found if isinstance(found, dict) else {"choices": [found], "usage": found})


def test_usage_is_plausible_or_nothing() -> None:
    """Cached tokens are part of the prompt's; a missing count is zero."""
    details = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}}
    assert chunk_of({"usage": details}).usage == Usage(5, 5, 0)
    assert chunk_of({"usage": {"completion_tokens": 5}}).usage is None


def learned(quirks: Quirks, message: str, ask: Ask = ASK, **more: Any) -> bool:
    problem = Problem(message, status=400, **more)
    return quirks.learn(problem, body_of("m", ask, quirks), ask)


def test_each_field_is_refused_once() -> None:
    """By its parameter or by name in the message; `top_logprobs` is not `logprobs`."""
    quirks = Quirks()
    assert learned(quirks, "top_logprobs must go")
    assert learned(quirks, "sorry", param="stop.0")
    assert not learned(quirks, "stop")
    assert not learned(quirks, "something else")
    assert quirks.refused == {"top_logprobs", "stop"}
    body = body_of("m", ASK, quirks)
    assert "logprobs" in body
    assert "stop" not in body


def test_schemas_fall_to_the_next_form_each_on_its_own() -> None:
    """One schema that is refused says nothing of others, and the list of them is bounded."""
    quirks = Quirks()
    ask = Ask(ASK.messages, 20, schema=SCHEMA)
    assert [quirks.form(SCHEMA), learned(quirks, "bad schema", ask)] == ["strict", True]
    assert [learned(quirks, "bad schema", ask), quirks.form(SCHEMA)] == [True, "object"]
    assert quirks.form({"type": "array"}) == "strict"
    assert learned(quirks, "json_object is unknown", ask)
    assert not learned(quirks, "json", ask)
    for number in range(FORMS_KEPT):
        learned(quirks, "schema", Ask(ASK.messages, 20, schema={"const": number}))
    assert quirks.form(SCHEMA) == "strict"


def test_a_schema_refused_at_the_start_is_refused_for_all() -> None:
    """Then replies are not held to schemas, and nobody is asked to."""
    quirks = Quirks()
    ask = Ask(ASK.messages, 20, schema=SCHEMA)
    for _ in range(2):
        body = body_of("m", ask, quirks)
        assert quirks.learn(Problem("no schema", status=400), body, ask, of_all=True)
    assert not quirks.takes_schemas
    assert quirks.form({"type": "array"}) == "object"


@pytest.mark.parametrize(
    ("problem", "long"),
    [
        (Problem("m", "context_length_exceeded"), True),
        (Problem("m", "exceed_context_size_error"), True),
        (Problem("This model's maximum context length is 4096"), True),
        (Problem("the request exceeds the available context size"), True),
        (Problem("bad schema in this context"), False),
    ],
)
def test_a_prompt_that_is_too_long_is_known(problem: Problem, long: bool) -> None:
    """By OpenAI's, vLLM's and llama.cpp's words."""
    assert is_too_long(problem) is long
