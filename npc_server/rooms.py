"""Conversations in use: cached state, who listens, what is being spoken, and how it is committed.

A room's state is a cache of the store's with a revision. Under the room's lock a command becomes
a pure ``Change``; it is committed in one round trip, and only then its events go out.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, overload

from npc_server import past
from npc_server.clock import Clock
from npc_server.conversation import rules
from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import Ask, Conversation, Member, Reply, ReplyFinish
from npc_server.conversation.rules import Addressed, Change, Outcome
from npc_server.errors import Busy, Forbidden, NotFound, NpcError, StoreUnavailable
from npc_server.observability import Metrics
from npc_server.prompt import ActionOutcome
from npc_server.protocol import commands, events
from npc_server.speech import Gate, Speech
from npc_server.store import (
    Answer,
    Durable,
    Owned,
    Partial,
    Repeated,
    RevisionConflict,
    Store,
    StoredEvent,
    Wakes,
)

InputState = Literal["typing", "speaking", "idle"]

ROOMS_KEPT = 1_000
ASKED_KEPT = 64
COMMIT_ATTEMPTS = 5
TAIL_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a command.

    Attributes:
        session: The session's id.
        host: Whether it may speak for any player and hears everything.
        namespace: Where its player ids live: the API key's id.
        world: The playthrough that the session is about.
        player: The player's id, without the name space.
        name: What others call the player.
        locale: BCP 47 tag, if the client gave one.
        send: Takes an event for this session's client; never blocks.
    """

    session: str
    host: bool
    namespace: str
    world: str
    player: str
    name: str
    locale: str | None
    send: Callable[[events.Event], None]

    def ref(self, player: str | None = None) -> str:
        """The namespaced id of a player: of the caller, or of one that a host speaks for.

        Raises:
            Forbidden: The caller is no host and speaks for another.
        """
        if player is not None and player != self.player and not self.host:
            raise Forbidden(
                "Only a host may act for another player. Leave 'player' out, or connect with the "
                "key of a host."
            )
        return f"{self.namespace}:{player or self.player}"

    def owns(self, member: Member) -> bool:
        """Whether a member is a player of the caller's key."""
        return member.kind == "player" and member.ref.startswith(f"{self.namespace}:")


@dataclass(slots=True, eq=False)
class Pending:
    """An action that was sent to the game, which has not told of it yet.

    Attributes:
        event: What was sent.
        to: The namespaced ids of the players whom the NPC addresses.
        executor: The session that is to do it; ``None`` while nobody listens who could.
        answer: Gets what the game tells.
    """

    event: events.ReplyAction
    to: tuple[str, ...]
    executor: str | None
    answer: asyncio.Future[ActionOutcome]


@dataclass(slots=True, eq=False)
class Live:
    """A reply that is being spoken.

    Attributes:
        speech: What is known of it so far.
        asking: Who asked for it, and how.
        asker: The namespaced id of the player on whose account it is.
        go: Shut while nothing may be said: a command may be about to cut it, or a player speaks.
        absent_since: When its last listener left, in monotonic seconds.
        outcome: How it went, once it is complete.
        following: Who is to answer it, once it is complete.
        tasks: What works on it.
        pending: The action that the game is to carry out, if it has not told of it yet.
    """

    speech: Speech
    asking: Asking
    asker: str
    go: Gate = field(default_factory=Gate)
    absent_since: float = 0.0
    outcome: Outcome | None = None
    following: tuple[Ask, ...] = ()
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    pending: Pending | None = None

    @property
    def spoken(self) -> tuple[str, int]:
        """Which reply this is, and in which attempt."""
        return self.speech.reply.spoken


@dataclass(frozen=True, slots=True)
class Asking:
    """How a reply was asked for.

    Attributes:
        command: The id of the command, if one did.
        deadline_ms: By when it is to have begun, if the command said so.
    """

    command: str | None = None
    deadline_ms: int | None = None


