"""Tokens are guessed by script, and the guess follows what is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.estimate import LEAST, MOST, Correction, prompt_tokens, text_tokens
from npc_server.prompt.messages import Message


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("seven words", 11 / 3.5),
        ("안녕하세요", 5),
        ("你好", 2.2),
        ("1234", 2),
        ("Ää", 1.2),
        ("🙂", 2),
        ("가a!", 1 + 1 / 3.5 + 0.6),
    ],
)
def test_each_script_has_its_weight(text: str, tokens: float) -> None:
    """Latin letters are cheap, Hangul takes a token each, an emoji two."""
    assert text_tokens(text) == pytest.approx(tokens)


def test_messages_cost_beyond_their_text() -> None:
    """Each message has a share of the template."""
    one = prompt_tokens([Message("user", "안녕")])
    two = prompt_tokens([Message("user", "안녕"), Message("assistant", "안녕")])
    assert two - one == 7
    assert one == 4 + 7


def test_the_ratio_rises_at_once_and_falls_slowly() -> None:
    """A guess too small is mended with the next one, a guess too large bit by bit."""
    correction = Correction()
    correction.learn(100, 180)
    assert correction.apply(10) == 18
    correction.learn(100, 80)
    assert correction.ratio == pytest.approx(1.7)
    correction.raise_by(0.1)
    assert correction.ratio == pytest.approx(1.87)


@given(st.lists(st.tuples(st.floats(-1, 1e6), st.integers(-5, 10**9))))
def test_the_ratio_has_bounds(reports: list[tuple[float, int]]) -> None:
    """Whatever an endpoint reports, counts stay of the same order."""
    correction = Correction()
    for guessed, counted in reports:
        correction.learn(guessed, counted)
    assert LEAST <= correction.ratio <= MOST
