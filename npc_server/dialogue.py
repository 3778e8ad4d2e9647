"""The conductor: every command about a conversation, from its arrival to its committed effect.

``say`` is the heart of it: what it cuts, the player's turn and the reply that begins are decided
and committed together, in one round trip; the reply is made outside the lock (``replies``) and
committed in another.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import orjson

from npc_server import past, staging
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.addressee import Addressees
from npc_server.conversation.audience import player_refs
from npc_server.conversation.backchannel import is_backchannel
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.conversation.rules import Addressed, Change
from npc_server.director import Director
from npc_server.errors import (
    BadMessage,
    Busy,
    Conflict,
    Forbidden,
    NotFound,
    TooLarge,
)
from npc_server.library import Library
from npc_server.observability import get_logger
from npc_server.prompt import ActionOutcome, Message
from npc_server.protocol import commands, events
from npc_server.quota import Quotas
from npc_server.replies import INPUT_SECONDS, Replies, priority_of
from npc_server.rooms import (
    TAIL_EVENTS,
    Asking,
    Caller,
    InputState,
    Room,
    Rooms,
    no_such_conversation,
)
from npc_server.scheduler import Priority
from npc_server.store import Answer, Consent, Partial, RevisionConflict, Store

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

    @property
    def director(self) -> Director:
        """Who decides who speaks next."""
        return self.replies.director

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
            with room.holding() as live:
                told = await self.rooms.commit_once(room, decide, caller, player, command)
                if told is not None:
                    room.end_if_over(live)
                    room.publish(told)
                    room.dismiss(player)
                    if room.state.closed:
                        room.listeners.pop(caller.session, None)
                    self.replies.let_players_speak(room)
                    self.replies.go_on(room, "")

    async def say(self, caller: Caller, command: commands.Say) -> None:
        """Take in what a player says, cut what it interrupts, and have whoever is meant answer.

        Raises:
            NotFound: The conversation is not the caller's, or an addressee is not in it.
            Forbidden: Only a host may say who hears it.
            Conflict: The conversation is closed.
            BadMessage: A whisper to nobody in particular.
            Busy: Every seat is taken and the queue is full.
            RateLimited: The player uses more than its quota.
        """
        self._refuse_when_draining()
        if command.hearers and not caller.host:
            raise Forbidden("Only a host may say who hears it. Leave 'hearers' out.")
        room, player = await self.rooms.enter(caller, command)
        if rules.takes_floor(room.state, player) and not _is_aside(
            room, room.state, player, command
        ):
            await self.replies.have_cut(room, player)
        turn, reply_turn = self.ids.new(), self.ids.new()
        aside = False

        def decide(state: Conversation) -> Change:
            nonlocal aside
            _refuse_if_away(state, player)
            aside = _is_aside(room, state, player, command)
            change = Change(state) if aside else self._take_floor(room, state, player)
            found = self._addressed(change.state, player, command)
            change = change.then(
                rules.said(
                    change.state,
                    player,
                    command.text,
                    to=command.to or found.members,
                    whisper=command.whisper,
                    hearers=command.hearers,
                    turn=turn,
                    now_ms=self.clock.wall_ms(),
                    command=command.id,
                )
            )
            if aside or command.respond == "never":
                return change.then(rules.idle(change.state, turn))
            return change.then(
                self._answered(room, change.state, caller, player, found, reply_turn)
            )

        async with room.lock:
            with room.holding() as live:
                told = await self.rooms.commit_once(room, decide, caller, player, command, turn)
                if told is None:
                    return
                room.end_if_over(live)
            if self.settings.log_text:
                log.info("said", conversation=room.state.id, turn=turn, text=command.text)
            room.publish(told)
            if not aside:
                room.stop_playing(player)
            if room.inputs.pop(player.id, None) is not None:
                self._tell_presence(room, player, "idle")
            room.remember(turn, Asking(command.id, command.deadline_ms))
            self.replies.let_players_speak(room)
            self.replies.go_on(room, reply_turn)

    async def event(self, caller: Caller, command: commands.Event) -> None:
        """Something happens in the world; an NPC that perceives it may react.

        Where nobody listens, nobody reacts. Where a reply is in flight, only what must be reacted
        to cuts it.

        Raises:
            Forbidden: The caller is no host.
            NotFound: The conversation is not the caller's, or a member is not in it.
            Conflict: The conversation is closed.
            Busy: Every seat is taken and the queue is full.
        """
        self._refuse_when_draining()
        room, player = await self.rooms.enter_as_host(caller, command)
        turn, reply_turn = self.ids.new(), self.ids.new()
        if command.respond == "must":
            await self.replies.have_cut(room, player)

        def decide(state: Conversation) -> Change:
            reacts = bool(room.listeners) and (
                command.respond == "must" or (command.respond == "auto" and state.reply is None)
            )
            change = room.settled(state, "interrupted") if reacts else Change(state)
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
            asks = _reactions(state, command, player, turn) if reacts else ()
            if not asks:
                return change.then(rules.idle(state, turn))
            return self._let_answer(room, change, caller, player, asks, reply_turn)

        async with room.lock:
            with room.holding() as live:
                told = await self.rooms.commit_once(room, decide, caller, player, command, turn)
                if told is None:
                    return
                room.end_if_over(live)
            room.publish(told)
            room.remember(turn, Asking(command.id))
            self.replies.go_on(room, reply_turn)

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
            told = await self.rooms.commit_once(room, decide, caller, player, command)
            if told is not None:
                outcome = ActionOutcome(command.ok, command.reason, command.result)
                room.answer(command.call, outcome)
                room.publish(told)

    async def interrupt(self, caller: Caller, command: commands.Interrupt) -> None:
        """Cut a reply that is being spoken, or is still being played, to what was heard of it.

        Raises:
            NotFound: The conversation is not the caller's, or there is no such reply.
            Forbidden: It is being said to another player.
        """
        room, player = await self.rooms.enter(caller, command)
        reply = room.state.reply
        meant = reply is not None and command.turn in {None, reply.turn}
        if meant and (caller.host or rules.takes_floor(room.state, player)):
            await self.replies.have_cut(room, player, command.heard_chars)

        def decide(state: Conversation) -> Change:
            reply = state.reply
            hears = reply is not None and player.id in reply.hearers
            meant = command.turn == reply.turn if reply and command.turn else hears
            if reply is None or not meant:
                return _cut_played(room, state, player, command)
            if not hears:
                raise no_such_reply()
            if not caller.host and not rules.takes_floor(state, player):
                raise Forbidden("This reply is said to somebody else, who alone may cut it.")
            change = room.settled(state, "interrupted", player, command.heard_chars)
            if command.turn is None:
                change = change.then(_stop_playing(room, change.state, player))
            return change.then(rules.yielded(change.state, player))

        async with room.lock:
            with room.holding() as live:
                told = await self.rooms.commit_once(room, decide, caller, player, command)
                if told is not None:
                    room.end_if_over(live)
                    room.publish(told)
                    self.replies.go_on(room, "")

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
            old = state.turn(command.turn)
            npc = old.speaker if old else None
            position = self.replies.speaker.queue_position(state, npc, player.ref, Priority.PLAYER)
            change = rules.regenerated(
                state, player, command.turn, turn=turn, queue_position=position
            )
            self._admit(room, caller, player, Ask(npc, None, None, player.ref))
            return change

        async with room.lock:
            told = await self.rooms.commit_once(room, decide, caller, player, command, turn)
            if told is None:
                return
            room.publish(told)
            room.playing.clear()
            reply = room.state.reply
            room.remember((reply and reply.root) or "", Asking(command.id))
            self.replies.go_on(room, turn)

    async def run_prompt(self, caller: Caller, command: commands.PromptRun) -> events.PromptAnswer:
        """Ask a model with an edited prompt.

        Raises:
            Forbidden: The caller is no host, or this server shows no prompts.
            NotFound: There is no such conversation of the caller, or no such reply.
            EngineUnavailable: The engine cannot answer.
        """
        if not self.settings.shows_prompts:
            raise Forbidden("This server shows no prompts. Set NPC_PROMPT_VIEW=true.")
        room, _ = await self.rooms.enter_as_host(caller, command)
        turn = room.state.turn(command.turn)
        npc = room.state.member(turn.speaker) if turn else None
        if turn is None or npc is None or npc.kind != "npc":
            raise no_such_reply()
        messages = [Message(message.role, message.text) for message in command.messages]
        text, usage = await self.replies.speaker.rerun(room.state, npc, messages, turn.index)
        return events.PromptAnswer(
            re=command.id,
            conversation=room.state.id,
            turn=turn.id,
            text=text,
            usage=events.TokenUsage(
                prompt=usage.prompt, cached=usage.cached, completion=usage.completion
            ),
        )

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
        before = room.inputs.get(player.id, ("idle", 0.0))[0]
        if command.state == "idle":
            room.inputs.pop(player.id, None)
        else:
            until = self.clock.monotonic() + INPUT_SECONDS
            room.inputs[player.id] = (command.state, until)
        if command.state != before:
            self._tell_presence(room, player, command.state)
        self.replies.let_players_speak(room)
        if command.state != "idle" and not self.draining.is_set():
            typed = command.text or ""
            found = self.director.addressed(room.state, player.id, typed)
            state = rules.typing(room.state, player, typed, found.members)
            self.replies.warm(room, state, player.ref)

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
                    room.silence()
                    await self.store.delete_conversation(caller.world, conversation)
                    self.rooms.forget(room)
                await self.replies.speaker.forget(room.state)
        await self.store.forget_player(caller.world, ref)
        return events.PlayerForgotten(
            re=command.id, player=command.player or caller.player, conversations=len(found)
        )

    def open_to(self, caller: Caller) -> tuple[str, ...]:
        """The conversations to which a session listens."""
        return tuple(
            r.state.id for r in self.rooms.all() if r.listeners.get(caller.session) is caller
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
            if room.listeners.get(caller.session) is not caller:
                continue  # not open here, or another connection of the session goes on with it
            del room.listeners[caller.session]
            room.hand_over()
            member = room.state.player(caller.ref())
            if member is not None and not room.online(member):
                room.inputs.pop(member.id, None)
                self.replies.let_players_speak(room)
                self._tell_presence(room, member, "idle")
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
        if partial is None or (partial.turn, partial.attempt) != (reply.turn, reply.attempt):
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
            self._tell_presence(room, player, "idle")
        for other in room.state.players():
            if other.id != player.id:
                doing = room.inputs.get(other.id, ("idle", 0.0))[0]
                caller.send(_presence(room, other, doing))

    def _tell_presence(self, room: Room, member: Member, doing: InputState) -> None:
        others = tuple(p.ref for p in room.state.players() if p.id != member.id)
        event = _presence(room, member, doing)
        for listener in room.listeners.values():
            if listener.ref() in others:
                listener.send(event)

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
        own = any(p.ref.startswith(f"{caller.namespace}:") for p in state.players())
        if not (invited and state.invite) and not (caller.host and own):
            raise no_such_conversation()
        return _under_free_id(state, player)

    def _addressed(self, state: Conversation, player: Member, command: commands.Say) -> Addressees:
        found = self.director.addressed(
            state,
            player.id,
            command.text,
            to=command.to,
            gaze=command.gaze,
            hearers=command.hearers,
        )
        aimed = command.to or found.members
        if command.whisper and not aimed and len(state.npc_members()) > 1:
            raise BadMessage(
                "To whom do you whisper? Name the members in 'to'.", details={"field": "to"}
            )
        return found

    def _take_floor(self, room: Room, state: Conversation, player: Member) -> Change:
        """What ends when a player speaks: replies to it, what NPCs tell one another, what plays."""
        change = Change(state)
        if rules.takes_floor(state, player):
            change = room.settled(state, "interrupted", player)
        change = change.then(_stop_playing(room, change.state, player))
        return change.then(rules.yielded(change.state, player))

    def _answered(
        self,
        room: Room,
        state: Conversation,
        caller: Caller,
        player: Member,
        found: Addressees,
        reply_turn: str,
    ) -> Change:
        """Who answers what a player just said."""
        turn = state.turns[-1]
        change = Change(state)
        for npc in (npc.id for npc in state.npc_members() if npc.id in turn.to):
            if npc not in turn.hearers:
                ask = Ask(npc, turn.id, turn.id, player.ref)
                change = change.then(rules.silent(change.state, ask, npc, "out_of_earshot"))
        asks = self.director.asks(state, turn, player, found)
        if not asks:
            return change.then(rules.idle(change.state, turn.id))
        return self._let_answer(room, change, caller, player, asks, reply_turn)

    def _let_answer(
        self,
        room: Room,
        change: Change,
        caller: Caller,
        player: Member,
        asks: tuple[Ask, ...],
        reply_turn: str,
    ) -> Change:
        """A change, and who answers it, as far as there is room for one more reply."""
        self._admit(room, caller, player, asks[0])
        change = change.then(rules.asked(change.state, asks))
        return change.then(self.replies.next_up(change.state, reply_turn))

    def _admit(self, room: Room, caller: Caller, player: Member, ask: Ask) -> None:
        self.quotas.speaking(caller.namespace, player.ref, replaces=1 if room.live else 0)
        if room.live is None:
            self.replies.speaker.admit(room.state, ask.speaker, priority_of(ask))

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


def _under_free_id(state: Conversation, player: Member) -> Member:
    """A newcomer whose id is not another member's: two keys may each have a player of one id."""
    known = (replace(player, id=player.id if n == 1 else f"{player.id}~{n}") for n in count(1))
    return next(m for m in known if (other := state.member(m.id)) is None or other.ref == m.ref)


