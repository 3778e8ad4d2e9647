"""A scene file is read whole, or its mistake is found to the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.errors import FileError
from npc_server.persona import Scene
from npc_server.persona.reference import scene_example, scene_markdown, scene_schema
from npc_server.persona.scene import MAX_CAST, find_problems

GOOD = scene_example("ferry", "Ferry")
THERE = {"bram": "Bram", "marta": "Marta", "ruth": "Ruth"}


def scene(text: str) -> Scene:
    found = find_problems(text, "ferry.yaml", THERE)
    assert isinstance(found, Scene), found
    return found


def problems(text: str) -> list[FileError]:
    found = find_problems(text, "ferry.yaml", THERE)
    assert isinstance(found, list)
    return found


def test_the_example_is_a_scene() -> None:
    """What `scene new` writes is valid as it stands."""
    ferry = scene(GOOD)
    assert (ferry.id, ferry.title, ferry.members()) == ("ferry", "Ferry", ("bram", "marta"))
    assert ferry.facts == {"ferry.late": True, "_bell_rung": 0}
    assert ferry.facts["ferry.late"] is True
    assert ferry.opening[1].line == "That's no ferry."


def test_what_is_left_out_has_a_default() -> None:
    """A place and one NPC are a scene: near everything, silent unless spoken to."""
    least = scene("{id: a, title: A, summary: S, place: P, cast: [{npc: bram}]}")
    assert (least.earshot_m, least.groups, least.player_group) == (10, {}, None)
    assert not least.ambient.on
    assert (least.ambient.after_s, least.ambient.chain) == (20, 2)


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("title: Ferry", "titel: Ferry", "titel", "Did you mean 'title'"),
        ("title: Ferry", "title: Ferry\ntitle: Boat", "title", "there twice"),
        ("title: Ferry", "", "title", "is missing"),
        ("npc: bram", "npc: brm", "cast.0.npc", "no persona 'brm'. There is: bram"),
        ("npc: marta", "npc: zz", "cast.1.npc", "There is: bram, marta, ruth"),
        ("npc: marta", "npc: bram", "cast.1.npc", "this id: give this one a 'member'"),
        ("- npc: marta", "- npc: bram\n    member: b2", "cast.1.npc", "give this one a 'name'"),
        ("- npc: marta", "- npc: marta\n    name: Bram", "cast.1.name", "has this name"),
        ("group: landing", "group: lending", "cast.0.group", "There is: landing"),
        ("player_group: landing", "player_group: pier", "player_group", "no group 'pier'"),
        ("ferry.late: true", "ferry.late: 2024-01-01", "facts.ferry.late", "text in quotes"),
        ("ferry.late: true", "ferry.late: .nan", "facts.ferry.late", "a number"),
        ("ferry.late: true", f"ferry.late: {2**53 + 1}", "facts.ferry.late", "a number"),
        ("ferry.late: true", "ferry.late: [1]", "facts.ferry.late", "true or false"),
        ("ferry.late: true", f"ferry.late: {'x' * 501}", "facts.ferry.late", "at most 500"),
        ("chain: 2", "chain: 2, chian: 3", "ambient.chian", "Did you mean 'chain'"),
        ("after_s: 20", "after_s: 0", "ambient.after_s", "greater than or equal to 1"),
        ("line: That's", "event: That's", "opening.1", "either an 'event', or an 'npc'"),
        ("- event: Some", "- line: Some", "opening.0", "either an 'event', or an 'npc'"),
        ("- npc: bram\n    line", "- npc: ruth\n    line", "opening.1.npc", "no member 'ruth'"),
        ("{marta: 0.8}", "{mart: 0.8}", "talkativeness.mart", "There is: marta"),
        ("{marta: 0.8}", "{marta: 2}", "talkativeness.marta", "less than or equal to 1"),
        (
            "facts:",
            "  - {name: the bell, text: Again.}\nfacts:",
            "objects.1.name",
            "another object",
        ),
    ],
)
def test_mistakes_are_found_to_the_line(old: str, new: str, field: str, says: str) -> None:
    """File, line and field of each mistake are named, with what was expected."""
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    problem = next(p for p in problems(text) if p.field == field)
    assert says in problem.reason
    if "missing" not in says:
        assert field.rsplit(".", 1)[-1].strip("01") in text.splitlines()[(problem.line or 0) - 1]
    assert problem.message.startswith(f"ferry.yaml, line {problem.line}: {field}: ")


@pytest.mark.parametrize(
    ("distances", "field"),
    [
        ("{bram: {marta: 3}}", None),
        ("{bram: {marta: 3}, marta: {bram: 3}}", "distances.marta.bram"),
        ("{bram: {bram: 0}}", "distances.bram.bram"),
        ("{bram: {ruth: 3}}", "distances.bram.ruth"),
        ("{ruth: {bram: 3}}", "distances.ruth"),
        ("{bram: {marta: -1}}", "distances.bram.marta"),
    ],
)
def test_each_distance_is_there_once(distances: str, field: str | None) -> None:
    """A distance is between two members of the cast, and not said from both sides."""
    text = f"{GOOD}distances: {distances}\n"
    if field is None:
        assert scene(text).distances == {"bram": {"marta": 3.0}}
    else:
        assert field in {problem.field for problem in problems(text)}


def test_one_persona_can_be_there_twice() -> None:
    """Two members of one persona have ids and names of their own."""
    text = GOOD.replace("- npc: marta", "- npc: bram\n    member: twin\n    name: Bran")
    assert scene(text.replace("{marta: 0.8}", "{twin: 0.1}")).members() == ("bram", "twin")


def test_there_is_room_for_a_player() -> None:
    """No more NPCs than a conversation takes beside a player, and not none."""
    cast = "\n".join(f"  - {{npc: bram, member: b{i}, name: B{i}}}" for i in range(MAX_CAST + 1))
    text = f"id: a\ntitle: A\nsummary: S\nplace: P\ncast:\n{cast}\n"
    assert [(p.field, p.line) for p in problems(text)] == [("cast", 5)]
    assert len(scene(text.rsplit("\n", 2)[0]).cast) == MAX_CAST
    assert problems(text.replace(f"\n{cast}", " []"))[0].field == "cast"


def test_all_mistakes_are_told_at_once() -> None:
    """Everything that the scene names in vain is told, not only the first of it."""
    text = (
        GOOD.replace("group: landing", "group: x")
        .replace("{marta", "{zz")
        .replace("player_group: landing", "player_group: y")
    )
    fields = [problem.field for problem in problems(text)]
    assert fields == ["cast.0.group", "player_group", "talkativeness.zz"]


@given(
    st.text(alphabet="ab: -[]{}&*!|>\n\t\"'#%@`?,", max_size=60),
    st.integers(0, len(GOOD)),
    st.integers(0, 40),
)
def test_nothing_but_our_error_comes_out(noise: str, at: int, gone: int) -> None:
    """Whatever the text, reading it gives a scene or problems."""
    for text in (noise, GOOD[:at] + noise + GOOD[at + gone :]):
        found = find_problems(text, "x.yaml", THERE)
        assert isinstance(found, Scene) or all(isinstance(p, FileError) for p in found)


def test_the_schema_knows_every_field() -> None:
    """Schema and reference page have a place for each field of the model."""
    page = scene_markdown()
    for name in Scene.model_fields:
        assert name in scene_schema()["properties"]
        assert f"| `{name}` |" in page
