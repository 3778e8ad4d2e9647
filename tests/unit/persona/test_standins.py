"""There is always something that an NPC can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from npc_server.persona import Persona
from npc_server.persona.standins import FILLERS, WHOLE_LINES, filler, whole_line

Pick = Callable[..., str]
BOTH = pytest.mark.parametrize(("pick", "lines"), [(filler, FILLERS), (whole_line, WHOLE_LINES)])
KEYS = [f"turn-{n}" for n in range(200)]


def persona(**fields: object) -> Persona:
    """Somebody who speaks English and has no lines."""
    given = {"summary": "S.", "description": "D.", "personality": "P.", "speech": "S."}
    return Persona.model_validate({"id": "ann", "name": "Ann", **given, **fields})


@BOTH
def test_neutral_lines_are_in_the_first_language(
    pick: Pick, lines: Mapping[str, Sequence[str]]
) -> None:
    """Every neutral line is used; a language without any falls to the next one, then to English."""
    for languages, expected in [
        (["en"], "en"),
        (["ko-KR", "en"], "ko"),
        (["en-GB", "ko"], "en"),
        (["fr", "ko"], "ko"),
        (["fr"], "en"),
    ]:
        ann = persona(languages=languages)
        assert {pick(ann, key) for key in KEYS} == set(lines[expected])


@pytest.mark.parametrize("lines", [FILLERS, WHOLE_LINES])
def test_there_are_enough_neutral_lines(lines: Mapping[str, Sequence[str]]) -> None:
    """Six different ones at least in every language."""
    assert all(len(set(of)) == len(of) >= 6 for of in lines.values())


@BOTH
def test_the_authors_lines_come_first(pick: Pick, lines: Mapping[str, Sequence[str]]) -> None:
    """A persona with lines of its own says no others, in whatever language they are."""
    ann = persona(languages=["ko"], fillers=["Hm.", "Aye?"], refusals=["No.", "Never."])
    own = ann.fillers if pick is filler else ann.refusals
    assert {pick(ann, key) for key in KEYS} == set(own)


@BOTH
def test_the_same_key_gives_the_same_line(pick: Pick, lines: Mapping[str, Sequence[str]]) -> None:
    """A retry says what was said before."""
    assert all(pick(persona(), key) == pick(persona(), key) for key in KEYS)


@BOTH
def test_never_the_same_twice_in_a_row(pick: Pick, lines: Mapping[str, Sequence[str]]) -> None:
    """Given the last line another one is taken, unless there is no other."""
    last = None
    for key in KEYS:
        line = pick(persona(), key, last=last)
        assert line != last
        last = line
    only = persona(fillers=["Hm."], refusals=["No."])
    assert pick(only, "key", last=pick(only, "key")) in ("Hm.", "No.")
