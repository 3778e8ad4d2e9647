"""Where in a sentence somebody is named, and how much of a name was said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Literal

from npc_server.conversation.korean_names import (
    SURNAMES,
    calling_stem,
    honorific_in,
    is_honorific,
    is_vocative,
    particle_in,
)
from npc_server.conversation.utterance import Sentence, words

TITLES = frozenset(
    (
        *("mr", "mr.", "mrs", "mrs.", "ms", "ms.", "miss", "mister", "sir", "madam", "lady"),
        *("lord", "captain", "doctor", "dr", "dr.", "professor", "prof.", "sergeant", "colonel"),
        *("king", "queen", "prince", "princess", "master", "mistress", "mayor", "judge", "sheriff"),
        *("father", "mother", "brother", "sister", "uncle", "aunt", "auntie", "granny", "grandma"),
        *("grandpa", "grandmother", "grandfather", "saint", "st.", "chief", "commander", "officer"),
    )
)
"""Words before a name. Whose name holds one may be called by it alone: "Aye, Captain!"."""

EPITHETS = frozenset(
    ("old", "young", "little", "big", "dear", "dearest", "good", "wise", "mad", "poor", "my")
)
"""Words before a name that are no part of it."""

_BEFORE_NAMES = TITLES | EPITHETS
_MOST_TITLES = 3
"""So many of them are looked for before a name: "my dear Captain Rosa"."""

_ARTICLES = frozenset(("the", "a", "an", "el", "la", "le"))
_LINKS = frozenset(("of", "the", "from", "von", "van", "de", "der", "da", "del", "di", "in"))

WORD_NAMES = frozenset(
    (
        *("will", "may", "hope", "rose", "grace", "mark", "bill", "art", "faith", "joy", "summer"),
        *("april", "june", "august", "dawn", "robin", "sky", "frank", "ash", "ray", "drew"),
        *("chase", "hunter", "grant", "pat", "sue", "rob", "dean", "miles", "lance", "reed"),
        *("wade", "guy", "iris", "ivy", "lily", "olive", "pearl", "ruby", "violet", "daisy"),
        *("hazel", "amber", "crystal", "ginger", "jade", "sandy", "penny", "honor", "patience"),
        *("charity", "chance", "destiny", "autumn", "sage", "cliff", "dale", "glen", "forest"),
        *("brook", "river", "stone", "star", "storm", "raven", "wolf", "fox", "bear", "angel"),
        *("rain", "willow", "holly", "heather", "basil", "gene", "jack", "bob", "nick", "victor"),
        *("하나", "바다", "나라", "별", "봄", "여름", "가을", "겨울", "하늘", "이슬", "사랑"),
        *("소리", "구름", "달", "해", "꽃", "나무", "보라", "새벽", "노을", "우리", "미리"),
        *("다운", "마루", "나비", "아름", "진주", "유리", "두리", "은하", "단비", "솔"),
    )
)
"""Names that are also everyday words: only a call makes them names."""


@dataclass(frozen=True, slots=True)
class Mention:
    """A name in a sentence.

    Attributes:
        start: Its first token.
        end: Behind its last token, what is written onto it included.
        members: Who is called that; empty for somebody who is not here, and for a crowd.
        particle: What is written onto it: a Korean particle, or ``'s``.
        titled: Whether a Korean title is part of it or follows it.
        a_word: Whether it is rather an everyday word, unless it is called.
        crowd: For words such as "everyone": all of them, or two.
    """

    start: int
    end: int
    members: tuple[str, ...] = ()
    particle: str = ""
    titled: bool = False
    a_word: bool = False
    crowd: Literal["all", "two"] | None = None


@dataclass(frozen=True, slots=True)
class _Form:
    """One way to say a name.

    Attributes:
        words: Folded.
        members: Who is called that; empty for somebody who is not here.
        calling: Whether only a vocative may follow: "곰돌" of "곰돌이", in "곰돌아".
    """

    words: tuple[str, ...]
    members: tuple[str, ...]
    calling: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Names that are said as one: "Bram and Mira", "everyone but Pip".

    Attributes:
        mentions: At least one, in order.
        start: The first token.
        end: Behind the last token.
    """

    mentions: tuple[Mention, ...]
    start: int
    end: int


def grouped(mentions: Sequence[Mention], joins: Sequence[bool]) -> Iterator[Group]:
    """The groups of some mentions, where ``joins`` tells which go on with the one before."""
    begin = 0
    for end in range(1, len(mentions) + 1):
        if end == len(mentions) or not joins[end]:
            found = tuple(mentions[begin:end])
            yield Group(found, found[0].start, found[-1].end)
            begin = end


class Role(Enum):
    """What somebody who is named has to do with what is said."""

    CALLED = auto()
    """By a vocative: it is said to them."""
    ADDRESSED = auto()
    """It is said to them in another way: "I meant Mira", 할머니도 드실래요?"""
    ABOUT = auto()
    """It is said about them, and so to somebody else."""
    REFUSED = auto()
    """It is not said to them: "not you, Bram"."""
    EXCEPTED = auto()
    """It is said to all the others: "everyone but Bram"."""
    NOTHING = auto()
    """It tells nothing, or is no name after all."""


