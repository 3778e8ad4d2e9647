"""The plots of ``docs/performance.md``: one small style, told apart by shape as well as colour."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from measures import Comparison, Json, median_interval

# Okabe and Ito's colours, which most people who see few colours tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
ENGINES = {"llamacpp": (BLUE, "o"), "ctransformers": (ORANGE, "s")}
OTHER = (GREEN, "^")
STYLE = {
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    # The same results give the same file.
    "svg.hashsalt": "npc-server",
}
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")

Series = Sequence[tuple[str, Json]]
"""What a benchmark left for its plot, by engine."""


def ratios(found: Sequence[tuple[str, Comparison]], path: Path) -> None:
    """Every comparison with a target: median, 95 % interval, and where it should be."""
    with mpl.rc_context(STYLE):
        drawing, axes = plt.subplots(figsize=(7, 0.9 + 0.26 * len(found)), layout="constrained")
        for row, (engine, comparison) in enumerate(found):
            _ratio(axes, -row, engine, comparison)
        axes.set_yticks(
            [-row for row in range(len(found))], [comparison.label for _, comparison in found]
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(PLAIN)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.axvline(1, color=GREY, linewidth=0.8)
        axes.set_xlabel("ratio")
        for name in dict.fromkeys(engine for engine, _ in found):
            colour, marker = ENGINES.get(name, OTHER)
            axes.plot([], [], marker, color=colour, label=name)
        drawing.legend(loc="outside upper right", fontsize=8, ncols=2)
        _save(drawing, path)


def _ratio(axes: Axes, row: int, engine: str, comparison: Comparison) -> None:
    colour, marker = ENGINES.get(engine, OTHER)
    samples = comparison.ratios
    middle = statistics.median(samples)
    low, high = median_interval(samples) or (min(samples), max(samples))
    axes.plot([low, high], [row, row], color=colour)
    axes.plot([middle], [row], marker, color=colour)
    if comparison.target is not None:
        most = comparison.target.kind == "at most"
        axes.plot([comparison.target.value], [row], "|", color="black", markersize=9)
        axes.annotate(
            "◂" if most else "▸",
            (comparison.target.value, row),
            ha="right" if most else "left",
            va="center",
            fontsize=8,
        )


def load(found: Series, path: Path) -> None:
    """Tokens a second, and the third reply's first token, by conversations at once."""
    with mpl.rc_context(STYLE):
        drawing, (left, right) = plt.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
        for index, (engine, series) in enumerate(found):
            colour, marker = ENGINES.get(engine, OTHER)
            sides = [(engine, colour, marker, "-", 0)]
            if index == 0:
                sides.append((series["names"][1], GREY, "x", "--", 1))
            for label, tint, shape, line, side in sides:
                style = {"color": tint, "marker": shape, "linestyle": line, "label": label}
                left.plot(series["conversations"], series["rate"][side], **style)
                right.plot(series["conversations"], series["third"][side], **style)
        left.set_title("tokens a second, all together")
        right.set_title("third reply's first token, ms")
        right.set_yscale("log")
        right.yaxis.set_major_formatter(PLAIN)
        left.set_ylim(bottom=0)
        for axes in (left, right):
            axes.set_xscale("log", base=2)
            axes.set_xticks(found[0][1]["conversations"])
            axes.xaxis.set_major_formatter(PLAIN)
            axes.set_xlabel("conversations at once")
        left.legend(fontsize=8)
        _save(drawing, path)


def history(found: Series, path: Path) -> None:
    """First tokens against a short conversation's, and what is cached past the context's end."""
    with mpl.rc_context(STYLE):
        drawing, (left, right) = plt.subplots(1, 2, figsize=(7, 2.7), layout="constrained")
        for engine, series in found:
            colour, marker = ENGINES.get(engine, OTHER)
            left.plot(series["turns"], series["ratios"], marker=marker, color=colour, label=engine)
            shares = [100 * turn["cached"] / turn["prompt"] for turn in series["full"]]
            right.plot(range(1, len(shares) + 1), shares, marker, color=colour, markersize=3.5)
        left.axhline(1.25, color=GREY, linestyle="--", linewidth=1, label="target: below")
        left.set_title("first token, ratio to ten turns")
        left.set_xlabel("turns of history")
        left.set_ylim(bottom=0)
        left.legend(fontsize=8)
        right.set_title("share of the prompt that is cached, %")
        right.set_xlabel("turns past a full context")
        right.set_ylim(-3, 103)
        _save(drawing, path)


def tail(found: Series, path: Path) -> None:
    """First tokens by length of the tail."""
    with mpl.rc_context(STYLE):
        drawing, axes = plt.subplots(figsize=(4, 2.5), layout="constrained")
        for engine, series in found:
            colour, marker = ENGINES.get(engine, OTHER)
            axes.plot(
                series["tokens"], series["medians"], marker=marker, color=colour, label=engine
            )
        axes.set_title("first token, ms")
        axes.set_xlabel("tokens of tail")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
        _save(drawing, path)


def memory(found: Series, path: Path) -> None:
    """Memory of each kind of process against the end of the warm-up."""
    shapes = {"server": "-", "worker": "--", "redis": ":"}
    with mpl.rc_context(STYLE):
        drawing, axes = plt.subplots(figsize=(5.5, 2.7), layout="constrained")
        for engine, series in found:
            colour, _ = ENGINES.get(engine, OTHER)
            at = series["turns"].index(series["warm_up"])
            for kind, line in shapes.items():
                grown = [mib - series["mib"][kind][at] for mib in series["mib"][kind]]
                label = f"{kind}, {engine}"
                axes.plot(series["turns"][at:], grown[at:], line, color=colour, label=label)
        axes.set_title("memory against the end of the warm-up, MiB")
        axes.set_xlabel("turns")
        axes.legend(fontsize=8, ncols=2)
        _save(drawing, path)


def _save(drawing: Figure, path: Path) -> None:
    drawing.savefig(path, metadata={"Date": None})
    plt.close(drawing)
