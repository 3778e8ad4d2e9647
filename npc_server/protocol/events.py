"""What the server sends. Each event is one JSON object told apart by its ``type``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from npc_server.errors import NpcError
from npc_server.protocol.emotion import Emotion

ErrorCode = Literal[
    "bad_json",
    "bad_message",
    "unknown_type",
    "unauthorized",
    "forbidden",
    "not_found",
    "conflict",
    "too_large",
    "rate_limited",
    "busy",
    "engine_unavailable",
    "store_unavailable",
    "protocol_version",
    "internal",
]
Finish = Literal["stop", "length", "interrupted", "deadline", "cancelled", "error"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Event(_Part):
    """What every event may carry."""

    re: str | None = Field(None, description="The id of the command that this answers.")

    def encode(self) -> bytes:
        """The event as one JSON object in UTF-8, without its empty fields."""
        return orjson.dumps(self.model_dump(exclude_none=True))


class ConversationEvent(Event):
    """An event of one conversation."""

    conversation: str = Field(description="The conversation's id.")


class DurableEvent(ConversationEvent):
    """An event that is kept and comes again, in order and once, after a reconnect."""

    seq: int | None = Field(None, description="Rises by one in a conversation.")


class Limits(_Part):
    """The limits that this server enforces."""

    frame_bytes: int
    text_chars: int
    messages_per_second: float
    message_burst: int
    conversations: int
    members: int
    json_depth: int


class ServerInfo(_Part):
    """What the server is."""

    name: str
    version: str


class Welcome(Event):
    """The session has begun."""

    type: Literal["welcome"] = "welcome"
    session: str
    resume: str = Field(description="For the next `hello.resume`; the newest one counts.")
    resumed: bool = Field(description="Whether an earlier session goes on.")
    role: Literal["player", "host"]
    heartbeat_s: float = Field(description="How often the server sends WebSocket pings.")
    limits: Limits
    features: list[str]
    server: ServerInfo


class Pong(Event):
    """The server is there."""

    type: Literal["pong"] = "pong"
    t: int | None = Field(None, description="What the ping carried.")
    server_time: int = Field(description="Unix milliseconds.")


class Ack(Event):
    """The command is committed to the store."""

    type: Literal["ack"] = "ack"
    conversation: str | None = None
    turn: str | None = Field(None, description="The turn that the command made.")


class Error(Event):
    """Something went wrong; the message says what to do."""

    type: Literal["error"] = "error"
    conversation: str | None = None
    code: ErrorCode
    message: str
    retryable: bool = Field(description="Whether the same id may be sent again.")
    retry_after_ms: int | None = None
    details: dict[str, Any] | None = None


class Draining(Event):
    """The server shuts down; come back after a while."""

    type: Literal["draining"] = "draining"
    reconnect_after_ms: int


class CastMember(_Part):
    """Someone in the cast."""

    member: str
    kind: Literal["player", "npc"]
    name: str
    npc: str | None = Field(None, description="The persona's id.")
    away: bool | None = Field(None, description="True for a player who closed the conversation.")


class NpcMood(_Part):
    """How an NPC is doing."""

    member: str
    emotion: Emotion
    affinity: float
    mood: str | None = Field(None, description="In the game's words.")


class SceneView(_Part):
    """Where a conversation takes place."""

    scene: str | None = Field(None, description="The scene's id.")
    groups: dict[str, list[str]] = Field({}, description="Members by group.")
    objects: dict[str, str] = Field({}, description="What is to be seen, by name.")


class ConversationOpened(DurableEvent):
    """The conversation is open; `tail` holds the newest durable events, each with its `seq`."""

    type: Literal["conversation.opened"] = "conversation.opened"
    cast: list[CastMember]
    state: list[NpcMood]
    tail: list[dict[str, Any]]
    limited: bool | None = Field(None, description="True where older events were left out.")
    reply: str | None = Field(None, description="The turn of the reply in flight.")
    invite: str | None = Field(None, description="With it another player may come in.")
    branch: str | None = Field(None, description="The id of the branch that goes on.")
    scene: SceneView | None = Field(None, description="Where it is, and who stands with whom.")


class ConversationClosed(DurableEvent):
    """The conversation was left."""

    type: Literal["conversation.closed"] = "conversation.closed"


class PastAction(_Part):
    """Something that an NPC did."""

    call: str
    name: str
    args: dict[str, Any]
    ok: bool | None = Field(None, description="Missing where the game never said otherwise.")
    reason: str | None = None


class HistoryTurn(_Part):
    """One turn as this player heard it."""

    turn: str
    kind: Literal["say", "reply", "event"]
    speaker: str
    to: list[str]
    text: str
    at_ms: int
    cut: bool = Field(description="Whether less than all of it was heard.")
    replaced_by: str | None = Field(
        None, description="In `player.exported` only: the reply that stands in its place."
    )
    actions: list[PastAction] | None = Field(None, description="What the NPC did with it.")
    redacted: bool | None = Field(None, description="True where its words were taken out.")


class ConversationReset(DurableEvent):
    """The conversation went back: what came later is no part of it. Forget it, and take this."""

    type: Literal["conversation.reset"] = "conversation.reset"
    branch: str = Field(description="The id of the branch that goes on now.")
    branches: list[str] = Field(description="Ids of those that were left; `rewind` returns to one.")
    cast: list[CastMember]
    state: list[NpcMood]
    tail: list[HistoryTurn] = Field(description="The newest turns that this player heard.")


class CastChanged(DurableEvent):
    """Somebody came or went."""

    type: Literal["cast.changed"] = "cast.changed"
    change: Literal["joined", "left"]
    member: CastMember
    cast: list[CastMember]


class SceneChanged(DurableEvent):
    """Who stands where changed."""

    type: Literal["scene.changed"] = "scene.changed"
    scene: str | None = None
    groups: dict[str, list[str]]
    objects: dict[str, str]


class PlayerPresence(ConversationEvent):
    """Whether another player is connected, and what it is doing."""

    type: Literal["player.presence"] = "player.presence"
    member: str
    online: bool
    input: Literal["typing", "speaking", "idle"]


class TurnRedacted(DurableEvent):
    """The words of a turn were taken out: forget them."""

    type: Literal["turn.redacted"] = "turn.redacted"
    turn: str


class Turn(DurableEvent):
    """Something was said, or happened, that this player perceived."""

    type: Literal["turn"] = "turn"
    turn: str
    kind: Literal["say", "event"]
    speaker: str
    to: list[str]
    hearers: list[str]
    text: str


class ReplyStarted(DurableEvent):
    """An NPC is going to speak."""

    type: Literal["reply.started"] = "reply.started"
    turn: str
    attempt: int = Field(description="Events of a lower attempt are to be dropped.")
    speaker: str
    to: list[str]
    hearers: list[str]
    answers: str | None = Field(None, description="The turn that it answers.")
    replaces: str | None = Field(
        None, description="The reply that is said anew; it is no part of the conversation any more."
    )
    queue_position: int | None = Field(None, description="How many wait before it; 0 is none.")


class ReplyDelta(ConversationEvent):
    """More text; all of them joined equal `reply.done.text`."""

    type: Literal["reply.delta"] = "reply.delta"
    turn: str
    text: str


class ReplySentence(ConversationEvent):
    """A sentence is complete and can be spoken."""

    type: Literal["reply.sentence"] = "reply.sentence"
    turn: str
    index: int
    text: str
    start_char: int = Field(description="Where it begins in the reply, in code points.")


class ReplyEmotion(ConversationEvent):
    """The NPC's expression or gesture from here on; the first comes before the first delta."""

    type: Literal["reply.emotion"] = "reply.emotion"
    turn: str
    emotion: Emotion
    intensity: float = Field(description="From 0 to 1.")
    at_char: int
    gesture: str | None = None


