"""Coming in and going: conversations opened, closed, left and come back to."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

from npc_server import past, staging
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.conversation.rules import Addressed, Change
from npc_server.errors import BadMessage, Conflict
from npc_server.library import Library
from npc_server.players import Players
from npc_server.protocol import commands, events
from npc_server.quota import Quotas
from npc_server.replies import Replies
from npc_server.rooms import TAIL_EVENTS, Asking, Caller, Room, Rooms, no_such_conversation
from npc_server.store import Answer, Partial, RevisionConflict, Store


@dataclass(frozen=True, slots=True)
class Attendance:
    """Lets sessions into conversations and out of them.

    Attributes:
        store: Where everything is kept.
        rooms: The conversations in use.
        replies: The replies in flight.
        players: Notes what a player allows who comes in.
        library: The personas and scenes at hand.
        quotas: What players may use up.
        settings: Limits.
        clock: Time.
        ids: New ids.
    """

    store: Store
    rooms: Rooms
    replies: Replies
    players: Players
    library: Library
    quotas: Quotas
    settings: Settings
    clock: Clock
    ids: Ids

    async def open(self, caller: Caller, command: commands.ConversationOpen) -> None:
        """Open a conversation, new or known, and let the caller listen to it.

        Raises:
            BadMessage: A new one without an NPC, or with too many.
            NotFound: A persona is not there, or the conversation is somebody else's.
            Conflict: The session has too many conversations open.
        """
        self.replies.refuse_when_draining()
        self._refuse_one_too_many(caller, command.conversation)
        player = _player(caller, command)
        if command.player is not None:
            await self.players.allow(caller, command.player, anew=False)
        room = None
        if command.conversation is not None:
            room = await self.rooms.find(caller.world, command.conversation)
        if room is None:
            state = self._begin(caller, command, player)
            self.quotas.opening(caller.namespace, player.ref)
            await self.store.index_player(caller.world, player.ref, state.id)
            await self._come_in(caller, command, self.rooms.new(state), player)
            return
        known = room.state.player(player.ref)
        if known is None:
            known = self._newcomer(caller, command, room.state, player)
            await self.store.index_player(caller.world, player.ref, room.state.id)
        await self._come_in(caller, command, room, known)

    async def close(self, caller: Caller, command: commands.ConversationClose) -> None:
        """Leave a conversation; a reply that nobody else is told ends as cancelled.

        Raises:
            NotFound: It is not the caller's.
            Conflict: It is closed already.
        """
        room, player = await self.rooms.enter(caller, command)

        def decide(state: Conversation) -> Change:
            change = room.parted(state, player)
            return change.then(rules.closed(change.state, _now(change.state, player)))

        async with room.lock:
            if await self.rooms.commit_cut(room, decide, caller, player, command):
                room.dismiss(player)
                if room.state.closed:
                    room.listeners.pop(caller.session, None)
                self.replies.let_players_speak(room)
                self.replies.go_on(room, "")

    async def resume(self, caller: Caller, conversation: str, last: int) -> bool:
        """Go on listening to a conversation where a connection broke.

        What is durable and came later is told in order; then what there is of the reply in flight.

        Args:
            caller: Who comes back.
            conversation: The conversation's id.
            last: The newest ``seq`` that arrived.

        Returns:
            Whether it is there, and the caller's.
        """
        room = await self.rooms.find(caller.world, conversation)
        if room is None:
            return False
        async with room.lock:
            if self.store.shared and not await self.rooms.refresh(room):
                return False
            state = room.state
            player = state.player(caller.ref())
            if player is None or player.presence != "here":
                return False
            missed = await self.rooms.missed(state, last)
            if missed is None:
                caller.send(past.reset_for(state, player).model_copy(update={"seq": state.seq}))
            for item in missed or ():
                if caller.host or player.ref in item.audience:
                    caller.send(_as_missed(item.event))
            was_online = room.online(player)
            room.listeners[caller.session] = caller
            self._tell_presences(room, caller, player, was_online=was_online)
            self._snapshot(room, caller)
            room.hand_over(back=caller.session)
            room.have_done(missed or (), caller)
            self.replies.go_on(room, "")
            self.replies.look_after(room)
        self.replies.stir(room)
        return True

    def leave(self, caller: Caller) -> None:
        """A session is gone; a reply that nobody listens to any more ends."""
        for room in self.rooms.all():
            if room.listeners.get(caller.session) is not caller:
                continue  # not open here, or another connection of the session goes on with it
            del room.listeners[caller.session]
            room.hand_over()
            member = room.state.player(caller.ref())
            if member is not None and not room.online(member):
                room.inputs.pop(member.id, None)
                self.replies.let_players_speak(room)
                room.tell_presence(member)
            if room.live is not None and not room.listeners:
                self.replies.abandon_soon(room, room.live)
        self.rooms.drop_unused()

    def open_to(self, caller: Caller) -> tuple[str, ...]:
        """The conversations to which a session listens."""
        return tuple(
            r.state.id for r in self.rooms.all() if r.listeners.get(caller.session) is caller
        )

    async def _come_in(
        self, caller: Caller, command: commands.ConversationOpen, room: Room, player: Member
    ) -> None:
        turn = self.ids.new()
        new = not room.state.revision
        opening = self._opening(room.state, command, player) if new else ()

        def decide(state: Conversation) -> Change:
            change = rules.opened(state, player, self.settings.limits.members)
            if state.player(player.ref) is None:
                change = change.then(staging.placed(self.library, change.state, player))
            for step in opening:
                change = change.then(step(change.state))
            return change.then(self.replies.next_up(change.state, turn))

        async with room.lock:
            was_online = room.online(player)
            try:
                told = await self.rooms.commit(
                    room, decide, answer=Answer(player.ref, command.id, b"{}")
                )
            except RevisionConflict:
                raise Conflict("This conversation was opened just now. Open it again.") from None
            self.rooms.keep(room)
            fresh = [] if isinstance(told, bytes) else told
            opened = await self._opened(room, caller, command, player, fresh)
            own = opened.seq or 0
            room.publish(item for item in fresh if (item.event.seq or 0) < own)
            room.listeners[caller.session] = caller
            if command.deadline_ms is not None:
                room.deadlines[player.ref] = command.deadline_ms
            caller.send(opened)
            room.publish(item for item in fresh if (item.event.seq or 0) > own)
            self._tell_presences(room, caller, player, was_online=was_online)
            self._snapshot(room, caller)
            room.remember("", Asking(command.id))
            self.replies.go_on(room, turn)
            self.replies.look_after(room)
        self.replies.stir(room)
        self.replies.warm(room)

    def _opening(
        self, state: Conversation, command: commands.ConversationOpen, player: Member
    ) -> tuple[Callable[[Conversation], Change], ...]:
        """What happens as a new conversation begins: the scene's opening, else a greeting."""
        if command.greet == "never":
            return ()
        scene = self.library.scene(state.around.scene) if state.around.scene else None
        if scene is not None and scene.opening:
            return staging.opening(scene, player, self.ids, self.clock)
        line = self.replies.speaker.greeting(state)
        if line is None:
            return ()
        ask = Ask(state.npc_members()[0].id, None, None, player.ref, line=line)
        return (lambda state: rules.asked(state, (ask,)),)

    def _tell_presences(
        self, room: Room, caller: Caller, player: Member, *, was_online: bool
    ) -> None:
        """Tell the others that a player is there, and the player which of them are."""
        if not was_online:
            room.tell_presence(player)
        for other in room.state.players():
            if other.id != player.id:
                caller.send(room.presence_of(other))

    async def _opened(
        self,
        room: Room,
        caller: Caller,
        command: commands.ConversationOpen,
        player: Member,
        fresh: list[Addressed],
    ) -> events.ConversationOpened:
        state = room.state
        own = (item.event for item in fresh if isinstance(item.event, events.ConversationOpened))
        upto = next((event.seq for event in own), None)
        since = command.since
        start = max(0, state.seq - TAIL_EVENTS) if since is None else since
        tail = await self.store.events_after(state.world, state.id, start, TAIL_EVENTS + 1)
        tail = [e for e in tail if e.seq < (state.seq + 1 if upto is None else upto)]
        complete = len(tail) <= TAIL_EVENTS and len(tail) == (upto or state.seq + 1) - 1 - start
        return events.ConversationOpened(
            re=command.id,
            conversation=state.id,
            seq=upto,
            cast=rules.cast_of(state),
            state=rules.moods_of(state),
            tail=[
                {**e.event, "seq": e.seq, **({"execute": False} if "execute" in e.event else {})}
                for e in tail[-TAIL_EVENTS:]
                if caller.host or player.ref in e.audience
            ],
            limited=None if complete else True,
            reply=state.reply.turn if state.reply and _hears(caller, state) else None,
            invite=state.invite or None,
            branch=state.branch,
            scene=staging.scene_view(state.around),
        )

    def _snapshot(self, room: Room, caller: Caller) -> None:
        """Tell somebody who comes in what there is of the reply in flight."""
        reply = room.state.reply
        if reply is None or not _hears(caller, room.state):
            return
        if room.live is not None:
            caller.send(room.live.speech.snapshot())
            room.hand_over()
            return
        partial = room.partial
        if partial is None or partial.spoken != reply.spoken:
            partial = Partial(reply.turn, reply.attempt, "")
        room.relay(partial, besides=caller)
        known = room.relayed or partial
        caller.send(
            events.ReplySnapshot(
                conversation=room.state.id,
                turn=reply.turn,
                text=known.text,
                sentences=[m["text"] for m in known.marks if m["type"] == "reply.sentence"],
                restarted=reply.attempt > 1,
            )
        )

    def _begin(
        self, caller: Caller, command: commands.ConversationOpen, player: Member
    ) -> Conversation:
        scene = None if command.scene is None else self.library.scene(command.scene)
        if scene is not None and command.npcs:
            raise BadMessage(
                "A scene brings its NPCs along. Leave 'npcs' out, and send conversation.join for "
                "more.",
                details={"field": "npcs"},
            )
        npcs = (
            [staging.npc_member(self.library, choice) for choice in command.npcs]
            if scene is None
            else staging.cast(self.library, scene)
        )
        if len(npcs) >= self.settings.limits.members:
            raise BadMessage(
                f"A conversation has {self.settings.limits.members} members at most.",
                details={"field": "npcs"},
            )
        return rules.begin(
            command.conversation or self.ids.new(),
            caller.world,
            player,
            npcs,
            locale=command.locale or caller.locale,
            now_ms=self.clock.wall_ms(),
            invite=secrets.token_urlsafe(12),
            seed=self.ids.bits(32),
            around=None if scene is None else staging.surroundings(scene, player.id),
            facts=None if scene is None else scene.facts,
        )

    def _newcomer(
        self,
        caller: Caller,
        command: commands.ConversationOpen,
        state: Conversation,
        player: Member,
    ) -> Member:
        """The member as whom a player comes into a conversation that others began.

        Raises:
            NotFound: It has no invite, and its host has nobody there either.
        """
        invited = command.invite is not None and secrets.compare_digest(
            command.invite.encode(), state.invite.encode()
        )
        own = any(map(caller.owns, state.players()))
        if not (invited and state.invite) and not (caller.host and own):
            raise no_such_conversation()
        return _under_free_id(state, player)

    def _refuse_one_too_many(self, caller: Caller, conversation: str | None) -> None:
        allowed = self.settings.limits.conversations
        mine = [r.state.id for r in self.rooms.all() if caller.session in r.listeners]
        if len(mine) >= allowed and conversation not in mine:
            raise Conflict(
                f"This session has {allowed} conversations open, which is the limit. "
                "Close one first."
            )


def _player(caller: Caller, command: commands.ConversationOpen) -> Member:
    chosen = command.player
    if chosen is None:
        return Member(caller.player, "player", caller.name, caller.ref())
    return Member(chosen.id, "player", chosen.name or chosen.id, caller.ref(chosen.id))


def _under_free_id(state: Conversation, player: Member) -> Member:
    """A newcomer whose id is not another member's: two keys may each have a player of one id."""
    known = (replace(player, id=player.id if n == 1 else f"{player.id}~{n}") for n in count(1))
    return next(m for m in known if (other := state.member(m.id)) is None or other.ref == m.ref)


def _now(state: Conversation, member: Member) -> Member:
    """A member as it is by now."""
    return state.member(member.id) or member


def _as_missed(event: events.DurableEvent) -> events.DurableEvent:
    """An event that is told later: what is to be done is told apart."""
    if isinstance(event, events.ReplyAction):
        return event.model_copy(update={"execute": False})
    return event


def _hears(caller: Caller, state: Conversation) -> bool:
    """Whether a session is told of the reply in flight."""
    hearers = state.reply.hearers if state.reply else ()
    return caller.host or caller.ref() in player_refs(state, hearers)
