"""From the results folder to ``docs/performance.md`` and its plots.

The prose of the page is written by hand; what stands between its two marks is written here.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import plots
from measures import Comparison, Json, figure, median_interval

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results: written by make bench -->", "<!-- end of results -->"

TITLES = {
    "ttft": "What the server adds to a first token",
    "relay": "What the server adds to each token",
    "load": "Many conversations at once",
    "returning": "More characters than seats",
    "warm": "Reading ahead while a player types",
    "preempt": "Characters that talk by themselves",
    "history": "Long conversations",
    "tail": "The changing part of a prompt",
    "engines": "The two local engines",
    "memory": "Memory",
}
PLOTS = {
    "load": ("performance-load.svg", plots.load, "Tokens a second and first tokens under load"),
    "history": ("performance-history.svg", plots.history, "First tokens as a conversation grows"),
    "tail": ("performance-tail.svg", plots.tail, "First tokens by length of the tail"),
    "memory": ("performance-memory.svg", plots.memory, "Memory over turns"),
}


def main() -> None:
    """Write the page and its plots from whatever results there are."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in _found()]
    if not results:
        raise SystemExit("There are no results. Run make bench first.")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    body = "\n".join(_body(results))
    PAGE.write_text(f"{before}{BEGIN}\n\n{body}\n{END}{after}", encoding="utf-8")


def _found() -> list[Path]:
    order = list(TITLES)
    paths = [path for path in RESULTS.glob("*.json") if path.name.partition("-")[0] in order]
    # The main engine's results come first.
    return sorted(
        paths, key=lambda path: (order.index(path.name.partition("-")[0]), path.name[::-1])
    )


def _body(results: Sequence[Json]) -> Iterable[str]:
    yield from _machines(results)
    overview = [
        (found["engine"], comparison)
        for found in results
        for comparison in map(Comparison.from_dict, found["comparisons"])
        if comparison.target is not None
    ]
    if overview:
        plots.ratios(overview, _image("performance-ratios.svg"))
        yield from ("![Every ratio and its target](images/performance-ratios.svg)", "")
        yield "A mark is a median, its line the 95 % interval; an arrow is a target and its side."
        yield ""
    for name, title in TITLES.items():
        of_this = [found for found in results if found["benchmark"] == name]
        if of_this:
            yield from (f"## {title}", "")
            yield from _section(name, of_this)


def _section(name: str, results: Sequence[Json]) -> Iterable[str]:
    if name in PLOTS:
        file, draw, alternative = PLOTS[name]
        draw([(found["engine"], found["series"]) for found in results], _image(file))
        yield from (f"![{alternative}](images/{file})", "")
    yield "| Engine | Measured | This | Compared with | Ratio | Pairs | Target |"
    yield "|---|---|---|---|---|---|---|"
    for found in results:
        for comparison in map(Comparison.from_dict, found["comparisons"]):
            yield _row("both" if name == "engines" else found["engine"], comparison)
    yield ""
    for found in results:
        for label, value in found["facts"]:
            yield f"- {found['engine']}, {label}: {value}"
    if any(found["facts"] for found in results):
        yield ""


def _row(engine: str, comparison: Comparison) -> str:
    ratios = comparison.ratios
    interval = median_interval(ratios)
    sure = f"; 95 %: {figure(interval[0])} to {figure(interval[1])}" if interval else ""
    target = ""
    if comparison.target is not None:
        met = comparison.target.met(statistics.median(ratios))
        target = f"{comparison.target}, {'met' if met else '**not met**'}"
    sides = (
        f"{name}: {_spread(side)} {comparison.unit}"
        for name, side in zip(comparison.names, (comparison.ours, comparison.theirs), strict=True)
    )
    cells = (engine, comparison.label, *sides, f"**{_spread(ratios)}**{sure}", len(ratios), target)
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _spread(samples: Sequence[float]) -> str:
    middle = figure(statistics.median(samples))
    if len(samples) == 1:
        return middle
    return f"{middle} ({figure(min(samples))} to {figure(max(samples))})"


def _machines(results: Sequence[Json]) -> Iterable[str]:
    described = dict.fromkeys(_machine(found["machine"]) for found in results)
    yield from described
    if any(found["quick"] for found in results):
        names = ", ".join(sorted({found["benchmark"] for found in results if found["quick"]}))
        yield f"Measured quickly, with few samples: {names}."
    yield ""


def _machine(facts: Json) -> str:
    packages = ", ".join(f"{name} {found}" for name, found in facts["packages"].items())
    return (
        f"Measured on {facts['cores']} cores ({facts['processor']}), {facts['memory_gib']} GiB, "
        f"{facts['system']}, Python {facts['python']}, {packages}; model {facts['model']}."
    )


def _image(name: str) -> Path:
    folder = ROOT / "docs" / "images"
    folder.mkdir(exist_ok=True)
    return folder / name


if __name__ == "__main__":
    main()