class ReplyAction(DurableEvent):
    """The NPC does something in the game; `action.result` tells what became of it."""

    type: Literal["reply.action"] = "reply.action"
    turn: str
    call: str = Field(description="Keys the effect: do it once, however often it comes.")
    name: str
    args: dict[str, Any] = Field(description="Always valid against the declared schema.")
    confirm: bool = Field(description="Whether the NPC waits for the result before it speaks.")
    timeout_ms: int = Field(description="How long; then it counts as refused.")
    execute: bool = Field(description="Whether this session is to do it; true on one only.")


class ActionSettled(DurableEvent):
    """What became of an action."""

    type: Literal["action.settled"] = "action.settled"
    turn: str
    call: str
    ok: bool
    reason: str | None = Field(None, description="Why it was refused; `timeout` for no result.")


class ReplySnapshot(ConversationEvent):
    """What there is of a reply in flight, for a client that comes in while it is spoken."""

    type: Literal["reply.snapshot"] = "reply.snapshot"
    turn: str
    text: str
    sentences: list[str]
    restarted: bool = Field(description="Whether an older text of this turn is to be forgotten.")


class TokenUsage(_Part):
    """Tokens of a reply."""

    prompt: int
    cached: int
    completion: int


class Timings(_Part):
    """Where the time of a reply went, in milliseconds since it was asked for."""

    queue_ms: float
    first_token_ms: float | None = None
    total_ms: float


class ReplyDone(DurableEvent):
    """The reply is complete and committed."""

    type: Literal["reply.done"] = "reply.done"
    turn: str
    text: str
    finish: Finish
    usage: TokenUsage | None = None
    timings: Timings | None = None
    degraded: Literal["filler", "short", "canned"] | None = None


