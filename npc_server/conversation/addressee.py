"""To whom a player speaks, where several NPCs can hear it.

What counts, the first that applies: what the client says (``to``); who is called by name; words for
all; a call for somebody who is not here; who is named as the one it is said to ("I meant Mira");
that there is only one who could be meant; whom the player looks at; with whom it talked last.
Who is only talked about is not the one it is said to. A reply by rule costs nothing and is the same
every time; what the rules do not tell is left open, for whoever decides then.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from npc_server.conversation import vocative_en, vocative_ko
from npc_server.conversation.korean_names import is_hangul
from npc_server.conversation.names import Group, Mention, Names, Role
from npc_server.conversation.utterance import Sentence, sentences, spoken

Reason = Literal["to", "named", "everyone", "follow_up", "only_one", "absent", "open"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An NPC that can hear the utterance.

    Attributes:
        member: Member id.
        names: What it is called: name first, then nicknames, in any script.
    """

    member: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """Something that was said before.

    Attributes:
        speaker: Member id of who spoke, the player itself or an NPC.
        to: Member ids addressed.
    """

    speaker: str
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Addressees:
    """To whom something is said.

    Attributes:
        members: Member ids in the order in which they should answer; empty where it is said to
            nobody in particular, or to somebody who is not here.
        reason: ``to``: the client said so, or whom the player looks at where words name nobody.
            ``named``: by name or nickname. ``everyone``: "you all", 얘들아. ``follow_up``: it goes
            on with whom the player talked last. ``only_one``: there is just one candidate.
            ``absent``: somebody is called who is not here. ``open``: nobody in particular.
    """

    members: tuple[str, ...]
    reason: Reason


class _Language(Protocol):
    """The rules of one language: a module."""

    def joined(self, sentence: Sentence, mentions: Sequence[Mention], /) -> Iterator[Group]: ...
    def role(self, sentence: Sentence, group: Group, /) -> Role: ...
    def turned_to(self, sentence: Sentence, mention: Mention, /) -> bool: ...


@dataclass(slots=True)
class _Heard:
    """What the words tell: for each role the names that were said, as the members who bear them."""

    by_role: dict[Role, list[tuple[str, ...]]] = field(
        default_factory=lambda: {role: [] for role in Role}
    )
    crowd: Literal["all", "two"] | None = None
    calls_absent: bool = False

    def out(self, *roles: Role) -> frozenset[str]:
        """The members in some roles, where a name leaves no doubt of whom it is."""
        names = (name for role in roles for name in self.by_role[role])
        return frozenset(name[0] for name in names if len(name) == 1)


def addressees(
    text: str,
    *,
    speaker: str,
    candidates: Sequence[Candidate],
    to: Sequence[str] = (),
    gaze: str | None = None,
    recent: Sequence[Exchange] = (),
    absent: Sequence[str] = (),
) -> Addressees:
    """To whom a text is said.

    Args:
        text: What was said.
        speaker: Member id of who said it.
        candidates: The NPCs that hear it; the speaker is never one.
        to: To whom the client says that it is said; those who are no candidates are left out.
        gaze: Whom the player looks at. It decides only where words name nobody.
        recent: What was said before, newest last; a few entries are enough.
        absent: Names of people who are known but not here.
    """
    present = {c.member: c.names for c in candidates if c.member != speaker}
    if to:
        return Addressees(tuple(m for m in dict.fromkeys(to) if m in present), "to")
    heard = _listen(text, Names(present.items(), absent))
    about = heard.out(Role.ABOUT, Role.REFUSED, Role.EXCEPTED)
    looked_at = (gaze,) if gaze in present and gaze not in about else ()
    partners = next(_partners(recent, speaker, present.keys() - about), ())
    likely = (*looked_at, *partners)
    if heard.by_role[Role.CALLED]:
        return Addressees(_bearers(heard.by_role[Role.CALLED], likely), "named")
    if heard.crowd:
        crowd = _pair(recent, speaker, present) if heard.crowd == "two" else tuple(present)
        excepted = heard.out(Role.EXCEPTED)
        return Addressees(tuple(m for m in crowd if m not in excepted), "everyone")
    if heard.calls_absent:
        return Addressees((), "absent")
    if heard.by_role[Role.ADDRESSED]:
        return Addressees(_bearers(heard.by_role[Role.ADDRESSED], likely), "named")
    if len(present) == 1:
        return Addressees(tuple(present), "only_one")
    if looked_at:
        return Addressees(looked_at, "to")
    return Addressees(partners, "follow_up") if partners else Addressees((), "open")