class Names:
    """All names that may be said, by their first letter.

    Args:
        present: For each member its names.
        absent: Names of people who are not here.
    """

    def __init__(self, present: Iterable[tuple[str, Sequence[str]]], absent: Iterable[str]) -> None:
        whole: dict[tuple[str, ...], dict[str, None]] = {}
        parts: dict[tuple[str, ...], dict[str, None]] = {}
        for member, names in present:
            for said in filter(None, map(words, names)):
                whole.setdefault(said, {})[member] = None
                for part in _parts(said):
                    parts.setdefault(part, {})[member] = None
        for said in filter(None, map(words, absent)):
            for form in (said, *_parts(said)):
                parts.setdefault(form, {})
        self._forms: dict[str, list[_Form]] = {}
        for said, members in (parts | whole).items():
            self._add(_Form(said, tuple(members)))
            if (stem := calling_stem(said[-1])) is not None:
                self._add(_Form((*said[:-1], stem), tuple(members), calling=True))

    def mentions(self, sentence: Sentence) -> Iterator[Mention]:
        """Every name in a sentence, in order; of names that begin together the longest."""
        at = 0
        while at < len(sentence.tokens):
            found = self._longest(sentence, at)
            if found is None:
                at += 1
            else:
                yield found
                at = found.end

    def _add(self, form: _Form) -> None:
        self._forms.setdefault(form.words[0][0], []).append(form)

    def _longest(self, sentence: Sentence, start: int) -> Mention | None:
        tokens = sentence.tokens
        at = start
        while at < min(start + _MOST_TITLES, len(tokens)) and tokens[at].folded in _BEFORE_NAMES:
            at += 1
        best: tuple[int, int, Mention] | None = None
        for name_at in range(start, min(at + 1, len(tokens))):
            first = tokens[name_at].folded[:1]
            for form in self._forms.get(first, ()):
                mention = _matched(sentence, start, name_at, form)
                if mention is None:
                    continue
                size = (mention.end, sum(map(len, form.words)))
                if best is None or size > best[:2]:
                    best = (*size, mention)
        return best and best[2]


def _parts(said: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Other ways to say a name: without its article, by its first or last proper word, a title."""
    if said[0] in _ARTICLES:
        yield said[1:] or said
    if len(said) == 1:
        if len(said[0]) == 3 and said[0][0] in SURNAMES:
            yield (said[0][1:],)
        return
    names = [word for word in _before_link(said) if word not in _BEFORE_NAMES | _ARTICLES]
    for word in (*names[:1], *names[-1:], *(word for word in said if word in TITLES)):
        if len(word) > 1:
            yield (word,)
    if said[1:2] == ("the",):
        yield said[-1:]


def _before_link(said: tuple[str, ...]) -> tuple[str, ...]:
    """The words before "of the Hill"."""
    begun = said[1:] if said[0] in _ARTICLES else said
    links = [at for at, word in enumerate(begun) if word in _LINKS and at > 0]
    return begun[: links[0]] if links else begun


def _matched(sentence: Sentence, start: int, at: int, form: _Form) -> Mention | None:
    """The form as it stands at a place, with its title and what is written onto it."""
    end = at + len(form.words)
    said = [token.folded for token in sentence.tokens[at:end]]
    *whole, last = form.words
    if len(said) < len(form.words) or said[:-1] != whole or not said[-1].startswith(last):
        return None
    rest = said[-1][len(last) :]
    if rest == "'s":
        return Mention(start, end, form.members, particle=rest)
    if not rest and _has_byname(sentence, end):
        return Mention(start, end + 2, form.members)
    title, rest = honorific_in(rest)
    titled = bool(title) or is_honorific(last)
    if not title and rest in ("", "이") and end < len(sentence.tokens):
        spaced, after = honorific_in(sentence.tokens[end].folded)
        if spaced and particle_in(after, spaced) is not None:
            title, rest, titled, end = spaced, after, True, end + 1
    particle = particle_in(rest, title or last)
    if particle is None or (form.calling and (title or not is_vocative(particle))):
        return None
    a_word = last in WORD_NAMES and len(form.words) == 1 and not title
    if a_word:
        a_word = start != at or not _is_capital(sentence, at)
    return Mention(start, end, form.members, particle, titled=titled, a_word=a_word)


def _has_byname(sentence: Sentence, at: int) -> bool:
    """Whether "the smith" or the like stands at a place, and a pause behind it."""
    following = [token.folded for token in sentence.tokens[at : at + 3]]
    return following[:1] == ["the"] and len(following) > 1 and following[2:] in ([], [""])


def _is_capital(sentence: Sentence, at: int) -> bool:
    """Whether a word was written as a name, and not only because it begins a sentence."""
    text = sentence.tokens[at].text
    shouted = all(token.text.isupper() for token in sentence.tokens if token.folded)
    return text[:1].isupper() and not sentence.begins(at) and not shouted
