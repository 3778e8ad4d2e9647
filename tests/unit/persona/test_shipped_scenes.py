"""The scenes that come with the server are whole, and go with the personas that are in them."""

from __future__ import annotations

from pathlib import Path

import pytest
import regex

from npc_server.persona import Persona, Scene
from npc_server.persona.conditions import Condition
from npc_server.persona.parse import parse
from npc_server.persona.scene import find_problems

ROOT = Path(__file__).parents[3]
PERSONAS = {f.stem: parse(f.read_text(), f.name) for f in (ROOT / "personas").glob("*.yaml")}
NAMES = {persona.id: persona.name for persona in PERSONAS.values()}
READ = {
    file.stem: find_problems(file.read_text(), file.name, NAMES)
    for file in (ROOT / "scenes").glob("*.yaml")
}
SCENES = {name: scene for name, scene in READ.items() if isinstance(scene, Scene)}
LONGEST = 420
"""Characters of a place: every NPC reads it, and small models have little room."""


def cast(scene: Scene) -> list[Persona]:
    return [PERSONAS[part.npc] for part in scene.cast]


def conditions(persona: Persona) -> list[Condition]:
    known = [knowledge.when for knowledge in persona.knowledge]
    guarded = [secret.when for secret in persona.secrets]
    return [condition for condition in (*known, *guarded) if condition is not None]


def test_the_three_are_there() -> None:
    """No file is broken, and each stands under its own id."""
    assert {name for name, scene in READ.items() if isinstance(scene, Scene)} == set(READ)
    assert {"tavern", "haenim-dalnim", "vr-party"} <= set(READ)
    assert all(scene.id == name for name, scene in SCENES.items())


@pytest.mark.parametrize("name", sorted(SCENES))
def test_each_is_whole(name: str) -> None:
    """Everyone has something to do, the scene opens by itself, and its place is short."""
    scene = SCENES[name]
    assert len(scene.cast) >= 3
    assert all(part.role for part in scene.cast)
    assert scene.opening
    assert scene.objects
    assert len(scene.place) <= LONGEST
    assert set(scene.talkativeness) == set(scene.members())
    spoken = {tag for persona in cast(scene) for tag in persona.languages}
    assert set(scene.languages) <= spoken


@pytest.mark.parametrize("name", sorted(SCENES))
def test_facts_and_conditions_go_together(name: str) -> None:
    """Something in the scene depends on its facts, and holds by those that it begins with."""
    scene = SCENES[name]
    read = [each for persona in cast(scene) for each in conditions(persona)]
    assert any(each.holds(scene.facts) for each in read)
    for each in read:
        assert each.names <= set(scene.facts), each


def test_no_condition_waits_for_a_scene_that_is_not_there() -> None:
    """Whoever has conditions is in a scene that sets the facts of them."""
    used = {part.npc for scene in SCENES.values() for part in scene.cast}
    assert {p.id for p in PERSONAS.values() if conditions(p)} <= used


def test_the_tavern_has_something_to_whisper() -> None:
    """A secret of the moment says that it is for one pair of ears."""
    scene = SCENES["tavern"]
    held = [
        secret
        for persona in cast(scene)
        for secret in persona.secrets
        if secret.when is not None and secret.when.holds(scene.facts)
    ]
    assert any("whisper" in (secret.guard or "").lower() for secret in held)
    assert scene.player_group in scene.groups


def test_the_fairy_tale_is_told_in_korean() -> None:
    """A storyteller and two more, all Korean, and a child is left in peace."""
    scene = SCENES["haenim-dalnim"]
    assert [persona.languages[0] for persona in cast(scene)].count("ko") == len(scene.cast) >= 3
    words = " ".join([scene.place, *(part.role or "" for part in scene.cast)])
    letters = regex.findall(r"\p{L}", words)
    assert sum(bool(regex.match(r"\p{Hangul}", letter)) for letter in letters) == len(letters)
    assert not scene.ambient.on


def test_the_party_has_a_shy_guest() -> None:
    """Two languages, loud music, and one who hardly ever begins."""
    scene = SCENES["vr-party"]
    assert scene.languages == ("en", "ko")
    assert min(scene.talkativeness, key=lambda member: scene.talkativeness[member]) == "mina"
    assert {persona.languages[0] for persona in cast(scene)} == {"en", "ko"}
    assert scene.earshot_m < 10
