"""Conversations in Redis: a change is committed whole or not at all, in one round trip."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any
from urllib.parse import unquote

import orjson
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Turn
from npc_server.errors import SetupError
from npc_server.store import records
from npc_server.store.checkpoints import Checkpoints, Saved
from npc_server.store.connect import check_version, connect, translated
from npc_server.store.embedded import EmbeddedRedis, FolderInUse
from npc_server.store.keys import (
    ANSWER_SECONDS,
    ConversationKeys,
    player_consent,
    player_index,
    states_of,
)
from npc_server.store.records import Consent, Partial

TURNS_KEPT = 5_000
EVENTS_KEPT = 256
"""A session that comes back is told of 200 at most; older ones are in the transcript."""

TURNS_LOADED = rules.TURNS_IN_MEMORY + rules.TURNS_DROPPED
LEASE_MS = 10_000
REWRITE_SECONDS = 10
SCAN_KEYS = 1_000


class RevisionConflict(Exception):
    """Somebody else committed first."""


class Fenced(Exception):
    """The lease was lost: another server owns the reply."""


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
        client: A connected client.
        owner: Who holds the leases that are taken: this server.
        retention_ms: How long an unused conversation is kept; 0 is for ever.
        own: Whether the Redis is our own, so that its file may be rewritten.
    """

    def __init__(self, client: Redis, *, owner: str, retention_ms: int, own: bool) -> None:
        self._client = client
        self._owner = owner
        self._retention_ms = retention_ms
        self._own = own
        self._commit = _script(client, "commit")
        self._hold = _script(client, "hold")
        self._load = _script(client, "load")
        self.checkpoints = Checkpoints(client)

    async def ping(self) -> None:
        """Ask whether Redis answers."""
        with translated():
            await self._client.ping()

    async def load(self, world: str, conversation: str) -> Conversation | None:
        """A conversation with its newest turns, or ``None``; one round trip.

        Raises:
            NewerRecord: A newer server wrote it.
        """
        keys = ConversationKeys.of(world, conversation)
        with translated():
            found = await self._load(keys=(keys.state, keys.turns), args=(TURNS_LOADED,))
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
        elsewhere: Sequence[Turn] = (),
        events: Sequence[Durable] = (),
        answer: Answer | None = None,
        take_lease: bool = False,
        release_lease: bool = False,
        fence: int | None = None,
    ) -> Committed | Repeated:
        """Commit a change, whole or not at all; one round trip.

        Args:
            after: The new state.
            before: The state that it was made from; ``None`` where there was none.
            elsewhere: New turns that are not of its branch.
            events: What tells of it; they get the next numbers.
            answer: The command's answer, to be given again if the command comes again.
            take_lease: Begin a reply: nobody else may until it is released or lapses.
            release_lease: The reply has ended.
            fence: The number of the lease under which this is done.

        Raises:
            RevisionConflict: The stored state is another one than ``before``.
            Fenced: The lease is not ours any more.
            Owned: The lease was to be taken and is another server's.
        """
        keys = ConversationKeys.of(after.world, after.id)
        known = {turn.index: turn for turn in before.turns} if before else {}
        turns = [turn for turn in after.turns if known.get(turn.index) is not turn]
        turns += elsewhere
        names = [*keys.fixed(), *([keys.answer(answer.player, answer.command)] if answer else [])]
        arguments: list[bytes | str | int] = [
            before.revision if before else 0,
            records.encode_conversation(after),
            self._retention_ms,
            self._owner,
            int(take_lease),
            int(release_lease),
            LEASE_MS,
            "" if fence is None else fence,
            TURNS_KEPT,
            EVENTS_KEPT,
            answer.body if answer else b"",
            ANSWER_SECONDS * 1_000,
            secrets.token_hex(8),
            orjson.dumps({"inherited": after.inherited, "first": after.first}),
            len(turns),
        ]
        for turn in turns:
            arguments += [turn.index, records.encode_turn(turn)]
        arguments.append(len(events))
        for event in events:
            arguments += [orjson.dumps(event.audience), event.event]
        with translated():
            kind, *found = await self._commit(keys=names, args=arguments)
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
        with translated():
            found = await self._client.get(keys.answer(answer.player, answer.command))
        return _bytes(found)

    async def events_after(
        self, world: str, conversation: str, seq: int, limit: int
    ) -> list[StoredEvent]:
        """The newest durable events after a number, oldest first."""
        keys = ConversationKeys.of(world, conversation)
        with translated():
            entries: Any = await self._client.xrevrange(
                keys.events, "+", f"{seq + 1}-0", count=limit
            )
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
        with translated():
            found: Any = await self._client.hmget(keys.turns, [str(n) for n in indices])
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
        with translated():
            entries: Any = await self._client.xrange(keys.events)
            held = [
                name for name, fields in entries if _holds(orjson.loads(fields[b"event"]), turn)
            ]
            async with self._client.pipeline(transaction=True) as pipe:
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
        with translated():
            raw = _bytes(await self._client.get(ConversationKeys.of(world, conversation).partial))
        return None if raw is None else records.decode_partial(raw)

    async def restore(self, saved: Saved, events: Sequence[Durable]) -> None:
        """Put a conversation back as it was saved; see ``Checkpoints.restore``."""
        told = [(event.audience, event.event) for event in events]
        await self.checkpoints.restore(saved, told, self._retention_ms)

    async def index_player(self, world: str, player: str, conversation: str) -> None:
        """Note that a player is in a conversation, so that it can be found by the player."""
        key = player_index(world, player)
        with translated():
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.sadd(key, conversation)
                if self._retention_ms:
                    pipe.pexpire(key, self._retention_ms)
                await pipe.execute()

    async def conversations_of(self, world: str, player: str) -> list[str]:
        """The conversations of a player in a world."""
        with translated():
            found: Any = await self._client.smembers(player_index(world, player))
        return sorted(name.decode() for name in found)

    async def conversations(self, world: str) -> list[str]:
        """The ids of every conversation of a world, sorted; the server goes on meanwhile."""
        begin, end = states_of(world)
        found: set[str] = set()
        with translated():
            async for key in self._client.scan_iter(match=f"{begin}*{end}", count=SCAN_KEYS):
                found.add(unquote(key.decode().removeprefix(begin).removesuffix(end)))
        return sorted(found)

    async def set_consent(self, world: str, player: str, consent: Consent | None) -> None:
        """Note what a player allows from now on. Where it did before, it did so since then."""
        key = player_consent(world, player)
        with translated():
            if consent is None:
                await self._client.delete(key)
                return
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.set(key, records.encode_consent(consent), nx=True)
                if self._retention_ms:
                    pipe.pexpire(key, self._retention_ms)
                else:
                    pipe.persist(key)
                await pipe.execute()

    async def consent(self, world: str, player: str) -> Consent | None:
        """What a player allows now; ``None`` is nothing."""
        with translated():
            raw = _bytes(await self._client.get(player_consent(world, player)))
        return None if raw is None else records.decode_consent(raw)

    async def delete_conversation(self, world: str, conversation: str) -> None:
        """Delete every key of a conversation."""
        keys = ConversationKeys.of(world, conversation)
        with translated():
            answers = await self._client.zrange(keys.answers, 0, -1)
            await self._client.delete(*keys.fixed(), *answers)

    async def forget_player(self, world: str, player: str) -> None:
        """Delete a player's index and consent, and rewrite the file of a Redis of our own.

        Then no deleted text is left in it. The operator of another Redis decides when it is
        rewritten.
        """
        with translated():
            await self._client.delete(player_index(world, player), player_consent(world, player))
            if self._own:
                await self._rewrite()

    async def _rewrite(self) -> None:
        # A rewrite that runs already may have read what was deleted since.
        await self._rewritten()
        await self._client.bgrewriteaof()
        await self._rewritten()

    async def _rewritten(self) -> None:
        async with asyncio.timeout(REWRITE_SECONDS):
            while True:
                about = await self._client.info("persistence")
                if not (about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]):
                    return
                await asyncio.sleep(0.02)

    async def _keep(self, world: str, conversation: str, fence: int, partial: bytes) -> None:
        keys = ConversationKeys.of(world, conversation)
        with translated():
            held = await self._hold(
                keys=(keys.state, keys.partial),
                args=(fence, LEASE_MS, partial, self._retention_ms),
            )
        if not held:
            raise Fenced("the lease was lost")


