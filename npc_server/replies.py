"""Replies in flight: begun, made, kept alive, and committed when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from npc_server.acting import Call, Propose
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import Conversation, Member
from npc_server.conversation.rules import Addressed, Change, Outcome
from npc_server.errors import Busy, NpcError, StoreUnavailable
from npc_server.observability import Metrics, bind, get_logger
from npc_server.persona import Action
from npc_server.prompt import ActionOutcome
from npc_server.protocol import events
from npc_server.protocol.events import error_event
from npc_server.quota import Quotas
from npc_server.rooms import Caller, Live, Room, Rooms
from npc_server.scheduler import Priority
from npc_server.speaking import Speaker
from npc_server.speech import Speech
from npc_server.store import Fenced, Partial, Store

log = get_logger(__name__)

FLUSH_SECONDS = 1.0
"""Who takes a reply over may miss what was said in the last second; clients are told to forget it.
Flushing oftener costs more than all else that is done for a token."""
RENEW_EVERY = 3
"""Flushes between two renewals of the lease: every three seconds."""
COMMIT_PATIENCE_SECONDS = 60


class Replies:
    """Makes the replies that conversations have announced, and commits how they went.

    Args:
        store: Where everything is kept.
        rooms: The conversations in use.
        speaker: Makes replies.
        quotas: What players may use up.
        settings: Whether text may be logged, by when a reply has begun, and how long the game may
            take to confirm an action.
        metrics: Where it counts.
        clock: Time.
        ids: New ids.
    """

    def __init__(
        self,
        store: Store,
        rooms: Rooms,
        speaker: Speaker,
        quotas: Quotas,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.speaker = speaker
        self._store = store
        self._rooms = rooms
        self._quotas = quotas
        self._log_text = settings.log_text
        self._deadline_ms = settings.deadline_ms
        self._confirm_seconds = settings.timeouts.confirm
        self._metrics = metrics
        self._clock = clock
        self._ids = ids
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self,
        room: Room,
        caller: Caller,
        command: str,
        player: Member,
        *,
        canned: str | None = None,
        deadline_ms: int | None = None,
    ) -> None:
        """Begin to make the reply that the room's state announces. Hold the lock.

        Args:
            room: Whose state has it.
            caller: Who asked for it.
            command: The id of the command that did.
            player: For whom it was asked.
            canned: An authored line to say instead of asking the engine.
            deadline_ms: By when its first sentence is to have begun; by default as the player
                asked when opening the conversation, else as the settings say.
        """
        state = room.state
        if state.reply is None:
            raise RuntimeError("no reply was begun")
        audience = player_refs(state, state.reply.hearers)
        speech = Speech(
            state.id,
            state.reply,
            self._clock,
            lambda e: room.tell(e, audience),
            deadline_ms=deadline_ms or self._deadline_of(room, player),
        )
        live = Live(speech, caller, command, player.ref)
        live.go.set()
        room.live = live
        if room.warming is not None:
            room.warming.cancel()
        live.tasks.append(self._spawn(self._speak(room, live, state, canned)))
        live.tasks.append(self._spawn(self._keep_alive(room, live)))

    def _deadline_of(self, room: Room, player: Member) -> int | None:
        if room.state.reply is not None and room.state.reply.ambient:
            return None
        return room.deadlines.get(player.ref, self._deadline_ms)

    def warm(self, room: Room, state: Conversation | None = None, owner: str = "") -> None:
        """Read the prompt so far into the model, unless a reply is being made.

        Args:
            room: The conversation.
            state: Its state, if not the present one: with what a player has typed so far.
            owner: On whose account.
        """
        busy = room.warming is not None and not room.warming.done()
        if room.live is None and not busy:
            room.warming = self._spawn(self.speaker.warm(state or room.state, owner))

    async def abandon(self, room: Room, live: Live) -> None:
        """End a reply as cancelled: what was sent of it stays."""
        async with room.lock:
            if room.live is not live:
                return
            with room.holding():
                try:
                    told = await self._rooms.commit(
                        room, lambda state: room.settled(state, "cancelled"), release_lease=True
                    )
                except (StoreUnavailable, Busy, Fenced) as error:
                    log.warning("abandoned_reply_not_committed", reason=str(error))
                else:
                    if not isinstance(told, bytes):
                        room.publish(told)
                room.end(live)
        self._rooms.drop_unused()

    def abandon_soon(self, room: Room, live: Live) -> None:
        """``abandon``, in the background."""
        self._spawn(self.abandon(room, live))

    async def close(self) -> None:
        """End all that works in the background."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _speak(self, room: Room, live: Live, state: Conversation, canned: str | None) -> None:
        bind(conversation=state.id, turn=live.speech.reply.turn)
        ambient = live.speech.reply.ambient
        with self._quotas.replying(live.caller.namespace, live.asker) as spend:
            try:
                outcome = await self.speaker.speak(
                    state,
                    live.speech,
                    live.go,
                    canned,
                    propose=self._proposing(room, live),
                    priority=Priority.AMBIENT if ambient else Priority.PLAYER,
                    owner=live.asker,
                )
            except NpcError as error:
                log.warning("reply_failed", code=error.code, reason=error.message)
                outcome = self._failed(live, error)
            except Exception:
                log.exception("reply_failed")
                outcome = self._failed(live, NpcError(NpcError.wire_message))
            finally:
                # Also for a reply that was cut: else who cuts every one pays for none.
                spend(live.speech.spent)
        live.outcome = outcome
        if self._log_text:
            log.info("replied", text=outcome.text)
        try:
            await self._finish(room, live, outcome)
        except Exception:
            log.exception("reply_not_committed")
            self._lose(room, live)

    def _proposing(self, room: Room, live: Live) -> Propose:
        """Commits an action of this reply, and only then sends it."""
        timeout_ms = round(self._confirm_seconds * 1_000)

        async def propose(action: Action, args: Mapping[str, Any]) -> Call:
            call = self._ids.new()

            def decide(state: Conversation) -> Change:
                return rules.action_proposed(
                    state,
                    call=call,
                    name=action.name,
                    args=args,
                    confirm=action.confirm,
                    now_ms=self._clock.wall_ms(),
                    timeout_ms=timeout_ms,
                )

            async with room.lock:
                self._check_live(room, live)
                told = await self._rooms.commit(room, decide)
                to = player_refs(room.state, live.speech.reply.to)
                match told:
                    case [Addressed(event=events.ReplyAction() as event, audience=audience)]:
                        live.pending = room.propose(event, audience, to)
                    case _:
                        raise TypeError("a proposal is one reply.action")
            return Call(live.pending.answer, lambda: self._expire(room, live, call))

        return propose

    async def _expire(self, room: Room, live: Live, call: str) -> ActionOutcome:
        """Commit that the game said nothing in time, unless it just did."""
        async with room.lock:
            self._check_live(room, live)
            if live.pending is not None and live.pending.answer.done():
                return live.pending.answer.result()
            told = await self._rooms.commit(room, lambda s: rules.action_expired(s, call))
            live.pending = None
            if not isinstance(told, bytes):
                room.publish(told)
        return ActionOutcome(ok=False, reason=rules.TIMEOUT)

    def _check_live(self, room: Room, live: Live) -> None:
        if room.live is not live:
            raise asyncio.CancelledError

    def _failed(self, live: Live, error: NpcError) -> Outcome:
        self._metrics.errors.labels(error.code).inc()
        live.caller.send(error_event(error, live.command, live.speech.conversation))
        return live.speech.outcome("error", {})

    async def _finish(self, room: Room, live: Live, outcome: Outcome) -> None:
        """Commit the end of a reply, patiently: the player has heard it already."""
        patience = self._clock.monotonic() + COMMIT_PATIENCE_SECONDS
        wait = 0.1
        while True:
            async with room.lock:
                if room.live is not live:
                    return
                try:
                    told = await self._rooms.commit(
                        room, lambda state: room.settled(state, outcome.finish), release_lease=True
                    )
                except (StoreUnavailable, Busy) as error:
                    if self._clock.monotonic() > patience:
                        log.error("reply_lost", reason=error.message)
                        self._lose(room, live)
                        return
                except Fenced:
                    log.warning("reply_taken_over")
                    self._lose(room, live)
                    return
                else:
                    room.live = None
                    if not isinstance(told, bytes):
                        room.publish(told)
                    live.tasks[-1].cancel()
                    self._metrics.replies.labels(outcome.finish).inc()
                    break
            await asyncio.sleep(wait)
            wait = min(2.0, wait * 2)
        if room.listeners:
            self.warm(room)
        else:
            self._rooms.drop_unused()

    def _lose(self, room: Room, live: Live) -> None:
        """Give a reply up; what the store holds of it is settled when the room is used next."""
        room.stale = True
        if room.live is live:
            room.live = None
        live.tasks[-1].cancel()

    async def _keep_alive(self, room: Room, live: Live) -> None:
        """Keep a partial text in the store for whoever takes over, and the lease."""
        state, reply = room.state, live.speech.reply
        flushed, beats = "", 0
        while room.live is live:
            await asyncio.sleep(FLUSH_SECONDS)
            beats += 1
            try:
                if live.speech.text != flushed and room.fence is not None:
                    flushed = live.speech.text
                    partial = Partial(reply.turn, reply.attempt, flushed)
                    await self._store.flush_partial(state.world, state.id, partial, room.fence)
                elif beats % RENEW_EVERY == 0 and room.fence is not None:
                    await self._store.renew(state.world, state.id, room.fence)
            except StoreUnavailable as error:
                log.warning("flush_failed", reason=error.message)
            except Fenced:
                await self._taken_over(room, live)
                return

    async def _taken_over(self, room: Room, live: Live) -> None:
        """Give a reply up, unless its own end, which was just committed, gave the lease up."""
        async with room.lock:
            if room.live is live:
                log.warning("reply_taken_over")
                room.stale = True
                room.end(live)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
