"""Nobody is told what it did not hear: three players, four NPCs and a game, over real sockets."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from random import Random
from typing import Any

from leak_account import Account, canaries, canary
from support import Json, Start

from npc_server.app import App
from npc_server.client import Client, session
from npc_server.config import Quota
from npc_server.engines.scripted import ScriptedEngine

STEPS = 150
PLAYERS = ("ana", "ben", "cho")
NPCS = ("bram", "marta", "pip", "ysolde")
EVERYBODY = (*PLAYERS, *NPCS)
RICH = Quota(tokens_per_minute=100_000_000, replies_at_once=100, conversations_per_hour=1_000)


def replies() -> list[str]:
    """What the NPCs say: no two begin alike, and each word of note comes once."""
    numbers = iter(range(500_000, 600_000))
    return [
        " ".join(f"{canary(next(numbers))} is word {n} of line {line}." for n in range(4))
        for line in range(400)
    ]


SCRIPT: Json = {
    "context": 60_000,
    "rules": [{"choose": {"A": 5, "B": 4, "C": 3}}, {"reply": replies(), "piece_ms": 4}],
}


class Listener:
    """A session, all that it was told, and the answers that it waits for.

    Args:
        client: The session.
        told: Is given each event as it comes.
    """

    def __init__(self, client: Client, told: Callable[[Json], None]) -> None:
        self.client = client
        self.told = told
        self.answers: dict[str, asyncio.Future[Json]] = {}
        self.early: dict[str, Json] = {}

    async def read(self) -> None:
        """Take in events until the connection ends."""
        while True:
            event = await self.client.receive()
            self.told(event)
            answer = event.get("re") if event["type"] != "turn" else None
            if answer in self.answers:
                self.answers.pop(answer).set_result(event)
            elif answer is not None:
                self.early[answer] = event

    async def ask(self, type_: str, **fields: Any) -> Json:
        """Send a command and wait for its answer, which may be an error."""
        command = await self.client.send(type_, **fields)
        return await self.answer(command)

    async def answer(self, command: str) -> Json:
        """The answer to a command that was sent."""
        if command in self.early:
            return self.early.pop(command)
        self.answers[command] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(20):
            return await self.answers[command]


class Walk:
    """A random walk through what players and a game may do.

    The host is told everything, in the order in which it took place: from its events and from what
    was sent the account is kept. What the others are told is held against it.
    """

    def __init__(self, app: App, seed: int) -> None:
        assert isinstance(app.engine, ScriptedEngine)
        self.engine = app.engine
        self.account = Account(PLAYERS, NPCS)
        self.chance = Random(seed)
        self.sessions: dict[str, Listener] = {}
        self.frames: list[tuple[str, Json]] = []
        self.said: dict[str, Callable[[Json], None]] = {}
        self.turning: Callable[[Json], None] | None = None
        self.moving: tuple[dict[str, list[str]], dict[frozenset[str], float]] = ({}, {})
        self.may_know: dict[str, set[str]] = {npc: set() for npc in NPCS}
        self.requests = 0
        self.number = 0
        self.conversation = ""
        self.invite = ""
        self.over = asyncio.Event()
        self.happened: Counter[str] = Counter()

    # What was told

    def was_told(self, who: str, event: Json) -> None:
        """Note what a player was told."""
        self.frames.append((who, event))

    def host_was_told(self, event: Json) -> None:
        """Keep the account, event by event."""
        handler = getattr(self, "on_" + event["type"].replace(".", "_"), None)
        if handler is not None:
            handler(event)

    def on_turn(self, event: Json) -> None:
        self.said.pop(event["re"])(event)

    def on_reply_started(self, event: Json) -> None:
        npc = event["speaker"]
        self.over.clear()
        if event.get("replaces"):
            self.account.begins_anew(event["turn"], event["replaces"])
        else:
            self.account.begins(event["turn"], npc, event.get("answers"))
        self.may_know[npc] |= self.account.words(npc)
        live = self.account.story.live
        assert live is not None
        self.happened["private replies"] += live.private

    def on_reply_delta(self, event: Json) -> None:
        self.account.speaks(event["text"])

    def on_reply_done(self, event: Json) -> None:
        live = self.account.story.live
        assert live is not None
        assert live.text == event["text"]
        self.account.ends({})
        self.over.set()
        self.happened[f"reply {event['finish']}"] += 1

    def on_reply_heard(self, event: Json) -> None:
        self.account.hears_less(event["turn"], event["member"], event["heard"])
        self.happened["heard less"] += 1

    def on_cast_changed(self, event: Json) -> None:
        who = event["member"]["member"]
        live = self.account.story.live
        if event["change"] == "joined":
            self.account.comes(who)
        else:
            self.happened["left in mid-reply"] += live is not None and bool(live.text)
            self.account.goes(who, for_good=not event["member"].get("away"))
        self.happened[event["change"]] += 1

    def on_scene_changed(self, event: Json) -> None:
        self.account.story.groups, self.account.story.apart = self.moving

    def on_conversation_reset(self, event: Json) -> None:
        """Each player is told; the first of these is when it takes place."""
        if self.turning is not None:
            self.turning(event)
            self.turning = None
            self.over.set()

    # What is done

    async def step(self) -> None:
        """Do something, and hold all that came of it against the account."""
        deeds = (
            [self.say] * 6 + [self.wait] * 3 + [self.interrupt] * 2 + [self.close, self.open] * 2
        )
        deeds += [self.event, self.move, self.come, self.leave, self.regenerate, self.look]
        deeds += [self.rewind, self.save, self.load, self.redact]
        deed = self.chance.choice(deeds)
        await deed()
        await self.pause()
        self.check()

    async def say(self) -> None:
        who = self.chance.choice(PLAYERS)
        others = [m for m in self.some() if m != who]
        how = self.chance.choice(["aloud", "to", "whisper", "hearers"] if others else ["aloud"])
        text = f"{self.new_canary()}, is it not?"
        by = self.sessions[who]
        fields: Json = {}
        if how == "hearers":
            by, fields = self.sessions["game"], {"hearers": others, "player": who}
        elif how != "aloud":
            fields = {"to": others, "whisper": how == "whisper"}
        whisper_to = others if how == "whisper" else None

        def told(event: Json) -> None:
            also = {*others, *event["to"]} if how == "hearers" else ()
            self.account.said(event["turn"], who, text, whisper_to=whisper_to, hearers=also)
            self.happened[how] += 1

        await self.tell(by, "say", told, text=text, **fields)

    async def event(self) -> None:
        hearers = self.some() if self.chance.random() < 0.5 else []
        text = f"There is {self.new_canary()}."

        def told(event: Json) -> None:
            self.account.happened(event["turn"], text, hearers)
            self.happened["event"] += 1

        respond = self.chance.choice(["auto", "must", "never"])
        host = self.sessions["game"]
        await self.tell(host, "event", told, text=text, hearers=hearers, respond=respond)

    async def tell(
        self, by: Listener, type_: str, told: Callable[[Json], None], **fields: Any
    ) -> None:
        """Send what becomes a turn; what it means is noted when it does."""
        command = await by.client.send(type_, conversation=self.conversation, **fields)
        self.said[command] = told
        if (await by.answer(command))["type"] == "error":
            del self.said[command]
            self.happened["refused"] += 1

    async def interrupt(self) -> None:
        who = self.sessions[self.chance.choice(PLAYERS)]
        length = self.chance.randrange(60)
        await who.ask("interrupt", conversation=self.conversation, heard_chars=length)

    async def regenerate(self) -> None:
        await self.rest()
        path = self.account.story.path
        if path and path[-1].speaker in NPCS:
            await self.game("regenerate", turn=path[-1].turn, player=self.chance.choice(PLAYERS))

    async def move(self) -> None:
        story = self.account.story
        groups: dict[str, list[str]] = {}
        if self.chance.random() < 0.7:
            groups = {"bar": [], "stove": [], "door": []}
            for who in sorted(story.here):
                groups[self.chance.choice(["bar", "bar", "stove", "door"])].append(who)
        one, other = self.chance.sample(EVERYBODY, 2)
        metres = self.chance.choice([3.0, 30.0])
        self.moving = (groups, {frozenset((one, other)): metres})
        await self.game("scene.set", groups=groups, distances={one: {other: metres}})
        self.happened["moved"] += 1

    async def come(self) -> None:
        absent = [m for m in EVERYBODY if m not in self.account.story.here]
        if absent:
            who = self.chance.choice(absent)
            await self.game("conversation.join", **{"npc" if who in NPCS else "player": who})

    async def leave(self) -> None:
        await self.game("conversation.leave", member=self.chance.choice(EVERYBODY))

    async def close(self) -> None:
        if len(self.account.story.here & set(PLAYERS)) > 1:
            who = self.sessions[self.chance.choice(PLAYERS)]
            await who.ask("conversation.close", conversation=self.conversation)

    async def open(self) -> None:
        await self.opens(self.chance.choice(PLAYERS))

    async def opens(self, who: str) -> None:
        by = self.sessions[who]
        opened = await by.ask(
            "conversation.open", conversation=self.conversation, invite=self.invite, since=0
        )
        self.happened[opened["type"]] += 1

    async def rewind(self) -> None:
        story = self.account.story
        if story.branches and self.chance.random() < 0.5:
            branch = self.chance.choice(sorted(story.branches))
            self.turning = lambda event: self.account.returns(branch)
            await self.turn_back("rewind", branch=branch)
            return
        heard = [u for u in story.path if "ana" in u.hearers]
        if heard:
            turn = self.chance.choice(heard[-8:]).turn
            self.turning = lambda event: self.account.rewinds(turn, event["branch"])
            await self.turn_back("rewind", to_turn=turn, player="ana")

    async def save(self) -> None:
        await self.rest()
        saved = await self.sessions["game"].ask("checkpoint.save", name="quick")
        assert saved["type"] == "checkpoint.saved"
        self.account.saves("quick")
        self.happened["saved"] += 1

    async def load(self) -> None:
        if self.happened["saved"]:
            self.turning = self.loaded
            loaded = await self.sessions["game"].ask("checkpoint.load", name="quick")
            assert loaded["type"] == "checkpoint.loaded"
            self.happened["loaded"] += 1

    def loaded(self, event: Json) -> None:
        self.account.loads("quick")
        for player in PLAYERS:  # What was redacted since the save is back.
            for _, text in self.account.everything(player):
                self.account.sent[player] |= canaries(text)

    async def turn_back(self, type_: str, **fields: Any) -> None:
        answer = await self.game(type_, **fields)
        self.happened[f"{type_} {answer['type']}"] += 1
        await self.pause()
        self.turning = None

    async def redact(self) -> None:
        await self.rest()
        if not self.account.story.kept:
            return
        turn = self.chance.choice(self.account.story.kept)
        words = canaries(turn.text)
        answer = await self.game("turn.redact", turn=turn.turn)
        assert answer["type"] == "ack"
        self.account.redacts(turn.turn)
        for player in PLAYERS:
            self.account.sent[player] -= words
        self.happened["redacted"] += 1

    async def wait(self) -> None:
        await asyncio.sleep(self.chance.random() / 10)

    async def look(self) -> None:
        """What players may look up is what they heard, to the character."""
        await self.rest()
        for who in sorted(self.account.story.here & set(PLAYERS)):
            by = self.sessions[who]
            page = await by.ask("history.get", conversation=self.conversation, limit=200)
            told = [(turn["turn"], turn["text"]) for turn in page["turns"]]
            assert told == self.account.history(who)
            carried = await by.ask("player.export")
            told = [(turn["turn"], turn["text"]) for turn in carried["data"]["turns"]]
            assert told == self.account.everything(who)[: len(told)]
            self.happened["looked up"] += len(told)

    async def game(self, type_: str, **fields: Any) -> Json:
        """The host's command about the conversation; its answer may be an error."""
        return await self.sessions["game"].ask(type_, conversation=self.conversation, **fields)

    async def rest(self) -> None:
        """Wait until nobody speaks, and nobody is about to."""
        async with asyncio.timeout(20):
            await self.game("conversation.set", hold=True)
            while self.account.story.live is not None:
                await self.over.wait()
            await self.pause()
            await self.game("conversation.set", hold=False)

    async def pause(self) -> None:
        """Wait until everybody was told what took place by now."""
        for each in ("game", *PLAYERS):
            await self.sessions[each].ask("ping")

    # What must hold

    def check(self) -> None:
        """No frame to a player, and no prompt of an NPC, holds what it did not hear."""
        for who, frame in self.frames:
            leaked = canaries(str(frame)) - self.account.sent[who]
            assert not leaked, f"{who} was told {leaked} with {frame}"
            self.happened["canaries told"] += len(canaries(str(frame)))
        self.frames.clear()
        asked, self.engine.requests = list(self.engine.requests), type(self.engine.requests)()
        for request in asked:
            npc = request.affinity.rpartition("/")[2]
            found = canaries("\n".join(message.text for message in request.messages))
            leaked = found - self.may_know[npc]
            assert not leaked, f"{npc} was asked with {leaked}"
            self.happened["canaries in prompts"] += len(found)
        speaking = self.account.story.live
        for npc in NPCS:
            if speaking is None or speaking.speaker != npc:
                self.may_know[npc].clear()

    def some(self) -> list[str]:
        here = sorted(self.account.story.here)
        return self.chance.sample(here, self.chance.randint(1, min(3, len(here))))

    def new_canary(self) -> str:
        self.number += 1
        return canary(self.number)


