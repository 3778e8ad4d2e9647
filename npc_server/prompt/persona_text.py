"""From a persona to the sections of its prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

import regex

from npc_server.conversation.model import Member
from npc_server.persona.conditions import Scalar
from npc_server.persona.model import Knowledge, Persona, Secret
from npc_server.prompt.model import PromptInput, Section
from npc_server.prompt.phrases import Phrases, phrases_for
from npc_server.prompt.plain import plain

RECENT = 4
"""Keys of knowledge are looked for in so many of the newest turns."""

HIDDEN = "_"
"""Facts whose name begins so are not told."""

GESTURES_SHOWN = 4
"""So many of the persona's gestures are named as examples."""

RANKS = {
    "cast.player": 1,
    "persona.description": 2,
    "persona.personality": 3,
    "persona.speech": 4,
    "persona.scenario": 5,
    "scene.place": 5,
    "scene.role": 5,
    "tail.here": 5,
    "tail.mood": 6,
    "tail.facts": 6,
    "cast.present": 7,
    "persona.relations": 8,
    "persona.secrets": 9,
    "tail.secrets": 10,
    "tail.knowledge": 11,
    "persona.goals": 12,
    "persona.knowledge": 13,
    "tail.relations": 14,
    "persona.nicknames": 15,
    "scene.objects": 15,
}
"""Which sections go first where there is no room: the highest. What is not here stays."""

_TOLD = frozenset(
    {
        "scene.place",
        "scene.objects",
        "persona.knowledge",
        "persona.scenario",
        "tail.facts",
        "tail.knowledge",
    }
)
"""What an NPC may repeat word for word, for it is not how it is instructed."""


def fixed_sections(given: PromptInput) -> tuple[Section, ...]:
    """The system message: what stays the same from turn to turn."""
    say = phrases_for(given.persona.languages[0])
    return tuple(_sections(_fixed(given, say)))


def tail_sections(given: PromptInput) -> tuple[Section, ...]:
    """What holds just now: the state of the game and what the newest turns bring to mind."""
    say = phrases_for(given.persona.languages[0])
    return tuple(_sections(_tail(given, say)))


def spoken_languages(persona: Persona, locale: str | None) -> tuple[str, ...]:
    """The persona's languages without regions, the one that it should speak first.

    That is the one asked for, if the persona speaks it, else the persona's own first.
    """
    known = list(dict.fromkeys(tag.split("-")[0] for tag in persona.languages))
    asked = (locale or "").split("-")[0].lower()
    return tuple(sorted(known, key=lambda tag: tag != asked))


def _sections(named: Iterable[tuple[str, str]]) -> Iterator[Section]:
    for source, text in named:
        yield Section(source, text, RANKS.get(source, 0), source not in _TOLD)


def _fixed(given: PromptInput, say: Phrases) -> Iterator[tuple[str, str]]:
    persona = given.persona
    yield "persona.name", say.identity.format(name=given.speaker.name)
    if persona.nicknames:
        yield "persona.nicknames", say.nicknames.format(names=", ".join(persona.nicknames))
    yield "persona.description", say.description.format(text=persona.description)
    yield "persona.personality", say.personality.format(text=persona.personality)
    yield "persona.speech", say.speech.format(text=persona.speech)
    if given.place:
        yield "scene.place", say.scenario.format(text=given.place)
        if given.role:
            yield "scene.role", say.role.format(text=given.role)
    elif persona.scenario:
        yield "persona.scenario", say.scenario.format(text=persona.scenario)
    if given.objects:
        seen = (
            f"{plain(name)}: {plain(text)}" if text else plain(name)
            for name, text in given.objects.items()
        )
        yield "scene.objects", _listed(say.objects, seen)
    known = [k.text for k in persona.knowledge if not k.keys and k.when is None]
    guarded = [_guarded(secret) for secret in persona.secrets if secret.when is None]
    lists: tuple[tuple[str, str, Sequence[str]], ...] = (
        ("persona.goals", say.goals, persona.goals),
        ("persona.knowledge", say.knowledge, known),
        ("persona.secrets", say.secrets, guarded),
        ("persona.relations", say.relations, list(_relations(given)) if given.settled else ()),
    )
    yield from ((source, _listed(head, items)) for source, head, items in lists if items)
    if given.settled:
        yield from _present(given, say)
    yield "rules", _rules(given, say)