class ReplyHeard(DurableEvent):
    """A reply was cut: what stays of it for this hearer."""

    type: Literal["reply.heard"] = "reply.heard"
    turn: str
    member: str
    heard: int = Field(description="How many code points of its text.")


class ReplySilent(DurableEvent):
    """An NPC chose to say nothing."""

    type: Literal["reply.silent"] = "reply.silent"
    speaker: str
    reason: Literal["quiet", "out_of_earshot", "budget", "gone"] = Field(description="Why.")
    answers: str | None = Field(None, description="The turn to which it says nothing.")


class SceneIdle(DurableEvent):
    """The last turn is settled; the floor is open."""

    type: Literal["scene.idle"] = "scene.idle"
    turn: str | None = Field(None, description="The turn that is settled.")


class NpcStateEvent(DurableEvent):
    """An NPC's state changed."""

    type: Literal["npc.state"] = "npc.state"
    member: str
    emotion: Emotion
    affinity: float
    mood: str | None = Field(None, description="In the game's words.")


class History(ConversationEvent):
    """What this player heard, oldest first."""

    type: Literal["history"] = "history"
    turns: list[HistoryTurn]
    more: bool = Field(description="Whether there are older ones.")


class SavedGame(_Part):
    """A save of a world."""

    name: str
    bytes: int
    at_ms: int
    conversations: int


class CheckpointSaved(Event):
    """The world is saved."""

    type: Literal["checkpoint.saved"] = "checkpoint.saved"
    name: str
    bytes: int
    conversations: int


class CheckpointLoaded(Event):
    """The world is as it was saved."""

    type: Literal["checkpoint.loaded"] = "checkpoint.loaded"
    name: str
    conversations: int


class CheckpointForked(Event):
    """Another world began with a save."""

    type: Literal["checkpoint.forked"] = "checkpoint.forked"
    name: str
    world: str
    conversations: int


class CheckpointDeleted(Event):
    """The save is deleted."""

    type: Literal["checkpoint.deleted"] = "checkpoint.deleted"
    name: str


class CheckpointListed(Event):
    """The saves of the world."""

    type: Literal["checkpoint.listed"] = "checkpoint.listed"
    checkpoints: list[SavedGame]


class CheckpointExported(Event):
    """A part of a save as a file."""

    type: Literal["checkpoint.exported"] = "checkpoint.exported"
    name: str
    part: int
    parts: int
    data: str = Field(description="In base64; all parts joined are the file.")


class CheckpointImported(Event):
    """A part arrived; with the last one the save can be loaded."""

    type: Literal["checkpoint.imported"] = "checkpoint.imported"
    name: str
    part: int
    complete: bool


class PromptAnswer(ConversationEvent):
    """What the model says to an edited prompt."""

    type: Literal["prompt.answer"] = "prompt.answer"
    turn: str
    text: str
    usage: TokenUsage


class PlayerForgotten(Event):
    """Everything that was kept of the player is deleted."""

    type: Literal["player.forgotten"] = "player.forgotten"
    player: str
    conversations: int = Field(description="How many were deleted.")


class PlayerExported(Event):
    """Everything that is kept of the player, a page of conversations at a time."""

    type: Literal["player.exported"] = "player.exported"
    player: str
    part: int = Field(description="The number of this page, from 1.")
    parts: int = Field(description="How many pages there are.")
    data: dict[str, Any]


AnyEvent = Annotated[
    Welcome
    | Pong
    | Ack
    | Error
    | Draining
    | ConversationOpened
    | ConversationClosed
    | ConversationReset
    | CastChanged
    | SceneChanged
    | PlayerPresence
    | TurnRedacted
    | CheckpointSaved
    | CheckpointLoaded
    | CheckpointForked
    | CheckpointDeleted
    | CheckpointListed
    | CheckpointExported
    | CheckpointImported
    | PromptAnswer
    | Turn
    | ReplyStarted
    | ReplyDelta
    | ReplySentence
    | ReplyEmotion
    | ReplyAction
    | ActionSettled
    | ReplySnapshot
    | ReplyDone
    | ReplyHeard
    | ReplySilent
    | SceneIdle
    | NpcStateEvent
    | History
    | PlayerForgotten
    | PlayerExported,
    Field(discriminator="type"),
]

EVENTS: TypeAdapter[Any] = TypeAdapter(AnyEvent)


def error_event(error: NpcError, re: str | None, conversation: str | None = None) -> Error:
    """What a client sees of an error: the one place where exceptions become wire errors."""
    return Error(
        re=re,
        conversation=conversation,
        code=error.code,
        message=error.message if error.public else error.wire_message,
        retryable=error.retryable,
        retry_after_ms=error.retry_after_ms,
        details=error.details if error.public else None,
    )
