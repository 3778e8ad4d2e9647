"""What a scene file says: where some NPCs meet, who stands where, and how it begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, PlainValidator, StringConstraints, WithJsonSchema
from pydantic_core import PydanticCustomError

from npc_server.errors import FileError
from npc_server.persona.conditions import Scalar
from npc_server.persona.files import Finding, Location, near, read
from npc_server.persona.model import Language, Line, Name, Part, Slug

MAX_CAST = 15
"""A conversation has 16 members, and a player is one of them."""

MAX_FACT = 500
"""Code points of a fact that is text."""

MAX_NUMBER = 2**53
"""Numbers beyond are not the same to every reader of JSON."""


def _fact(value: Any) -> Scalar:
    if not isinstance(value, Scalar) or (
        isinstance(value, int | float) and not abs(value) <= MAX_NUMBER
    ):
        raise PydanticCustomError("fact", "must be text in quotes, a number, true or false")
    if isinstance(value, str) and len(value) > MAX_FACT:
        raise PydanticCustomError("fact", f"must have at most {MAX_FACT} characters")
    return value


Fact = Annotated[
    Scalar,
    PlainValidator(_fact),
    WithJsonSchema({"type": ["string", "number", "boolean"], "maxLength": MAX_FACT}),
]
Place = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Metres = Annotated[float, Field(ge=0, le=1e6)]
Share = Annotated[float, Field(ge=0, le=1)]


class Role(Part):
    """An NPC of the scene."""

    npc: Slug = Field(description="The persona's id.")
    member: Slug | None = Field(
        None, description="By what it is named in this scene; by default the persona's id."
    )
    name: Name | None = Field(
        None, description="What the others call it here; by default the persona's name."
    )
    group: Name | None = Field(None, description="The group in which it begins.")
    role: Line | None = Field(None, description="What it does here; the NPC is told so.")

    @property
    def id(self) -> str:
        """By what it is named in this scene."""
        return self.member or self.npc


class SceneObject(Part):
    """Something that the NPCs can see."""

    name: Name = Field(description="What it is called; each name once.")
    text: Annotated[Line, Field(max_length=500)] = Field(description="What there is to see of it.")


class Ambient(Part):
    """What the NPCs do of themselves."""

    on: bool = Field(False, description="Whether they speak unasked.")
    after_s: float = Field(
        20.0, ge=1, le=3600, description="After so many seconds of silence one of them begins."
    )
    replies_per_minute: int = Field(
        4, ge=1, le=60, description="At most so many replies a minute that no player asked for."
    )
    chain: int = Field(
        2, ge=0, le=15, description="So many NPCs may follow one another before a player speaks."
    )


class Moment(Part):
    """Something at the beginning: an ``event``, or an ``npc`` that says a ``line``."""

    event: Line | None = Field(None, description="What happens, in words.")
    npc: Slug | None = Field(None, description="The member that speaks.")
    line: Line | None = Field(None, description="What it says, word for word.")


class Scene(Part):
    """A place where NPCs meet. One YAML file each; the file's name is the ``id``.

    All prose is written in the language of the scene. The members of the cast are named by their
    ``member`` everywhere below, or by ``npc`` where they have none.
    """

    id: Slug = Field(description="The id by which a game names this scene.")
    title: Name = Field(description="The name that players see.")
    languages: tuple[Language, ...] = Field(
        ("en",), min_length=1, description="BCP 47 tags of what is spoken; the first one most."
    )
    summary: Line = Field(description="One line for a list of scenes.")
    place: Place = Field(
        description="Where it is and what is going on, told to every NPC in place of its own "
        "`scenario`."
    )
    cast: tuple[Role, ...] = Field(
        min_length=1, max_length=MAX_CAST, description="The NPCs, the most important ones first."
    )
    groups: Annotated[dict[Name, Line], Field(max_length=16)] = Field(
        {},
        description="Places within the scene by name, each with a few words about it. Those who "
        "share one hear one another. Without any, all do.",
    )
    player_group: Name | None = Field(None, description="The group in which players begin.")
    earshot_m: Metres = Field(
        10.0, description="Who is farther away than so many metres does not hear."
    )
    distances: dict[Slug, dict[Slug, Metres]] = Field(
        {}, description="Metres between members, each pair once. Who is not here is near."
    )
    objects: tuple[SceneObject, ...] = Field(
        (), max_length=32, description="What the NPCs can see."
    )
    facts: Annotated[dict[Name, Fact], Field(max_length=256)] = Field(
        {}, description="The state of the game as the scene begins; conditions read it."
    )
    ambient: Ambient = Field(Ambient(), description="What the NPCs do of themselves.")
    opening: tuple[Moment, ...] = Field(
        (), max_length=16, description="What happens as the scene begins, in this order."
    )
    talkativeness: dict[Slug, Share] = Field(
        {}, description="By member, how readily it speaks unasked, from 0 to 1; else .5."
    )

    def members(self) -> tuple[str, ...]:
        """The member ids of the cast."""
        return tuple(part.id for part in self.cast)


def find_problems(text: str, file: str, personas: Mapping[str, str]) -> Scene | list[FileError]:
    """The scene, or everything that is wrong with its file.

    Args:
        text: The file's text, YAML.
        file: Its name, for errors.
        personas: The names of all personas at hand by their ids.
    """
    return read(text, file, Scene, lambda scene: inconsistencies(scene, personas))


def inconsistencies(scene: Scene, personas: Mapping[str, str]) -> Iterator[Finding]:
    """What a scene names that is not there, or names twice.

    Args:
        scene: Its fields are right each by itself.
        personas: The names of all personas at hand by their ids.
    """
    yield from _of_the_cast(scene, personas)
    if scene.player_group is not None:
        yield from _unknown(scene.player_group, scene.groups, "group", "player_group")
    yield from _of_the_distances(scene)
    for index, moment in enumerate(scene.opening):
        if moment.npc is not None:
            yield from _unknown(moment.npc, scene.members(), "member", "opening", index, "npc")
        given = (moment.event is not None, moment.npc is not None, moment.line is not None)
        if given not in ((True, False, False), (False, True, True)):
            yield ("opening", index), "must be either an 'event', or an 'npc' with its 'line'"
    for member in scene.talkativeness:
        yield from _unknown(member, scene.members(), "member", "talkativeness", member)
    names = [(("objects", index, "name"), each.name) for index, each in enumerate(scene.objects)]
    yield from _taken(names, "another object has it too")


def _of_the_cast(scene: Scene, personas: Mapping[str, str]) -> Iterator[Finding]:
    members: list[tuple[Location, str]] = []
    names: list[tuple[Location, str]] = []
    for index, part in enumerate(scene.cast):
        here = ("cast", index)
        yield from _unknown(part.npc, personas, "persona", *here, "npc")
        if part.group is not None:
            yield from _unknown(part.group, scene.groups, "group", *here, "group")
        members.append(((*here, "member" if part.member else "npc"), part.id))
        name = part.name or personas.get(part.npc)
        if name is not None:
            names.append(((*here, "name" if part.name else "npc"), name))
    yield from _taken(members, "another member has this id: give this one a 'member' of its own")
    yield from _taken(names, "another member has this name: give this one a 'name' of its own")


def _of_the_distances(scene: Scene) -> Iterator[Finding]:
    pairs: set[frozenset[str]] = set()
    for one, others in scene.distances.items():
        yield from _unknown(one, scene.members(), "member", "distances", one)
        for other in others:
            place = ("distances", one, other)
            yield from _unknown(other, scene.members(), "member", *place)
            pair = frozenset((one, other))
            if len(pair) == 1 or pair in pairs:
                yield place, "must be about two members, and each pair be there once"
            pairs.add(pair)


def _unknown(name: str, known: Iterable[str], what: str, *place: str | int) -> Iterator[Finding]:
    known = list(known)
    if name not in known:
        there = f"There is: {near(name, known)}" if known else "There is none"
        yield place, f"there is no {what} '{name}'. {there}"


def _taken(named: Iterable[tuple[Location, str]], reason: str) -> Iterator[Finding]:
    seen: set[str] = set()
    for place, name in named:
        if name in seen:
            yield place, reason
        seen.add(name)