def _tail(given: PromptInput, say: Phrases) -> Iterator[tuple[str, str]]:
    heard = "\n".join(turn.text for turn in given.turns[-RECENT:]).casefold()
    yield from _around(given, say)
    facts = "; ".join(_facts(given))
    if facts:
        yield "tail.facts", _bracketed(say.facts.format(text=facts))
    recalled = [k.text for k in given.persona.knowledge if _recalled(k, heard, given.facts)]
    if recalled:
        yield "tail.knowledge", _bracketed(say.recalled.format(text=" ".join(recalled)))
    guarded = [
        _guarded(secret)
        for secret in given.persona.secrets
        if secret.when is not None and secret.when.holds(given.facts)
    ]
    if guarded:
        yield "tail.secrets", _bracketed(say.guarded.format(text=" ".join(guarded)))
    absent = [
        say.absent.format(name=given.names[relation.npc], text=relation.text)
        for relation in given.persona.relations
        if relation.npc in given.names
        and relation.npc not in _present_refs(given)
        and _occurs(given.names[relation.npc], heard)
    ]
    if absent:
        yield "tail.relations", _bracketed(" ".join(absent))


def _facts(given: PromptInput) -> Iterator[str]:
    for name, value in given.facts.items():
        if value is not None and not name.startswith(HIDDEN):
            yield f"{plain(name)}: {plain(value if isinstance(value, str) else json.dumps(value))}"


def _recalled(knowledge: Knowledge, heard: str, facts: Mapping[str, Scalar | None]) -> bool:
    """Whether something known is on the NPC's mind just now, and was not all the time."""
    if knowledge.when is not None and not knowledge.when.holds(facts):
        return False
    if not knowledge.keys:
        return knowledge.when is not None
    return any(_occurs(key, heard) for key in knowledge.keys)


def _around(given: PromptInput, say: Phrases) -> Iterator[tuple[str, str]]:
    """Who is there now, where that changes, and how the NPC feels."""
    if not given.settled:
        names = [plain(m.name) for m in _perceived(given)]
        here = ", ".join(names) or say.nobody
        yield "tail.here", _bracketed(say.here_now.format(names=here))
        known = list(_relations(given))
        if known:
            yield "tail.here", _bracketed("; ".join((f"{say.relations} {known[0]}", *known[1:])))
    if given.mood:
        yield "tail.mood", _bracketed(say.mood.format(text=given.mood))


def _perceived(given: PromptInput) -> list[Member]:
    """The others whom the NPC perceives now."""
    return [
        member
        for member in given.cast
        if member.id != given.speaker.id and (given.here is None or member.id in given.here)
    ]


def _bracketed(text: str) -> str:
    return f"[{plain(text)}]"


def _occurs(key: str, heard: str) -> bool:
    """Whether a key begins a word of what was heard; a Korean one may stand inside of a word."""
    border = r"(?<!\w)" if key[0].isascii() else ""
    return bool(regex.search(border + regex.escape(key.casefold()), heard))


def _listed(head: str, items: Iterable[str]) -> str:
    return "\n".join((head, *(f"- {item}" for item in items)))


def _guarded(secret: Secret) -> str:
    return f"{secret.text} ({secret.guard})" if secret.guard else secret.text


def _relations(given: PromptInput) -> Iterator[str]:
    here = {member.ref: member.name for member in _perceived(given) if member.kind == "npc"}
    for relation in given.persona.relations:
        if relation.npc in here:
            yield f"{here[relation.npc]}: {relation.text}"


def _present_refs(given: PromptInput) -> set[str]:
    return {member.ref for member in _perceived(given) if member.kind == "npc"}


def _present(given: PromptInput, say: Phrases) -> Iterator[tuple[str, str]]:
    others = _perceived(given)
    players = [plain(member.name) for member in others if member.kind == "player"]
    npcs = [plain(member.name) for member in others if member.kind == "npc"]
    if players:
        yield "cast.player", say.player.format(names=", ".join(players))
    if npcs:
        yield "cast.present", say.present.format(names=", ".join(npcs))


def _rules(given: PromptInput, say: Phrases) -> str:
    persona = given.persona
    shown = (persona.gestures or say.usual_gestures)[:GESTURES_SHOWN]
    gestures = ", ".join(f"*{name.replace('_', ' ')}*" for name in shown)
    language, *others = (
        say.tongues.get(tag, tag) for tag in spoken_languages(persona, given.locale)
    )
    speak = say.languages if others else say.language
    return " ".join(
        (
            say.rules.format(name=given.speaker.name),
            say.gestures.format(gestures=gestures),
            speak.format(language=language, others=", ".join(others)),
        )
    )
