"""Saves of a whole world: one compressed file each, under the game's own name.

A save holds every conversation with all its turns and branches, how the NPCs are, facts and the
seed of chance. It holds no reply that was being spoken, nothing that an engine keeps, and no text
of which the words were taken out. Text compresses well: a thousand turns take about 100 KiB.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from npc_server.conversation.model import Conversation, Turn
from npc_server.errors import BadMessage, Conflict, NotFound, TooLarge
from npc_server.store import records
from npc_server.store.connect import Link
from npc_server.store.keys import ConversationKeys, checkpoint_index, checkpoint_key
from npc_server.store.script import Script

VERSION = 1
MAGIC = b"npc-server save\n"
"""What a save's file begins with."""

SAVES = 100
"""So many saves a world may have."""

LARGEST = 32 * 1024 * 1024
"""Bytes of the largest save."""

LARGEST_OPEN = 16 * LARGEST
"""Bytes that a save may take when it is uncompressed: a file from outside could be a bomb."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A conversation as it is in a save: without revision and seq, which go on rising."""

    state: Conversation
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a save without reading it."""

    name: str
    bytes: int
    at_ms: int
    conversations: int


def encode(saved: Sequence[Saved]) -> bytes:
    """The file of a save.

    Raises:
        TooLarge: It would be larger than ``LARGEST``.
    """
    body = {
        "v": VERSION,
        "conversations": [
            {
                "state": records.encode_conversation(each.state).decode(),
                "turns": [records.encode_turn(turn).decode() for turn in each.turns],
            }
            for each in saved
        ],
    }
    packed = MAGIC + zlib.compress(orjson.dumps(body), 6)
    if len(packed) > LARGEST:
        raise TooLarge(
            f"This world takes more than {LARGEST} bytes to save. Forget players who are gone."
        )
    return packed


def decode(file: bytes) -> tuple[Saved, ...]:
    """The conversations of a save's file.

    Raises:
        BadMessage: It is none, or damaged.
        NewerRecord: A newer server wrote it.
    """
    if not file.startswith(MAGIC):
        raise BadMessage("This is no save of npc-server.")
    try:
        unpacker = zlib.decompressobj()
        raw = unpacker.decompress(file[len(MAGIC) :], LARGEST_OPEN)
        body = orjson.loads(raw)
        if body["v"] > VERSION:
            raise records.NewerRecord(
                f"The save has version {body['v']}; this server knows {VERSION}. "
                "Run the newer release that wrote it."
            )
        return tuple(_saved(each) for each in body["conversations"])
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise BadMessage(f"The save is damaged: {error}.") from error


class Checkpoints:
    """The saves in a Redis.

    Args:
        link: A way to Redis.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._dump = Script("dump")
        self._restore = Script("restore")

    async def dump(self, world: str, conversation: str) -> Saved | None:
        """A conversation as it is at one moment, without the reply that is being spoken."""
        keys = ConversationKeys.of(world, conversation)
        async with self._link.use() as client:
            found = await self._dump(client, (keys.state, keys.turns), ())
        if not found:
            return None
        raw, turns = found
        state = records.decode_conversation(raw, revision=0, seq=0, turns=())
        decoded = sorted((records.decode_turn(turn) for turn in turns), key=lambda t: t.index)
        return Saved(replace(state, reply=None, asks=()), tuple(decoded))

    async def restore(
        self,
        saved: Saved,
        events: Sequence[tuple[tuple[str, ...], bytes]],
        *,
        retention_ms: int,
        channel: str,
        owner: str,
    ) -> None:
        """Put a conversation back as it was; whoever was speaking in it is fenced out.

        Its revision and the numbers of its events go on rising, and events of the later game are
        gone.

        Args:
            saved: The conversation.
            events: What tells of it: the players who may know, and JSON without ``seq``.
            retention_ms: How long it is kept unused; 0 is for ever.
            channel: By which other servers are woken; empty wakes none.
            owner: Who does this.
        """
        state = saved.state
        keys = ConversationKeys.of(state.world, state.id)
        arguments: list[bytes | str | int] = [
            records.encode_conversation(state),
            orjson.dumps({"inherited": state.inherited, "first": state.first}),
            state.next,
            retention_ms,
            len(saved.turns),
        ]
        for turn in saved.turns:
            arguments += [turn.index, records.encode_turn(turn)]
        arguments.append(len(events))
        for audience, event in events:
            arguments += [orjson.dumps(audience), event]
        arguments += [channel, owner]
        names = (keys.state, keys.turns, keys.events, keys.partial)
        async with self._link.use() as client:
            await self._restore(client, names, arguments)

    async def put(self, world: str, about: About, file: bytes) -> None:
        """Keep a save; one of the same name is replaced.

        Raises:
            Conflict: The world has too many.
        """
        index = checkpoint_index(world)
        async with self._link.use() as client:
            known = await client.hkeys(index)
            if len(known) >= SAVES and about.name.encode() not in known:
                raise Conflict(f"This world has {SAVES} saves, which is the limit. Delete one.")
            async with client.pipeline(transaction=True) as pipe:
                pipe.set(checkpoint_key(world, about.name), file)
                pipe.hset(index, about.name, orjson.dumps(asdict(about)).decode())
                await pipe.execute()

    async def get(self, world: str, name: str) -> bytes:
        """The file of a save.

        Raises:
            NotFound: There is none of that name.
        """
        async with self._link.use() as client:
            file = await client.get(checkpoint_key(world, name))
        if not isinstance(file, bytes):
            raise NotFound(f"There is no save '{name}' in this world.")
        return file

    async def delete(self, world: str, name: str) -> None:
        """Delete a save.

        Raises:
            NotFound: There is none of that name.
        """
        async with self._link.use() as client, client.pipeline(transaction=True) as pipe:
            pipe.delete(checkpoint_key(world, name))
            pipe.hdel(checkpoint_index(world), name)
            gone, _ = await pipe.execute()
        if not gone:
            raise NotFound(f"There is no save '{name}' in this world.")

    async def all(self, world: str) -> list[About]:
        """The saves of a world, the newest first."""
        async with self._link.use() as client:
            found: Any = await client.hvals(checkpoint_index(world))
        return sorted((About(**orjson.loads(raw)) for raw in found), key=lambda a: -a.at_ms)


def _saved(stored: dict[str, Any]) -> Saved:
    raw = stored["state"].encode()
    state = records.decode_conversation(raw, revision=0, seq=0, turns=())
    return Saved(state, tuple(records.decode_turn(turn.encode()) for turn in stored["turns"]))
