"""Who heard what in a conversation, kept from the protocol's words alone.

Nothing of the server is used here: neither its state nor its rules. What this account says is held
against what the server gives to members, so that a fault in one of them shows.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

CANARY = re.compile(r"q\d{6}z")
FAMILY, ACCENTED = "👨‍👩‍👧", "e\u0301"
_CHARACTER = re.compile(r"👨(?:\u200d(?:👩(?:\u200d👧?)?)?)?|e\u0301?|.", re.DOTALL)
EARSHOT = 10.0


def canaries(text: str) -> set[str]:
    """The canary words that stand whole in a text."""
    return set(CANARY.findall(text))


def canary(number: int) -> str:
    """A word that was never said before."""
    return f"q{number:06}z"


def cut_back(text: str, length: int) -> str:
    """The beginning of a text up to a length, no character of it split."""
    end = 0
    for character in _CHARACTER.finditer(text):
        if character.end() > length:
            break
        end = character.end()
    return text[:end]


@dataclass
class Uttered:
    """One turn, or a reply that is being said.

    Attributes:
        turn: Its id.
        speaker: Member id; empty for an event.
        hearers: Who hears it.
        text: All that is said.
        private: Whether it was meant for some only.
        heard: Hearers who heard less, and how many code points.
        deeds: What was done with it; every hearer who has not left by then sees it.
        missed: By deed, who had left by then.
        refused: Those of them that came to nothing.
        replaced: Whether it was said anew.
    """

    turn: str
    speaker: str
    hearers: list[str]
    text: str
    private: bool = False
    heard: dict[str, int] = field(default_factory=dict)
    deeds: list[str] = field(default_factory=list)
    missed: dict[str, set[str]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    replaced: bool = False

    def seen_by(self, member: str) -> list[str]:
        """What a member saw done."""
        there = (deed for deed in self.deeds if member not in self.missed.get(deed, ()))
        return [deed for deed in there if member in self.hearers]

    def cut_for(self, member: str, length: int) -> None:
        """A hearer heard so much of it, at most."""
        before = self.heard.get(member, len(self.text))
        self.heard[member] = min(before, len(cut_back(self.text, max(0, length))))


@dataclass
class Story:
    """What belongs to a playthrough, and goes into a save."""

    players: list[str]
    npcs: list[str]
    here: set[str] = field(default_factory=set)
    groups: dict[str, list[str]] = field(default_factory=dict)
    apart: dict[frozenset[str], float] = field(default_factory=dict)
    kept: list[Uttered] = field(default_factory=list)
    path: list[Uttered] = field(default_factory=list)
    shared: int = 0
    branch: str = "main"
    branches: dict[str, list[Uttered]] = field(default_factory=dict)
    live: Uttered | None = None


class Account:
    """The account of a conversation.

    Args:
        players: Member ids of all players who ever come in.
        npcs: Member ids of all NPCs who ever do.

    Attributes:
        story: What holds now.
        sent: For each player the canaries that it may have been sent: they cannot be taken back.
        knew: For each member the canaries that it heard, in whichever branch or game.
    """

    def __init__(self, players: Sequence[str], npcs: Sequence[str]) -> None:
        self.story = Story(list(players), list(npcs))
        self.sent: dict[str, set[str]] = {player: set() for player in players}
        self.knew: dict[str, set[str]] = {member: set() for member in (*players, *npcs)}
        self._saves: dict[str, Story] = {}

    def near(self, speaker: str) -> list[str]:
        """Who hears what a member says aloud: who shares its group, if any, and is in earshot."""
        story = self.story

        def together(other: str) -> bool:
            mine = [name for name, group in story.groups.items() if speaker in group]
            theirs = [name for name, group in story.groups.items() if other in group]
            far = story.apart.get(frozenset((speaker, other)), 0.0) > EARSHOT
            return mine == theirs and not far

        return [m for m in story.here if m == speaker or together(m)]

    def said(
        self,
        turn: str,
        speaker: str,
        text: str,
        *,
        whisper_to: Collection[str] | None = None,
        hearers: Collection[str] = (),
    ) -> None:
        """A player says something: aloud, to some in a whisper, or to whom the host names."""
        if hearers:
            heard = list({speaker, *hearers})
        elif whisper_to is not None:
            heard = [m for m in self.near(speaker) if m in whisper_to or m == speaker]
        else:
            heard = self.near(speaker)
        private = bool(hearers) or whisper_to is not None
        self._add(Uttered(turn, speaker, heard, text, private))

    def happened(self, turn: str, text: str, hearers: Collection[str]) -> None:
        """Something happens: some perceive it, or all who are here."""
        self._add(Uttered(turn, "", list(hearers or self.story.here), text, bool(hearers)))

    def begins(self, turn: str, npc: str, answers: str | None) -> Uttered:
        """An NPC begins to speak; what answers something private is private."""
        answered = next((u for u in self.story.path if u.turn == answers), None)
        if answered is not None and answered.private:
            heard = list({npc, *(m for m in answered.hearers if m in self.story.here)})
        else:
            heard = self.near(npc)
        private = answered is not None and answered.private
        return self._speak(Uttered(turn, npc, heard, "", private))

    def begins_anew(self, turn: str, old: str) -> Uttered:
        """An NPC says its newest reply anew; in other branches the old one stands."""
        story = self.story
        said = story.path[-1]
        assert said.turn == old
        if len(story.path) <= story.shared:
            said = deepcopy(said)
            story.shared -= 1
            story.path[-1] = said
            story.kept.append(said)
        said.replaced = True
        heard = [m for m in said.hearers if m in story.here]
        deeds = [deed for deed in said.deeds if deed not in said.refused]
        again = Uttered(
            turn, said.speaker, heard, "", said.private, deeds=deeds, missed=dict(said.missed)
        )
        return self._speak(again)

    def begins_again(self) -> None:
        """The reply in flight is said anew from its beginning, by another server."""
        live = self._live()
        live.hearers = [m for m in live.hearers if m not in live.heard]
        live.heard, live.text = {}, ""

    def does(self, deed: str) -> None:
        """The NPC that speaks does something."""
        live = self._live()
        live.deeds.append(deed)
        live.missed[deed] = set(live.heard)
        self._told(live, {deed})

    def refuses(self, deed: str) -> None:
        """The game did not let the NPC do it."""
        self._live().refused.append(deed)

    def speaks(self, text: str) -> None:
        """More of the reply in flight is sent to those who still hear it."""
        live = self._live()
        live.text += text
        self._told(live, canaries(live.text))

    def ends(self, heard: dict[str, int]) -> None:
        """The reply in flight is over; some heard less than was sent."""
        live = self._live()
        left, live.heard = live.heard, {}
        for member, length in (heard | left).items():
            live.cut_for(member, length)
        self.story.live = None
        self._add(live, told=False)

    def hears_less(self, turn: str, member: str, length: int) -> None:
        """A reply that is over was cut while it still played."""
        self._find(turn).cut_for(member, length)

    def comes(self, member: str) -> None:
        """Somebody comes in, or back."""
        self.story.here.add(member)

    def goes(self, member: str, *, for_good: bool) -> None:
        """Somebody leaves: of the reply in flight it heard what was sent, and hears no more."""
        story = self.story
        story.here.discard(member)
        live = story.live
        if live is not None and member in live.hearers and member not in live.heard:
            if live.text or live.deeds:
                live.heard[member] = len(live.text)
            else:
                live.hearers.remove(member)
        if for_good:
            for group in story.groups.values():
                if member in group:
                    group.remove(member)

    def rewinds(self, turn: str, branch: str) -> None:
        """It goes back to a turn, and on in a new branch."""
        story = self.story
        at = next(n for n, u in enumerate(story.path) if u.turn == turn)
        self._turns_to(branch, story.path[: at + 1])

    def returns(self, branch: str) -> None:
        """It goes on where another branch was left."""
        self._turns_to(branch, self.story.branches[branch])

    def redacts(self, turn: str) -> None:
        """The words of a turn are taken out, in every branch."""
        for uttered in self.story.kept:
            if uttered.turn == turn:
                uttered.text, uttered.deeds, uttered.heard = "", [], {}

    def saves(self, name: str) -> None:
        """The game is saved, without what is being said."""
        self._saves[name] = deepcopy(self.story)
        self._saves[name].live = None

    def loads(self, name: str) -> None:
        """A saved game is played on with."""
        self.story = deepcopy(self._saves[name])

    def text_for(self, uttered: Uttered, member: str) -> str:
        """What a member heard of a turn.

        Players tell how much they heard. NPCs remember what at least one player heard, where that
        is less than all.
        """
        if member not in uttered.hearers:
            return ""
        reach = uttered.heard.get(member, len(uttered.text))
        if uttered.heard:
            players = [m for m in uttered.hearers if m in self.story.players] or uttered.hearers
            longest = max(uttered.heard.get(m, len(uttered.text)) for m in players)
            reach = min(reach, longest)
        return uttered.text[:reach]

    def history(self, member: str) -> list[tuple[str, str]]:
        """Turn and text of all that a member heard in this branch, oldest first."""
        return list(self._heard(member, (u for u in self.story.path if not u.replaced)))

    def everything(self, member: str) -> list[tuple[str, str]]:
        """The same of every branch, and with what was said anew."""
        return list(self._heard(member, self.story.kept))

    def words(self, member: str) -> set[str]:
        """The canaries in what a member heard in this branch."""
        return {word for _, text in self.history(member) for word in canaries(text)}

    def deeds(self, member: str) -> set[str]:
        """The canaries in what a member saw done in this branch."""
        seen = (u for u in self.story.path if member in u.hearers and not u.replaced)
        return {deed for u in seen for deed in u.seen_by(member)}

    def replaced(self, member: str) -> set[str]:
        """The canaries in what a member heard in this branch and was said anew."""
        gone = (u for u in self.story.path if u.replaced and member in u.hearers)
        return {
            word for u in gone for word in (*canaries(self.text_for(u, member)), *u.seen_by(member))
        }

    def _heard(self, member: str, uttered: Iterable[Uttered]) -> Iterator[tuple[str, str]]:
        for each in uttered:
            text = self.text_for(each, member)
            if text or each.seen_by(member):
                yield each.turn, text

    def _add(self, uttered: Uttered, *, told: bool = True) -> None:
        self.story.path.append(uttered)
        self.story.kept.append(uttered)
        if told:
            self._told(uttered, canaries(uttered.text))

    def _speak(self, uttered: Uttered) -> Uttered:
        self.story.live = uttered
        return uttered

    def _told(self, uttered: Uttered, words: set[str]) -> None:
        for member in uttered.hearers:
            if member not in uttered.heard:
                self.knew[member] |= words
                if member in self.sent:
                    self.sent[member] |= words

    def _turns_to(self, branch: str, path: list[Uttered]) -> None:
        story = self.story
        story.branches[story.branch] = list(story.path)
        story.branches.pop(branch, None)
        story.branch, story.path, story.shared = branch, list(path), len(path)

    def _live(self) -> Uttered:
        assert self.story.live is not None
        return self.story.live

    def _find(self, turn: str) -> Uttered:
        return next(u for u in reversed(self.story.path) if u.turn == turn)
