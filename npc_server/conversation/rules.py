"""What each command does to a conversation: ``(state, command) -> Change``. Nothing else happens.

One player and one NPC talk at a time here, yet every turn names its speaker, its addressees and
its hearers, so that larger casts need no other data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import (
    Act,
    Conversation,
    Degraded,
    Gesture,
    Member,
    NpcState,
    Reply,
    ReplyFinish,
    Turn,
)
from npc_server.errors import BadMessage, Conflict, Forbidden, NotFound
from npc_server.protocol import events
from npc_server.protocol.emotion import Emotion
from npc_server.protocol.text import cut

TURNS_IN_MEMORY = 400
"""At least so many of the newest turns does a state carry; prompts are made of these."""

TURNS_DROPPED = 40
"""Beyond that, so many leave it at a time: each time a model may have to read all of them anew."""

TIMEOUT = "timeout"
"""The reason of a refusal where the game said nothing in time."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """A durable event, and the namespaced ids of the players to whom it goes."""

    event: events.DurableEvent
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A new state, and the events that tell of it."""

    state: Conversation
    events: tuple[Addressed, ...] = ()

    def then(self, following: Change) -> Change:
        """This change and one that was made from its state, as one."""
        return Change(following.state, self.events + following.events)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a reply went.

    Attributes:
        text: All that was sent of it.
        finish: Why it ended.
        at_ms: When it ended, in Unix milliseconds.
        heard: For hearers who heard less than all: how many code points.
        emotion: What the NPC felt at the end.
        usage: Tokens, if an engine was asked.
        timings: Where the time went.
        degraded: Which stand-in was spoken, if one was.
        gestures: What the NPC did while it spoke.
    """

    text: str
    finish: ReplyFinish
    at_ms: int
    heard: Mapping[str, int] = field(default_factory=dict)
    emotion: Emotion | None = None
    usage: events.TokenUsage | None = None
    timings: events.Timings | None = None
    degraded: Degraded | None = None
    gestures: tuple[Gesture, ...] = ()


def begin(
    conversation: str,
    world: str,
    player: Member,
    npcs: Sequence[Member],
    *,
    locale: str | None,
    now_ms: int,
) -> Conversation:
    """A new conversation, not stored yet.

    Raises:
        BadMessage: There is no NPC, more than one, or two members of one id.
    """
    if len(npcs) != 1:
        raise BadMessage(
            "A new conversation needs exactly one NPC: send 'npcs': [\"bram\"].",
            details={"field": "npcs"},
        )
    if player.id in {npc.id for npc in npcs}:
        raise BadMessage(
            f"The player and an NPC are both called '{player.id}'. "
            "Give the NPC another 'member' id.",
            details={"field": "npcs"},
        )
    return Conversation(
        id=conversation,
        world=world,
        members=(player, *npcs),
        created_ms=now_ms,
        npcs={npc.id: NpcState() for npc in npcs},
        locale=locale,
    )


def opened(state: Conversation, player: Member) -> Change:
    """A player comes in, for the first time or again."""
    state = replace(state, closed=False)
    event = events.ConversationOpened(
        conversation=state.id, cast=cast_of(state), state=moods_of(state), tail=[]
    )
    return Change(state, (Addressed(event, (player.ref,)),))


def closed(state: Conversation, player: Member) -> Change:
    """The player leaves; the conversation is kept.

    Raises:
        Conflict: It is closed already.
    """
    if state.closed:
        raise Conflict("The conversation is closed already. Open it again to go on.")
    event = events.ConversationClosed(conversation=state.id)
    return Change(replace(state, closed=True), (Addressed(event, (player.ref,)),))


def said(
    state: Conversation,
    player: Member,
    text: str,
    *,
    to: Sequence[str],
    whisper: bool,
    turn: str,
    now_ms: int,
    command: str | None = None,
) -> Change:
    """A player says something.

    Args:
        state: Without a reply in flight: the caller has settled it.
        player: The speaker.
        text: What was said, clean.
        to: Member ids of the addressees; empty means the NPCs.
        whisper: Whether only the addressees hear it.
        turn: The id of the new turn.
        now_ms: Unix milliseconds.
        command: The command's id, for the event's ``re``.

    Raises:
        BadMessage: The text is blank.
        Conflict: The conversation is closed.
        NotFound: An addressee is not in the cast.
    """
    _refuse_closed(state)
    if not text.strip():
        raise BadMessage("The text is empty. Say something.", details={"field": "text"})
    _refuse_strangers(state, to)
    addressees = tuple(dict.fromkeys(to)) or tuple(npc.id for npc in state.npc_members())
    everyone = tuple(m.id for m in state.members)
    hearers = tuple(dict.fromkeys((player.id, *addressees))) if whisper else everyone
    new = Turn(
        id=turn,
        index=next_index(state),
        kind="say",
        speaker=player.id,
        to=addressees,
        hearers=hearers,
        text=text,
        at_ms=now_ms,
    )
    return _turned(state, new, command)


def happened(
    state: Conversation,
    text: str,
    *,
    to: Sequence[str],
    hearers: Sequence[str],
    turn: str,
    now_ms: int,
    command: str | None = None,
) -> Change:
    """Something happens in the world.

    Args:
        state: A reply may be in flight; it goes on.
        text: What happens, clean.
        to: Member ids of those whom it concerns; empty means the NPCs that perceive it.
        hearers: Member ids of those who perceive it, besides ``to``; empty means everyone.
        turn: The id of the new turn.
        now_ms: Unix milliseconds.
        command: The command's id, for the event's ``re``.

    Raises:
        BadMessage: The text is blank.
        Conflict: The conversation is closed.
        NotFound: A member is not in the cast.
    """
    _refuse_closed(state)
    if not text.strip():
        raise BadMessage("The text is empty. Tell what happens.", details={"field": "text"})
    _refuse_strangers(state, (*to, *hearers))
    perceive = tuple(dict.fromkeys((*hearers, *to))) if hearers else ()
    perceive = perceive or tuple(m.id for m in state.members)
    npcs = tuple(npc.id for npc in state.npc_members() if npc.id in perceive)
    new = Turn(
        id=turn,
        index=next_index(state),
        kind="event",
        speaker="",
        to=tuple(dict.fromkeys(to)) or npcs,
        hearers=perceive,
        text=text,
        at_ms=now_ms,
    )
    return _turned(state, new, command)


def typing(state: Conversation, player: Member, text: str) -> Conversation:
    """The state as it would be if a player said what it has typed so far. Never to be stored."""
    if state.closed or not text.strip():
        return state
    return said(state, player, text, to=(), whisper=False, turn="typing", now_ms=0).state


def reply_started(
    state: Conversation,
    *,
    turn: str,
    speaker: str,
    answers: Turn | None,
    queue_position: int,
    ambient: bool = False,
    instructions: str | None = None,
) -> Change:
    """An NPC is going to speak: to whoever spoke to it, heard by whoever heard that."""
    hearers = answers.hearers if answers else tuple(m.id for m in state.members)
    players = tuple(m.id for m in state.members if m.kind == "player" and m.id in hearers)
    to = (answers.speaker,) if answers and answers.speaker else players
    reply = Reply(
        turn=turn,
        attempt=1,
        speaker=speaker,
        to=to,
        hearers=hearers,
        answers=answers.id if answers else None,
        ambient=ambient,
        instructions=instructions,
    )
    return _announced(state, reply, queue_position)


def regenerated(
    state: Conversation, player: Member, replaced: str, *, turn: str, queue_position: int
) -> Change:
    """An NPC is going to say its newest reply anew, to the same members.

    The old reply stays in the transcript and is heard no more: see ``audience.heard_by``. What the
    NPC did in the game is not taken back by other words, so the new reply has done it too.

    Raises:
        Conflict: The conversation is closed, the reply is still being spoken, or it is not the
            newest turn.
        NotFound: The player heard no such reply.
    """
    if state.closed:
        raise Conflict("The conversation is closed. Send conversation.open with its id to go on.")
    if state.reply is not None and state.reply.turn == replaced:
        raise Conflict("This reply is still being spoken. Wait for its end, or interrupt it first.")
    old = next((t for t in state.turns if t.id == replaced and t.kind == "reply"), None)
    if old is None or player.id not in old.hearers:
        raise NotFound("There is no such reply in this conversation.")
    if old.replaced_by is not None:
        raise Conflict("This reply was said anew already. Regenerate the one in its place.")
    if state.reply is not None or old is not state.turns[-1]:
        raise Conflict("Something was said since. Only the newest reply can be said anew.")
    turns = (*state.turns[:-1], replace(old, replaced_by=turn))
    reply = Reply(
        turn,
        1,
        old.speaker,
        old.to,
        old.hearers,
        old.answers,
        replaces=old.id,
        actions=tuple(act for act in old.actions if act.ok is not False),
    )
    return _announced(replace(state, turns=turns), reply, queue_position)


def action_proposed(
    state: Conversation,
    *,
    call: str,
    name: str,
    args: Mapping[str, Any],
    confirm: bool,
    now_ms: int,
    timeout_ms: int,
) -> Change:
    """The NPC whose reply is in flight does something in the game.

    Args:
        state: With the reply in flight.
        call: By which the game tells what became of it.
        name: One of the persona's actions.
        args: They fit its declared schema.
        confirm: Whether the NPC waits for the game before it speaks.
        now_ms: Unix milliseconds.
        timeout_ms: How long the game has to tell, in milliseconds.

    Raises:
        Conflict: No reply is in flight.
    """
    reply = state.reply
    if reply is None:
        raise Conflict("No reply is in flight.")
    act = Act(call, name, dict(args), confirm, now_ms + timeout_ms)
    event = events.ReplyAction(
        conversation=state.id,
        turn=reply.turn,
        call=call,
        name=name,
        args=act.args,
        confirm=confirm,
        timeout_ms=timeout_ms,
        execute=False,
    )
    after = replace(state, reply=replace(reply, actions=(*reply.actions, act)))
    return Change(after, (Addressed(event, player_refs(state, reply.hearers)),))


def action_settled(
    state: Conversation, call: str, *, ok: bool, reason: str | None, now_ms: int, by: str | None
) -> Change:
    """The game tells what became of an action.

    Args:
        state: The action is in the reply in flight, or in one of the newest turns.
        call: Which.
        ok: Whether the game did it.
        reason: Why it did not; data, clean.
        now_ms: Unix milliseconds.
        by: The member id of the player who tells; ``None`` for a host.

    Raises:
        NotFound: There is no such action.
        Forbidden: The NPC did not address this player.
        Conflict: It is too late, or the game told before.
    """
    within, act = _act(state, call)
    if by is not None and by not in within.to:
        raise Forbidden(
            "Only a host, or the player whom the NPC addresses, may tell of this action."
        )
    if act.ok is not None:
        told = "was done" if act.ok else f"was refused ({act.reason})"
        raise Conflict(f"It is settled already: the action {told}.")
    if now_ms > act.until_ms:
        raise Conflict("It is too late: the time for this action's result is over.")
    return _settle(state, within, act, ok=ok, reason=reason)


def action_expired(state: Conversation, call: str) -> Change:
    """The game has not told in time: that is a refusal. No change where it did.

    Raises:
        NotFound: There is no such action.
    """
    within, act = _act(state, call)
    if act.ok is not None:
        return Change(state)
    return _settle(state, within, act, ok=False, reason=TIMEOUT)


def reply_done(state: Conversation, outcome: Outcome) -> Change:
    """The reply in flight has ended, whole or cut.

    The event's text is all that was sent, since clients have joined the deltas to it; the
    transcript keeps only what at least one hearer heard.

    Raises:
        Conflict: No reply is in flight.
    """
    if state.reply is None:
        raise Conflict("No reply is in flight.")
    change = _given_up(state, state.reply, outcome.finish)
    reply = change.state.reply or state.reply
    audience = player_refs(state, reply.hearers)
    turn = _cut_turn(
        Turn(
            id=reply.turn,
            index=next_index(state),
            kind="reply",
            speaker=reply.speaker,
            to=reply.to,
            hearers=reply.hearers,
            text=outcome.text,
            at_ms=outcome.at_ms,
            finish=outcome.finish,
            answers=reply.answers,
            degraded=outcome.degraded,
            gestures=outcome.gestures,
            actions=reply.actions,
        ),
        outcome.heard,
        _listeners(state, reply.hearers),
    )
    done = events.ReplyDone(
        conversation=state.id,
        turn=reply.turn,
        text=outcome.text,
        finish=outcome.finish,
        usage=outcome.usage,
        timings=outcome.timings,
        degraded=outcome.degraded,
    )
    ended = _with_turn(replace(state, reply=None), turn)
    change = change.then(Change(ended, (Addressed(done, audience),)))
    for member, count in turn.heard.items():
        change = change.then(Change(change.state, (_heard_event(state, turn.id, member, count),)))
    if outcome.emotion:
        change = change.then(_felt(change.state, reply.speaker, outcome.emotion, audience))
    return change.then(idle(change.state, reply.answers))


def heard_less(state: Conversation, turn_id: str, member: str, chars: int) -> Change:
    """A finished reply was cut while it was still being played to a member.

    Raises:
        NotFound: There is no such reply among the newest turns.
    """
    turn = next((t for t in state.turns if t.id == turn_id and t.kind == "reply"), None)
    if turn is None:
        raise NotFound("There is no such reply in this conversation, or it is too old to be cut.")
    before = turn.heard.get(member, len(turn.text))
    if chars >= before:
        return Change(state)
    cut_turn = _cut_turn(turn, {**turn.heard, member: chars}, _listeners(state, turn.hearers))
    turns = tuple(cut_turn if t.id == turn_id else t for t in state.turns)
    event = _heard_event(state, turn_id, member, cut_turn.heard.get(member, len(cut_turn.text)))
    return Change(replace(state, turns=turns), (event,))


def idle(state: Conversation, turn: str | None) -> Change:
    """The last turn is settled."""
    event = events.SceneIdle(conversation=state.id, turn=turn)
    everyone = player_refs(state, (m.id for m in state.members))
    return Change(state, (Addressed(event, everyone),))


def cast_of(state: Conversation) -> list[events.CastMember]:
    """The cast as clients see it."""
    return [
        events.CastMember(
            member=m.id, kind=m.kind, name=m.name, npc=m.ref if m.kind == "npc" else None
        )
        for m in state.members
    ]


def moods_of(state: Conversation) -> list[events.NpcMood]:
    """The NPCs' states as clients see them."""
    return [
        events.NpcMood(member=member, emotion=npc.emotion, affinity=npc.affinity)
        for member, npc in state.npcs.items()
    ]


