"""What is kept of a player: what it allows, what it may see of it, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from npc_server import past
from npc_server.clock import Clock
from npc_server.protocol import commands, events
from npc_server.rooms import Caller, Rooms
from npc_server.speaking import Speaker
from npc_server.store import Consent, Store


@dataclass(frozen=True, slots=True)
class Players:
    """Carries out the commands about a player's own data.

    Attributes:
        store: Where everything is kept.
        rooms: The conversations in use.
        speaker: Forgets what engines hold of a conversation.
        clock: Time.
    """

    store: Store
    rooms: Rooms
    speaker: Speaker
    clock: Clock

    async def allow(self, caller: Caller, player: commands.Player, *, anew: bool) -> None:
        """Note what a player allows to be done with what it says.

        Args:
            caller: Who tells it: the player, or a host.
            player: Whose consent it is.
            anew: Whether what is left out is taken back.

        Raises:
            Forbidden: Another player's, and the caller is no host.
            StoreUnavailable: It could not be noted.
        """
        if player.consent is None and not anew:
            return
        consent = Consent(self.clock.wall_ms()) if player.allows_training else None
        await self.store.set_consent(caller.world, caller.ref(player.id), consent)

    async def history(self, caller: Caller, command: commands.HistoryGet) -> events.History:
        """What the player heard, oldest first.

        Raises:
            NotFound: The conversation is not the caller's, or there is no such turn.
        """
        room, player = await self.rooms.enter(caller, command)
        turns, more = await past.history(
            self.store, room.state, player, before=command.before, limit=command.limit
        )
        return events.History(re=command.id, conversation=room.state.id, turns=turns, more=more)

    async def forget(
        self, caller: Caller, command: commands.PlayerForget
    ) -> events.PlayerForgotten:
        """Delete every conversation of a player in this world, from memory, model and store.

        Raises:
            Forbidden: Another player's, and the caller is no host.
        """
        ref = caller.ref(command.player)
        found = await self.store.conversations_of(caller.world, ref)
        for conversation in found:
            room = await self.rooms.find(caller.world, conversation)
            if room is not None:
                async with room.lock:
                    room.silence()
                    await self.store.delete_conversation(caller.world, conversation)
                    self.rooms.forget(room)
                await self.speaker.forget(room.state)
        await self.store.forget_player(caller.world, ref)
        return events.PlayerForgotten(
            re=command.id, player=command.player or caller.player, conversations=len(found)
        )

    async def export(
        self, caller: Caller, command: commands.PlayerExport
    ) -> list[events.PlayerExported]:
        """Everything that is kept of a player in this world, in pages.

        Raises:
            Forbidden: Another player's, and the caller is no host.
        """
        ref = caller.ref(command.player)
        pages: list[dict[str, Any]] = []
        for conversation in await self.store.conversations_of(caller.world, ref):
            room = await self.rooms.find(caller.world, conversation)
            if room is not None:
                pages.extend(await past.export(self.store, room.state, ref))
        return [
            events.PlayerExported(
                re=command.id,
                player=command.player or caller.player,
                part=number,
                parts=max(1, len(pages)),
                data=page,
            )
            for number, page in enumerate(pages or [{}], start=1)
        ]
