"""From a scene's file to the cast and the surroundings of a conversation, and its first moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from npc_server.clock import Clock, Ids
from npc_server.conversation import rules
from npc_server.conversation.audience import pair
from npc_server.conversation.model import Ambient, Ask, Conversation, Member, Surroundings
from npc_server.conversation.rules import Change
from npc_server.errors import NotFound
from npc_server.library import Library
from npc_server.persona.scene import Scene, SceneObject
from npc_server.protocol import commands, events

Step = Callable[[Conversation], Change]


def cast(library: Library, scene: Scene) -> list[Member]:
    """The NPCs of a scene."""
    return [_npc(library, part.npc, part.member, part.name) for part in scene.cast]


def npc_member(library: Library, choice: str | commands.NpcChoice) -> Member:
    """An NPC that a client asks for.

    Raises:
        NotFound: There is no such persona.
    """
    wanted = commands.NpcChoice(npc=choice) if isinstance(choice, str) else choice
    return _npc(library, wanted.npc, wanted.member, wanted.name)


def surroundings(scene: Scene, player: str | None = None) -> Surroundings:
    """The surroundings as a scene begins.

    Args:
        scene: The scene.
        player: The member id of the player who opens it.
    """
    groups: dict[str, tuple[str, ...]] = dict.fromkeys(scene.groups, ())
    for part in scene.cast:
        if part.group is not None:
            groups[part.group] = (*groups[part.group], part.id)
    if player is not None and scene.player_group is not None:
        groups[scene.player_group] = (*groups[scene.player_group], player)
    ambient = scene.ambient
    return Surroundings(
        scene=scene.id,
        place=scene.place,
        groups=groups,
        distances=distances(scene.distances),
        earshot_m=scene.earshot_m,
        objects=_seen(scene.objects),
        roles={part.id: part.role for part in scene.cast if part.role},
        talkativeness=dict(scene.talkativeness),
        ambient=Ambient(
            on=ambient.on,
            after_s=ambient.after_s,
            per_minute=ambient.replies_per_minute,
            chain=ambient.chain,
        ),
    )


def distances(given: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Metres between members, by pair."""
    return {
        pair(one, other): metres
        for one, others in given.items()
        for other, metres in others.items()
    }


def changed(around: Surroundings, command: commands.SceneSet, scene: Scene | None) -> Surroundings:
    """The surroundings as a command leaves them.

    Args:
        around: As they are.
        command: What changes.
        scene: The scene that it names, if it names one.
    """
    if scene is not None:
        objects = _seen(scene.objects)
        groups: dict[str, tuple[str, ...]] = dict.fromkeys(scene.groups, ())
        around = replace(around, scene=scene.id, place=scene.place, objects=objects, groups=groups)
    if command.groups is not None:
        groups = {name: tuple(dict.fromkeys(group)) for name, group in command.groups.items()}
        around = replace(around, groups=groups)
    if command.distances is not None:
        around = replace(around, distances=distances(command.distances))
    if command.objects is not None:
        around = replace(around, objects=_seen(command.objects))
    return around


def moved(around: Surroundings, member: str, group: str) -> Surroundings:
    """The surroundings with a member in another group, or in one at all."""
    groups = {
        name: (*(m for m in members if m != member), *((member,) if name == group else ()))
        for name, members in around.groups.items()
    }
    return replace(around, groups=groups)


def placed(
    library: Library, state: Conversation, newcomer: Member, group: str | None = None
) -> Change:
    """Somebody who came in stands in a group; a player of whom nothing is said where players begin.

    Raises:
        NotFound: There is no such group.
    """
    around = state.around
    if group is None and newcomer.kind == "player":
        scenes = {scene.id: scene for scene in library.scenes()}
        scene = scenes.get(around.scene or "")
        begins = scene.player_group if scene is not None else None
        group = begins if begins in around.groups else None
    if group is None:
        return Change(state)
    if group not in around.groups:
        raise NotFound(f"There is no group '{group}' in this scene.")
    return rules.in_scene(state, moved(around, newcomer.id, group))


def opening(scene: Scene, player: Member, ids: Ids, clock: Clock) -> tuple[Step, ...]:
    """What happens as a scene begins: events, and lines that its author wrote."""
    steps: list[Step] = []
    for moment in scene.opening:
        if moment.event is not None:
            steps.append(_event(moment.event, ids, clock))
        elif moment.npc is not None and moment.line is not None:
            steps.append(_line(Ask(moment.npc, None, None, player.ref, line=moment.line)))
    return tuple(steps)


def scene_view(around: Surroundings) -> events.SceneView | None:
    """The surroundings as clients see them; ``None`` where nothing is known of them."""
    if around.scene is None and not around.groups and not around.objects:
        return None
    return rules.scene_view(around)


def _npc(library: Library, npc: str, member: str | None, name: str | None) -> Member:
    persona = library.get(npc)
    return Member(member or persona.id, "npc", name or persona.name, persona.id)


def _seen(objects: Iterable[SceneObject | commands.SceneObject]) -> dict[str, str]:
    """What is to be seen, by name."""
    return {each.name: each.text for each in objects}


def _event(text: str, ids: Ids, clock: Clock) -> Step:
    return lambda state: rules.happened(
        state, text, to=(), hearers=(), turn=ids.new(), now_ms=clock.wall_ms()
    )


def _line(ask: Ask) -> Step:
    return lambda state: rules.asked(state, (ask,))
