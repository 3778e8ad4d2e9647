"""Conversations in Redis: a change is committed whole or not at all, in one round trip."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import orjson

from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Turn
from npc_server.store import records
from npc_server.store.checkpoints import Checkpoints, Saved
from npc_server.store.connect import Client, Link
from npc_server.store.keys import (
    ANSWER_SECONDS,
    ConversationKeys,
    player_consent,
    player_index,
    saved_session,
    session_answer,
)
from npc_server.store.records import Consent, Partial, SavedSession
from npc_server.store.script import Script
from npc_server.store.wakes import Wakes, waking
from npc_server.store.worlds import WorldIndex

TURNS_KEPT = 5_000
EVENTS_KEPT = 256
"""A session that comes back is told of 200 at most; older ones are in the transcript."""

TURNS_LOADED = rules.TURNS_IN_MEMORY + rules.TURNS_DROPPED
LEASE_MS = 3_000
"""A server that speaks renews it every second."""

LISTENING_MS = 2_000
"""A server whose players listen to what another one says notes so twice a second."""

REWRITE_SECONDS = 10


class RevisionConflict(Exception):
    """Somebody else committed first."""


class Fenced(Exception):
    """The lease was lost: another server owns the reply, or ended it."""


class Owned(Exception):
    """Another server holds the lease.

    Args:
        retry_after_ms: When it lapses unless it is renewed.
    """

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__(f"another server holds the lease for {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Durable:
    """An event to be kept: JSON without ``seq``, and the namespaced ids of who may have it."""

    event: bytes
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it was kept."""

    seq: int
    audience: tuple[str, ...]
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a command, remembered for its player and id."""

    player: str
    command: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Committed:
    """A commit that took place: the new revision, the newest seq, the number of the lease."""

    revision: int
    seq: int
    fence: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """The command was carried out before; this was its answer."""

    body: bytes


class Store:
    """Conversations in a Redis.

    Every method raises ``StoreUnavailable`` where Redis does not answer or refuses to write.

    Args:
        link: A way to it.
        owner: Who holds the leases that are taken: this server.
        retention_ms: How long an unused conversation is kept; 0 is for ever.
        own: Whether the Redis is our own, so that its file may be rewritten.
        replicas: Whether other servers may use it, which are woken then by what is done here.
    """

    def __init__(
        self, link: Link, *, owner: str, retention_ms: int, own: bool, replicas: bool
    ) -> None:
        self._link = link
        self._owner = owner
        self._retention_ms = retention_ms
        self._own = own
        self._replicas = replicas
        self._worlds = WorldIndex(link, retention_ms)
        self._commit = Script("commit")
        self._hold = Script("hold")
        self._load = Script("load")
        self._delete = Script("delete")
        self.checkpoints = Checkpoints(link)

    @property
    def shared(self) -> bool:
        """Whether other servers may use the same Redis."""
        return self._replicas

    async def ping(self) -> None:
        """Ask whether Redis answers, every primary of a Cluster."""
        await self._link.ping()

    async def load(self, world: str, conversation: str) -> Conversation | None:
        """A conversation with its newest turns, or ``None``; one round trip.

        Raises:
            NewerRecord: A newer server wrote it.
        """
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            found = await self._load(client, (keys.state, keys.turns), (TURNS_LOADED,))
        if not found:
            return None
        raw, revision, seq, turns = found
        return records.decode_conversation(
            raw,
            revision=int(revision),
            seq=int(seq),
            turns=rules.in_memory(tuple(records.decode_turn(t) for t in reversed(turns))),
        )

    async def commit(
        self,
        after: Conversation,
        *,
        before: Conversation | None,
        events: Sequence[Durable] = (),
        answer: Answer | None = None,
        take_lease: bool = False,
        seize_lease: bool = False,
        release_lease: bool = False,
        fence: int | None = None,
    ) -> Committed | Repeated:
        """Commit a change, whole or not at all; one round trip, and one more for the first.

        Args:
            after: The new state.
            before: The state that it was made from; ``None`` where there was none.
            events: What tells of it; they get the next numbers.
            answer: The command's answer, to be given again if the command comes again.
            take_lease: Begin a reply: nobody else may until it is released or lapses.
            seize_lease: The same, and from whoever has it: this cuts the reply that another server
                speaks. That one is fenced then, and what was kept of its text is gone.
            release_lease: The reply has ended.
            fence: The number of the lease under which this is done.

        Raises:
            RevisionConflict: The stored state is another one than ``before``.
            Fenced: The lease is not ours any more.
            Owned: The lease was to be taken, not seized, and is another server's.
        """
        if before is None:
            await self._worlds.note(after.world, after.id)
        keys = ConversationKeys.of(after.world, after.id)
        known = {turn.index: turn for turn in before.turns} if before else {}
        turns = [turn for turn in after.turns if known.get(turn.index) is not turn]
        names = [*keys.fixed(), *([keys.answer(answer.player, answer.command)] if answer else [])]
        arguments: list[bytes | str | int] = [
            before.revision if before else 0,
            records.encode_conversation(after),
            self._retention_ms,
            self._owner,
            2 if seize_lease else int(take_lease),
            int(release_lease),
            LEASE_MS,
            "" if fence is None else fence,
            TURNS_KEPT,
            EVENTS_KEPT,
            answer.body if answer else b"",
            ANSWER_SECONDS * 1_000,
            secrets.token_hex(8),
            orjson.dumps({"inherited": after.inherited, "first": after.first}),
            self._channel(keys),
            len(turns),
        ]
        for turn in turns:
            arguments += [turn.index, records.encode_turn(turn)]
        arguments.append(len(events))
        for event in events:
            arguments += [orjson.dumps(event.audience), event.event]
        async with self._link.use() as client:
            kind, *found = await self._commit(client, names, arguments)
        match kind:
            case b"done":
                return Committed(*(int(number) for number in found))
            case b"repeated":
                return Repeated(found[0])
            case b"owned":
                raise Owned(int(found[0]))
            case b"fenced":
                raise Fenced(f"the lease is number {int(found[0])} by now")
        raise RevisionConflict(f"the stored revision is {int(found[0])}")

    async def answer(self, world: str, conversation: str, answer: Answer) -> bytes | None:
        """The first answer of a command that was carried out before."""
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            found = await client.get(keys.answer(answer.player, answer.command))
        return _bytes(found)

    async def events_after(
        self, world: str, conversation: str, seq: int, limit: int
    ) -> list[StoredEvent]:
        """The newest durable events after a number, oldest first."""
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            entries: Any = await client.xrevrange(keys.events, "+", f"{seq + 1}-0", count=limit)
        return [
            StoredEvent(
                seq=int(name.split(b"-")[0]),
                audience=tuple(orjson.loads(fields[b"audience"])),
                event=orjson.loads(fields[b"event"]),
            )
            for name, fields in reversed(entries)
        ]

    async def turns_at(self, world: str, conversation: str, indices: Sequence[int]) -> list[Turn]:
        """The turns of some indices, in their order, as far as they are kept."""
        if not indices:
            return []
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            found: Any = await client.hmget(keys.turns, [str(n) for n in indices])
        return [records.decode_turn(raw) for raw in found if raw is not None]

    async def turns_before(self, state: Conversation, index: int, limit: int) -> list[Turn]:
        """At most ``limit`` turns of this branch before an index, oldest first, as far as kept."""
        wanted = rules.newest_of(state.path(), min(limit, TURNS_KEPT), before=index)
        return await self.turns_at(state.world, state.id, wanted)

    async def redact(self, state: Conversation, turns: Sequence[Turn], turn: str) -> None:
        """Write turns anew of which the words were taken out, and drop the events that held them.

        Args:
            state: The conversation.
            turns: As they are to be kept.
            turn: Their id.
        """
        keys = ConversationKeys.of(state.world, state.id)
        async with self._link.use() as client:
            entries: Any = await client.xrange(keys.events)
            held = [
                name
                for name, fields in entries
                if _holds_words_of(turn, orjson.loads(fields[b"event"]))
            ]
            async with client.pipeline(transaction=True) as pipe:
                for each in turns:
                    pipe.hset(keys.turns, str(each.index), records.encode_turn(each))
                if held:
                    pipe.xdel(keys.events, *held)
                await pipe.execute()

    async def renew(self, world: str, conversation: str, fence: int) -> None:
        """Hold the lease for longer.

        Raises:
            Fenced: It is not ours any more.
        """
        await self._keep(world, conversation, fence, b"")

    async def flush_partial(
        self, world: str, conversation: str, partial: Partial, fence: int
    ) -> None:
        """Keep the text so far of a reply, for whoever has to end it; renews the lease.

        Raises:
            Fenced: The lease is not ours any more.
        """
        await self._keep(world, conversation, fence, records.encode_partial(partial))

    async def partial(self, world: str, conversation: str) -> Partial | None:
        """What was kept of the reply in flight."""
        async with self._link.use() as client:
            raw = _bytes(await client.get(ConversationKeys.of(world, conversation).partial))
        return None if raw is None else records.decode_partial(raw)

    async def restore(self, saved: Saved, events: Sequence[Durable]) -> None:
        """Put a conversation back as it was saved; see ``Checkpoints.restore``."""
        await self._worlds.note(saved.state.world, saved.state.id)
        told = [(event.audience, event.event) for event in events]
        await self.checkpoints.restore(
            saved,
            told,
            retention_ms=self._retention_ms,
            channel=self._channel(ConversationKeys.of(saved.state.world, saved.state.id)),
            owner=self._owner,
        )

    def wakes(self) -> AbstractAsyncContextManager[Wakes]:
        """What other servers do to conversations, as long as the context lasts."""
        return waking(self._link, self._owner)

    async def index_player(self, world: str, player: str, conversation: str) -> None:
        """Note that a player is in a conversation, so that it can be found by the player."""
        key = player_index(world, player)
        async with self._link.use() as client, client.pipeline(transaction=True) as pipe:
            pipe.sadd(key, conversation)
            if self._retention_ms:
                pipe.pexpire(key, self._retention_ms)
            await pipe.execute()

    async def conversations_of(self, world: str, player: str) -> list[str]:
        """The conversations of a player in a world."""
        async with self._link.use() as client:
            found: Any = await client.smembers(player_index(world, player))
        return sorted(name.decode() for name in found)

    async def conversations(self, world: str) -> list[str]:
        """The ids of every conversation of a world, sorted; the server goes on meanwhile."""
        return sorted(await self._worlds.listed(world))

    async def set_consent(self, world: str, player: str, consent: Consent | None) -> None:
        """Note what a player allows from now on. Where it did before, it did so since then."""
        key = player_consent(world, player)
        async with self._link.use() as client:
            if consent is None:
                await client.delete(key)
                return
            async with client.pipeline(transaction=True) as pipe:
                pipe.set(key, records.encode_consent(consent), nx=True)
                if self._retention_ms:
                    pipe.pexpire(key, self._retention_ms)
                else:
                    pipe.persist(key)
                await pipe.execute()

    async def consent(self, world: str, player: str) -> Consent | None:
        """What a player allows now; ``None`` is nothing."""
        async with self._link.use() as client:
            raw = _bytes(await client.get(player_consent(world, player)))
        return None if raw is None else records.decode_consent(raw)

    async def keep_session(
        self, token: str, session: SavedSession, life_ms: int, *, anew: bool
    ) -> bool:
        """Keep what a session goes on with, for whoever comes with the token in time.

        Args:
            token: The secret.
            session: What is kept.
            life_ms: For how long.
            anew: Whether the token is a new one; else it must not have been taken up yet.

        Returns:
            Whether it is kept.
        """
        async with self._link.use() as client:
            kept = await client.set(
                saved_session(token), records.encode_session(session), px=life_ms, xx=not anew
            )
        return bool(kept)

    async def take_session(self, token: str) -> SavedSession | None:
        """What was kept under a token, once: it is gone then.

        Raises:
            NewerRecord: A newer server wrote it.
        """
        async with self._link.use() as client:
            raw = _bytes(await client.getdel(saved_session(token)))
        return None if raw is None else records.decode_session(raw)

    async def keep_session_answer(self, session: str, command: str, body: bytes) -> None:
        """Keep the answer of a command that concerns no single conversation."""
        async with self._link.use() as client:
            await client.set(session_answer(session, command), body, ex=ANSWER_SECONDS)

    async def session_answer(self, session: str, command: str) -> bytes | None:
        """The first answer of such a command, if it was carried out before."""
        async with self._link.use() as client:
            return _bytes(await client.get(session_answer(session, command)))

    async def delete_conversation(self, world: str, conversation: str) -> None:
        """Delete every key of a conversation, and tell other servers that it is gone."""
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            await self._delete(client, keys.fixed(), (self._channel(keys), self._owner))
        await self._worlds.forget(world, conversation)

    async def note_listeners(self, world: str, conversation: str) -> None:
        """Note for a moment that players listen here to what another server says."""
        key = ConversationKeys.of(world, conversation).listening
        async with self._link.use() as client:
            await client.set(key, self._owner, px=LISTENING_MS)

    async def has_listeners(self, world: str, conversation: str) -> bool:
        """Whether players listen at another server to what this one says."""
        key = ConversationKeys.of(world, conversation).listening
        async with self._link.use() as client:
            return bool(await client.exists(key))

    async def forget_player(self, world: str, player: str) -> None:
        """Delete a player's index and consent, and rewrite the file of a Redis of our own.

        Then no deleted text is left in it. The operator of another Redis decides when it is
        rewritten.
        """
        async with self._link.use() as client:
            await client.delete(player_index(world, player), player_consent(world, player))
            if self._own:
                # A rewrite that runs already may have read what was deleted since.
                await _rewritten(client)
                await client.bgrewriteaof()
                await _rewritten(client)

    def _channel(self, keys: ConversationKeys) -> str:
        return keys.wakes if self._replicas else ""

    async def _keep(self, world: str, conversation: str, fence: int, partial: bytes) -> None:
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            held = await self._hold(
                client,
                (keys.state, keys.partial),
                (
                    fence,
                    LEASE_MS,
                    partial,
                    self._retention_ms,
                    self._owner,
                    self._channel(keys),
                ),
            )
        if not held:
            raise Fenced("the lease was lost")


def _holds_words_of(turn: str, event: dict[str, Any]) -> bool:
    """Whether an event tells what was said in a turn; one that tells the newest turns may."""
    if event["type"] == "conversation.reset":
        return any(each["turn"] == turn for each in event["tail"])
    return event.get("turn") == turn and event["type"] in {"turn", "reply.done", "reply.action"}


def _bytes(found: Any) -> bytes | None:
    return found if isinstance(found, bytes) else None


async def _rewritten(client: Client) -> None:
    async with asyncio.timeout(REWRITE_SECONDS):
        while True:
            about = await client.info("persistence")
            if not (about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]):
                return
            await asyncio.sleep(0.02)
