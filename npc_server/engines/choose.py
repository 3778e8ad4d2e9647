"""Choosing one of a few options with a language model: a question, labelled options, one look.

The question is folded behind the newest words of a conversation, so that a model which has read
the conversation reads only the question. The model's probabilities for the labels come from a
single pass. Models prefer some labels whatever is asked; that leaning is measured with inputs
without content and divided out (contextual calibration: Zhao et al., "Calibrate Before Use:
Improving Few-Shot Performance of Language Models", ICML 2021).

Small models are wrong often. Nothing that matters for safety or secrets may rest on a choice alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal

from npc_server.engines.base import Adapter, Engine, ScoreRequest
from npc_server.prompt.messages import Message

Language = Literal["en", "ko"]

LABELS = "ABCDEFGHIJKLMNOPQRST"
"""One token each in every common vocabulary."""

CONTENT_FREE: dict[Language, tuple[str, ...]] = {"en": ("N/A", "…"), "ko": ("N/A", "…")}
"""Inputs that say nothing."""

PRIORS_KEPT = 256
LEAST_PRIOR = 1e-6

_WORDS: dict[Language, tuple[str, str, str]] = {
    "en": (
        "You answer questions about a conversation.",
        "Question: {question}",
        "Answer with one letter.",
    ),
    "ko": (
        "당신은 대화에 대한 질문에 답합니다.",
        "질문: {question}",
        "알파벳 하나로만 답하세요.",
    ),
}


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a conversation.

    Attributes:
        text: One sentence, such as ``What does the last speaker feel?``.
        options: 2 to 20 different answers, each on one line.
        language: In which language it is asked: the conversation's.
    """

    text: str
    options: tuple[str, ...]
    language: Language = "en"

    def __post_init__(self) -> None:
        if not 2 <= len(self.options) <= len(LABELS):
            raise ValueError(f"a question has 2 to {len(LABELS)} options")
        if len(set(self.options)) != len(self.options):
            raise ValueError("the options of a question differ")

    @property
    def labels(self) -> tuple[str, ...]:
        """The letters that stand for the options."""
        return tuple(LABELS[: len(self.options)])


def folded(messages: Sequence[Message], question: Question) -> tuple[Message, ...]:
    """The conversation with the question behind its newest words.

    It begins with exactly what it began with: only the last user message grows, or, behind words
    of the NPC, a new one comes.
    """
    *before, last = messages
    asked = rendered(question)
    if last.role != "user":
        return (*messages, Message("user", asked))
    return (*before, Message("user", f"{last.text}\n\n{asked}"))


def rendered(question: Question) -> str:
    """The question in words: what is asked, the options behind their labels, how to answer."""
    _, asks, how = _WORDS[question.language]
    lines = [f"{label}) {option}" for label, option in zip(LABELS, question.options, strict=False)]
    return "\n".join([asks.format(question=question.text), *lines, how])


def opening(language: Language) -> Message:
    """The system message of a question that is asked of no NPC's own prompt."""
    return Message("system", _WORDS[language][0])


def without_content(question: Question) -> list[tuple[Message, ...]]:
    """The same question asked of nothing, to find out what the model leans to."""
    system = opening(question.language)
    texts = CONTENT_FREE[question.language]
    return [folded((system, Message("user", text)), question) for text in texts]


def calibrated(probabilities: Sequence[float], prior: Sequence[float]) -> list[float]:
    """The probabilities divided by the prior, so that they add up to 1 again.

    Args:
        probabilities: Of the options, given the input.
        prior: Of the options, given inputs without content; both add up to 1.
    """
    ratios = [p / max(q, LEAST_PRIOR) for p, q in zip(probabilities, prior, strict=True)]
    return normalised(ratios)


def normalised(weights: Sequence[float]) -> list[float]:
    """Weights as probabilities; all the same where there is nothing to go by."""
    total = sum(weights)
    if not total > 0:
        return [1 / len(weights)] * len(weights)
    return [weight / total for weight in weights]


def mean(rows: Sequence[Sequence[float]]) -> list[float]:
    """The mean of several distributions over the same options."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


class Chooser:
    """Asks an engine, and remembers what it leans to.

    Args:
        engine: Whom to ask. Its seats are the caller's to arrange.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._priors: OrderedDict[tuple[Question, Adapter | None], list[float]] = OrderedDict()

    async def choose(
        self,
        messages: Sequence[Message],
        question: Question,
        affinity: str,
        adapter: Adapter | None = None,
    ) -> list[float]:
        """The probability of each option, in their order; they add up to 1.

        The first time that a question is asked it costs two more passes. An engine without true
        probabilities gives all to the option that it names; see ``Capabilities.scores``.

        Args:
            messages: The conversation, the system message first.
            question: What is asked.
            affinity: As for a reply.
            adapter: As for a reply.

        Raises:
            EngineUnavailable: The engine cannot answer.
            TooLarge: The question does not fit behind the conversation.
        """
        asked = folded(messages, question)
        found = await self._ask(asked, question, affinity, adapter)
        if not self._engine.capabilities.scores:
            return found
        return calibrated(found, await self.prior(question, adapter))

    async def prior(self, question: Question, adapter: Adapter | None = None) -> list[float]:
        """What the model answers to the question when there is nothing to go by."""
        key = (question, adapter)
        if key not in self._priors:
            rows = [
                await self._ask(asked, question, "choose", adapter)
                for asked in without_content(question)
            ]
            self._priors[key] = mean(rows)
        self._priors.move_to_end(key)
        while len(self._priors) > PRIORS_KEPT:
            self._priors.popitem(last=False)
        return self._priors[key]

    async def _ask(
        self,
        messages: tuple[Message, ...],
        question: Question,
        affinity: str,
        adapter: Adapter | None,
    ) -> list[float]:
        request = ScoreRequest(messages, question.labels, affinity, adapter=adapter)
        return normalised([exp(log) for log in await self._engine.score(request)])
