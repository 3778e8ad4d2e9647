"""PURE. Samples, their spread, ratios of two sides, and slopes. Nothing here knows of servers."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio should be: at most, or at least, so much."""

    kind: Literal["at most", "at least"]
    value: float

    def met(self, value: float) -> bool:
        """Whether a value is as it should be."""
        return value <= self.value if self.kind == "at most" else value >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'at most' else '≥'} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sides that were measured in turn, in one run.

    Attributes:
        label: What was measured.
        unit: Of both sides.
        ours: Samples of the side in question, in the order in which they came.
        theirs: Samples of what it is compared with; the same index is the same pair.
        names: What the two sides are called.
        target: What the median of the ratios should be, if anything was decided.
    """

    label: str
    unit: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    names: tuple[str, str]
    target: Target | None = None

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by theirs, pair by pair; pairs whose second side is nothing are left out."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return tuple(ours / theirs for ours, theirs in pairs if theirs)

    def as_dict(self) -> Json:
        """For the results file."""
        target = self.target and {"kind": self.target.kind, "value": self.target.value}
        return {
            "label": self.label,
            "unit": self.unit,
            "ours": list(self.ours),
            "theirs": list(self.theirs),
            "names": list(self.names),
            "target": target,
        }

    @classmethod
    def from_dict(cls, data: Json) -> Comparison:
        """What ``as_dict`` wrote."""
        sides = {name: tuple(data[name]) for name in ("ours", "theirs", "names")}
        target = data["target"] and Target(**data["target"])
        return cls(label=data["label"], unit=data["unit"], target=target, **sides)

    def __str__(self) -> str:
        ours, theirs = (spread(side, self.unit) for side in (self.ours, self.theirs))
        verdict = ""
        if self.target is not None:
            met = "met" if self.target.met(statistics.median(self.ratios)) else "not met"
            verdict = f"; target {self.target}: {met}"
        interval = median_interval(self.ratios)
        sure = f", 95 % {figure(interval[0])} to {figure(interval[1])}" if interval else ""
        return (
            f"{self.label}\n"
            f"  {self.names[0]:<28} {ours}\n"
            f"  {self.names[1]:<28} {theirs}\n"
            f"  ratio                        {spread(self.ratios)}{sure}{verdict}"
        )


def spread(samples: Sequence[float], unit: str = "") -> str:
    """Median, least, most and how many, as one line."""
    middle, least, most = (
        figure(value) for value in (statistics.median(samples), min(samples), max(samples))
    )
    return f"{middle}{' ' * bool(unit)}{unit} ({least} to {most}, n = {len(samples)})"


def figure(value: float) -> str:
    """A number in three significant digits, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def median_interval(
    samples: Sequence[float], confidence: float = 0.95
) -> tuple[float, float] | None:
    """An interval that holds the median, free of any distribution; ``None`` for too few samples.

    The k-th smallest and k-th largest of n samples hold the median with a probability of
    1 - 2 P(B < k), where B is binomial with n and one half (the sign test's interval).
    """
    ordered, count = sorted(samples), len(samples)
    below, rank = 0.0, 0
    for k in range(count // 2):
        below += math.comb(count, k) / 2**count
        if 2 * below > 1 - confidence:
            break
        rank = k + 1
    return (ordered[rank - 1], ordered[count - rank]) if rank else None


def slope(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float, float]:
    """How much ``y`` grows with each ``x``, and the 95 % interval of that.

    Least squares, with Newey and West's standard error: neighbouring samples of a process' memory
    resemble each other, which the usual error would take for certainty. The critical value is that
    of Kiefer and Vogelsang (2005, Bartlett's kernel), which allows for the error being estimated.

    Returns:
        The slope, and the lower and upper end of its interval.
    """
    count = len(xs)
    mean_x, mean_y = statistics.fmean(xs), statistics.fmean(ys)
    away = [x - mean_x for x in xs]
    square = math.fsum(a * a for a in away)
    found = math.fsum(a * (y - mean_y) for a, y in zip(away, ys, strict=True)) / square
    pulls = [a * (y - mean_y - found * a) for a, y in zip(away, ys, strict=True)]
    lags = math.floor(4 * (count / 100) ** (2 / 9)) + 1
    long_run = math.fsum(p * p for p in pulls)
    for lag in range(1, min(lags, count - 1) + 1):
        weight = 1 - lag / (lags + 1)
        long_run += 2 * weight * math.fsum(a * b for a, b in zip(pulls, pulls[lag:], strict=False))
    error = math.sqrt(max(0.0, long_run) * count / max(1, count - 2)) / square
    share = (lags + 1) / count
    reach = error * (1.96 + 2.9694 * share + 0.4160 * share**2 - 0.5324 * share**3)
    return found, found - reach, found + reach