@asynccontextmanager
async def walking(app: App, seed: int) -> AsyncIterator[Walk]:
    """A walk whose host and players are connected and have the conversation open."""
    walk = Walk(app, seed)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        readers = []
        for who in ("game", *PLAYERS):
            role = "player" if who in PLAYERS else None
            client = await stack.enter_async_context(session(app.address, player=who, role=role))
            if who == "game":
                listener = Listener(client, walk.host_was_told)
            else:
                listener = Listener(client, partial(walk.was_told, who))
            walk.sessions[who] = listener
            readers.append(group.create_task(listener.read()))
        opened = await walk.sessions["game"].ask(
            "conversation.open", npcs=list(NPCS), greet="never", player={"id": "ana"}
        )
        walk.conversation, walk.invite = opened["conversation"], opened["invite"]
        walk.account.story.here |= {"ana", *NPCS}
        for who in PLAYERS:
            await walk.opens(who)
        yield walk
        for reader in readers:
            reader.cancel()


async def test_nobody_is_told_what_it_did_not_hear(start: Start) -> None:
    """150 random steps: every frame to every player and every prompt hold what was heard."""
    async with start(SCRIPT, player_quota=RICH, key_quota=RICH) as app, walking(app, 7) as walk:
        for _ in range(STEPS):
            await walk.step()
        await walk.look()
        happened = walk.happened
    for kind in (
        *("aloud", "to", "whisper", "hearers", "event", "moved", "joined", "left", "heard less"),
        *("reply stop", "reply interrupted", "private replies", "left in mid-reply", "looked up"),
        *("rewind ack", "saved", "loaded", "redacted", "conversation.opened"),
        *("canaries told", "canaries in prompts"),
    ):
        assert happened[kind], f"{kind} never happened: {happened}"
