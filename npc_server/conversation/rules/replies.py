"""Replies: said anew, with what NPCs do meanwhile, ended whole or cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import (
    Act,
    Ask,
    Conversation,
    Degraded,
    Gesture,
    Member,
    NpcState,
    Reply,
    ReplyFinish,
    Turn,
)
from npc_server.conversation.rules.branches import runs_upto
from npc_server.conversation.rules.change import Addressed, Change, with_turn
from npc_server.conversation.rules.floor import announced, settling, with_asks
from npc_server.conversation.rules.setting import npc_changed
from npc_server.errors import Conflict, Forbidden, NotFound
from npc_server.protocol import events
from npc_server.protocol.emotion import Emotion
from npc_server.protocol.text import cut

TIMEOUT = "timeout"
"""The reason of a refusal where the game said nothing in time."""


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


def regenerated(
    state: Conversation, player: Member, replaced: str, *, turn: str, queue_position: int
) -> Change:
    """An NPC is going to say its newest reply anew, to the same members.

    The old reply stays in the transcript and is heard no more: see ``audience.heard_by``. What the
    NPC did in the game is not taken back by other words, so the new reply has done it too.

    Raises:
        Conflict: The conversation is closed or held, the reply is still being spoken, it is not
            the newest turn, or the NPC has left.
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
    if state.reply is not None or state.asks or old is not state.turns[-1]:
        raise Conflict("Something was said since. Only the newest reply can be said anew.")
    here = [m.id for m in state.here()]
    if state.hold:
        raise Conflict("The NPCs are held silent. Send conversation.set with 'hold': false first.")
    if old.speaker not in here:
        raise Conflict("Who said this has left. Bring the NPC in again with conversation.join.")
    if old.index < state.first:
        # It stands in another branch too, where it goes on as it was: this one gets a copy.
        copy = replace(old, index=state.next, replaced_by=turn)
        state = replace(
            state,
            inherited=runs_upto(state.inherited, old.index - 1),
            first=state.next,
            next=state.next + 1,
        )
    else:
        copy = replace(old, replaced_by=turn)
    reply = Reply(
        turn,
        1,
        old.speaker,
        old.to,
        tuple(member for member in old.hearers if member in here),
        old.answers,
        replaces=old.id,
        actions=tuple(act for act in old.actions if act.ok is not False),
        root=old.answers,
        player=player.ref,
        private=old.private,
        number=state.next,
    )
    return announced(replace(state, turns=(*state.turns[:-1], copy)), reply, queue_position)


def action_proposed(
    state: Conversation,
    *,
    call: str,
    name: str,
    args: Mapping[str, Any],
    confirm: bool,
    now_ms: int,
    timeout_ms: int,
    unclaimed: bool = False,
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
        unclaimed: Whether nobody who could do it listens at this server: others may have it done.

    Raises:
        Conflict: No reply is in flight.
    """
    reply = state.reply
    if reply is None:
        raise Conflict("No reply is in flight.")
    gone = tuple(reply.left)
    act = Act(call, name, dict(args), confirm, now_ms + timeout_ms, unseen=gone)
    event = events.ReplyAction(
        conversation=state.id,
        turn=reply.turn,
        call=call,
        name=name,
        args=act.args,
        confirm=confirm,
        timeout_ms=timeout_ms,
        execute=unclaimed,
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


def reply_done(state: Conversation, outcome: Outcome, following: Sequence[Ask] = ()) -> Change:
    """The reply in flight has ended, whole or cut.

    The event's text is all that was sent, since clients have joined the deltas to it; the
    transcript keeps only what at least one hearer heard.

    Args:
        state: With the reply in flight.
        outcome: How it went.
        following: What NPCs say to it.

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
            index=state.next,
            kind="reply",
            speaker=reply.speaker,
            to=reply.to,
            hearers=(*reply.hearers, *reply.left),
            text=outcome.text,
            at_ms=outcome.at_ms,
            finish=outcome.finish,
            answers=reply.answers,
            degraded=outcome.degraded,
            gestures=outcome.gestures,
            actions=reply.actions,
            private=reply.private,
            emotion=outcome.emotion,
        ),
        {**outcome.heard, **reply.left},
        _listeners(state, (*reply.hearers, *reply.left)),
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
    ended = with_asks(with_turn(replace(state, reply=None), turn), following)
    change = change.then(Change(ended, (Addressed(done, audience),)))
    for member, count in turn.heard.items():
        change = change.then(Change(change.state, (_heard_event(state, turn.id, member, count),)))
    if outcome.emotion:
        change = change.then(_felt(change.state, reply.speaker, outcome.emotion, audience))
    return settling(state, change)