def _listen(text: str, names: Names) -> _Heard:
    """Find who is named in a text, and in which roles."""
    heard = _Heard()
    said, asides = spoken(text)
    for sentence in sentences(said):
        for group, language in _groups(sentence, names):
            _note(heard, group, language.role(sentence, group))
    for sentence in (line for aside in asides for line in sentences(aside)):
        for mention in names.mentions(sentence):
            if mention.members and _language(sentence, (mention,)).turned_to(sentence, mention):
                heard.by_role[Role.ADDRESSED].append(mention.members)
    return heard


def _groups(sentence: Sentence, names: Names) -> Iterator[tuple[Group, _Language]]:
    mentions = _apart(
        [
            *names.mentions(sentence),
            *vocative_en.crowds(sentence),
            *vocative_ko.crowds(sentence),
        ]
    )
    language = _language(sentence, mentions)
    for group in language.joined(sentence, mentions):
        yield group, language


def _apart(mentions: Iterable[Mention]) -> list[Mention]:
    """Mentions in order; of two that overlap the one that begins first, a name before a crowd."""
    found: list[Mention] = []
    for mention in sorted(mentions, key=lambda m: (m.start, m.crowd is not None)):
        if not found or mention.start >= found[-1].end:
            found.append(mention)
    return found


def _language(sentence: Sentence, mentions: Sequence[Mention]) -> _Language:
    """Whose rules hold: Korean ones where a particle or half of the other words are Korean."""
    if any(mention.titled or is_hangul(mention.particle) for mention in mentions):
        return vocative_ko
    named = {at for mention in mentions for at in range(mention.start, mention.end)}
    others = [t.folded for at, t in enumerate(sentence.tokens) if t.folded and at not in named]
    korean = sum(map(is_hangul, others))
    return vocative_ko if korean and 2 * korean >= len(others) else vocative_en


def _note(heard: _Heard, group: Group, role: Role) -> None:
    for mention in group.mentions:
        if mention.crowd:
            if role is Role.CALLED:
                heard.crowd = mention.crowd
        elif group.mentions[0].crowd:  # "everyone but Bram"
            heard.by_role[Role.EXCEPTED].append(mention.members)
        elif mention.members:
            heard.by_role[role].append(mention.members)
        elif role is Role.CALLED:
            heard.calls_absent = True


def _bearers(names: Iterable[tuple[str, ...]], likely: Sequence[str]) -> tuple[str, ...]:
    """Who is meant by some names: where several bear one, the likeliest of them, else all."""
    found: dict[str, None] = {}
    for members in names:
        meant = [member for member in likely if member in members][:1] if len(members) > 1 else []
        found |= dict.fromkeys(meant or members)
    return tuple(found)


def _partners(
    recent: Sequence[Exchange], speaker: str, present: Iterable[str]
) -> Iterator[tuple[str, ...]]:
    """With whom a speaker talked, newest first."""
    here = frozenset(present)
    for exchange in reversed(recent):
        if exchange.speaker == speaker:
            members: Iterable[str] = dict.fromkeys(exchange.to)
        else:
            members = (exchange.speaker,) if speaker in exchange.to else ()
        if partners := tuple(member for member in members if member in here):
            yield partners


def _pair(recent: Sequence[Exchange], speaker: str, present: Iterable[str]) -> tuple[str, ...]:
    """Whom "you two" means: the two with whom the speaker talked last, else everyone."""
    here = tuple(present)
    last = dict.fromkeys(m for members in _partners(recent, speaker, here) for m in members)
    two = tuple(last)[:2]
    return tuple(m for m in here if m in two) if len(two) == 2 else here