def next_index(state: Conversation) -> int:
    """The index of the next turn."""
    return state.turns[-1].index + 1 if state.turns else 0


def _refuse_closed(state: Conversation) -> None:
    if state.closed:
        raise Conflict("The conversation is closed. Send conversation.open with its id to go on.")


def _refuse_strangers(state: Conversation, members: Iterable[str]) -> None:
    for member in members:
        if state.member(member) is None:
            cast = ", ".join(m.id for m in state.members)
            raise NotFound(f"'{member}' is not in this conversation. Its members are: {cast}.")


def _turned(state: Conversation, new: Turn, command: str | None) -> Change:
    event = events.Turn(
        conversation=state.id,
        re=command,
        turn=new.id,
        kind="event" if new.kind == "event" else "say",
        speaker=new.speaker,
        to=list(new.to),
        hearers=list(new.hearers),
        text=new.text,
    )
    return Change(_with_turn(state, new), (Addressed(event, player_refs(state, new.hearers)),))


def _act(state: Conversation, call: str) -> tuple[Reply | Turn, Act]:
    """The action of a call, and the reply in flight or the turn in which it is."""
    if state.reply is not None:
        for act in state.reply.actions:
            if act.call == call:
                return state.reply, act
    for turn in reversed(state.turns):
        for act in turn.actions:
            if act.call == call:
                return turn, act
    raise NotFound("There is no such action in this conversation.")


