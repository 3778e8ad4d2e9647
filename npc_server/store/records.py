"""What is stored, apart from what goes over the wire. Every record carries its version ``v``.

Older versions are lifted by pure upcasters when they are read; newer ones are refused, since this
server cannot know what it would lose of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

import orjson

from npc_server.conversation.model import (
    Act,
    Ambient,
    Ask,
    Branch,
    Conversation,
    Gesture,
    Member,
    NpcState,
    Reply,
    Surroundings,
    Turn,
)
from npc_server.errors import SetupError

Kind = Literal["conversation", "turn", "partial", "consent", "session"]
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

VERSION = 3
"""Version 3 added what has a default: presence of members, branches, asks, surroundings, facts of
a conversation; ``private``, ``emotion`` and ``redacted`` of a turn; the root of a reply; sessions.
Version 2 added ``degraded``, ``gestures``, ``replaced_by`` and ``actions`` of a turn; ``replaces``,
``ambient``, ``instructions`` and ``actions`` of a reply; consent."""


def _as_it_is(record: dict[str, Any]) -> dict[str, Any]:
    return record


UPCASTERS: dict[Kind, dict[int, Upcaster]] = {
    "conversation": {1: _as_it_is, 2: _as_it_is},
    "turn": {1: _as_it_is, 2: _as_it_is},
    "partial": {1: _as_it_is, 2: _as_it_is},
    "consent": {2: _as_it_is},
    "session": {},
}
"""By kind and version: makes the next version of it."""


@dataclass(frozen=True, slots=True)
class Partial:
    """What was said so far of a reply in flight.

    Attributes:
        turn: The id that its turn will have.
        attempt: Which attempt at it this is.
        text: Everything that was sent.
        marks: The other events that tell of it, as JSON, in order: each with ``at``, how many code
            points of the text had been sent before it.
    """

    turn: str
    attempt: int
    text: str
    marks: tuple[dict[str, Any], ...] = ()

    @property
    def spoken(self) -> tuple[str, int]:
        """Of which reply this is, and of which attempt."""
        return self.turn, self.attempt


@dataclass(frozen=True, slots=True)
class Consent:
    """What a player allows.

    Attributes:
        training_ms: Since when, without a break, models may be trained on what it says, in Unix
            milliseconds.
    """

    training_ms: int


class NewerRecord(SetupError):
    """A record was written by a newer server."""


def read(kind: Kind, raw: bytes) -> dict[str, Any]:
    """A record as this version knows it.

    Raises:
        NewerRecord: A newer server wrote it.
    """
    record: dict[str, Any] = orjson.loads(raw)
    version = record.pop("v")
    if version > VERSION:
        raise NewerRecord(
            f"A stored {kind} has version {version}; this server knows {VERSION}. "
            "Run the newer release that wrote it."
        )
    while version < VERSION:
        record = UPCASTERS[kind][version](record)
        version += 1
    return record


def encode_turn(turn: Turn) -> bytes:
    """A turn as it is stored: without what is as by default, since there are so many of them."""
    said = {name: value for name in _TURN if (value := getattr(turn, name)) or name in _NEEDED}
    return orjson.dumps({"v": VERSION, **said})


def decode_turn(raw: bytes) -> Turn:
    """A turn as it was stored.

    Raises:
        NewerRecord: A newer server wrote it.
    """
    return Turn(**_with_tuples(read("turn", raw)))


def encode_conversation(state: Conversation) -> bytes:
    """A conversation without its turns, revision and seq, which are stored apart."""
    return orjson.dumps({"v": VERSION, **{name: getattr(state, name) for name in _STATE}})


def decode_conversation(
    raw: bytes, *, revision: int, seq: int, turns: tuple[Turn, ...]
) -> Conversation:
    """A conversation as it was stored.

    Raises:
        NewerRecord: A newer server wrote it.
    """
    record = read("conversation", raw)
    reply = record["reply"]
    return Conversation(
        **{
            **record,
            "members": tuple(Member(**member) for member in record["members"]),
            "npcs": _npcs(record["npcs"]),
            "reply": None if reply is None else Reply(**_with_tuples(reply)),
            "asks": tuple(Ask(**ask) for ask in record.get("asks", ())),
            "around": _surroundings(record.get("around", {})),
            "inherited": _runs(record.get("inherited", ())),
            "branches": tuple(_branch(branch) for branch in record.get("branches", ())),
            "unasked": tuple(record.get("unasked", ())),
            "next": record.get("next", turns[-1].index + 1 if turns else 0),
            "revision": revision,
            "seq": seq,
            "turns": turns,
        }
    )


def encode_branch(state: Conversation) -> bytes:
    """Which turns are a conversation's, for scripts that read them."""
    return orjson.dumps({"inherited": state.inherited, "first": state.first})