@asynccontextmanager
async def open_store(
    url: str, settings: Settings, *, owner: str, own: bool = False
) -> AsyncIterator[Store]:
    """A store in the Redis at a URL.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        settings: Time-out and retention.
        owner: Who holds the leases that are taken.
        own: Whether the Redis is our own.

    Raises:
        ConfigError: The URL is wrong, or the Redis too old.
        StoreUnavailable: It does not answer.
    """
    client = connect(url, settings.timeouts.redis)
    days = settings.retention_days
    try:
        await check_version(client)
        yield Store(
            client, owner=owner, retention_ms=int(days * 86_400_000) if days else 0, own=own
        )
    finally:
        await client.aclose()


@asynccontextmanager
async def open_beside(settings: Settings, *, owner: str) -> AsyncIterator[Store]:
    """A store for a command that may run beside the server, and reads only.

    It is in the Redis of the settings; without one, in that of the server which runs on the data
    folder, else in one that is started there for as long as this takes.

    Raises:
        SetupError: The data folder holds no conversations, or cannot be used.
        StoreUnavailable: Redis does not answer.
    """
    async with AsyncExitStack() as stack:
        url = settings.redis_url
        if url is None:
            if not EmbeddedRedis.has_data(settings.data_dir):
                raise SetupError(
                    f"There are no conversations in {settings.data_dir}. Choose the folder of the "
                    "server with --data-dir, or its Redis with --redis-url."
                )
            embedded = EmbeddedRedis(settings.data_dir)
            stack.push_async_callback(embedded.stop)
            try:
                url = await embedded.start()
            except FolderInUse:
                url = embedded.url_of_other()
        yield await stack.enter_async_context(open_store(url, settings, owner=owner))


def _holds(event: Mapping[str, Any], turn: str) -> bool:
    """Whether the words of a turn, or what was done with it, stand in a durable event."""
    if event["type"] == "conversation.reset":
        return any(each["turn"] == turn for each in event["tail"])
    return event.get("turn") == turn and event["type"] in {"turn", "reply.done", "reply.action"}


def _script(client: Redis, name: str) -> AsyncScript:
    source = resources.files("npc_server.store") / "scripts" / f"{name}.lua"
    return client.register_script(source.read_bytes())


def _bytes(found: Any) -> bytes | None:
    return found if isinstance(found, bytes) else None
