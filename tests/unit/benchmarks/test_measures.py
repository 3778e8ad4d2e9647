"""The benchmarks' statistics: intervals, slopes, ratios."""

from __future__ import annotations

import random

import pytest
from measures import Comparison, Target, figure, median_interval, slope


def test_too_few_samples_have_no_interval() -> None:
    """Of five samples even the ends hold the median in only 94 of 100 cases; of six they do."""
    assert median_interval([5, 1, 4, 2, 3]) is None
    assert median_interval([6, 1, 5, 2, 4, 3]) == (1, 6)
    assert median_interval(range(1, 11)) == (2, 9)


def test_the_interval_holds_the_median() -> None:
    """Of 400 skewed samples of 15, at least 95 in 100 intervals hold the true median."""
    chance = random.Random(1)
    held = 0
    for _ in range(400):
        found = median_interval([chance.expovariate(0.6931471805599453) for _ in range(15)])
        assert found is not None
        held += found[0] <= 1 <= found[1]
    assert held >= 380


def test_a_slope_is_found() -> None:
    """Of 200 noisy lines, nine in ten intervals at least hold the slope, and none is wide."""
    chance = random.Random(2)
    xs = [float(x) for x in range(100)]
    held = 0
    for _ in range(200):
        each, low, high = slope(xs, [3 * x + chance.gauss(0, 5) for x in xs])
        assert low <= each <= high
        assert high - low < 0.2
        held += low < 3 < high
    assert held >= 180


def test_steps_widen_the_interval() -> None:
    """Memory that grows in steps leaves a slope less certain than the same noise shuffled."""
    chance = random.Random(3)
    wander = [0.0]
    for _ in range(199):
        wander.append(0.95 * wander[-1] + chance.gauss(0, 1))
    xs = [float(x) for x in range(200)]
    _, low, high = slope(xs, wander)
    shuffled = chance.sample(wander, len(wander))
    _, less, more = slope(xs, shuffled)
    assert high - low > 1.5 * (more - less)


def test_ratios_are_taken_pair_by_pair() -> None:
    """A ratio belongs to its pair; the comparison survives its file."""
    found = Comparison("x", "ms", (2, 9), (1, 3), ("a", "b"), Target("at most", 3))
    assert list(found.ratios) == [2, 3]
    assert Comparison.from_dict(found.as_dict()) == found
    assert "target ≤ 3: met" in str(found)


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (1234.6, "1235"), (12.345, "12.3"), (0.04567, "0.0457")]
)
def test_figures_have_three_digits(value: float, shown: str) -> None:
    """Three significant digits, and never an exponent."""
    assert figure(value) == shown
