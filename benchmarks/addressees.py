"""How often the rules find to whom a player speaks. No model and no server is needed.

    python benchmarks/addressees.py

The cases are in tests/data/addressees.yaml: half of them English, half Korean, some of them held
out. A case is right where both the members, in their order, and the reason are. What is wrong is
listed, unless it is held out.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from npc_server.conversation.addressee import Addressees, Candidate, Exchange, addressees

TABLE = Path(__file__).parents[1] / "tests" / "data" / "addressees.yaml"
PLAYER = "you"


@dataclass(frozen=True)
class Case:
    """One thing said, what is known besides, and to whom it is said."""

    text: str
    language: str
    kind: str
    held_out: bool
    known: dict[str, Any]
    answer: str

    def given(self) -> str:
        """What the rules say, in the words of the table."""
        return in_words(addressees(self.text, speaker=PLAYER, **self.known))


def in_words(found: Addressees) -> str:
    """The reason, then the members."""
    return " ".join((found.reason, *found.members))


def cases() -> list[Case]:
    """Every written case."""
    table = yaml.safe_load(TABLE.read_text(encoding="utf-8"))
    return [
        _case(table["casts"], group | case) for group in table["groups"] for case in group["cases"]
    ]


def _case(casts: dict[str, Any], written: dict[str, Any]) -> Case:
    cast = casts[written["cast"]]
    known = {
        "candidates": [
            Candidate(member, tuple(cast[member])) for member in written.get("only", cast)
        ],
        "recent": [_exchange(text) for text in written.get("recent", ())],
        "to": written.get("to", ()),
        "gaze": written.get("gaze"),
        "absent": written.get("absent", ()),
    }
    held_out = written.get("held_out", False)
    return Case(
        written["text"], written["lang"], written["kind"], held_out, known, written["answer"]
    )


def _exchange(text: str) -> Exchange:
    speaker, _, to = text.partition(">")
    return Exchange(speaker, tuple(to.split(",")))


def report(found: Sequence[tuple[Case, str]]) -> None:
    """Print how many were right: by kind, by language, held out or not, in all."""
    groups: dict[str, list[bool]] = {}
    for case, given in found:
        names = [f"{case.language}: {case.kind}", f"all {case.language}", "all"]
        if case.held_out:
            names += [f"all held out {case.language}", "all held out"]
        for name in names:
            groups.setdefault(name, []).append(given == case.answer)
    for name, right in sorted(groups.items(), key=lambda item: item[0].startswith("all")):
        print(f"{name:<42}{sum(right):>4} of{len(right):>4}{sum(right) / len(right):>8.1%}")


def main() -> None:
    """Ask everything once."""
    found = [(case, case.given()) for case in cases()]
    for case, given in found:
        if given != case.answer and not case.held_out:
            print(f"{case.language}: {case.text}\n    {given} instead of {case.answer}")
    report(found)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_known_args()
    main()
