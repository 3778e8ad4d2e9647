"""The conductor: every command about a conversation, from its arrival to its committed effect.

``say`` is the heart of it: what it cuts, the player's turn and the reply that begins are decided
and committed together, in one round trip; the reply is made outside the lock (``replies``) and
committed in another.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson

from npc_server import past
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.model import Conversation, Member
from npc_server.conversation.rules import Addressed, Change
from npc_server.errors import (
    Busy,
    Conflict,
    Forbidden,
    NpcError,
    StoreUnavailable,
    TooLarge,
)
from npc_server.library import Library
from npc_server.observability import get_logger
from npc_server.prompt import ActionOutcome
from npc_server.protocol import commands, events
from npc_server.quota import Quotas
from npc_server.replies import Replies
from npc_server.rooms import (
    TAIL_EVENTS,
    Caller,
    Room,
    Rooms,
    no_such_conversation,
)
from npc_server.scheduler import Priority
from npc_server.store import Answer, Consent, RevisionConflict, Store

log = get_logger(__name__)

RESULT_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Carries out the commands about conversations.

    Attributes:
        store: Where everything is kept.
        rooms: The conversations in use.
        replies: The replies in flight.
        library: The personas at hand.
        quotas: What players may use up.
        settings: Limits and time-outs.
        clock: Time.
        ids: New ids.
        draining: Set when the server is about to stop.
    """

    store: Store
    rooms: Rooms
    replies: Replies
    library: Library
    quotas: Quotas
    settings: Settings
    clock: Clock
    ids: Ids
    draining: asyncio.Event

    async def open(self, caller: Caller, command: commands.ConversationOpen) -> None:
        """Open a conversation, new or known, and let the caller listen to it.

        Raises:
            BadMessage: A new one without an NPC, or with more than one.
            NotFound: A persona is not there, or the conversation is somebody else's.
            Conflict: The session has too many conversations open.
        """
        self._refuse_when_draining()
        self._refuse_one_too_many(caller, command.conversation)
        player = _player(caller, command)
        if command.player is not None:
            await self.allow(caller, command.player, anew=False)
        room = None
        if command.conversation is not None:
            room = await self.rooms.find(caller.world, command.conversation)
        if room is not None:
            known = room.state.player(player.ref)
            if known is None:
                raise no_such_conversation()
            await self._come_in(caller, command, room, known, greet=False)
            return
        state = self._begin(caller, command, player)
        self.quotas.opening(caller.namespace, player.ref)
        await self.store.index_player(caller.world, player.ref, state.id)
        await self._come_in(caller, command, Room(state), player, greet=command.greet == "auto")

    async def close(self, caller: Caller, command: commands.ConversationClose) -> None:
        """Leave a conversation; a reply that is being spoken ends as cancelled.

        Raises:
            NotFound: It is not the caller's.
            Conflict: It is closed already.
        """
        room, player = await self.rooms.enter(caller, command)

        def decide(state: Conversation) -> Change:
            change = room.settled(state, "cancelled")
            return change.then(rules.closed(change.state, player))

        async with room.lock:
            with room.holding() as live:
                told = await self._commit_once(
                    room, decide, caller, player, command, release_lease=True
                )
                if told is not None:
                    room.end(live)
                    room.publish(told)
                    room.listeners.pop(caller.session, None)

    async def say(self, caller: Caller, command: commands.Say) -> None:
        """Take in what a player says, cut what it interrupts, and have the NPC answer.

        Raises:
            NotFound: The conversation is not the caller's, or an addressee is not in it.
            Conflict: The conversation is closed.
            Busy: Every seat is taken and the queue is full.
            RateLimited: The player uses more than its quota.
        """
        self._refuse_when_draining()
        room, player = await self.rooms.enter(caller, command)
        turn, reply_turn = self.ids.new(), self.ids.new()

        def decide(state: Conversation) -> Change:
            change = room.settled(state, "interrupted", player)
            change = change.then(_stop_playing(room, change.state, player))
            change = change.then(
                rules.said(
                    change.state,
                    player,
                    command.text,
                    to=command.to,
                    whisper=command.whisper,
                    turn=turn,
                    now_ms=self.clock.wall_ms(),
                    command=command.id,
                )
            )
            if command.respond == "never":
                return change.then(rules.idle(change.state, turn))
            speaker = change.state.npc_members()[0].id
            return change.then(
                self._answered(room, change.state, caller, player, reply_turn, speaker)
            )

        async with room.lock:
            with room.holding() as live:
                told = await self._commit_once(
                    room,
                    decide,
                    caller,
                    player,
                    command,
                    turn,
                    take_lease=command.respond == "auto",
                )
                if told is None:
                    return
                room.end(live)
            if self.settings.log_text:
                log.info("said", conversation=room.state.id, turn=turn, text=command.text)
            room.publish(told)
            room.playing.clear()
            if command.respond == "auto":
                self.replies.start(
                    room, caller, command.id, player, deadline_ms=command.deadline_ms
                )

    async def event(self, caller: Caller, command: commands.Event) -> None:
        """Something happens in the world; an NPC that perceives it may react.

        Raises:
            Forbidden: The caller is no host.
            NotFound: The conversation is not the caller's, or a member is not in it.
            Conflict: The conversation is closed.
            Busy: Every seat is taken and the queue is full.
        """
        self._refuse_when_draining()
        if not caller.host:
            raise Forbidden("Only a host may tell what happens in the world.")
        room, player = await self.rooms.enter_for(caller, command)
        turn, reply_turn = self.ids.new(), self.ids.new()

        async with room.lock:
            speaker = _who_reacts(room, command)

            def decide(state: Conversation) -> Change:
                change = room.settled(state, "interrupted") if speaker else Change(state)
                change = change.then(
                    rules.happened(
                        change.state,
                        command.text,
                        to=command.to,
                        hearers=command.hearers,
                        turn=turn,
                        now_ms=self.clock.wall_ms(),
                        command=command.id,
                    )
                )
                state = change.state
                if speaker is None:
                    return change if state.reply else change.then(rules.idle(state, turn))
                started = self._answered(
                    room, state, caller, player, reply_turn, speaker, command.instructions
                )
                return change.then(started)

            with room.holding() as live:
                told = await self._commit_once(
                    room, decide, caller, player, command, turn, take_lease=speaker is not None
                )
                if told is None:
                    return
                if speaker is not None:
                    room.end(live)
            room.publish(told)
            if speaker is not None:
                self.replies.start(room, caller, command.id, player)

    async def action_result(self, caller: Caller, command: commands.ActionResult) -> None:
        """Take in what became of an action; a reply that waits for it goes on.

        Raises:
            NotFound: The conversation is not the caller's, or there is no such action.
            Forbidden: The NPC did not address this player.
            Conflict: It is too late, or the game told before.
            TooLarge: The result is too long.
        """
        if len(orjson.dumps(command.result)) > RESULT_BYTES:
            raise TooLarge(f"'result' takes more than {RESULT_BYTES} bytes. Shorten it.")
        room, player = await self.rooms.enter_for(caller, command)

        def decide(state: Conversation) -> Change:
            return rules.action_settled(
                state,
                command.call,
                ok=command.ok,
                reason=command.reason or "refused",
                now_ms=self.clock.wall_ms(),
                by=None if caller.host else player.id,
            )

        async with room.lock:
            told = await self._commit_once(room, decide, caller, player, command)
            if told is not None:
                room.publish(told)
                outcome = ActionOutcome(command.ok, command.reason, command.result)
                room.answer(command.call, outcome)

    async def interrupt(self, caller: Caller, command: commands.Interrupt) -> None:
        """Cut a reply that is being spoken, or is still being played, to what was heard of it.

        Raises:
            NotFound: The conversation is not the caller's, or there is no such reply.
        """
        room, player = await self.rooms.enter(caller, command)

        async with room.lock:
            with room.holding() as live:
                hit = live is not None and command.turn in {None, live.speech.reply.turn}

                def decide(state: Conversation) -> Change:
                    if hit:
                        return room.settled(state, "interrupted", player, command.heard_chars)
                    return _cut_played(room, state, player, command)

                told = await self._commit_once(
                    room, decide, caller, player, command, release_lease=hit
                )
                if told is not None:
                    if hit:
                        room.end(live)
                    room.publish(told)

    async def regenerate(self, caller: Caller, command: commands.Regenerate) -> None:
        """Have the NPC say its newest reply anew; the old one is heard no more.

        Raises:
            NotFound: The conversation is not the caller's, or there is no such reply.
            Conflict: It is not the newest turn, still being spoken, or the conversation is closed.
            Busy: Every seat is taken and the queue is full.
            RateLimited: The player uses more than its quota.
        """
        self._refuse_when_draining()
        room, player = await self.rooms.enter(caller, command)
        turn = self.ids.new()

        def decide(state: Conversation) -> Change:
            position = self.replies.speaker.queue_position(state, player.ref, Priority.PLAYER)
            change = rules.regenerated(
                state, player, command.turn, turn=turn, queue_position=position
            )
            self._admit(room, caller, player)
            return change

        async with room.lock:
            told = await self._commit_once(
                room, decide, caller, player, command, turn, take_lease=True
            )
            if told is None:
                return
            room.publish(told)
            room.playing.clear()
            self.replies.start(room, caller, command.id, player)

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

    async def input(self, caller: Caller, command: commands.Input) -> None:
        """The player types or speaks: read into the model what is known already.

        Raises:
            NotFound: The conversation is not the caller's.
        """
        room, player = await self.rooms.enter(caller, command)
        if command.state != "idle" and not self.draining.is_set():
            typed = rules.typing(room.state, player, command.text or "")
            self.replies.warm(room, typed, player.ref)

    async def playback(self, caller: Caller, command: commands.Playback) -> None:
        """Note how far the player has heard a reply.

        Raises:
            NotFound: The conversation is not the caller's.
        """
        room, player = await self.rooms.enter(caller, command)
        key = (command.turn, player.id)
        if command.state == "end":
            room.playing.pop(key, None)
        elif key in room.playing or len(room.playing) < 64:
            room.playing[key] = command.heard_chars

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
                    room.end(room.live)
                    if room.warming is not None:
                        room.warming.cancel()
                    await self.store.delete_conversation(caller.world, conversation)
                    self.rooms.drop(room)
                await self.replies.speaker.forget(room.state)
                everyone = tuple(m.ref for m in room.state.members)
                room.tell(events.ConversationClosed(conversation=conversation), everyone)
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

    def leave(self, caller: Caller) -> None:
        """A session is gone; a reply that nobody listens to any more ends."""
        for room in self.rooms.all():
            if room.listeners.pop(caller.session, None) is None:
                continue
            room.hand_over()
            if room.live is not None and not room.listeners:
                self.replies.abandon_soon(room, room.live)
        self.rooms.drop_unused()

    def prompt_of(self, turn: str) -> dict[str, Any] | None:
        """The effective prompt of a recent reply, for people who tune personas."""
        return self.replies.speaker.prompt_of(turn)

    async def drain(self, seconds: float) -> None:
        """Refuse new turns, give replies some time to end, and cut the rest."""
        self.draining.set()
        speaking = [room.live.tasks[0] for room in self.rooms.all() if room.live]
        if speaking:
            await asyncio.wait(speaking, timeout=seconds)
        for room in self.rooms.all():
            if room.live is not None:
                await self.replies.abandon(room, room.live)
        await self.replies.close()

    async def _come_in(
        self,
        caller: Caller,
        command: commands.ConversationOpen,
        room: Room,
        player: Member,
        *,
        greet: bool,
    ) -> None:
        greeting = self.replies.speaker.greeting(room.state) if greet else None
        turn = self.ids.new()

        def decide(state: Conversation) -> Change:
            change = rules.opened(state, player)
            if greeting is None:
                return change
            speaker = state.npc_members()[0].id
            return change.then(
                rules.reply_started(
                    change.state, turn=turn, speaker=speaker, answers=None, queue_position=0
                )
            )

        async with room.lock:
            try:
                told = await self.rooms.commit(
                    room,
                    decide,
                    answer=Answer(player.ref, command.id, b"{}"),
                    take_lease=greeting is not None,
                )
            except RevisionConflict:
                raise Conflict("This conversation was opened just now. Open it again.") from None
            self.rooms.keep(room)
            fresh = [] if isinstance(told, bytes) else told
            opened = await self._opened(room, caller, command, player, fresh)
            room.listeners[caller.session] = caller
            if command.deadline_ms is not None:
                room.deadlines[player.ref] = command.deadline_ms
            caller.send(opened)
            room.publish(item for item in fresh if item.event.seq != opened.seq)
            if room.live is not None:
                caller.send(room.live.speech.snapshot())
                room.hand_over()
            if greeting is not None and fresh:
                self.replies.start(room, caller, command.id, player, canned=greeting)
        self.replies.warm(room)

    async def _opened(
        self,
        room: Room,
        caller: Caller,
        command: commands.ConversationOpen,
        player: Member,
        fresh: list[Addressed],
    ) -> events.ConversationOpened:
        state = room.state
        upto = fresh[0].event.seq if fresh else None
        since = command.since
        start = max(0, state.seq - TAIL_EVENTS) if since is None else since
        tail = await self.store.events_after(state.world, state.id, start, TAIL_EVENTS + 1)
        tail = [e for e in tail if upto is None or e.seq < upto]
        complete = len(tail) <= TAIL_EVENTS and (not tail or tail[0].seq == start + 1)
        return events.ConversationOpened(
            re=command.id,
            conversation=state.id,
            seq=upto,
            cast=rules.cast_of(state),
            state=rules.moods_of(state),
            tail=[
                {**e.event, "seq": e.seq}
                for e in tail[-TAIL_EVENTS:]
                if caller.host or player.ref in e.audience
            ],
            limited=None if complete else True,
            reply=state.reply.turn if state.reply else None,
        )

    def _begin(
        self, caller: Caller, command: commands.ConversationOpen, player: Member
    ) -> Conversation:
        npcs = []
        for choice in command.npcs:
            wanted = commands.NpcChoice(npc=choice) if isinstance(choice, str) else choice
            persona = self.library.get(wanted.npc)
            name = wanted.name or persona.name
            npcs.append(Member(wanted.member or persona.id, "npc", name, persona.id))
        return rules.begin(
            command.conversation or self.ids.new(),
            caller.world,
            player,
            npcs,
            locale=command.locale or caller.locale,
            now_ms=self.clock.wall_ms(),
        )

    def _answered(
        self,
        room: Room,
        state: Conversation,
        caller: Caller,
        player: Member,
        reply_turn: str,
        speaker: str,
        instructions: str | None = None,
    ) -> Change:
        ambient = state.turns[-1].kind == "event"
        priority = Priority.AMBIENT if ambient else Priority.PLAYER
        self._admit(room, caller, player, priority)
        return rules.reply_started(
            state,
            turn=reply_turn,
            speaker=speaker,
            answers=state.turns[-1],
            queue_position=self.replies.speaker.queue_position(state, player.ref, priority),
            ambient=ambient,
            instructions=instructions,
        )

    def _admit(
        self, room: Room, caller: Caller, player: Member, priority: Priority = Priority.PLAYER
    ) -> None:
        self.quotas.speaking(caller.namespace, player.ref, replaces=1 if room.live else 0)
        if room.live is None:
            self.replies.speaker.admit(room.state, priority)

    async def _commit_once(
        self,
        room: Room,
        decide: Any,
        caller: Caller,
        player: Member,
        command: commands.InConversation,
        turn: str | None = None,
        *,
        take_lease: bool = False,
        release_lease: bool = False,
    ) -> list[Addressed] | None:
        """Commit and acknowledge; a repeated command gets its first answer and ``None`` comes."""
        ack = events.Ack(re=command.id, conversation=room.state.id, turn=turn)
        answer = Answer(player.ref, command.id, ack.encode())
        try:
            told = await self.rooms.commit(
                room, decide, answer=answer, take_lease=take_lease, release_lease=release_lease
            )
        except NpcError as error:
            if isinstance(error, StoreUnavailable):
                raise
            body = await self.store.answer(room.state.world, room.state.id, answer)
            if body is None:
                raise
            told = body
        if isinstance(told, bytes):
            caller.send(events.Ack.model_validate_json(told))
            return None
        caller.send(ack)
        return told

    def _refuse_one_too_many(self, caller: Caller, conversation: str | None) -> None:
        allowed = self.settings.limits.conversations
        mine = [r.state.id for r in self.rooms.all() if caller.session in r.listeners]
        if len(mine) >= allowed and conversation not in mine:
            raise Conflict(
                f"This session has {allowed} conversations open, which is the limit. "
                "Close one first."
            )

    def _refuse_when_draining(self) -> None:
        if self.draining.is_set():
            raise Busy("The server is shutting down. Reconnect in a moment.", retry_after_ms=3_000)