@dataclass(slots=True, eq=False)
class Room:
    """A conversation in use.

    Attributes:
        state: As committed last.
        now_ms: Unix milliseconds.
        lock: Held from a decision to its commit.
        listeners: Sessions that have it open.
        live: The reply that this process is speaking.
        fence: The number of the lease under which it does.
        partial: What is known of a reply in flight that this process is not speaking.
        playing: By (turn, member), how far a reply that still plays was heard, in code points.
        inputs: By member, what a player is doing, and until when that counts (monotonic seconds).
        asked: By turn, how it asked for an answer.
        deadlines: By namespaced player id, by when replies have begun, in milliseconds, as the
            player asked when opening the conversation.
        warming: Reads the prompt so far into the model.
        stirring: Has NPCs speak of themselves.
        relayed: Of a foreign reply, what the listeners were told.
        changed: Notified when another server committed something.
        watching: Waits for the end of a reply that another server speaks.
        stale: Set where a commit may have taken place without our knowing.
        goes_back: Set where another server put an older game in its place.
    """

    state: Conversation
    now_ms: Callable[[], int]
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    listeners: dict[str, Caller] = field(default_factory=dict)
    live: Live | None = None
    fence: int | None = None
    partial: Partial | None = None
    playing: dict[tuple[str, str], int] = field(default_factory=dict)
    inputs: dict[str, tuple[InputState, float]] = field(default_factory=dict)
    asked: OrderedDict[str, Asking] = field(default_factory=OrderedDict)
    deadlines: dict[str, int] = field(default_factory=dict)
    warming: asyncio.Task[None] | None = None
    relayed: Partial | None = None
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    stirring: asyncio.Task[None] | None = None
    watching: asyncio.Task[None] | None = None
    stale: bool = False
    goes_back: bool = False

    def remember(self, turn: str, asking: Asking) -> None:
        """Keep how a turn asked for an answer, for a while."""
        self.asked[turn] = asking
        while len(self.asked) > ASKED_KEPT:
            self.asked.popitem(last=False)

    def online(self, member: Member) -> bool:
        """Whether a session of a player listens."""
        return any(caller.ref() == member.ref for caller in self.listeners.values())

    def speaks_or_types(self, hearers: Iterable[str], now: float) -> float:
        """Until when a player among some members speaks or types; 0 where none does."""
        lapses = (self.inputs.get(member, ("idle", 0.0))[1] for member in hearers)
        return max((until for until in lapses if until > now), default=0.0)

    def publish(self, addressed: Iterable[Addressed]) -> None:
        """Send durable events to everyone who listens and may know of them.

        All deltas joined equal the text of ``reply.done``, whoever spoke the reply.
        """
        for item in addressed:
            event = item.event
            if isinstance(event, events.ReplyStarted):
                self.relayed = Partial(event.turn, event.attempt, "")
            elif isinstance(event, events.ReplyDone):
                self._relay_rest(event, item.audience)
            elif isinstance(event, events.ActionSettled):
                self.answer(event.call, ActionOutcome(event.ok, event.reason))
            elif isinstance(event, events.ReplyAction):
                executor = self.executor_of(event)
                self._offer(event, item.audience, executor)
                continue
            self.tell(event, item.audience)

    def tell(
        self, event: events.Event, audience: tuple[str, ...], besides: Caller | None = None
    ) -> None:
        """Send one event to those of an audience who listen, and to hosts."""
        for listener in self._among(audience):
            if listener is not besides:
                listener.send(event)

    def tell_of(self, reply: Reply, event: events.Event) -> None:
        """Send an event of a reply to those who hear it now: who has left does not."""
        now = self.state.reply
        known = now if now is not None and now.turn == reply.turn else reply
        self.tell(event, player_refs(self.state, known.hearers))

    def presence_of(self, player: Member) -> events.PlayerPresence:
        """Whether a player is there, and what it is doing."""
        return events.PlayerPresence(
            conversation=self.state.id,
            member=player.id,
            online=self.online(player),
            input=self.inputs.get(player.id, ("idle", 0.0))[0],
        )

    def tell_presence(self, player: Member) -> None:
        """Tell the other players whether one is there, and what it is doing."""
        others = tuple(p.ref for p in self.state.players() if p.id != player.id)
        event = self.presence_of(player)
        for listener in self.listeners.values():
            if listener.ref() in others:
                listener.send(event)

    def dismiss(self, player: Member) -> None:
        """A player left: its own sessions listen no more."""
        for session, caller in tuple(self.listeners.items()):
            if caller.ref() == player.ref:
                del self.listeners[session]
        self.inputs.pop(player.id, None)
        self.stop_playing(player)

    def stop_playing(self, player: Member) -> None:
        """Nothing plays to a player any more."""
        self.playing = {key: n for key, n in self.playing.items() if key[1] != player.id}

    def parted(self, state: Conversation, member: Member) -> Change:
        """What becomes of the reply in flight when a member leaves.

        It ends if it is the member's own, or nobody else listens to it; else it goes on for the
        others.
        """
        own = state.reply is not None and state.reply.speaker == member.id
        if own or (member.kind == "player" and rules.is_only_for(state, member)):
            return self.settled(state, "cancelled")
        return rules.walked_out(state, member.id, self.heard_by_now(member.id))

    def heard_by_now(self, member: str) -> int:
        """How much of the reply in flight reached a member, in code points."""
        reply = self.state.reply
        if reply is None:
            return 0
        if self.is_foreign(self.state):
            partial = self.partial
            sent = len(partial.text) if partial and partial.turn == reply.turn else 0
        else:
            sent = len(self.live.speech.text) if self.live else 0
        return min(sent, self.playing.get((reply.turn, member), sent))

    def propose(
        self, event: events.ReplyAction, audience: tuple[str, ...], to: tuple[str, ...]
    ) -> Pending:
        """Send an action to all who may know of it, to one of them as the one to do it.

        Args:
            event: The action.
            audience: The namespaced ids of the players who perceive it.
            to: Those of the players whom the NPC addresses.
        """
        executor = self.executor(to)
        self._offer(event, audience, executor)
        return Pending(event, to, executor, asyncio.get_running_loop().create_future())

    def _offer(
        self, event: events.ReplyAction, audience: tuple[str, ...], executor: str | None
    ) -> None:
        for listener in self._among(audience):
            mine = listener.session == executor
            listener.send(event.model_copy(update={"execute": mine}))

    def answer(self, call: str, outcome: ActionOutcome) -> None:
        """Let the reply that waits for an action go on, if this is the one."""
        pending = self.live.pending if self.live else None
        if pending is not None and pending.event.call == call and not pending.answer.done():
            pending.answer.set_result(outcome)

    def relay(self, partial: Partial, besides: Caller | None = None) -> None:
        """Tell the listeners what is new in the text of a reply that another server says."""
        reply = self.state.reply
        if reply is None or reply.spoken != partial.spoken:
            return
        self._relay(partial, player_refs(self.state, reply.hearers), besides)

    def _relay_rest(self, done: events.ReplyDone, audience: tuple[str, ...]) -> None:
        """Tell the listeners the rest of a reply that another server has said."""
        if self.relayed is not None and self.relayed.turn == done.turn:
            kept = self.partial
            same = kept is not None and kept.spoken == self.relayed.spoken
            marks = kept.marks if kept is not None and same else self.relayed.marks
            self._relay(replace(self.relayed, text=done.text, marks=marks), audience)
            self.relayed = None

    def _relay(
        self, partial: Partial, audience: tuple[str, ...], besides: Caller | None = None
    ) -> None:
        known = self.relayed
        if known is None or known.spoken != partial.spoken:
            known = Partial(partial.turn, partial.attempt, "")
        for event in _news(self.state.id, known, partial):
            self.tell(event, audience, besides)
        self.relayed = partial

    def hand_over(self, back: str | None = None) -> None:
        """Give an action whose session has gone to another one; under no ``seq``, for all know it.

        The call's id keeps a game from doing it twice.

        Args:
            back: A session whose connection broke, so that it may not know of it.
        """
        pending = self.live.pending if self.live else None
        if pending is None or pending.answer.done():
            return
        if pending.executor in self.listeners and pending.executor != back:
            return
        pending.executor = self.executor(pending.to)
        if pending.executor is not None:
            changes = {"execute": True, "seq": None}
            self.listeners[pending.executor].send(pending.event.model_copy(update=changes))

    def _among(self, audience: tuple[str, ...]) -> list[Caller]:
        return [c for c in self.listeners.values() if c.host or c.ref() in audience]

    def have_done(self, missed: Iterable[Addressed], caller: Caller) -> None:
        """Have a session that came over do what an NPC at another server does, if it waits."""
        for event in (item.event for item in missed):
            if self.live is None and isinstance(event, events.ReplyAction):
                given = event.model_copy(update={"execute": True, "seq": None})
                if self.executor_of(given) == caller.session:
                    caller.send(given)

    def executor_of(self, event: events.ReplyAction) -> str | None:
        """The session here that does what an NPC at another server does, if it is to be here."""
        reply = self.state.reply
        if reply is None or reply.turn != event.turn or not event.execute:
            return None
        waits = any(act.call == event.call and act.ok is None for act in reply.actions)
        return self.executor(player_refs(self.state, reply.to)) if waits else None

    def executor(self, to: tuple[str, ...]) -> str | None:
        """The session that does things: a host's, else the first of an addressed player."""
        able = sorted(self._among(to), key=lambda caller: not caller.host)
        return able[0].session if able else None

    @contextmanager
    def holding(self) -> Iterator[Live | None]:
        """Let the reply in flight say nothing more while a command may be about to cut it."""
        live = self.live
        if live is not None:
            live.go.shut("command")
        try:
            yield live
        finally:
            if live is not None and self.live is live:
                live.go.open("command")

    def end(self, live: Live | None) -> None:
        """Stop what works on a reply; its end is committed already, or never will be."""
        if live is None:
            return
        if self.live is live:
            self.live = None
        for task in live.tasks:
            task.cancel()

    def end_if_over(self, live: Live | None) -> None:
        """Stop what works on a reply that the committed state has no more."""
        if live is not None and spoken(self.state) != live.spoken:
            self.end(live)

    def silence(self) -> None:
        """Stop everything that works on the conversation: it is another one now, or none."""
        self.end(self.live)
        self.playing.clear()
        self.relayed = self.partial = None
        if self.warming is not None:
            self.warming.cancel()

    def dismiss_strangers(self) -> None:
        """Tell those that it is closed who are not in the conversation any more."""
        cast = {player.ref for player in self.state.players()}
        for session, listener in tuple(self.listeners.items()):
            if not listener.host and listener.ref() not in cast:
                del self.listeners[session]
                listener.send(events.ConversationClosed(conversation=self.state.id))

    def is_foreign(self, state: Conversation) -> bool:
        """Whether a reply is in flight that this process is not speaking."""
        if state.reply is None:
            return False
        return self.live is None or self.live.spoken != spoken(state)

    def settled(
        self,
        state: Conversation,
        finish: ReplyFinish,
        player: Member | None = None,
        heard: int | None = None,
    ) -> Change:
        """The end of the reply in flight, if there is one.

        Args:
            state: The newest state.
            finish: Why it ends, unless it was complete already.
            player: Who cuts it.
            heard: How much that player heard; else the last playback, else all that was sent.
        """
        if state.reply is None:
            return Change(state)
        turn, live = state.reply.turn, self.live
        cuts = {m: chars for (t, m), chars in self.playing.items() if t == turn}
        if finish == "error":
            cuts = {}
        if player is not None and heard is not None:
            cuts[player.id] = heard
        if live is None or live.spoken != spoken(state):
            return rules.reply_done(state, self._told_elsewhere(state.reply, finish, cuts))
        if live.outcome is not None:
            # All of it was sent: it plays on for everyone but the one who cuts it.
            own = {m: chars for m, chars in cuts.items() if player is not None and m == player.id}
            following = () if player is not None else live.following
            return rules.reply_done(state, replace(live.outcome, heard=own), following)
        return rules.reply_done(state, live.speech.outcome(finish, cuts))

    def _told_elsewhere(
        self, reply: Reply, finish: ReplyFinish, heard: Mapping[str, int]
    ) -> Outcome:
        """How a reply went that another server spoke, as far as it was kept."""
        kept = (self.partial, self.relayed)
        text = next((known.text for known in kept if known and known.spoken == reply.spoken), "")
        return Outcome(text=text, finish=finish, at_ms=self.now_ms(), heard=heard)