def encode_partial(partial: Partial) -> bytes:
    """A reply's text so far as it is stored."""
    said = {name: value for name, value in asdict(partial).items() if value != ()}
    return orjson.dumps({"v": VERSION, **said})


def decode_partial(raw: bytes) -> Partial:
    """A reply's text so far as it was stored.

    Raises:
        NewerRecord: A newer server wrote it.
    """
    record = read("partial", raw)
    return Partial(**{**record, "marks": tuple(record.get("marks", ()))})


def encode_consent(consent: Consent) -> bytes:
    """A player's consent as it is stored."""
    return orjson.dumps({"v": VERSION, **asdict(consent)})


def decode_consent(raw: bytes) -> Consent:
    """A player's consent as it was stored.

    Raises:
        NewerRecord: A newer server wrote it.
    """
    return Consent(**read("consent", raw))


_NEEDED = frozenset(
    each.name for each in fields(Turn) if each.default is each.default_factory is MISSING
)
"""Every other field of a turn is false by default: ``None`` or empty."""


def _npcs(stored: dict[str, Any]) -> dict[str, NpcState]:
    made = {}
    for member, npc in stored.items():
        actions = npc.get("actions")
        made[member] = NpcState(**{**npc, "actions": None if actions is None else tuple(actions)})
    return made


def _runs(stored: Any) -> tuple[tuple[int, int], ...]:
    return tuple((first, last) for first, last in stored)


def _branch(stored: dict[str, Any]) -> Branch:
    changed = {"inherited": _runs(stored["inherited"]), "npcs": _npcs(stored["npcs"])}
    return Branch(**{**stored, **changed})


def _surroundings(stored: dict[str, Any]) -> Surroundings:
    groups = {name: tuple(group) for name, group in stored.get("groups", {}).items()}
    ambient = Ambient(**stored.get("ambient", {}))
    return Surroundings(**{**stored, "groups": groups, "ambient": ambient})


_TURN = tuple(each.name for each in fields(Turn))
_STATE = tuple(
    each.name for each in fields(Conversation) if each.name not in {"turns", "revision", "seq"}
)
"""orjson writes the dataclasses inside of them by itself, several times faster than ``asdict``."""


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    """A turn or a reply, whose lists are tuples of what they hold."""
    made = {name: tuple(record[name]) for name in ("to", "hearers")}
    if "actions" in record:
        made["actions"] = tuple(
            Act(**{**act, "unseen": tuple(act.get("unseen", ()))}) for act in record["actions"]
        )
    if "gestures" in record:
        made["gestures"] = tuple(Gesture(**gesture) for gesture in record["gestures"])
    return {**record, **made}


@dataclass(frozen=True, slots=True)
class SavedSession:
    """What a session that lost its connection goes on with, at any server.

    Attributes:
        world: Where it plays.
        namespace: Of its player's id.
        player: Its player's id, without the name space.
        role: Of its key.
        conversations: Those that it had open.
        session: Its id.
    """

    world: str
    namespace: str
    player: str
    role: str
    conversations: tuple[str, ...]
    session: str


def encode_session(session: SavedSession) -> bytes:
    """A session as it is stored."""
    return orjson.dumps({"v": VERSION, **asdict(session)})


def decode_session(raw: bytes) -> SavedSession:
    """A session as it was stored.

    Raises:
        NewerRecord: A newer server wrote it.
    """
    record = read("session", raw)
    return SavedSession(**{**record, "conversations": tuple(record["conversations"])})