def _reactions(
    state: Conversation, command: commands.Event, player: Member, turn: str
) -> tuple[Ask, ...]:
    """Who reacts to an event: those whom it concerns, else one of those who perceive it."""
    heard = state.turns[-1].hearers
    npcs = [npc.id for npc in state.npc_members() if npc.id in heard]
    concerned: list[str | None] = [npc for npc in npcs if npc in command.to]
    open_: list[str | None] = [None] if len(npcs) > 1 else [*npcs]
    return tuple(
        Ask(
            npc,
            turn,
            turn,
            player.ref,
            ambient=True,
            instructions=command.instructions,
            must=command.respond == "must",
        )
        for npc in (concerned or open_)
    )


def _is_aside(room: Room, state: Conversation, player: Member, command: commands.Say) -> bool:
    """Whether a player only tells that it listens, while an NPC speaks to it."""
    playing = any(member == player.id for _, member in room.playing)
    if not playing and (state.reply is None or player.id not in state.reply.hearers):
        return False
    if command.overlap is not None:
        return command.overlap == "backchannel"
    return is_backchannel(command.text)


def _now(state: Conversation, member: Member) -> Member:
    """A member as it is by now."""
    return state.member(member.id) or member


def _refuse_if_away(state: Conversation, player: Member) -> None:
    if not state.closed and _now(state, player).presence != "here":
        raise Conflict("You closed this conversation. Send conversation.open with its id to go on.")


def _as_missed(event: events.DurableEvent) -> events.DurableEvent:
    """An event that is told later: what is to be done is told apart."""
    if isinstance(event, events.ReplyAction):
        return event.model_copy(update={"execute": False})
    return event


def _hears(caller: Caller, state: Conversation) -> bool:
    """Whether a session is told of the reply in flight."""
    hearers = state.reply.hearers if state.reply else ()
    return caller.host or caller.ref() in player_refs(state, hearers)


def _presence(room: Room, member: Member, doing: InputState) -> events.PlayerPresence:
    return events.PlayerPresence(
        conversation=room.state.id, member=member.id, online=room.online(member), input=doing
    )


def no_such_reply() -> NotFound:
    """The same for one that does not exist and for one that was not heard."""
    return NotFound("There is no such reply in this conversation.")


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
