"""Saves of a whole world: made, loaded, carried to another world or another server."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict
from dataclasses import dataclass, field, replace

from npc_server.clock import Clock
from npc_server.conversation import rules
from npc_server.errors import BadMessage, Conflict, Forbidden, TooLarge
from npc_server.past import reset
from npc_server.protocol import commands, events
from npc_server.rooms import Caller, Rooms
from npc_server.speaking import Speaker
from npc_server.store import LARGEST_SAVE, About, Durable, Saved, Store, decode, encode

PART = 32 * 1024
"""Bytes of a part of a file: in base64 it fits into a frame, also on its way back."""

UPLOADS = 8
"""So many files may be on their way at once, of all sessions."""


@dataclass(frozen=True, slots=True)
class Saves:
    """Carries out the commands about saves.

    Attributes:
        store: Where everything is kept.
        rooms: The conversations in use.
        speaker: Forgets what engines hold of a game that is not any more.
        clock: Time.
        uploads: Parts of files that are on their way, by session and name.
    """

    store: Store
    rooms: Rooms
    speaker: Speaker
    clock: Clock
    uploads: OrderedDict[tuple[str, str], list[bytes]] = field(default_factory=OrderedDict)

    async def save(
        self, caller: Caller, command: commands.CheckpointSave
    ) -> events.CheckpointSaved:
        """Save the world as it is. What is being spoken just now is not in it.

        Raises:
            Forbidden: The caller is no host.
            TooLarge: The world is.
            Conflict: There are too many saves.
        """
        _refuse_players(caller)
        saved = []
        for conversation in await self.store.conversations(caller.world):
            found = await self.store.checkpoints.dump(caller.world, conversation)
            if found is not None:
                saved.append(found)
        about = await self._keep(caller.world, command.name, saved)
        return events.CheckpointSaved(
            re=command.id, name=about.name, bytes=about.bytes, conversations=about.conversations
        )

    async def load(
        self, caller: Caller, command: commands.CheckpointLoad
    ) -> events.CheckpointLoaded:
        """Have the world as it was. Conversations that began later are gone.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such save.
        """
        _refuse_players(caller)
        saved = await self._read(caller.world, command.name)
        kept = {each.state.id for each in saved}
        for conversation in await self.store.conversations(caller.world):
            if conversation not in kept:
                await self._remove(caller.world, conversation)
        for each in saved:
            await self._put_back(caller.world, each)
        return events.CheckpointLoaded(re=command.id, name=command.name, conversations=len(saved))

    async def fork(
        self, caller: Caller, command: commands.CheckpointFork
    ) -> events.CheckpointForked:
        """Begin another world with a save.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such save.
            Conflict: The other world is in use.
        """
        _refuse_players(caller)
        if await self.store.conversations(command.world):
            raise Conflict(f"The world '{command.world}' is in use. Choose another name.")
        saved = await self._read(caller.world, command.name)
        for each in saved:
            await self._put_back(command.world, each)
        return events.CheckpointForked(
            re=command.id, name=command.name, world=command.world, conversations=len(saved)
        )

    async def delete(
        self, caller: Caller, command: commands.CheckpointDelete
    ) -> events.CheckpointDeleted:
        """Delete a save.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such save.
        """
        _refuse_players(caller)
        await self.store.checkpoints.delete(caller.world, command.name)
        return events.CheckpointDeleted(re=command.id, name=command.name)

    async def listed(
        self, caller: Caller, command: commands.CheckpointList
    ) -> events.CheckpointListed:
        """The saves of the world, the newest first.

        Raises:
            Forbidden: The caller is no host.
        """
        _refuse_players(caller)
        found = [
            events.SavedGame(
                name=about.name,
                bytes=about.bytes,
                at_ms=about.at_ms,
                conversations=about.conversations,
            )
            for about in await self.store.checkpoints.all(caller.world)
        ]
        return events.CheckpointListed(re=command.id, checkpoints=found)

    async def export(
        self, caller: Caller, command: commands.CheckpointExport
    ) -> list[events.CheckpointExported]:
        """A save as a file, in parts.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such save.
        """
        _refuse_players(caller)
        file = await self.store.checkpoints.get(caller.world, command.name)
        chunks = [file[at : at + PART] for at in range(0, len(file), PART)]
        return [
            events.CheckpointExported(
                re=command.id,
                name=command.name,
                part=number,
                parts=len(chunks),
                data=base64.b64encode(chunk).decode(),
            )
            for number, chunk in enumerate(chunks, start=1)
        ]

    async def take(
        self, caller: Caller, command: commands.CheckpointImport
    ) -> events.CheckpointImported:
        """Take in a part of a save's file; with the last one it can be loaded.

        Raises:
            Forbidden: The caller is no host.
            BadMessage: It is out of order, no base64, or the file is damaged.
            TooLarge: The file is.
            Conflict: A newer server wrote it, or there are too many saves.
        """
        _refuse_players(caller)
        key = (caller.session, command.name)
        parts = self.uploads.pop(key, []) if command.part > 1 else []
        if command.part != len(parts) + 1:
            raise BadMessage("The parts come in order, from 1. Begin again with part 1.")
        try:
            parts.append(base64.b64decode(command.data, validate=True))
        except binascii.Error as error:
            raise BadMessage("'data' is no base64.", details={"field": "data"}) from error
        if sum(map(len, parts)) > LARGEST_SAVE:
            raise TooLarge(f"The file is larger than {LARGEST_SAVE} bytes.")
        complete = command.part == command.parts
        if complete:
            saved = await asyncio.to_thread(decode, b"".join(parts))
            await self._keep(caller.world, command.name, saved)
        else:
            self.uploads[key] = parts
            while len(self.uploads) > UPLOADS:
                self.uploads.popitem(last=False)
        return events.CheckpointImported(
            re=command.id, name=command.name, part=command.part, complete=complete
        )

    async def _keep(self, world: str, name: str, saved: list[Saved] | tuple[Saved, ...]) -> About:
        file = await asyncio.to_thread(encode, saved)
        about = About(name, len(file), self.clock.wall_ms(), len(saved))
        await self.store.checkpoints.put(world, about, file)
        return about

    async def _read(self, world: str, name: str) -> tuple[Saved, ...]:
        return await asyncio.to_thread(decode, await self.store.checkpoints.get(world, name))

    async def _put_back(self, world: str, saved: Saved) -> None:
        state = replace(saved.state, world=world)
        indices = set(rules.newest_of(state.path(), rules.TURNS_IN_MEMORY))
        newest = tuple(turn for turn in saved.turns if turn.index in indices)
        told = reset(replace(state, turns=rules.in_memory(newest))).events
        durable = [Durable(item.event.encode(), item.audience) for item in told]
        for player in state.players():
            await self.store.index_player(world, player.ref, state.id)
        room = self.rooms.known(world, state.id)
        if room is None:
            await self.store.restore(replace(saved, state=state), durable)
        else:
            async with room.lock:
                room.silence()
                await self.store.restore(replace(saved, state=state), durable)
                await self.rooms.refresh(room)
                room.goes_back = False
        await self.speaker.forget(state)

    async def _remove(self, world: str, conversation: str) -> None:
        room = await self.rooms.find(world, conversation)
        if room is None:
            return
        async with room.lock:
            room.silence()
            await self.store.delete_conversation(world, conversation)
            self.rooms.forget(room)
        await self.speaker.forget(room.state)


def _refuse_players(caller: Caller) -> None:
    if not caller.host:
        raise Forbidden("Only a host may save and load a world.")
