"""The JSON Schemas of persona and scene files, their reference pages, examples to begin with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from npc_server.persona import model
from npc_server.persona import scene as scenes
from npc_server.persona.model import Persona
from npc_server.persona.scene import Scene

_PARTS: tuple[type[BaseModel], ...] = (
    model.Example,
    model.Knowledge,
    model.Secret,
    model.Action,
    model.Relation,
    model.Sampling,
    model.Portrait,
)
_SCENE_PARTS: tuple[type[BaseModel], ...] = (
    scenes.Role,
    scenes.SceneObject,
    scenes.Ambient,
    scenes.Moment,
)

_EXAMPLE = """\
# yaml-language-server: $schema=http://127.0.0.1:8765/schema/persona.v1.json
# Every field is explained in docs/reference/persona.md. `npc-server persona check` checks it.
id: {id}
name: {name}
languages: [en]
summary: The ferryman who rows people over and never asks why.
# Who it is: looks, history, place in the world.
description: |
  {name} has rowed the ferry since the bridge fell. Broad shoulders, a coat that was blue once,
  a dog asleep in the bow.
# What moves, pleases and annoys it.
personality: |
  Patient, dry, fond of silence. Likes people who look at the river; dislikes being hurried.
# Register, rhythm, pet words, what it avoids. Small models follow this best.
speech: |
  Short sentences. Answers a question with half an answer. Says "aye" and never "yes".
# Two or three exchanges show a voice better than any description.
examples:
  - player: How deep is it here?
    npc: Deep enough. The last man who asked found out.
greetings:
  - Aye? Over, or only looking?
knowledge:
  - text: The bridge fell in the spring flood nine years ago.
    keys: [bridge, flood]
secrets:
  - text: "{name} was on watch the night the bridge fell, and slept."
    guard: Speaks of the current instead; admits it only to somebody who lost someone that night.
gestures: [nod, shrug, point]
fillers: ["Hm.", "Let me get this oar in."]
refusals: ["The river takes some questions. That one too."]
"""

_SCENE_EXAMPLE = """\
# yaml-language-server: $schema=http://127.0.0.1:8765/schema/scene.v1.json
# Every field is explained in docs/reference/scene.md. `npc-server scene check` checks it.
id: {id}
title: {title}
languages: [en]
summary: The smith and the innkeeper wait for the ferry, and for news.
# Where it is and what is going on. Every NPC is told so.
place: |
  The ferry landing below the village, at dusk. Fog on the river; the ferry is late and the lamp on
  the other side is not lit.
cast:
  - npc: bram
    group: landing
    role: He has a mended anchor to deliver and will not leave before he is paid.
  - npc: marta
    group: bench
    role: She waits for a guest who should have come at noon.
# Those who share a group hear one another.
groups:
  landing: the wet planks by the water
  bench: the bench under the willow, ten steps away
player_group: landing
objects:
  - name: the bell
    text: An iron bell that calls the ferry. Its rope is cut.
# What the game knows. Conditions of personas read it; names with _ in front are not told.
facts:
  ferry.late: true
  _bell_rung: 0
# Whether the NPCs talk among themselves.
ambient: {{on: false, after_s: 20, replies_per_minute: 4, chain: 2}}
# What happens as the scene begins; lines are spoken word for word.
opening:
  - event: Somewhere in the fog an oar knocks against wood, once.
  - npc: bram
    line: That's no ferry.
talkativeness: {{marta: 0.8}}
"""


def schema() -> dict[str, Any]:
    """The JSON Schema of a persona file."""
    return _schema(Persona)


def scene_schema() -> dict[str, Any]:
    """The JSON Schema of a scene file."""
    return _schema(Scene)


def example(persona: str, name: str) -> str:
    """The text of a persona file to begin with."""
    return _EXAMPLE.format(id=persona, name=name.replace('"', "'"))


def scene_example(scene: str, title: str) -> str:
    """The text of a scene file to begin with; it takes two of the shipped personas."""
    return _SCENE_EXAMPLE.format(id=scene, title=title.replace('"', "'"))


def reference_markdown() -> str:
    """The reference page of persona files."""
    return _page("persona", "npc_server/persona/model.py", Persona, _PARTS)


def scene_markdown() -> str:
    """The reference page of scene files."""
    return _page("scene", "npc_server/persona/scene.py", Scene, _SCENE_PARTS)


def _schema(of: type[BaseModel]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **of.model_json_schema()}


def _page(kind: str, source: str, of: type[BaseModel], parts: Sequence[type[BaseModel]]) -> str:
    lines = [
        f"# {kind.capitalize()} files",
        "",
        f"Made from `{source}` by `make docs`. One YAML file for each {kind},",
        "named after its `id`. A first line",
        f"`# yaml-language-server: $schema=http://127.0.0.1:8765/schema/{kind}.v1.json` gives",
        f"completion in editors; the same schema is in `docs/reference/{kind}.schema.json`.",
        "",
        *_table(of),
    ]
    for part in parts:
        lines += ["", f"## {part.__name__}", "", (part.__doc__ or "").strip(), "", *_table(part)]
    return "\n".join(lines) + "\n"


def _table(of: type[BaseModel]) -> Iterator[str]:
    yield from ("| field | needed | meaning |", "|---|---|---|")
    for name, field in of.model_fields.items():
        needed = "yes" if field.is_required() else ""
        yield f"| `{name}` | {needed} | {field.description or ''} |"
