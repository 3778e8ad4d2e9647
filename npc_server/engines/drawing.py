"""PURE. Draws the next token from a model's logits, or tells how likely some are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from npc_server.persona import Sampling

RECENT = 64

Logits = NDArray[np.float32]


def draw(
    logits: Logits,
    recent: Sequence[int],
    sampling: Sampling,
    barred: NDArray[np.int64],
    chance: float,
    allowed: NDArray[np.bool_] | None = None,
) -> int:
    """The next token.

    Penalty, then the likeliest ``top_k``, then temperature, then the likeliest mass ``top_p``.

    Args:
        logits: One for each token; left as they are.
        recent: Tokens that the repetition penalty makes less likely: positive logits are divided
            by it, negative ones multiplied.
        sampling: Temperature (0 takes the likeliest), ``top_k``, ``top_p``, penalty.
        barred: Tokens that must not be drawn.
        chance: From 0 up to 1: where in the remaining mass the token is taken.
        allowed: Whether each token may be drawn, one of them at least; ``None`` is all of them.
    """
    scores = logits.astype(np.float64)
    used = np.unique(np.asarray(recent, dtype=np.int64))
    penalty = sampling.repetition_penalty
    scores[used] = np.where(scores[used] > 0, scores[used] / penalty, scores[used] * penalty)
    scores[barred] = -np.inf
    if allowed is not None:
        scores[: len(allowed)][~allowed] = -np.inf
        scores[len(allowed) :] = -np.inf
    if sampling.temperature == 0:
        return int(scores.argmax())
    tokens = _likeliest(scores, sampling.top_k)
    weights = np.exp((scores[tokens] - scores[tokens[0]]) / sampling.temperature)
    mass = np.cumsum(weights)
    kept = int(np.searchsorted(mass, sampling.top_p * mass[-1])) + 1
    kept = min(kept, len(tokens))
    return int(tokens[min(int(np.searchsorted(mass, chance * mass[kept - 1], "right")), kept - 1)])


def log_probabilities(logits: Logits, tokens: Sequence[int]) -> list[float]:
    """The natural logarithm of each token's probability where one of these comes next."""
    chosen = logits[np.asarray(tokens)].astype(np.float64)
    chosen -= chosen.max()
    found: list[float] = (chosen - np.log(np.exp(chosen).sum())).tolist()
    return found


def _likeliest(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    if 0 < count < len(scores):
        some = np.argpartition(-scores, count - 1)[:count]
        return some[np.lexsort((some, -scores[some]))]
    return np.argsort(-scores, kind="stable")
