"""Tokens are drawn as the sampling says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.drawing import Logits, draw, log_probabilities
from npc_server.persona import Sampling

NONE = np.asarray([], dtype=np.int64)
LOGITS: Logits = np.asarray([1.0, 3.0, 2.0, -1.0, 0.0], dtype=np.float32)


def sampling(**fields: float) -> Sampling:
    return Sampling.model_validate({"repetition_penalty": 1, **fields})


def test_temperature_zero_takes_the_likeliest() -> None:
    """Whatever the chance."""
    greedy = sampling(temperature=0)
    assert {draw(LOGITS, [], greedy, NONE, chance) for chance in (0.0, 0.5, 0.999)} == {1}


def test_barred_tokens_are_never_drawn() -> None:
    """Neither by likelihood nor by chance."""
    barred = np.asarray([1, 2], dtype=np.int64)
    assert draw(LOGITS, [], sampling(temperature=0), barred, 0.5) == 0
    drawn = {draw(LOGITS, [], sampling(top_k=0, top_p=1), barred, c / 50) for c in range(50)}
    assert not drawn & {1, 2}


def test_recent_tokens_become_less_likely() -> None:
    """The penalty divides what is above zero and multiplies what is below."""
    strict = sampling(temperature=0, repetition_penalty=2)
    assert draw(LOGITS, [1, 1, 1], strict, NONE, 0.5) == 2
    negative: Logits = np.asarray([-1.0, -1.5], dtype=np.float32)
    assert draw(negative, [0], strict, NONE, 0.5) == 1


@pytest.mark.parametrize(("top_k", "expected"), [(1, {1}), (2, {1, 2}), (0, {0, 1, 2, 3, 4})])
def test_top_k_keeps_the_likeliest(top_k: int, expected: set[int]) -> None:
    """Only that many tokens can come; 0 keeps all."""
    hot = sampling(top_k=top_k, top_p=1, temperature=2)
    assert {draw(LOGITS, [], hot, NONE, chance / 200) for chance in range(200)} == expected


def test_top_p_keeps_the_likeliest_mass() -> None:
    """A small mass leaves the likeliest token alone."""
    assert {draw(LOGITS, [], sampling(top_p=0.5), NONE, c / 50) for c in range(50)} == {1}


def test_chance_follows_the_weights() -> None:
    """Evenly spread chances draw each token as often as its probability says."""
    two: Logits = np.log(np.asarray([0.25, 0.75], dtype=np.float32))
    even = sampling(temperature=1, top_p=1, top_k=0)
    drawn = [draw(two, [], even, NONE, (at + 0.5) / 1000) for at in range(1000)]
    assert abs(drawn.count(1) - 750) <= 1


@given(
    logits=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40),
    chance=st.floats(0, 1, exclude_max=True),
    top_k=st.integers(0, 50),
    top_p=st.floats(0.01, 1),
    temperature=st.floats(0, 2),
)
def test_a_token_is_always_drawn(
    logits: list[float], chance: float, top_k: int, top_p: float, temperature: float
) -> None:
    """Any logits and any sampling give a token that there is."""
    array = np.asarray(logits, dtype=np.float32)
    chosen = sampling(top_k=top_k, top_p=top_p, temperature=temperature)
    assert 0 <= draw(array, [0], chosen, NONE, chance) < len(logits)


def test_only_allowed_tokens_are_drawn() -> None:
    """Of those the likeliest; tokens beyond the mask are never allowed, whatever the cuts."""
    allowed = np.asarray([False, False, False, True])
    for fields in ({"temperature": 0}, {"top_k": 2, "top_p": 0.5}, {"top_k": 0, "top_p": 1}):
        drawn = {draw(LOGITS, [], sampling(**fields), NONE, c / 50, allowed) for c in range(50)}
        assert drawn == {3}


def test_probabilities_are_among_the_named() -> None:
    """A softmax over some logits, in the order that was asked for; large ones do not overflow."""
    found = np.exp(log_probabilities(LOGITS, [2, 1]))
    assert found.tolist() == pytest.approx([1 / (1 + np.e), np.e / (1 + np.e)])
    large: Logits = np.asarray([2000.0, 1000.0], dtype=np.float32)
    assert log_probabilities(large, [0, 1]) == [0.0, -1000.0]
