"""The JSON Schema of persona files, their reference page, and an example to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from npc_server.persona import model
from npc_server.persona.model import Persona

_PARTS: tuple[type[BaseModel], ...] = (
    model.Example,
    model.Knowledge,
    model.Secret,
    model.Action,
    model.Relation,
    model.Sampling,
    model.Portrait,
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


def schema() -> dict[str, Any]:
    """The JSON Schema of a persona file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Persona.model_json_schema(),
    }


def example(persona: str, name: str) -> str:
    """The text of a persona file to begin with."""
    return _EXAMPLE.format(id=persona, name=name.replace('"', "'"))


def reference_markdown() -> str:
    """The reference page of persona files."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield from (
        "# Persona files",
        "",
        "Made from `npc_server/persona/model.py` by `make docs`. One YAML file for each persona,",
        "named after its `id`. A first line",
        "`# yaml-language-server: $schema=http://127.0.0.1:8765/schema/persona.v1.json` gives",
        "completion in editors; the same schema is in `docs/reference/persona.schema.json`.",
        "",
        *_table(Persona),
    )
    for part in _PARTS:
        yield from ("", f"## {part.__name__}", "", (part.__doc__ or "").strip(), "", *_table(part))


def _table(of: type[BaseModel]) -> Iterator[str]:
    yield from ("| field | needed | meaning |", "|---|---|---|")
    for name, field in of.model_fields.items():
        needed = "yes" if field.is_required() else ""
        yield f"| `{name}` | {needed} | {field.description or ''} |"
