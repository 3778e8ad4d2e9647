"""The conductor: what is said and what happens, from a command's arrival to its committed effect.

``say`` is the heart of it: what it cuts, the player's turn and the reply that begins are decided
and committed together, in one round trip; the reply is made outside the lock (``replies``) and
committed in another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.addressee import Addressees
from npc_server.conversation.backchannel import is_backchannel
from npc_server.conversation.model import Ask, Conversation, Member
from npc_server.conversation.rules import Change
from npc_server.director import Director
from npc_server.errors import (
    BadMessage,
    Conflict,
    Forbidden,
    NotFound,
    TooLarge,
)
from npc_server.observability import get_logger
from npc_server.prompt import ActionOutcome, Message
from npc_server.protocol import commands, events
from npc_server.quota import Quotas
from npc_server.replies import INPUT_SECONDS, Replies, priority_of
from npc_server.rooms import (
    Asking,
    Caller,
    Room,
    Rooms,
)
from npc_server.scheduler import Priority

log = get_logger(__name__)

RESULT_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Carries out the commands of which a conversation is made.

    Attributes:
        rooms: The conversations in use.
        replies: The replies in flight.
        quotas: What players may use up.
        settings: Limits and time-outs.
        clock: Time.
        ids: New ids.
    """

    rooms: Rooms
    replies: Replies
    quotas: Quotas
    settings: Settings
    clock: Clock
    ids: Ids

    @property
    def director(self) -> Director:
        """Who decides who speaks next."""
        return self.replies.director

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
        self.replies.refuse_when_draining()
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
            if not await self.rooms.commit_cut(room, decide, caller, player, command, turn):
                return
            if self.settings.log_text:
                log.info("said", conversation=room.state.id, turn=turn, text=command.text)
            if not aside:
                room.stop_playing(player)
            if room.inputs.pop(player.id, None) is not None:
                room.tell_presence(player)
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
        self.replies.refuse_when_draining()
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
            if not await self.rooms.commit_cut(room, decide, caller, player, command, turn):
                return
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
            if await self.rooms.commit_cut(room, decide, caller, player, command):
                self.replies.go_on(room, "")

    async def regenerate(self, caller: Caller, command: commands.Regenerate) -> None:
        """Have the NPC say its newest reply anew; the old one is heard no more.

        Raises:
            NotFound: The conversation is not the caller's, or there is no such reply.
            Conflict: It is not the newest turn, still being spoken, or the conversation is closed.
            Busy: Every seat is taken and the queue is full.
            RateLimited: The player uses more than its quota.
        """
        self.replies.refuse_when_draining()
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
            room.tell_presence(player)
        self.replies.let_players_speak(room)
        if command.state != "idle" and not self.replies.draining.is_set():
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

    def prompt_of(self, turn: str) -> dict[str, Any] | None:
        """The effective prompt of a recent reply, for people who tune personas."""
        return self.replies.speaker.prompt_of(turn)

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
