"""How often a model chooses right: calibrated and not, with one order of the options and with two.

    python benchmarks/choose.py --engine llamacpp --model smollm2
    python benchmarks/choose.py --engine openai --model NAME --base-url http://127.0.0.1:11434/v1

The key of an endpoint is taken from NPC_OPENAI_API_KEY. The cases are in choose.yaml.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp
from pathlib import Path

import yaml

from npc_server.config import EngineSettings, default_data_dir
from npc_server.engines import create_engine
from npc_server.engines.base import Engine, ScoreRequest
from npc_server.engines.choose import Chooser, Question, calibrated, folded, mean, normalised
from npc_server.prompt.messages import Message

SYSTEM = {
    "en": "You are a character in a game. A player talks to you.",
    "ko": "당신은 게임 속 인물입니다. 플레이어가 말을 겁니다.",
}
WAYS = ("plain", "calibrated", "two orders", "two orders, calibrated")


@dataclass(frozen=True)
class Case:
    """One line, what is asked of it, and what is right."""

    task: str
    easy: bool
    text: str
    answer: str
    question: Question


def cases() -> list[Case]:
    """Every written case."""
    written = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    found = []
    for task, languages in written["cases"].items():
        for language, lines in languages.items():
            asked = written["questions"][task][language]
            question = Question(asked["text"], tuple(asked["options"]), language)
            found += [
                Case(task, line["easy"], line["text"], line["answer"], question) for line in lines
            ]
    return found


async def answers(engine: Engine, chooser: Chooser, case: Case) -> tuple[list[str], float]:
    """What is chosen each way, and the milliseconds that one look took."""
    question = case.question
    turned = replace(question, options=question.options[::-1])
    began = time.perf_counter()
    first = await look(engine, case, question)
    took = (time.perf_counter() - began) * 1000
    second = (await look(engine, case, turned))[::-1]
    prior = await chooser.prior(question)
    turned_prior = (await chooser.prior(turned))[::-1]
    rows = (
        first,
        calibrated(first, prior),
        mean([first, second]),
        mean([calibrated(first, prior), calibrated(second, turned_prior)]),
    )
    return [question.options[row.index(max(row))] for row in rows], took


async def look(engine: Engine, case: Case, question: Question) -> list[float]:
    """The probabilities as the engine tells them."""
    messages = (Message("system", SYSTEM[question.language]), Message("user", case.text))
    request = ScoreRequest(folded(messages, question), question.labels, "bench")
    return normalised([exp(log) for log in await engine.score(request)])


def report(found: Sequence[tuple[Case, list[str]]]) -> None:
    """Print how many were right, by task, language and difficulty."""
    print(f"{'cases':<28}{'n':>4}{'chance':>8}" + "".join(f"{way:>24}" for way in WAYS))
    groups: dict[str, list[tuple[Case, list[str]]]] = {}
    for case, given in found:
        language = case.question.language
        kind = "easy" if case.easy else "hard"
        for name in (f"{case.task} {language}", f"all {language}", f"all {kind}", "all"):
            groups.setdefault(name, []).append((case, given))
    for name, members in sorted(groups.items(), key=lambda item: item[0].startswith("all")):
        chance = statistics.mean(1 / len(case.question.options) for case, _ in members)
        right = [
            sum(given[way] == case.answer for case, given in members) for way in range(len(WAYS))
        ]
        shares = "".join(f"{f'{n}/{len(members)} {n / len(members):.0%}':>24}" for n in right)
        print(f"{name:<28}{len(members):>4}{chance:>8.0%}{shares}")


async def run(arguments: argparse.Namespace) -> None:
    """Ask everything once."""
    settings = EngineSettings(
        engine=arguments.engine,
        model=arguments.model,
        openai_base_url=arguments.base_url,
        openai_api_key=os.environ.get("NPC_OPENAI_API_KEY"),
        seats=1,
    )
    engine = create_engine(settings, models_dir=default_data_dir() / "models", start_timeout=120)
    await engine.start()
    try:
        facts = engine.capabilities
        print(f"{facts.engine}, {facts.model}, true probabilities: {facts.scores}")
        chooser = Chooser(engine)
        found, took = [], []
        for case in cases():
            given, milliseconds = await answers(engine, chooser, case)
            found.append((case, given))
            took.append(milliseconds)
    finally:
        await engine.close()
    report(found)
    print(f"one look took {statistics.median(took):.0f} ms (median)")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--base-url")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
