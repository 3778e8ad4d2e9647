"""What the game sets while a conversation runs: the cast, the scene, facts, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

from npc_server import past, staging
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Member, Turn
from npc_server.conversation.rules import Change
from npc_server.errors import BadMessage, Forbidden, NotFound
from npc_server.library import Library
from npc_server.protocol import commands
from npc_server.replies import Replies
from npc_server.rooms import Caller, Room, Rooms
from npc_server.store import Store


@dataclass(frozen=True, slots=True)
class Stage:
    """Carries out the commands with which a game directs a conversation.

    Attributes:
        store: Where everything is kept.
        rooms: The conversations in use.
        replies: The replies in flight.
        library: Personas and scenes.
        settings: Limits.
        clock: Time.
        ids: New ids.
    """

    store: Store
    rooms: Rooms
    replies: Replies
    library: Library
    settings: Settings
    clock: Clock
    ids: Ids

    async def join(self, caller: Caller, command: commands.ConversationJoin) -> None:
        """Bring an NPC or a player in.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such conversation of the caller, persona or group.
            Conflict: It is here already, or there is no room.
            BadMessage: It names neither, or both.
        """
        # The player that it names is the newcomer, not the one for whom the host acts.
        for_whom = command.model_copy(update={"player": None})
        room, player = await self.rooms.enter_as_host(caller, for_whom)
        newcomer = self._newcomer(caller, command)

        def decide(state: Conversation) -> Change:
            change = rules.joined(state, newcomer, self.settings.limits.members)
            return change.then(staging.placed(self.library, change.state, newcomer, command.group))

        if newcomer.kind == "player":
            await self.store.index_player(caller.world, newcomer.ref, room.state.id)
        await self._carry_out(room, caller, player, command, decide)

    async def leave(self, caller: Caller, command: commands.ConversationLeave) -> None:
        """Leave the cast, or have somebody leave it; a reply that it was saying ends.

        Raises:
            Forbidden: The caller is no host and names another.
            NotFound: There is no such conversation of the caller, or no such member.
            Conflict: It is the last NPC.
        """
        enter = self.rooms.enter if command.member is None else self.rooms.enter_for
        room, player = await enter(caller, command)
        member = command.member or player.id
        if member != player.id and not caller.host:
            raise Forbidden("Only a host may send somebody else away.")

        def decide(state: Conversation) -> Change:
            who = state.member(member)
            change = room.parted(state, who) if who else Change(state)
            return change.then(rules.left(change.state, member))

        async with room.lock:
            if not await self.rooms.commit_cut(room, decide, caller, player, command):
                return
            gone = room.state.member(member)
            if gone is not None and gone.kind == "player":
                room.dismiss(gone)
                self.replies.let_players_speak(room)
            self.replies.go_on(room, "")

    async def set(self, caller: Caller, command: commands.ConversationSet) -> None:
        """What may happen from now on.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such conversation of the caller, or no such NPC.
        """
        room, player = await self.rooms.enter_as_host(caller, command)
        actions = {
            member: None if names is None else tuple(names)
            for member, names in command.actions.items()
        }

        def decide(state: Conversation) -> Change:
            return rules.conversation_set(
                state,
                ambient=None if command.ambient is None else command.ambient == "on",
                hold=command.hold,
                instructions=command.instructions,
                actions=actions,
            )

        await self._carry_out(room, caller, player, command, decide)
        self.replies.stir(room)

    async def context(self, caller: Caller, command: commands.ContextSet) -> None:
        """Facts of the game change.

        Raises:
            Forbidden: A player sets what is not its own.
            NotFound: There is no such conversation of the caller.
            BadMessage: There are too many, or one is too long.
        """
        room, player = await self.rooms.enter_for(caller, command)

        def decide(state: Conversation) -> Change:
            return rules.with_facts(state, command.facts, by_player=not caller.host)

        await self._carry_out(room, caller, player, command, decide)

    async def scene(self, caller: Caller, command: commands.SceneSet) -> None:
        """Who stands where changes.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such conversation of the caller, scene or member.
            BadMessage: A member is in two groups.
        """
        room, player = await self.rooms.enter_as_host(caller, command)
        scene = self.library.scene(command.scene) if command.scene is not None else None

        def decide(state: Conversation) -> Change:
            return rules.in_scene(state, staging.changed(state.around, command, scene))

        await self._carry_out(room, caller, player, command, decide)

    async def npc(self, caller: Caller, command: commands.NpcSet) -> None:
        """The game sets how an NPC is.

        Raises:
            Forbidden: The caller is no host.
            NotFound: There is no such conversation of the caller, or no such NPC.
        """
        room, player = await self.rooms.enter_as_host(caller, command)

        def decide(state: Conversation) -> Change:
            return rules.npc_set(
                state, command.member, mood=command.mood, affinity=command.affinity
            )

        await self._carry_out(room, caller, player, command, decide)

    async def rewind(self, caller: Caller, command: commands.Rewind) -> None:
        """Go back to a turn, or return to a branch; the branch that is left stays.

        Where others play along, only a host may.

        Raises:
            BadMessage: It names neither a turn nor a branch, or both.
            Forbidden: Other players are here, and the caller is no host.
            NotFound: There is no such conversation of the caller, turn or branch.
            Conflict: The branch goes on already.
        """
        if (command.to_turn is None) == (command.branch is None):
            raise BadMessage("Send either 'to_turn' or 'branch'.", details={"field": "to_turn"})
        room, player = await self.rooms.enter_for(caller, command)
        if not caller.host and len(room.state.players()) > 1:
            raise Forbidden("Others play along here; only a host may go back.")
        branch, now = self.ids.new(), self.clock.wall_ms()
        await self.replies.have_cut(room, player)

        async with room.lock:
            if await self.rooms.repeated(room, caller, player, command):
                return
            back, upto = await self._way_back(room.state, player, command)
            if room.state.reply is not None:
                await self._end_reply(room)

            def decide(state: Conversation) -> Change:
                if command.branch is not None:
                    target = rules.branch_of(state, command.branch)
                    went = rules.returned(state, target, back, now_ms=now)
                else:
                    went = rules.rewound(state, upto, back, branch=branch, now_ms=now)
                return went.then(past.reset(went.state))

            told = await self.rooms.commit_once(room, decide, caller, player, command)
            if told is None:
                return
            room.playing.clear()
            room.publish(told)
        self.replies.warm(room)

    async def redact(self, caller: Caller, command: commands.TurnRedact) -> None:
        """Take the words of a turn out: of every branch, of the events that are kept, of prompts.

        Raises:
            Forbidden: It is not the caller's own, and the caller is no host.
            NotFound: There is no such conversation of the caller, or no such turn.
        """
        room, player = await self.rooms.enter_for(caller, command)
        async with room.lock:
            indices = past.kept_indices(room.state)
            kept = await self.store.turns_at(room.state.world, room.state.id, indices)
            same = [turn for turn in kept if turn.id == command.turn]
            if not same:
                raise NotFound("There is no such turn in this conversation.")
            by = None if caller.host else player

            def decide(state: Conversation) -> Change:
                return rules.redacted(state, same[-1], by)

            decide(room.state)  # Who may not is refused before anything is taken out.
            await self.store.redact(
                room.state, [rules.without_words(turn) for turn in same], command.turn
            )
            told = await self.rooms.commit_once(room, decide, caller, player, command)
            if told is None:
                return
            room.publish(told)
        await self.replies.speaker.forget(room.state)

    async def _carry_out(
        self,
        room: Room,
        caller: Caller,
        player: Member,
        command: commands.InConversation,
        decide: rules.Decide,
    ) -> None:
        async with room.lock:
            turn = self.ids.new()

            def and_on(state: Conversation) -> Change:
                change = decide(state)
                return change.then(self.replies.next_up(change.state, turn))

            told = await self.rooms.commit_once(room, and_on, caller, player, command)
            if told is not None:
                room.publish(told)
                self.replies.go_on(room, turn)

    async def _end_reply(self, room: Room) -> None:
        """Have the branch that is to be left keep what there is of the reply in flight."""
        with room.holding() as live:
            told = await self.rooms.commit(
                room, lambda state: room.settled(state, "cancelled"), seize=True
            )
            room.end_if_over(live)
        room.publish(told)

    async def _way_back(
        self, state: Conversation, player: Member, command: commands.Rewind
    ) -> tuple[list[Turn], int]:
        """The newest turns as they will be, and the index of the last."""
        most = rules.TURNS_IN_MEMORY + rules.TURNS_DROPPED
        if command.branch is not None:
            runs = rules.branch_of(state, command.branch).path()
            indices = rules.newest_of(runs, most)
            return await self.store.turns_at(state.world, state.id, indices), 0
        index = await past.index_of(self.store, state, command.to_turn or "")
        indices = rules.newest_of(rules.runs_upto(state.path(), index), most)
        known = {turn.index: turn for turn in state.turns}
        kept = await self.store.turns_at(state.world, state.id, indices)
        turns = [known.get(turn.index, turn) for turn in kept]  # Those need not be stored again.
        newest = turns[-1] if turns else None
        stands = newest is not None and newest.index == index and newest.replaced_by is None
        if newest is None or not stands or player.id not in newest.hearers:
            raise NotFound("There is no such turn in this conversation.")
        return turns, index

    def _newcomer(self, caller: Caller, command: commands.ConversationJoin) -> Member:
        if (command.npc is None) == (command.player is None):
            raise BadMessage("Send either 'npc' or 'player'.", details={"field": "npc"})
        if command.npc is not None:
            choice = commands.NpcChoice(npc=command.npc, member=command.member, name=command.name)
            return staging.npc_member(self.library, choice)
        who = command.player or ""
        return Member(command.member or who, "player", command.name or who, caller.ref(who))
