"""What every rule gives back: a new state and the events that tell of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from npc_server.conversation.audience import player_refs
from npc_server.conversation.model import Conversation, Turn
from npc_server.errors import Conflict, NotFound
from npc_server.protocol import events

TURNS_IN_MEMORY = 400
"""At least so many of the newest turns does a state carry; prompts are made of these."""

TURNS_DROPPED = 40
"""Beyond that, so many leave it at a time: each time a model may have to read all of them anew."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """A durable event, and the namespaced ids of the players to whom it goes."""

    event: events.DurableEvent
    audience: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A new state, and the events that tell of it.

    Attributes:
        state: The conversation after it.
        events: In order.
        elsewhere: Turns that came with it and are not of the new state's branch.
    """

    state: Conversation
    events: tuple[Addressed, ...] = ()
    elsewhere: tuple[Turn, ...] = ()

    def then(self, following: Change) -> Change:
        """This change and one that was made from its state, as one."""
        return Change(
            following.state, self.events + following.events, self.elsewhere + following.elsewhere
        )


Decide = Callable[[Conversation], Change]
"""What a command does to a conversation, whichever state it meets."""


def everybody(state: Conversation) -> tuple[str, ...]:
    """The namespaced ids of all players who are here."""
    return player_refs(state, (m.id for m in state.here()))


def refuse_closed(state: Conversation) -> None:
    """Raise ``Conflict`` where nothing can be said any more."""
    if state.closed:
        raise Conflict("The conversation is closed. Send conversation.open with its id to go on.")


def refuse_strangers(state: Conversation, members: Iterable[str]) -> None:
    """Raise ``NotFound`` for a member who is not here."""
    here = [m.id for m in state.here()]
    for member in members:
        if member not in here:
            cast = ", ".join(here)
            raise NotFound(f"'{member}' is not in this conversation. Its members are: {cast}.")


def in_memory(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """What a state carries of the turns that it could: the same ones wherever it was loaded."""
    if len(turns) <= TURNS_IN_MEMORY:
        return turns
    first = turns[-TURNS_IN_MEMORY].index // TURNS_DROPPED * TURNS_DROPPED
    return tuple(turn for turn in turns if turn.index >= first)


def with_turn(state: Conversation, turn: Turn) -> Conversation:
    """The state with one more turn."""
    return replace(state, turns=in_memory((*state.turns, turn)), next=turn.index + 1)