def _player(caller: Caller, command: commands.ConversationOpen) -> Member:
    chosen = command.player
    if chosen is None:
        return Member(caller.player, "player", caller.name, caller.ref())
    return Member(chosen.id, "player", chosen.name or chosen.id, caller.ref(chosen.id))


def _who_reacts(room: Room, command: commands.Event) -> str | None:
    """The NPC that reacts to an event: the first that it concerns, else the first to perceive it.

    Where a reply is in flight, only what must be reacted to cuts it. Where nobody listens, nobody
    reacts.
    """
    if (
        not room.listeners
        or command.respond == "never"
        or (command.respond == "auto" and room.live is not None)
    ):
        return None
    npcs = [npc.id for npc in room.state.npc_members()]
    concerned = [npc for npc in npcs if npc in command.to]
    perceiving = [npc for npc in npcs if not command.hearers or npc in command.hearers]
    return next(iter((*concerned, *perceiving)), None)


def _stop_playing(room: Room, state: Conversation, player: Member) -> Change:
    """Cut the finished replies that were still being played to a player who now speaks."""
    change = Change(state)
    known = {turn.id for turn in state.turns if turn.kind == "reply"}
    for (turn, member), heard in room.playing.items():
        if member == player.id and turn in known:
            change = change.then(rules.heard_less(change.state, turn, member, heard))
    return change


def _cut_played(
    room: Room, state: Conversation, player: Member, command: commands.Interrupt
) -> Change:
    newest = next((t for t in reversed(state.turns) if t.kind == "reply"), None)
    if command.turn is None and command.heard_chars is None:
        return _stop_playing(room, state, player)
    turn = command.turn or (newest.id if newest else "")
    heard = command.heard_chars
    if heard is None:
        heard = room.playing.get((turn, player.id))
    if heard is None:
        return Change(state)
    return rules.heard_less(state, turn, player.id, heard)
