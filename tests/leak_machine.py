"""Random conversations of several members, of whom none may ever know what it did not hear.

The rules of ``conversation`` are driven here as the server drives them, with a store in memory.
Every utterance holds canary words of its own; what each member gets is held against ``Account``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, cast

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from leak_account import ACCENTED, FAMILY, Account, canaries, canary

from npc_server import export, past, stage
from npc_server.brains import Brain
from npc_server.clock import Clock
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.audience import pair
from npc_server.conversation.model import Ask, Conversation, Member, Reply, Surroundings, Turn
from npc_server.conversation.rules import Change, Outcome
from npc_server.dialogue import _reactions
from npc_server.director import Director
from npc_server.engines.scripted import Script, ScriptedEngine
from npc_server.library import Library, builtin_personas
from npc_server.prompting import Prompter
from npc_server.protocol import commands
from npc_server.scheduler import Scheduler
from npc_server.store import Saved, decode, encode

PLAYERS = {"ana": "Ana", "ben": "Ben", "cho": "Cho"}
NPCS = {"bram": "Bram", "marta": "Marta", "pip": "Pip", "ysolde": "Ysolde"}
EVERYBODY = (*PLAYERS, *NPCS)
MANY = 1 << 40

KINDS = (
    *("said", "whispered", "said to hearers", "event", "event for some"),
    *("moved apart", "far away", "together again", "joined", "left", "closed", "opened again"),
    *("left in mid-reply", "replied", "answered in private", "npc to npc", "acted"),
    *("cut", "cut after its end", "regenerated", "taken over"),
    *("rewound", "returned", "redacted", "saved", "loaded", "overheard by several"),
)
"""What must have happened in a run for it to say anything."""

TALK = (
    *("said", "whispered", "said to hearers", "event", "event for some", "spoken", "replied"),
    *("cut", "acted", "regenerated"),
)
"""The rest happens only after one of these, lest members come and go in silence."""

T = TypeVar("T")
chance = st.integers(0, 1 << 30)
some = st.sets(st.sampled_from(EVERYBODY), min_size=1, max_size=3).map(sorted)


class Leak(AssertionError):
    """A member was given what it did not hear, or was not given what it did."""


def settings_for(steps: int, each: int = 50) -> settings:
    """For so many steps in all, ``each`` of them in a conversation of its own."""
    return settings(
        max_examples=steps // each * 5 // 4 + 1,  # Hypothesis ends some of them earlier.
        stateful_step_count=each,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        phases=(Phase.generate,),  # Shrinking takes minutes; fifty steps can be read.
        report_multiple_bugs=False,
    )


def run(machine: type[Leaks], how: settings) -> Counter[str]:
    """Drive a machine; how often everything happened.

    Raises:
        Leak: A member knows what it did not hear.
    """
    machine.happened = Counter()
    run_state_machine_as_test(machine, settings=how)
    return machine.happened


class Memory:
    """What ``Store`` keeps of one conversation, in memory.

    Attributes:
        turns: By index.
    """

    def __init__(self) -> None:
        self.turns: dict[int, Turn] = {}

    def commit(self, before: Conversation, after: Conversation) -> None:
        """Keep the turns that are new or changed."""
        known = {turn.index: turn for turn in before.turns}
        for turn in after.turns:
            if known.get(turn.index) is not turn:
                self.turns[turn.index] = turn

    async def turns_at(self, world: str, conversation: str, indices: Sequence[int]) -> list[Turn]:
        return [self.turns[index] for index in indices if index in self.turns]

    async def turns_before(self, state: Conversation, index: int, limit: int) -> list[Turn]:
        return await self.turns_at("", "", rules.newest_of(state.path(), limit, before=index))


class Leaks(RuleBasedStateMachine):
    """Three players and four NPCs; see the rules for what they do."""

    happened: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0
        self.store = Memory()
        self.account = Account(tuple(PLAYERS), tuple(NPCS))
        self.saves: dict[str, bytes] = {}
        self.sent = ""
        self.talked = True
        self.prompter = Prompter(library())
        engine = ScriptedEngine(Script(context=1 << 20))
        self.brain = Brain("default", engine, cast("Scheduler", None))
        self.director = Director(cast("Any", None), library(), Settings(), Clock(lambda: 0))
        self.stage = stage.Stage(cast("Any", self.store), *[cast("Any", None)] * 6)
        ana, *npcs = (member(name) for name in ("ana", "bram", "marta", "pip"))
        self.state = rules.begin("c", "w", ana, npcs, locale=None, now_ms=0)
        self.account.story.here |= {"ana", "bram", "marta", "pip"}
        self.commit(rules.opened(self.state, ana))
        self.come("ben")
        self.talked = True

    # What members do

    @precondition(lambda self: not self.state.closed and self.players())
    @rule(
        who=chance,
        to=some,
        how=st.sampled_from(["aloud", "named", "to", "whisper", "whisper", "hearers"]),
        answered=st.booleans(),
    )
    def say(self, who: int, to: list[str], how: str, answered: bool) -> None:
        """A player says something, and whoever is meant answers; it cuts what it interrupts."""
        speaker = self.one_of(self.players(), who)
        others = [m for m in to if m in self.here() and m != speaker.id]
        if how in {"whisper", "hearers"} and not others:
            how = "aloud"
        text = self.words(1)
        if how == "named":
            text = f"{self.one_of(self.state.npc_members(), who).name}, {text}"
        change = Change(self.state)
        if rules.takes_floor(self.state, speaker):
            change = self.ended(change.state, "interrupted", {speaker.id: who % 40})
        yielded = Change(rules.yielded(change.state, speaker))
        change = change.then(rules.settling(change.state, yielded))
        hearers = others if how == "hearers" else []
        asked = others if how in {"to", "whisper"} else []
        found = self.director.addressed(change.state, speaker.id, text, to=asked, hearers=hearers)
        turn = self.new_id()
        change = change.then(
            rules.said(
                change.state,
                speaker,
                text,
                to=asked or found.members,
                whisper=how == "whisper",
                hearers=hearers,
                turn=turn,
                now_ms=self.numbers,
            )
        )
        also = {*hearers, *found.members} if hearers else ()
        whisper_to = others if how == "whisper" else None
        self.account.said(turn, speaker.id, text, whisper_to=whisper_to, hearers=also)
        kind = {"whisper": "whispered", "hearers": "said to hearers"}.get(how, "said")
        self.count(kind)
        if answered:
            asks = self.director.asks(change.state, change.state.turns[-1], speaker, found)
            change = change.then(rules.asked(change.state, asks))
        self.commit(change)
        self.go_on(who)

    @precondition(lambda self: not self.state.closed and self.players())
    @rule(to=some, hearers=some, few=st.booleans(), must=st.booleans(), seed=chance)
    def event(self, to: list[str], hearers: list[str], few: bool, must: bool, seed: int) -> None:
        """Something happens, for all or for some, and an NPC may react."""
        to = [m for m in to if m in self.here()][: seed % 2]
        hearers = [m for m in hearers if m in self.here()] if few else []
        change = self.ended(self.state, "interrupted", {}) if must else Change(self.state)
        turn, text = self.new_id(), self.words(1)
        happened = rules.happened(
            change.state, text, to=to, hearers=hearers, turn=turn, now_ms=self.numbers
        )
        change = change.then(happened)
        self.account.happened(turn, text, {*hearers, *to} if hearers else ())
        self.count("event for some" if hearers else "event")
        if must:
            command = commands.Event(
                type="event", id="e", conversation="c", text=text, to=to, respond="must"
            )
            asks = _reactions(change.state, command, self.players()[0], turn)
            change = change.then(rules.asked(change.state, asks))
        self.commit(change)
        self.go_on(seed)

    @precondition(lambda self: self.idle() and not self.state.closed)
    @rule(seed=chance)
    def begin(self, seed: int) -> None:
        """An NPC speaks unasked."""
        self.commit(rules.asked(self.state, [Ask(None, None, None, "key:ana")]))
        self.go_on(seed)

    @precondition(lambda self: self.state.reply)
    @rule(words=st.integers(1, 3), split=chance)
    def speak(self, words: int, split: int) -> None:
        """More of the reply in flight is sent."""
        text = self.words(words)
        text = text[: 1 + split % len(text)]
        self.sent += text
        self.account.speaks(text)
        self.count("spoken")

    @precondition(lambda self: self.state.reply)
    @rule(words=st.integers(0, 3), follow=chance)
    def finish(self, words: int, follow: int) -> None:
        """The reply in flight ends, whole; another NPC may answer it."""
        if words:
            self.speak(words, -2)
        reply = self.state.reply
        assert reply is not None
        around = replace(self.state.around.ambient, on=True, per_minute=60, chain=3)
        eager = replace(self.state, around=replace(self.state.around, ambient=around), seed=follow)
        following = self.director.following(eager, reply, self.sent)
        for ask in following:
            assert ask.speaker in reply.hearers
            self.happened["npc to npc"] += 1
        self.count("replied")
        self.commit(self.ended(self.state, "stop", {}, following))
        self.go_on(follow)

    @precondition(lambda self: self.state.reply and self.state.reply.hearers)
    @rule(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=3))
    def interrupt(self, lengths: list[int]) -> None:
        """Players cut the reply in flight, each where it was."""
        reply = self.state.reply
        assert reply is not None
        hear = [p.id for p in self.players() if p.id in reply.hearers]
        self.commit(self.ended(self.state, "interrupted", dict(zip(hear, lengths, strict=False))))
        self.count("cut")

    @precondition(lambda self: self.replies())
    @rule(which=chance, length=st.integers(0, 60))
    def cut_afterwards(self, which: int, length: int) -> None:
        """A player cuts a reply that was over, and still played to it."""
        said = self.one_of(self.replies(), which)
        hear = [p.id for p in self.players() if p.id in said.hearers]
        if hear:
            player = self.one_of(hear, which)
            self.account.hears_less(said.id, player, length)
            self.commit(rules.heard_less(self.state, said.id, player, length))
            self.count("cut after its end")

    @precondition(lambda self: self.may_regenerate())
    @rule(seed=chance)
    def regenerate(self, seed: int) -> None:
        """The newest reply is said anew."""
        old, turn = self.state.turns[-1], self.new_id()
        player = self.one_of([p for p in self.players() if p.id in old.hearers], seed)
        change = rules.regenerated(self.state, player, old.id, turn=turn, queue_position=0)
        self.account.begins_anew(turn, old.id)
        self.sent = ""
        self.commit(change)
        self.count("regenerated")

    @precondition(lambda self: self.state.reply)
    @rule(words=st.integers(0, 2))
    def take_over(self, words: int) -> None:
        """Another server says the reply in flight, in other words."""
        self.account.begins_again()
        self.commit(rules.taken_over(self.state))
        self.sent = ""
        self.count("taken over")
        if words:
            self.speak(words, -2)

    @precondition(lambda self: self.state.reply and not self.sent)
    @rule(ok=st.sampled_from([True, False, None]))
    def act(self, ok: bool | None) -> None:
        """The NPC does something before it speaks."""
        call, deed = self.new_id(), self.new_canary()
        self.account.does(deed)
        change = rules.action_proposed(
            self.state,
            call=call,
            name="give",
            args={"item": deed},
            confirm=False,
            now_ms=0,
            timeout_ms=10,
        )
        if ok is not None:
            settled = rules.action_settled(
                change.state, call, ok=ok, reason=f"{deed} is gone", now_ms=1, by=None
            )
            change = change.then(settled)
            if ok is False:
                self.account.refuses(deed)
        self.commit(change)
        self.count("acted")

    # What the game does

    @precondition(lambda self: self.talked)
    @rule(
        bar=st.sets(st.sampled_from(EVERYBODY)),
        stove=st.sets(st.sampled_from(EVERYBODY)),
        metres=st.lists(st.sampled_from([1.0, 9.9, 10.1, 50.0]), min_size=2, max_size=6),
        seed=chance,
    )
    def move(self, bar: set[str], stove: set[str], metres: list[float], seed: int) -> None:
        """Members stand in groups, and some of them far away."""
        groups: dict[str, tuple[str, ...]] = {}
        if seed % 4:
            groups = {
                "bar": tuple(sorted(bar & self.here())),
                "stove": tuple(sorted((stove - bar) & self.here())),
            }
        pairs = [
            (self.one_of(EVERYBODY, seed >> n), self.one_of(EVERYBODY, seed >> 2 * n + 3))
            for n in range(len(metres))
        ]
        story = self.account.story
        story.groups = {name: list(group) for name, group in groups.items()}
        story.apart = {
            frozenset(two): far for two, far in zip(pairs, metres, strict=True) if two[0] != two[1]
        }
        around = Surroundings(
            groups=groups,
            distances={pair(*sorted(two)): far for two, far in story.apart.items()},
        )
        self.commit(rules.in_scene(self.state, around))
        self.count("moved apart" if groups else "together again")
        self.count("far away" if any(far > 10 for far in story.apart.values()) else "near")

    @precondition(lambda self: self.talked or self.state.closed)
    @precondition(lambda self: len(self.here()) < len(EVERYBODY))
    @rule(who=st.sampled_from(EVERYBODY))
    def come(self, who: str) -> None:
        """Somebody comes in for the first time, or again."""
        known = self.state.member(who)
        if known is not None and known.presence == "here":
            who = next(m for m in EVERYBODY if m not in self.here())
            known = self.state.member(who)
        if who in NPCS and self.state.closed:
            return
        self.account.comes(who)
        change = Change(self.state)
        back = known is not None and known.presence == "away"
        if not back:
            change = rules.joined(self.state, member(who), 16)
        if who in PLAYERS:
            now = change.state.member(who)
            assert now is not None
            change = change.then(rules.opened(change.state, now))
        self.commit(change)
        self.count("opened again" if back else "joined")

    @precondition(lambda self: self.talked and len(self.here()) > 3)
    @rule(who=chance)
    def leave(self, who: int) -> None:
        """Somebody leaves the cast; its own reply ends."""
        npcs = self.state.npc_members()
        players = self.players()[who % 8 > 0 :]  # Seldom the last one, after whom all is silent.
        able = [*players, *(npcs if len(npcs) > 1 else ())]
        if not able:
            return
        going = self.one_of(able, who).id
        change = Change(self.state)
        if self.state.reply is not None and self.state.reply.speaker == going:
            change = self.ended(self.state, "cancelled", {})
        self.goes(going, change.state, for_good=True)
        change = change.then(rules.walked_out(change.state, going, len(self.sent)))
        self.commit(change.then(rules.left(change.state, going)))
        self.count("left")
        self.go_on(who)

    @precondition(lambda self: self.talked and len(self.players()) > 1)
    @rule(who=chance)
    def close(self, who: int) -> None:
        """A player closes the conversation for itself; a reply for it alone ends."""
        player = self.one_of(self.players(), who)
        change = Change(self.state)
        if rules.is_only_for(self.state, player):
            change = self.ended(self.state, "cancelled", {})
        self.goes(player.id, change.state, for_good=False)
        change = change.then(rules.walked_out(change.state, player.id, len(self.sent)))
        now = change.state.member(player.id) or player
        self.commit(change.then(rules.closed(change.state, now)))
        self.count("closed")
        self.go_on(who)

    @precondition(lambda self: self.talked)
    @rule(who=chance, mood=st.sampled_from(["tired", "merry", ""]))
    def game_sets(self, who: int, mood: str) -> None:
        """The game tells how an NPC is, and what holds."""
        npc = self.one_of(self.state.npc_members(), who)
        self.commit(rules.npc_set(self.state, npc.id, mood=mood, affinity=None))
        self.commit(rules.with_facts(self.state, {"weather": mood}, by_player=False))
        self.count("set")

    @precondition(lambda self: self.talked and self.state.turns)
    @rule(which=chance, back=st.booleans())
    def rewind(self, which: int, back: bool) -> None:
        """It goes back to a turn that a player heard, or on where another branch was left."""
        players = [p for p in self.state.members if p.kind == "player"]
        standing = [t for t in self.state.turns if t.replaced_by is None]
        heard = [t for t in standing if any(p.id in t.hearers for p in players)]
        branches = self.state.branches if back else ()
        if not heard and not branches:
            return
        self.commit(self.ended(self.state, "cancelled", {}))
        branch = self.new_id()
        if branches:
            target = self.one_of(branches, which)
            turns, _ = self.way_back(players[0], branch=target.id)
            went = rules.returned(self.state, target, turns, now_ms=self.numbers)
            self.account.returns(target.id)
        else:
            turn = self.one_of(heard, which)
            player = next(p for p in players if p.id in turn.hearers)
            turns, upto = self.way_back(player, to_turn=turn.id)
            went = rules.rewound(self.state, upto, turns, branch=branch, now_ms=self.numbers)
            self.account.rewinds(turn.id, branch)
        self.commit(went.then(past.reset(went.state)))
        self.count("returned" if branches else "rewound")

    @precondition(lambda self: self.talked and self.store.turns)
    @rule(which=chance)
    def redact(self, which: int) -> None:
        """The words of any turn are taken out."""
        turn = self.one_of(tuple(self.store.turns.values()), which)
        self.account.redacts(turn.id)
        self.commit(rules.redacted(self.state, turn, None))
        for index, kept in self.store.turns.items():
            if kept.id == turn.id:
                self.store.turns[index] = rules.without_words(kept)
        self.count("redacted")

    @precondition(lambda self: self.talked)
    @rule(name=st.sampled_from("AB"))
    def save(self, name: str) -> None:
        """The game is saved."""
        saved = Saved(replace(self.state, reply=None, asks=()), tuple(self.store.turns.values()))
        self.saves[name] = encode([saved])
        self.account.saves(name)
        self.count("saved")

    @precondition(lambda self: self.talked and self.saves)
    @rule(which=chance)
    def load(self, which: int) -> None:
        """A saved game is played on with."""
        name = self.one_of(sorted(self.saves), which)
        (saved,) = decode(self.saves[name])
        self.account.loads(name)
        self.store.turns = {turn.index: turn for turn in saved.turns}
        newest = rules.newest_of(saved.state.path(), rules.TURNS_IN_MEMORY)
        turns = at_once(self.store.turns_at("", "", newest))
        self.state = replace(saved.state, turns=rules.in_memory(tuple(turns)))
        self.sent = ""
        self.commit(past.reset(self.state))
        self.count("loaded")

    # What nobody may know

    @invariant()
    def nothing_leaks(self) -> None:
        """Whatever a member is given holds all that it heard in this branch, and nothing else."""
        self.happened["step"] += 1
        for each in self.state.members:
            self.check_history(each)
            if each.kind == "player" and each.presence != "gone":
                self.check_player_export(each)
        for npc in self.state.npc_members():
            self.check_prompt(npc)
        self.check_training_rows()
        self.check_director()

    def check_history(self, who: Member) -> None:
        """A page of history says what was heard, to the character."""
        turns, _ = at_once(
            past.history(cast("Any", self.store), self.state, who, before=None, limit=5_000)
        )
        told = [(turn.turn, turn.text) for turn in turns]
        self.same(told, self.account.history(who.id), f"history of {who.id}")
        done = {word for turn in turns for word in canaries(str(turn.actions))}
        self.same(done, self.account.deeds(who.id), f"deeds in the history of {who.id}")

    def check_player_export(self, who: Member) -> None:
        """What a player may carry away is what it heard in any branch, to the character."""
        pages = at_once(past.export(cast("Any", self.store), self.state, who.ref))
        told = [(turn["turn"], turn["text"]) for page in pages for turn in page["turns"]]
        self.same(told, self.account.everything(who.id), f"export of {who.id}")

    def check_prompt(self, npc: Member) -> None:
        """An NPC's prompt holds the canaries that it heard in this branch, and no others."""
        persona = library().get(npc.ref)
        prompt = at_once(self.prompter.prompt(self.brain, self.state, npc, persona))
        found = canaries("\n".join(message.text for message in prompt.messages))
        words = self.account.words(npc.id)
        self.within(words, found, f"what {npc.id} heard, and its prompt")
        self.within(found, words | self.account.deeds(npc.id), f"prompt of {npc.id}")

    def check_training_rows(self) -> None:
        """Lines to train an NPC on hold what it heard; of pairs also what it said before."""
        state = replace(
            self.state,
            turns=tuple(at_once(self.store.turns_before(self.state, self.state.next, MANY))),
        )
        for npc in self.state.npc_members():
            allowed = self.account.words(npc.id) | self.account.deeds(npc.id)
            for kind in ("sft", "preferences"):
                choice = export.Choice(cast("Any", kind), npcs=frozenset({npc.ref}), context=MANY)
                rows = list(export._rows(state, library(), {}, choice, export.Report()))
                if kind == "preferences":
                    allowed = allowed | self.account.replaced(npc.id)
                self.within(canaries(str(rows)), allowed, f"training rows of {npc.id}")
                self.happened["training rows"] += len(rows)

    def check_director(self) -> None:
        """Of the newest turn's words a director sees those that all whom it asks of have heard."""
        if not self.state.turns:
            return
        turn = self.state.turns[-1]
        npcs = [npc for npc in self.state.npc_members() if npc.id in turn.hearers]
        if len(npcs) < 2:
            return
        messages = self.director._overheard(self.state, turn, npcs, [None] * len(npcs))
        found = canaries("\n".join(message.text for message in messages))
        known = [self.account.words(npc.id) for npc in npcs]
        self.within(found, set.intersection(*known), f"what the director sees for {npcs}")
        if turn.kind != "reply" and turn.replaced_by is None:
            self.within(canaries(turn.text), found, "the newest turn, and what the director sees")
            self.happened["overheard by several"] += 1

    # What the rules above stand on

    def commit(self, change: Change) -> None:
        """Carry a change out; its events may hold what was sent to a player, and nothing else."""
        self.store.commit(self.state, change.state)
        self.state = replace(change.state, seq=self.state.seq + len(change.events))
        for item in change.events:
            for ref in item.audience:
                found = canaries(item.event.encode().decode())
                sent = self.account.sent[ref.removeprefix("key:")]
                kind = item.event.model_dump()["type"]
                self.within(found, sent, f"{kind} to {ref}")

    def way_back(self, player: Member, **where: str) -> tuple[list[Turn], int]:
        """The turns that stand after a rewind, as the server finds them."""
        command = commands.Rewind(type="rewind", id="r", conversation="c", **cast("Any", where))
        return at_once(self.stage._way_back(self.state, player, command))

    def go_on(self, seed: int) -> None:
        """Whoever is next begins to speak, if the floor is free."""
        while self.state.reply is None and self.state.asks and not self.state.closed:
            ask = self.state.asks[0]
            turn = self.state.turn(ask.answers) if ask.answers else None
            able = [n for n in self.state.npc_members() if turn is None or n.id in turn.hearers]
            if ask.speaker is None and not able:
                self.commit(rules.settling(self.state, Change(replace(self.state, asks=()))))
                return
            known = replace(ask, speaker=ask.speaker or self.one_of(able, seed).id)
            self.state = replace(self.state, asks=(known, *self.state.asks[1:]))
            assert known.speaker is not None
            if known.speaker not in self.here():
                self.commit(rules.silent(self.state, known, known.speaker, "gone"))
                continue
            reply = self.new_id()
            self.account.begins(reply, known.speaker, known.answers)
            self.sent = ""
            self.commit(
                rules.begun(self.state, known, turn=reply, queue_position=0, now_ms=self.numbers)
            )
            self.happened["answered in private"] += cast("Reply", self.state.reply).private
            if seed % 3:
                self.speak(seed % 3, seed >> 2)

    def ended(
        self,
        state: Conversation,
        finish: Any,
        heard: dict[str, int],
        following: Sequence[Ask] = (),
    ) -> Change:
        """The end of the reply in flight, if there is one."""
        if state.reply is None:
            return Change(state)
        heard = {m: n for m, n in heard.items() if m in state.reply.hearers}
        self.account.ends(heard)
        outcome = Outcome(self.sent, finish, self.numbers, heard=heard)
        self.sent = ""
        return rules.reply_done(state, outcome, following)

    def goes(self, who: str, state: Conversation, *, for_good: bool) -> None:
        """Note that somebody leaves."""
        if state.reply is not None and who in state.reply.hearers and self.sent:
            self.happened["left in mid-reply"] += 1
        self.account.goes(who, for_good=for_good)

    def words(self, count: int) -> str:
        """Something to say that was never said before."""
        between = (f" {FAMILY} ", f" caf{ACCENTED} ", ", ")
        return "".join(f"{self.new_canary()}{between[n % 3]}" for n in range(count))

    def new_canary(self) -> str:
        self.numbers += 1
        return canary(self.numbers)

    def new_id(self) -> str:
        self.numbers += 1
        return f"id-{self.numbers}"

    def here(self) -> set[str]:
        return {m.id for m in self.state.here()}

    def players(self) -> list[Member]:
        return [m for m in self.state.here() if m.kind == "player"]

    def replies(self) -> list[Turn]:
        return [turn for turn in self.state.turns if turn.kind == "reply"]

    def idle(self) -> bool:
        return self.state.reply is None and not self.state.asks

    def may_regenerate(self) -> bool:
        """Whether the newest turn is a reply that somebody who is here may have said anew."""
        if not self.state.turns or self.state.closed or not self.idle():
            return False
        newest = self.state.turns[-1]
        heard = any(p.id in newest.hearers for p in self.players())
        standing = newest.kind == "reply" and newest.replaced_by is None
        return heard and standing and newest.speaker in self.here()

    def one_of(self, things: Sequence[T], seed: int) -> T:
        return things[seed % len(things)]

    def count(self, kind: str) -> None:
        self.happened[kind] += 1
        self.talked = kind in TALK

    def same(self, found: object, wanted: object, where: str) -> None:
        if found != wanted:
            raise Leak(f"{where}: {found} instead of {wanted}")

    def within(self, found: set[str], allowed: set[str], where: str) -> None:
        if not found <= allowed:
            raise Leak(f"{where}: {found - allowed}")


def member(name: str) -> Member:
    """A player or an NPC as it comes in."""
    if name in PLAYERS:
        return Member(name, "player", PLAYERS[name], f"key:{name}")
    return Member(name, "npc", NPCS[name], name)


@lru_cache
def library() -> Library:
    """The personas that come with the server."""
    found = Library([builtin_personas()])
    found.load()
    return found


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that has nothing to wait for."""
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    raise RuntimeError("it waits for something")
