"""A question is folded behind a conversation, and what a model leans to is divided out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.base import Capabilities, Engine, ScoreRequest
from npc_server.engines.choose import (
    PRIORS_KEPT,
    Chooser,
    Question,
    calibrated,
    folded,
    mean,
    normalised,
    without_content,
)
from npc_server.prompt.messages import Message

SYSTEM = Message("system", "You are Bram.")
QUESTION = Question("Is the player polite?", ("yes", "no"))


class Leaning:
    """An engine that answers what it is told, and leans to A where there is nothing to go by."""

    def __init__(self, *answers: list[float], scores: bool = True) -> None:
        self.capabilities = Capabilities("test", "test", 1024, 1, "cpu", scores=scores)
        self.answers = deque(answers)
        self.asked: list[ScoreRequest] = []

    async def score(self, request: ScoreRequest) -> list[float]:
        self.asked.append(request)
        if request.affinity == "choose":
            shares = [0.8, *[0.2 / (len(request.labels) - 1)] * (len(request.labels) - 1)]
        else:
            shares = self.answers.popleft()
        return [math.log(share) if share else -math.inf for share in shares]


def chooser(engine: Leaning) -> Chooser:
    return Chooser(cast("Engine", cast("Any", engine)))


def test_a_question_stands_behind_the_newest_words() -> None:
    """Every message stays; the last one of a user begins as it did."""
    user = Message("user", "Minsu: Good day.")
    assert folded((SYSTEM, user), QUESTION) == (
        SYSTEM,
        Message(
            "user",
            "Minsu: Good day.\n\nQuestion: Is the player polite?\nA) yes\nB) no\n"
            "Answer with one letter.",
        ),
    )


def test_behind_words_of_the_npc_the_question_is_a_message() -> None:
    """What the NPC said is not touched; a Korean question is asked in Korean."""
    said = (SYSTEM, Message("user", "안녕"), Message("assistant", "어서 와."))
    *before, last = folded(said, Question("기분이 어떻습니까?", ("기쁨", "슬픔", "보통"), "ko"))
    assert tuple(before) == said
    assert last == Message(
        "user",
        "질문: 기분이 어떻습니까?\nA) 기쁨\nB) 슬픔\nC) 보통\n알파벳 하나로만 답하세요.",
    )


def test_questions_have_options_to_choose_from() -> None:
    """Between 2 and 20 different ones, with a letter each."""
    for options in ((), ("yes",), ("yes", "yes"), tuple(map(str, range(21)))):
        with pytest.raises(ValueError, match="options"):
            Question("?", options)
    assert Question("?", tuple(map(str, range(20)))).labels[-1] == "T"


def test_calibration_divides_by_the_prior() -> None:
    """0.6 : 0.4 where the model leans 0.8 : 0.2 is 0.75 : 2, that is 3/11 and 8/11."""
    assert calibrated([0.6, 0.4], [0.8, 0.2]) == pytest.approx([3 / 11, 8 / 11])
    assert calibrated([0.5, 0.3, 0.2], [1 / 3] * 3) == pytest.approx([0.5, 0.3, 0.2])
    assert calibrated([0.5, 0.5], [1.0, 0.0]) == pytest.approx([2e-6, 1], abs=1e-5)
    assert mean([[0.2, 0.8], [0.6, 0.4]]) == pytest.approx([0.4, 0.6])
    assert normalised([0.0, 0.0]) == [0.5, 0.5]


WEIGHTS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20)


@given(WEIGHTS)
def test_calibrated_probabilities_add_up(weights: list[tuple[float, float]]) -> None:
    """Whatever the engine and the prior say."""
    shares = normalised([share for share, _ in weights])
    prior = normalised([share for _, share in weights])
    found = calibrated(shares, prior)
    assert sum(found) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in found)


@given(WEIGHTS, st.randoms(use_true_random=False))
def test_calibration_keeps_the_order_of_the_options(
    weights: list[tuple[float, float]], chance: Any
) -> None:
    """Options in another order get the same probabilities, in that order."""
    turned = list(weights)
    chance.shuffle(turned)

    def of(pairs: list[tuple[float, float]]) -> list[float]:
        return calibrated(
            normalised([share for share, _ in pairs]), normalised([share for _, share in pairs])
        )

    there = sorted(zip(weights, of(weights), strict=True))
    back = sorted(zip(turned, of(turned), strict=True))
    assert [share for _, share in there] == pytest.approx([share for _, share in back])


async def test_a_choice_is_calibrated_and_the_prior_is_asked_for_once() -> None:
    """Two looks at nothing, once; each choice is one look with the conversation in front."""
    engine = Leaning([0.6, 0.4], [0.9, 0.1])
    asks = chooser(engine)
    said = (SYSTEM, Message("user", "Good day."))
    assert await asks.choose(said, QUESTION, "w/c/bram") == pytest.approx([3 / 11, 8 / 11])
    assert await asks.choose(said, QUESTION, "w/c/bram") == pytest.approx([9 / 13, 4 / 13])
    assert [asked.affinity for asked in engine.asked] == ["w/c/bram", *["choose"] * 2, "w/c/bram"]
    assert engine.asked[0].labels == ("A", "B")
    assert [asked.messages for asked in engine.asked[1:3]] == without_content(QUESTION)


async def test_where_there_are_no_probabilities_the_choice_counts() -> None:
    """Nothing is divided out of an answer that only names an option, nor asked for."""
    engine = Leaning([0.0, 1.0], scores=False)
    said = (SYSTEM, Message("user", "Good day."))
    assert await chooser(engine).choose(said, QUESTION, "w/c/bram") == [0.0, 1.0]
    assert len(engine.asked) == 1


async def test_priors_are_bounded() -> None:
    """The question that was not asked for the longest time is asked of nothing again."""
    engine = Leaning()
    asks = chooser(engine)
    for number in range(PRIORS_KEPT + 1):
        await asks.prior(replace(QUESTION, text=str(number)))
    before = len(engine.asked)
    await asks.prior(replace(QUESTION, text=str(PRIORS_KEPT)))
    assert len(engine.asked) == before
    await asks.prior(replace(QUESTION, text="0"))
    assert len(engine.asked) == before + 2