def _settle(
    state: Conversation, within: Reply | Turn, act: Act, *, ok: bool, reason: str | None
) -> Change:
    settled = replace(act, ok=ok, reason=None if ok else reason)
    after = replace(within, actions=tuple(settled if a is act else a for a in within.actions))
    if isinstance(after, Reply):
        turn, state = after.turn, replace(state, reply=after)
    else:
        turn = after.id
        state = replace(state, turns=tuple(after if t is within else t for t in state.turns))
    event = events.ActionSettled(
        conversation=state.id, turn=turn, call=act.call, ok=ok, reason=settled.reason
    )
    return Change(state, (Addressed(event, player_refs(state, within.hearers)),))


def _given_up(state: Conversation, reply: Reply, finish: ReplyFinish) -> Change:
    """Refuse what the game was to confirm and the reply, which ends, waited for."""
    change = Change(state)
    for act in reply.actions:
        if act.confirm and act.ok is None:
            within, now = _act(change.state, act.call)
            change = change.then(_settle(change.state, within, now, ok=False, reason=finish))
    return change


def in_memory(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """What a state carries of the turns that it could: the same ones wherever it was loaded."""
    if len(turns) <= TURNS_IN_MEMORY:
        return turns
    first = turns[-TURNS_IN_MEMORY].index // TURNS_DROPPED * TURNS_DROPPED
    return tuple(turn for turn in turns if turn.index >= first)


def _with_turn(state: Conversation, turn: Turn) -> Conversation:
    return replace(state, turns=in_memory((*state.turns, turn)))


def _announced(state: Conversation, reply: Reply, queue_position: int) -> Change:
    event = events.ReplyStarted(
        conversation=state.id,
        turn=reply.turn,
        attempt=reply.attempt,
        speaker=reply.speaker,
        to=list(reply.to),
        hearers=list(reply.hearers),
        answers=reply.answers,
        replaces=reply.replaces,
        queue_position=queue_position,
    )
    audience = player_refs(state, reply.hearers)
    return Change(replace(state, reply=reply), (Addressed(event, audience),))


def _listeners(state: Conversation, hearers: Iterable[str]) -> tuple[str, ...]:
    players = {m.id for m in state.members if m.kind == "player"}
    return tuple(hearer for hearer in hearers if hearer in players)


def _cut_turn(turn: Turn, heard: Mapping[str, int], listeners: Sequence[str]) -> Turn:
    """The turn with every cut brought to a grapheme boundary and the unheard end removed."""
    kept = {
        member: len(cut(turn.text, max(0, count)))
        for member, count in heard.items()
        if count < len(turn.text)
    }
    longest = max((kept.get(member, len(turn.text)) for member in listeners), default=0)
    text = turn.text[:longest] if kept else turn.text
    return replace(turn, text=text, heard=kept)


def _heard_event(state: Conversation, turn: str, member: str, count: int) -> Addressed:
    event = events.ReplyHeard(conversation=state.id, turn=turn, member=member, heard=count)
    return Addressed(event, player_refs(state, (member,)))


def _felt(state: Conversation, member: str, emotion: Emotion, audience: tuple[str, ...]) -> Change:
    before = state.npcs.get(member, NpcState())
    if before.emotion == emotion:
        return Change(state)
    after = replace(before, emotion=emotion)
    event = events.NpcStateEvent(
        conversation=state.id, member=member, emotion=after.emotion, affinity=after.affinity
    )
    return Change(replace(state, npcs={**state.npcs, member: after}), (Addressed(event, audience),))
