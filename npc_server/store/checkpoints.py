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
from pydantic import TypeAdapter

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

LARGEST_SAVE = 8 * 1024 * 1024
"""Bytes of the largest save: what can be made can be exported and imported."""

LARGEST_OPEN = 8 * LARGEST_SAVE
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
        TooLarge: It would be larger than ``LARGEST_SAVE``, or ``LARGEST_OPEN`` when it is read.
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
    raw = orjson.dumps(body)
    packed = MAGIC + zlib.compress(raw, 6)
    if len(packed) > LARGEST_SAVE or len(raw) > LARGEST_OPEN:
        raise TooLarge(
            f"This world takes more than {LARGEST_SAVE} bytes to save. Forget players who are gone."
        )
    return packed


def decode(file: bytes) -> tuple[Saved, ...]:
    """The conversations of a save's file.

    Raises:
        BadMessage: It is none, or damaged.
        TooLarge: It would take too much room.
        Conflict: A newer server wrote it.
    """
    if not file.startswith(MAGIC):
        raise BadMessage("This is no save of npc-server.")
    try:
        body = orjson.loads(_unpacked(file[len(MAGIC) :]))
        if body["v"] > VERSION:
            raise Conflict(
                f"The save has version {body['v']}; this server knows {VERSION}. "
                "Run the newer release that wrote it."
            )
        return tuple(_saved(each) for each in body["conversations"])
    except records.NewerRecord as error:
        raise Conflict(str(error)) from error
    except (zlib.error, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadMessage(f"The save is damaged ({type(error).__name__}).") from error


_TURNS, _STATE = TypeAdapter(tuple[Turn, ...]), TypeAdapter(Conversation)


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
        unsaid = state.reply.turn if state.reply and state.reply.replaces else None
        standing = (
            replace(turn, replaced_by=None) if unsaid and turn.replaced_by == unsaid else turn
            for turn in decoded
        )
        return Saved(replace(state, reply=None, asks=()), tuple(standing))

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


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(packed, LARGEST_OPEN)
    if not unpacker.eof and (unpacker.unconsumed_tail or len(raw) >= LARGEST_OPEN):
        raise TooLarge(f"The save takes more than {LARGEST_OPEN} bytes when it is unpacked.")
    if not unpacker.eof or unpacker.unused_data:
        raise ValueError("the file is cut off, or goes on behind its end")
    return raw


def _saved(stored: dict[str, Any]) -> Saved:
    """A conversation of a save, of which every field is what it should be."""
    raw = stored["state"].encode()
    turns = tuple(records.decode_turn(turn.encode()) for turn in stored["turns"])
    _TURNS.validate_json(orjson.dumps(turns))
    state = records.decode_conversation(raw, revision=0, seq=0, turns=())
    _STATE.validate_json(orjson.dumps(state))
    return Saved(state, turns)