class Rooms:
    """The conversations in use.

    Args:
        store: Where everything is kept.
        metrics: Where it counts.
        clock: Time.

    Attributes:
        wakes: What other servers do to them, where others use the same Redis.
    """

    def __init__(self, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._rooms: OrderedDict[tuple[str, str], Room] = OrderedDict()
        self.wakes: Wakes | None = None

    def new(self, state: Conversation) -> Room:
        """A room for a conversation."""
        return Room(state, self._clock.wall_ms)

    def all(self) -> tuple[Room, ...]:
        """Those in memory."""
        return tuple(self._rooms.values())

    def known(self, world: str, conversation: str) -> Room | None:
        """The room of a conversation, if it is in memory."""
        return self._rooms.get((world, conversation))

    def keep(self, room: Room) -> None:
        """Remember a room; one that nobody uses makes place for it."""
        key = (room.state.world, room.state.id)
        if self.wakes is not None and key not in self._rooms:
            self.wakes.subscribe(*key)
        self._rooms[key] = room
        self._rooms.move_to_end(key)
        if len(self._rooms) > ROOMS_KEPT:
            unused = next((r for r in self._rooms.values() if _unused(r) and r is not room), None)
            if unused is not None:
                self.drop(unused)
        self._metrics.conversations.set(len(self._rooms))

    def drop(self, room: Room) -> None:
        """Forget what is in memory of a room."""
        key = (room.state.world, room.state.id)
        self._rooms.pop(key, None)
        if self.wakes is not None:
            self.wakes.unsubscribe(*key)
        self._metrics.conversations.set(len(self._rooms))

    def drop_unused(self) -> None:
        """Forget the rooms without listeners."""
        for room in self.all():
            if _unused(room):
                self.drop(room)

    async def find(self, world: str, conversation: str) -> Room | None:
        """The room of a conversation, loaded if need be."""
        room = self._rooms.get((world, conversation))
        if room is None:
            state = await self._store.load(world, conversation)
            room = self._rooms.get((world, conversation))
            if room is None:
                if state is None:
                    return None
                room = self.new(state)
                self.keep(room)
        if room.stale:
            async with room.lock:
                if not await self.refresh(room):
                    return None
        if room.is_foreign(room.state):
            room.partial = await self._store.partial(world, conversation)
        return room

    async def enter(
        self, caller: Caller, command: commands.InConversation | commands.Input | commands.Playback
    ) -> tuple[Room, Member]:
        """The room of a command, and the member for whom the caller acts there.

        Raises:
            NotFound: There is none, or the player is not in it.
            Forbidden: The caller is no host and acts for another.
        """
        ref = caller.ref(command.player)
        room = await self.find(caller.world, command.conversation)
        member = room.state.player(ref) if room else None
        if room is None or member is None:
            raise no_such_conversation()
        return room, member

    async def enter_as_host(
        self, caller: Caller, command: commands.InConversation
    ) -> tuple[Room, Member]:
        """``enter_for``, for what only a host may do.

        Raises:
            NotFound: There is no such conversation of the caller.
            Forbidden: The caller is no host.
        """
        if not caller.host:
            raise Forbidden("Only a host may do this. Connect with the key of one.")
        return await self.enter_for(caller, command)

    async def enter_for(
        self, caller: Caller, command: commands.InConversation
    ) -> tuple[Room, Member]:
        """``enter``, where a host need not say for whom: then it acts for the first of its players.

        Raises:
            NotFound: There is no such conversation of the caller.
            Forbidden: The caller is no host and acts for another.
        """
        if not caller.host or command.player is not None:
            return await self.enter(caller, command)
        room = await self.find(caller.world, command.conversation)
        player = next(filter(caller.owns, room.state.members), None) if room else None
        if room is None or player is None:
            raise no_such_conversation()
        return room, player

    @overload
    async def commit(
        self,
        room: Room,
        decide: Callable[[Conversation], Change],
        *,
        answer: None = None,
        seize: bool = False,
    ) -> list[Addressed]: ...

    @overload
    async def commit(
        self,
        room: Room,
        decide: Callable[[Conversation], Change],
        *,
        answer: Answer,
        seize: bool = False,
    ) -> list[Addressed] | bytes: ...

    async def commit(
        self,
        room: Room,
        decide: Callable[[Conversation], Change],
        *,
        answer: Answer | None = None,
        seize: bool = False,
    ) -> list[Addressed] | bytes:
        """Decide and commit; decide anew where another replica was faster. Hold the lock.

        Whoever begins a reply takes the lease, whoever ends it gives the lease back.

        Args:
            room: The conversation.
            decide: What is to be done.
            answer: The command's answer, to be given again if the command comes again.
            seize: Whether a reply is ended although another server seems to be saying it.

        Returns:
            The events with their ``seq``; or, for a repeated command, its first answer.

        Raises:
            Busy: Others commit all the time, or speak here.
            RevisionConflict: A new conversation exists already.
            Fenced: Another replica owns the reply now.
            StoreUnavailable: Nothing was committed.
        """
        for _ in range(COMMIT_ATTEMPTS):
            before = room.state
            change = decide(before)
            if change.state is before and not change.events and answer is None:
                return []
            begins = spoken(change.state) not in {None, spoken(before)}
            ends = before.reply is not None and change.state.reply is None
            foreign = room.is_foreign(before) and spoken(before) != spoken(change.state)
            try:
                done = await self._store.commit(
                    change.state,
                    before=before if before.revision else None,
                    events=[_durable(item) for item in change.events],
                    answer=answer,
                    take_lease=begins or foreign,
                    seize_lease=foreign and seize,
                    release_lease=ends,
                    fence=room.fence if room.live else None,
                )
            except RevisionConflict:
                if not before.revision or not await self.refresh(room):
                    raise
                continue
            except StoreUnavailable:
                room.stale = True
                raise
            except Owned as owned:
                raise Busy(
                    "Another server is speaking in this conversation. Try again.",
                    retry_after_ms=owned.retry_after_ms,
                ) from None
            if isinstance(done, Repeated):
                return done.body
            room.state = replace(change.state, revision=done.revision, seq=done.seq)
            room.fence = done.fence
            first = done.seq - len(change.events) + 1
            return [
                Addressed(item.event.model_copy(update={"seq": first + n}), item.audience)
                for n, item in enumerate(change.events)
            ]
        raise Busy("This conversation changes all the time. Try again.", retry_after_ms=200)

    async def commit_once(
        self,
        room: Room,
        decide: Callable[[Conversation], Change],
        caller: Caller,
        player: Member,
        command: commands.InConversation,
        turn: str | None = None,
    ) -> list[Addressed] | None:
        """Commit and acknowledge; a repeated command gets its first answer and ``None`` comes.

        Raises:
            NpcError: It was refused, and not carried out before either.
        """
        ack = events.Ack(re=command.id, conversation=room.state.id, turn=turn)
        answer = Answer(player.ref, command.id, ack.encode())
        try:
            told = await self.commit(room, decide, answer=answer, seize=True)
        except NpcError as error:
            if isinstance(error, StoreUnavailable):
                raise
            if not await self.repeated(room, caller, player, command):
                raise
            return None
        if isinstance(told, bytes):
            caller.send(events.Ack.model_validate_json(told))
            return None
        caller.send(ack)
        return told

    async def commit_cut(
        self,
        room: Room,
        decide: Callable[[Conversation], Change],
        caller: Caller,
        player: Member,
        command: commands.InConversation,
        turn: str | None = None,
    ) -> bool:
        """``commit_once`` and tell, where the reply in flight may end by it: it is still meanwhile.

        Returns:
            Whether the command was carried out now.

        Raises:
            NpcError: It was refused, and not carried out before either.
        """
        with room.holding() as live:
            told = await self.commit_once(room, decide, caller, player, command, turn)
            if told is None:
                return False
            room.end_if_over(live)
            room.publish(told)
        return True

    async def repeated(
        self, room: Room, caller: Caller, player: Member, command: commands.InConversation
    ) -> bool:
        """Whether a command was carried out before; then its first answer is given again."""
        mine = Answer(player.ref, command.id, b"")
        body = await self._store.answer(room.state.world, room.state.id, mine)
        if body is not None:
            caller.send(events.Ack.model_validate_json(body))
        return body is not None

    async def refresh(self, room: Room) -> bool:
        """Load what others, or we without knowing, have committed, and tell of it. Hold the lock.

        Returns:
            Whether the conversation is still there.
        """
        state = room.state
        newest = await self._store.load(state.world, state.id)
        if newest is None:
            self.forget(room)
            return False
        missed = await self.missed(newest, state.seq)
        if room.relayed is not None:
            room.partial = await self._store.partial(state.world, state.id) or room.partial
        room.state, room.stale = newest, False
        told = past.reset_now(newest) if missed is None else missed
        if any(isinstance(item.event, events.ConversationReset) for item in told):
            room.silence()
            room.goes_back = True
        room.publish(told)
        room.dismiss_strangers()
        async with room.changed:
            room.changed.notify_all()
        return True

    async def missed(self, state: Conversation, last: int) -> list[Addressed] | None:
        """What was told of a conversation after a number; ``None`` if not all of it is kept.

        Args:
            state: What was committed later than this is left out.
            last: The newest ``seq`` that is known.
        """
        if last == state.seq:
            return []
        kept = await self._store.events_after(state.world, state.id, last, TAIL_EVENTS)
        found = [_addressed(item) for item in kept if item.seq <= state.seq]
        return found if len(found) == state.seq - last else None

    def forget(self, room: Room) -> None:
        """Stop and drop a room whose conversation was deleted, and tell everybody so."""
        room.silence()
        self.drop(room)
        everyone = tuple(m.ref for m in room.state.members)
        room.tell(events.ConversationClosed(conversation=room.state.id), everyone)
        room.listeners.clear()


def no_such_conversation() -> NotFound:
    """The same for one that does not exist and for one that is somebody else's."""
    return NotFound(
        "There is no such conversation of yours in this world. "
        "Open it first with conversation.open."
    )


def _news(conversation: str, known: Partial, partial: Partial) -> Iterator[events.Event]:
    """What is new in a reply, in the order in which it was told where it is said."""
    told = len(known.text)
    for mark in (*partial.marks[len(known.marks) :], None):
        upto = len(partial.text) if mark is None else mark["at"]
        if text := partial.text[told:upto]:
            yield events.ReplyDelta(conversation=conversation, turn=partial.turn, text=text)
            told = upto
        if mark is not None:
            yield events.EVENTS.validate_python(mark)


def spoken(state: Conversation) -> tuple[str, int] | None:
    """Which reply is in flight, and in which attempt."""
    return state.reply.spoken if state.reply else None


def _unused(room: Room) -> bool:
    return not (room.listeners or room.live or room.lock.locked())


def _addressed(item: StoredEvent) -> Addressed:
    event = events.EVENTS.validate_python({**item.event, "seq": item.seq})
    return Addressed(event, item.audience)


def _durable(item: Addressed) -> Durable:
    return Durable(event=item.event.encode(), audience=item.audience)