def taken_over(state: Conversation) -> Change:
    """The reply in flight is said by another server, from its beginning.

    What the game was still to confirm is refused: nobody waits for it any more.

    Raises:
        Conflict: No reply is in flight.
    """
    if state.reply is None:
        raise Conflict("No reply is in flight.")
    change = _given_up(state, state.reply, "error")
    reply = change.state.reply or state.reply
    again = replace(reply, attempt=reply.attempt + 1, left={})
    return change.then(announced(change.state, again, 0))


def walked_out(state: Conversation, member: str, heard: int) -> Change:
    """A member goes away while a reply is spoken: the rest of it does not reach it.

    Args:
        state: A reply may be in flight.
        member: Who goes.
        heard: How much of it reached the member, in code points.
    """
    reply = state.reply
    if reply is None or member not in reply.hearers:
        return Change(state)
    hearers = tuple(hearer for hearer in reply.hearers if hearer != member)
    saw = heard or reply.actions
    left = {**reply.left, member: heard} if saw else reply.left
    return Change(replace(state, reply=replace(reply, hearers=hearers, left=left)))


def cut_asked(state: Conversation, player: Member, heard: int | None) -> Change:
    """A player cuts the reply in flight, which another server is saying: that one is asked.

    Args:
        state: With the reply in flight.
        player: Who.
        heard: How much of it, in code points; ``None`` where only that server knows.
    """
    reply = state.reply
    if reply is None:
        return Change(state)
    cut_by = {**reply.cut_by, player.id: -1 if heard is None else heard}
    return Change(replace(state, reply=replace(reply, cut_by=cut_by)))


def heard_less(state: Conversation, turn_id: str, member: str, chars: int) -> Change:
    """A finished reply was cut while it was still being played to a member.

    Raises:
        NotFound: The member heard no such reply, or it is not among the newest turns.
    """
    turn = next((t for t in state.turns if t.id == turn_id and t.kind == "reply"), None)
    if turn is None or member not in turn.hearers:
        raise NotFound("There is no such reply in this conversation, or it is too old to be cut.")
    before = turn.heard.get(member, len(turn.text))
    if chars >= before:
        return Change(state)
    cut_turn = _cut_turn(turn, {**turn.heard, member: chars}, _listeners(state, turn.hearers))
    turns = tuple(cut_turn if t.id == turn_id else t for t in state.turns)
    event = _heard_event(state, turn_id, member, cut_turn.heard.get(member, len(cut_turn.text)))
    return Change(replace(state, turns=turns), (event,))


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
    longest = max(
        (kept.get(member, len(turn.text)) for member in listeners), default=len(turn.text)
    )
    text = turn.text[:longest] if kept else turn.text
    return replace(turn, text=text, heard=kept)


def _heard_event(state: Conversation, turn: str, member: str, count: int) -> Addressed:
    event = events.ReplyHeard(conversation=state.id, turn=turn, member=member, heard=count)
    return Addressed(event, player_refs(state, (member,)))


def _felt(state: Conversation, member: str, emotion: Emotion, audience: tuple[str, ...]) -> Change:
    before = state.npcs.get(member, NpcState())
    if before.emotion == emotion:
        return Change(state)
    return npc_changed(state, member, replace(before, emotion=emotion), audience)
