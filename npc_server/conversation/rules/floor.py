"""The floor: who speaks next, who takes it from whom, and when everything that was said is settled.

One reply at a time. What waits stands in ``Conversation.asks``: players' turns first, in order of
arrival, then what NPCs answer one another. A root is a turn that a player or the game sent; when
neither the reply in flight nor anything that waits comes from it, ``scene.idle`` says so, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from npc_server.conversation.audience import audible, player_refs
from npc_server.conversation.model import Ask, Conversation, Member, Reply, Turn
from npc_server.conversation.rules.change import Addressed, Change, everybody
from npc_server.protocol import events

Silence = Literal["quiet", "out_of_earshot", "budget", "gone"]

UNASKED_KEPT = 64
ASKS = 32
"""So many replies may wait in a conversation; the newest beyond that are dropped."""


def asked(state: Conversation, asks: Sequence[Ask]) -> Change:
    """More is to be said; what there is no room for is not, and is settled."""
    everything = replace(state, asks=(*state.asks, *asks))
    return settling(everything, Change(with_asks(state, asks)))


def with_asks(state: Conversation, asks: Sequence[Ask]) -> Conversation:
    """The state in which more is to be said: what players wait for before the rest."""
    waiting = sorted((*state.asks, *asks), key=lambda ask: ask.chain > 0 or ask.root is None)
    return replace(state, asks=tuple(waiting[:ASKS]))


def takes_floor(state: Conversation, player: Member) -> bool:
    """Whether a player who speaks now ends the reply in flight.

    It does unless the reply is for another player. What NPCs tell one another always gives way.
    """
    reply = state.reply
    if reply is None:
        return False
    listening = {m.id for m in state.here() if m.kind == "player"} & set(reply.to)
    return player.id in reply.to or not listening


def yielded(state: Conversation, player: Member) -> Change:
    """Nothing waits any more that a player who speaks now makes idle.

    That is what answers its own earlier words, and whatever the NPCs would say among themselves.
    """
    kept = (ask for ask in state.asks if ask.chain == 0 and ask.root is not None)
    asks = tuple(ask for ask in kept if asker(state, ask) != player.id)
    return settling(state, Change(replace(state, asks=asks)))


def given_up(state: Conversation, ask: Ask | None = None) -> Change:
    """Nobody speaks to an ask, or to any: what came to nothing so is settled."""
    after = replace(state, asks=()) if ask is None else without(state, ask)
    return settling(state, Change(after))


def without(state: Conversation, ask: Ask) -> Conversation:
    """The state in which an ask does not wait any more."""
    return replace(state, asks=tuple(other for other in state.asks if other != ask))


def begun(state: Conversation, ask: Ask, *, turn: str, queue_position: int, now_ms: int) -> Change:
    """An NPC is going to speak: to whoever spoke to it, heard by whoever is near.

    Args:
        state: Without a reply in flight; the ask may wait in it.
        ask: Who, and why. It names a speaker who is here.
        turn: The id that the reply will have.
        queue_position: How many wait before it.
        now_ms: Unix milliseconds.
    """
    speaker = ask.speaker or ""
    answered = state.turn(ask.answers) if ask.answers else None
    hearers = _hearers(state, speaker, answered)
    reply = Reply(
        turn=turn,
        attempt=1,
        speaker=speaker,
        to=_addressees(state, ask, answered, hearers),
        hearers=hearers,
        answers=ask.answers,
        ambient=ask.ambient,
        instructions=ask.instructions,
        root=ask.root,
        player=ask.player,
        chain=ask.chain,
        line=ask.line,
        private=answered is not None and answered.private,
        number=state.next,
    )
    unasked = state.unasked
    if is_unasked(ask):
        unasked = (*unasked, now_ms)[-UNASKED_KEPT:]
    state = replace(without(state, ask), unasked=unasked)
    return announced(state, reply, queue_position)


def announced(state: Conversation, reply: Reply, queue_position: int) -> Change:
    """The state with a reply in flight, and the event that tells of it."""
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


def silent(state: Conversation, ask: Ask, npc: str, reason: Silence) -> Change:
    """An NPC says nothing, and its turn to speak is over: whoever heard the question is told."""
    event = events.ReplySilent(
        conversation=state.id, re=None, speaker=npc, reason=reason, answers=ask.answers
    )
    answered = state.turn(ask.answers) if ask.answers else None
    hearers = answered.hearers if answered else audible(state, npc)
    audience = player_refs(state, hearers)
    return settling(state, Change(without(state, ask), (Addressed(event, audience),)))


def settling(before: Conversation, change: Change) -> Change:
    """A change, and ``scene.idle`` for every root that it settles."""
    left = roots(change.state)
    for root in roots(before):
        if root not in left:
            known = before.turn(root) if root else None
            change = change.then(idle(change.state, root, known))
    return change


def roots(state: Conversation) -> tuple[str | None, ...]:
    """The roots of the reply in flight and of what waits, each once."""
    live = (state.reply.root,) if state.reply else ()
    return tuple(dict.fromkeys((*live, *(ask.root for ask in state.asks))))


def idle(state: Conversation, turn: str | None, known: Turn | None = None) -> Change:
    """A turn is settled: whoever perceived it is told.

    Args:
        state: The conversation.
        turn: Its id; ``None`` where NPCs were among themselves.
        known: The turn, where the state need not have it any more.
    """
    event = events.SceneIdle(conversation=state.id, turn=turn)
    root = known or (state.turn(turn) if turn else None)
    audience = player_refs(state, root.hearers) if root else everybody(state)
    return Change(state, (Addressed(event, audience),))


def is_only_for(state: Conversation, member: Member) -> bool:
    """Whether the reply in flight is heard by no player but one, or by none."""
    others = {m.id for m in state.here() if m.kind == "player" and m.id != member.id}
    return state.reply is not None and not others & set(state.reply.hearers)


def is_unasked(ask: Ask | Reply) -> bool:
    """Whether no player and no game asked for it, so that it counts against the budget."""
    return ask.line is None and (ask.chain > 0 or ask.root is None)


def asker(state: Conversation, ask: Ask) -> str | None:
    """The player whose words an ask came from; ``None`` where it came from no player's."""
    root = state.turn(ask.root) if ask.root else None
    return (root.speaker or None) if root else None


def _hearers(state: Conversation, speaker: str, answered: Turn | None) -> tuple[str, ...]:
    if answered is not None and answered.private:
        here = {m.id for m in state.here()}
        heard = tuple(member for member in answered.hearers if member in here)
        return heard if speaker in heard else (*heard, speaker)
    return audible(state, speaker)


def _addressees(
    state: Conversation, ask: Ask, answered: Turn | None, hearers: tuple[str, ...]
) -> tuple[str, ...]:
    if answered is not None and answered.speaker in hearers:
        return (answered.speaker,)
    kind = "player" if ask.root or ask.line else "npc"
    others = (state.member(member) for member in hearers if member != ask.speaker)
    return tuple(m.id for m in others if m is not None and m.kind == kind)
