"""Replies in flight: begun, made, kept alive, and committed when they end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from npc_server.acting import Call, Propose
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.conversation import rules
from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import Ask, Conversation, Member, Reply
from npc_server.conversation.rules import Addressed, Change, Outcome
from npc_server.director import Director, Pick
from npc_server.errors import Busy, NpcError, StoreUnavailable
from npc_server.observability import Metrics, bind, get_logger
from npc_server.persona import Action
from npc_server.prompt import ActionOutcome
from npc_server.protocol import events
from npc_server.protocol.events import error_event
from npc_server.quota import Quotas
from npc_server.rooms import Asking, Live, Room, Rooms
from npc_server.scheduler import Priority
from npc_server.speaking import Speaker
from npc_server.speech import Speech
from npc_server.store import Fenced, Partial, Store

log = get_logger(__name__)

FLUSH_SECONDS = 1.0
"""Who takes a reply over may miss what was said in the last second; clients are told to forget it.
Flushing oftener costs more than all else that is done for a token."""
SHARED_FLUSH_SECONDS = 0.25
"""The same where other servers tell their listeners of it."""
COMMIT_PATIENCE_SECONDS = 60

INPUT_SECONDS = 5.0
"""So long a player counts as typing or speaking after it last said so."""

CUT_SECONDS = 1.5
"""So long the server that says a reply has to end it, when a player cuts it at another one."""

ABSENCE_SECONDS = 3.0
"""So long a reply goes on when nobody listens any more: a connection that broke comes back."""

LOOK_SECONDS = 0.5
"""So often a server looks whether the one that speaks a reply is still there."""

ATTEMPTS = 3
"""A reply whose server dies is begun so often; one that kills them all must not go on for ever."""


class Replies:
    """Makes the replies that conversations have announced, and commits how they went.

    Args:
        store: Where everything is kept.
        rooms: The conversations in use.
        speaker: Makes replies.
        director: Decides who speaks next.
        quotas: What players may use up.
        settings: Whether text may be logged, by when a reply has begun, and how long the game may
            take to confirm an action.
        metrics: Where it counts.
        clock: Time.
        ids: New ids.

    Attributes:
        draining: Set when the server is about to stop.
    """

    def __init__(
        self,
        store: Store,
        rooms: Rooms,
        speaker: Speaker,
        director: Director,
        quotas: Quotas,
        settings: Settings,
        metrics: Metrics,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self.speaker = speaker
        self.director = director
        self.draining = asyncio.Event()
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

    def start(self, room: Room) -> None:
        """Begin to make the reply that the room's state announces. Hold the lock."""
        state = room.state
        reply = state.reply
        if reply is None:
            raise RuntimeError("no reply was begun")
        asking = room.asked.get(reply.root or "", Asking())
        speech = Speech(
            state.id,
            reply,
            self._clock,
            lambda e: room.tell_of(reply, e),
            deadline_ms=self._deadline_of(room, reply, asking),
        )
        live = Live(speech, asking, reply.player)
        room.live, room.relayed = live, None
        self.let_players_speak(room)
        if room.warming is not None:
            room.warming.cancel()
        live.tasks.append(self._spawn(self._speak(room, live, state)))
        live.tasks.append(self._spawn(self._keep_alive(room, live)))

    def let_players_speak(self, room: Room) -> None:
        """While a player who would hear it speaks or types, a reply does not begin.

        It waits ``INPUT_SECONDS`` in all at most: one who types without end must not silence it.
        """
        live = room.live
        if live is None or live.speech.text:
            return
        now = self._clock.monotonic()
        until = room.speaks_or_types(live.speech.reply.hearers, now)
        until = min(until, live.speech.asked + INPUT_SECONDS)
        if until <= now:
            live.go.open("input")
            return
        live.go.shut("input")
        asyncio.get_running_loop().call_later(until - now, self.let_players_speak, room)

    def _deadline_of(self, room: Room, reply: Reply, asking: Asking) -> int | None:
        if reply.ambient:
            return None
        return asking.deadline_ms or room.deadlines.get(reply.player, self._deadline_ms)

    def next_up(self, state: Conversation, turn: str) -> Change:
        """The beginning of the reply that waits first, if the floor is free and its NPC is known.

        Args:
            state: As it will be.
            turn: The id that the reply gets.
        """
        if state.reply is not None or state.hold or state.closed or not state.asks:
            return Change(state)
        ask = state.asks[0]
        if ask.speaker is None:
            return Change(state)
        if state.member(ask.speaker) not in state.here():
            return rules.silent(state, ask, ask.speaker, "gone")
        if rules.is_unasked(ask) and not self.director.has_budget(state):
            return rules.silent(state, ask, ask.speaker, "budget")
        position = self.speaker.queue_position(state, ask.speaker, ask.player, priority_of(ask))
        return rules.begun(
            state, ask, turn=turn, queue_position=position, now_ms=self._clock.wall_ms()
        )

    def go_on(self, room: Room, turn: str) -> None:
        """After a commit: make the reply that it began, or find out who is next. Hold the lock.

        Args:
            room: The conversation.
            turn: The id of the reply that the commit may have begun.
        """
        reply = room.state.reply
        if reply is not None and reply.turn == turn:
            self.start(room)
        elif reply is None and room.state.asks and room.listeners:
            self._spawn(self._advance(room))

    async def _advance(self, room: Room) -> None:
        """Find out who is next, and let it speak; patiently, where the store is away."""
        patience = self._clock.monotonic() + COMMIT_PATIENCE_SECONDS
        wait = 0.1
        while room.state.asks and room.listeners and not room.state.hold:
            state = room.state
            if state.reply is not None:
                return
            ask = state.asks[0]
            pick = await self.director.pick(state, ask) if ask.speaker is None else None
            try:
                if await self._give_floor(room, ask, pick):
                    return
            except (StoreUnavailable, Busy, Fenced) as error:
                log.warning("floor_not_given", reason=str(error))
                if self._clock.monotonic() > patience:
                    return
                await asyncio.sleep(wait)
                wait = min(2.0, wait * 2)

    async def _give_floor(self, room: Room, ask: Ask, pick: Pick | None) -> bool:
        """Commit who speaks, or that nobody does; whether there is nothing more to find out."""
        turn = self._ids.new()

        def decide(state: Conversation) -> Change:
            if ask not in state.asks or state.reply is not None:
                return Change(state)
            if ask.speaker is not None:
                return self.next_up(state, turn)
            if pick is None:
                return rules.given_up(state, ask)
            if pick.silence is not None:
                return rules.silent(state, ask, pick.npc, pick.silence)
            known = replace(ask, speaker=pick.npc)
            asks = tuple(known if other == ask else other for other in state.asks)
            return self.next_up(replace(state, asks=asks), turn)

        async with room.lock:
            if room.live is not None:
                return True
            told = await self._rooms.commit(room, decide)
            room.publish(told)
            if room.state.reply is not None and room.state.reply.turn == turn:
                self.start(room)
                return True
        return False

    def stir(self, room: Room) -> None:
        """Have the NPCs speak of themselves when it has been silent for long, if they may."""
        alive = room.stirring is not None and not room.stirring.done()
        if room.state.around.ambient.on and room.listeners and not alive:
            room.stirring = self._spawn(self._stirring(room))

    async def _stirring(self, room: Room) -> None:
        while room.listeners and room.state.around.ambient.on and not room.state.closed:
            before = room.state.revision
            await self._clock.sleep(room.state.around.ambient.after_s)
            state = room.state
            now = self._clock.monotonic()
            everyone = [m.id for m in state.here()]
            busy = state.reply or state.asks or state.hold or state.revision != before
            if busy or room.speaks_or_types(everyone, now) or not self.director.has_budget(state):
                continue
            on_account = next(iter(room.listeners.values())).ref()
            ask = Ask(None, None, None, on_account, ambient=True)

            def decide(state: Conversation, ask: Ask = ask) -> Change:
                free = state.reply is None and not state.asks
                return rules.asked(state, (ask,)) if free else Change(state)

            try:
                async with room.lock:
                    await self._rooms.commit(room, decide)
                await self._advance(room)
            except (StoreUnavailable, Busy, Fenced) as error:
                log.warning("nobody_stirred", reason=str(error))

    async def have_cut(self, room: Room, player: Member, heard: int | None = None) -> None:
        """Have the server that says a reply end it, since a player here cuts it.

        It alone knows all that was sent. Where it does not answer in time, whoever cuts the reply
        ends it with what was kept of it.

        Args:
            room: The conversation.
            player: Who cuts it.
            heard: How much it heard, in code points, if it told.

        Raises:
            Busy: Others commit all the time.
            StoreUnavailable: Nothing was committed.
        """
        state = room.state
        if state.reply is None or not room.is_foreign(state):
            return
        turn = state.reply.turn
        known = room.playing.get((turn, player.id)) if heard is None else heard

        def gone() -> bool:
            return room.state.reply is None or room.state.reply.turn != turn

        async with room.lock:
            if not gone():
                await self._rooms.commit(room, lambda s: rules.cut_asked(s, player, known))
        try:
            async with asyncio.timeout(CUT_SECONDS), room.changed:
                await room.changed.wait_for(gone)
        except TimeoutError:
            partial = await self._store.partial(state.world, state.id)
            room.partial = partial or room.partial

    async def follow(self, room: Room, kind: str) -> None:
        """Take in what another server did to a conversation.

        Args:
            room: The conversation.
            kind: ``partial`` where it said more of its reply; else it committed something.
        """
        if kind == "partial":
            if room.is_foreign(room.state):
                partial = await self._store.partial(room.state.world, room.state.id)
                if partial is not None and room.is_foreign(room.state):
                    room.partial = partial
                    room.relay(partial)
            return
        async with room.lock:
            there = await self._rooms.refresh(room)
            if there:
                room.end_if_over(room.live)
                reply = room.state.reply
                if room.live is not None and reply is not None and reply.cut_by:
                    await self._cut_for_others(room, room.live)
                self.go_on(room, "")
                self.look_after(room)
        if not there or room.goes_back:
            room.goes_back = False
            await self.speaker.forget(room.state)
        self.stir(room)

    async def _cut_for_others(self, room: Room, live: Live) -> None:
        """End our reply, which players cut at other servers."""

        def decide(state: Conversation) -> Change:
            change = Change(state)
            for member, heard in (state.reply.cut_by if state.reply else {}).items():
                player = state.member(member)
                if player is not None and change.state.reply is not None:
                    known = None if heard < 0 else heard
                    change = change.then(room.settled(change.state, "interrupted", player, known))
            return change

        with room.holding():
            await self._keep_last(room, live)
            told = await self._rooms.commit(room, decide)
            room.end_if_over(live)
        room.publish(told)

    def look_after(self, room: Room) -> None:
        """Watch a reply that another server is speaking, or has left unfinished."""
        watched = room.watching is not None and not room.watching.done()
        if room.is_foreign(room.state) and not watched:
            room.watching = self._spawn(self._watch(room))

    async def _watch(self, room: Room) -> None:
        """Take a foreign reply over as soon as its server is gone; until then look now and then."""
        wait = 0.0
        while room.listeners and room.is_foreign(room.state):
            await asyncio.sleep(wait)
            wait = LOOK_SECONDS
            try:
                if self._store.shared:
                    await self._store.note_listeners(room.state.world, room.state.id)
                async with room.lock:
                    await self.take_over(room)
            except (StoreUnavailable, Busy, Fenced) as error:
                log.debug("not_taken_over", reason=str(error))

    async def take_over(self, room: Room) -> None:
        """Say a reply anew whose server is gone, if it is. Hold the lock.

        Raises:
            Busy: The other server is still there; or others commit all the time.
            StoreUnavailable: Nothing was committed.
        """
        state = room.state
        if state.reply is None or not room.is_foreign(state):
            return
        last = state.reply.attempt >= ATTEMPTS

        def decide(state: Conversation) -> Change:
            if state.reply is None:
                return Change(state)
            return room.settled(state, "error") if last else rules.taken_over(state)

        told = await self._rooms.commit(room, decide)
        room.publish(told)
        self.go_on(room, state.reply.turn)

    def warm(self, room: Room, state: Conversation | None = None, owner: str = "") -> None:
        """Read the prompt so far into the model, unless a reply is being made.

        Args:
            room: The conversation.
            state: Its state, if not the present one: with what a player has typed so far.
            owner: On whose account.
        """
        busy = room.warming is not None and not room.warming.done()
        state = state or room.state
        npc = _likeliest(state)
        if room.live is None and not busy and npc is not None:
            room.warming = self._spawn(self.speaker.warm(state, npc, owner))

    async def abandon(self, room: Room, live: Live) -> None:
        """End a reply as cancelled: what was sent of it stays."""
        async with room.lock:
            if room.live is not live:
                return
            with room.holding():
                try:
                    told = await self._rooms.commit(room, lambda state: _given_up(room, state))
                except (StoreUnavailable, Busy, Fenced) as error:
                    log.warning("abandoned_reply_not_committed", reason=str(error))
                else:
                    room.publish(told)
                room.end(live)
        self._rooms.drop_unused()

    def abandon_soon(self, room: Room, live: Live) -> None:
        """``abandon`` a reply unless somebody comes to listen again, here or at another server."""
        live.absent_since = self._clock.monotonic()
        self._spawn(self._abandon_later(room, live, live.absent_since))

    async def _abandon_later(self, room: Room, live: Live, since: float) -> None:
        while True:
            await asyncio.sleep(ABSENCE_SECONDS)
            if room.listeners or room.live is not live or live.absent_since != since:
                return
            try:
                if not (self._store.shared and await self._listened_elsewhere(room)):
                    await self.abandon(room, live)
                    return
            except StoreUnavailable as error:
                log.warning("listeners_not_known", reason=error.message)

    async def _listened_elsewhere(self, room: Room) -> bool:
        return await self._store.has_listeners(room.state.world, room.state.id)

    def refuse_when_draining(self) -> None:
        """Begin nothing that the server could not end any more.

        Raises:
            Busy: It is about to stop.
        """
        if self.draining.is_set():
            raise Busy("The server is shutting down. Reconnect in a moment.", retry_after_ms=3_000)

    async def drain(self, seconds: float) -> None:
        """Refuse new turns, give replies some time to end, and cut the rest."""
        self.draining.set()
        speaking = [room.live.tasks[0] for room in self._rooms.all() if room.live]
        if speaking:
            await asyncio.wait(speaking, timeout=seconds)
        for room in self._rooms.all():
            if room.live is not None:
                await self.abandon(room, room.live)
        await self.close()

    async def close(self) -> None:
        """End all that works in the background."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _speak(self, room: Room, live: Live, state: Conversation) -> None:
        bind(conversation=state.id, turn=live.speech.reply.turn)
        with self._quotas.replying(live.asker.partition(":")[0], live.asker) as spend:
            try:
                outcome = await self.speaker.speak(
                    state,
                    live.speech,
                    live.go,
                    propose=self._proposing(room, live),
                    priority=priority_of(live.speech.reply),
                    owner=live.asker,
                )
            except NpcError as error:
                log.warning("reply_failed", code=error.code, reason=error.message)
                outcome = self._failed(room, live, error)
            except Exception:
                log.exception("reply_failed")
                outcome = self._failed(room, live, NpcError(NpcError.wire_message))
            finally:
                # Also for a reply that was cut: else who cuts every one pays for none.
                spend(live.speech.spent)
        live.outcome = outcome
        if outcome.finish in {"stop", "length"}:
            live.following = self.director.following(room.state, live.speech.reply, outcome.text)
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
                to = player_refs(state, live.speech.reply.to)
                return rules.action_proposed(
                    state,
                    call=call,
                    name=action.name,
                    args=args,
                    confirm=action.confirm,
                    now_ms=self._clock.wall_ms(),
                    timeout_ms=timeout_ms,
                    unclaimed=room.executor(to) is None,
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
            pending, live.pending = live.pending, None
            room.publish(told)
        if pending is not None and pending.answer.done():
            return pending.answer.result()  # told at another server, a moment ago
        return ActionOutcome(ok=False, reason=rules.TIMEOUT)

    def _check_live(self, room: Room, live: Live) -> None:
        if room.live is not live:
            raise asyncio.CancelledError

    def _failed(self, room: Room, live: Live, error: NpcError) -> Outcome:
        self._metrics.errors.labels(error.code).inc()
        told = error_event(error, live.asking.command, live.speech.conversation)
        room.tell(told, (live.asker,))
        return live.speech.outcome("error", {})

    async def _finish(self, room: Room, live: Live, outcome: Outcome) -> None:
        """Commit the end of a reply, patiently: the player has heard it already."""
        patience = self._clock.monotonic() + COMMIT_PATIENCE_SECONDS
        wait = 0.1
        turn = self._ids.new()

        def decide(state: Conversation) -> Change:
            change = room.settled(state, outcome.finish)
            if not room.listeners:
                return change
            return change.then(self.next_up(change.state, turn))

        while True:
            async with room.lock:
                if room.live is not live:
                    return
                try:
                    await self._keep_last(room, live)
                    told = await self._rooms.commit(room, decide)
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
                    room.publish(told)
                    live.tasks[-1].cancel()
                    self._metrics.replies.labels(outcome.finish).inc()
                    self.go_on(room, turn)
                    break
            await asyncio.sleep(wait)
            wait = min(2.0, wait * 2)
        if not room.listeners:
            self._rooms.drop_unused()
        elif room.live is None:
            self.warm(room)

    async def _keep_last(self, room: Room, live: Live) -> None:
        """Keep the whole of a reply that ends, where other servers tell their listeners of it."""
        if self._store.shared and room.fence is not None:
            state = room.state
            await self._store.flush_partial(state.world, state.id, _partial(live), room.fence)

    def _lose(self, room: Room, live: Live) -> None:
        """Give a reply up; what the store holds of it is settled when the room is used next."""
        room.stale = True
        if room.live is live:
            room.live = None
        live.tasks[-1].cancel()
        self.look_after(room)

    async def _keep_alive(self, room: Room, live: Live) -> None:
        """Keep a partial text in the store for whoever takes over, and the lease."""
        state, reply = room.state, live.speech.reply
        flushed = Partial(reply.turn, reply.attempt, "")
        beat = SHARED_FLUSH_SECONDS if self._store.shared else FLUSH_SECONDS
        renewed = self._clock.monotonic()
        while room.live is live:
            await asyncio.sleep(beat)
            try:
                partial = _partial(live)
                if partial != flushed and room.fence is not None:
                    flushed = partial
                    await self._store.flush_partial(state.world, state.id, partial, room.fence)
                    renewed = self._clock.monotonic()
                elif self._clock.monotonic() - renewed >= FLUSH_SECONDS and room.fence is not None:
                    await self._store.renew(state.world, state.id, room.fence)
                    renewed = self._clock.monotonic()
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
                self.look_after(room)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _partial(live: Live) -> Partial:
    speech = live.speech
    return Partial(speech.reply.turn, speech.reply.attempt, speech.text, speech.marks)


def priority_of(ask: Ask | Reply) -> Priority:
    """The class of a reply: who waits for it."""
    return Priority.AMBIENT if ask.ambient else Priority.PLAYER


def _likeliest(state: Conversation) -> Member | None:
    """The NPC that is likely to speak next: the one that is spoken to, or that spoke last."""
    npcs = {npc.id: npc for npc in state.npc_members()}
    for turn in reversed(state.turns):
        for member in (*turn.to, turn.speaker):
            if member in npcs:
                return npcs[member]
    return next(iter(npcs.values()), None)


def _given_up(room: Room, state: Conversation) -> Change:
    """The end of the reply in flight and of all that waits: nobody is there to hear it."""
    change = room.settled(state, "cancelled")
    return change.then(rules.given_up(change.state))
