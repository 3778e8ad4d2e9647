"""What a client may send. Each command is one JSON object told apart by its ``type``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from npc_server.protocol.text import Id, Name, Text

Milliseconds = Annotated[int, Field(ge=0, le=2**53)]


class _Part(BaseModel):
    """Unknown fields are ignored, so that newer clients can talk to older servers."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Client(_Part):
    """What the client is; for logs only."""

    name: Name
    version: Name | None = None
    engine: Name | None = None


class Player(_Part):
    """Who plays. With a player's key the id lives in the name space of that key."""

    id: Id
    name: Name | None = None
    locale: Annotated[str, Field(max_length=35)] | None = None
    consent: Annotated[list[Name], Field(max_length=16)] | None = Field(
        None,
        description="What the player allows: `training` lets the operator train models on its "
        "conversations. Each `hello` says it anew, and without it nothing is allowed; for "
        "another player (host only) what is left out stays as it was.",
    )

    @property
    def allows_training(self) -> bool:
        """Whether models may be trained on what this player says."""
        return "training" in (self.consent or ())


class Command(_Part):
    """What every acknowledged command carries."""

    id: Annotated[Id, Field(description="Chosen by the client; the same id again has no effect.")]


class _InConversation(_Part):
    conversation: Id = Field(description="The conversation's id.")
    player: Id | None = Field(None, description="For whom (host only); by default oneself.")


class InConversation(Command, _InConversation):
    """A command about one conversation."""


class Hello(Command):
    """The first frame of a session. Answered by `welcome`."""

    type: Literal["hello"]
    protocol: Annotated[int, Field(description="The protocol's version: 1.")]
    token: Annotated[str, Field(max_length=4096)] | None = Field(
        None, description="An API key, where no `Authorization` header could be sent."
    )
    world: Name = Field("default", description="The playthrough; nothing crosses it.")
    client: Client | None = None
    player: Player
    role: Literal["player", "host"] | None = Field(
        None, description="`player` gives a host's powers up: it hears only what its player hears."
    )
    features: Annotated[list[Name], Field(max_length=32)] = []
    clock_ms: Milliseconds | None = Field(None, description="The client's monotonic clock.")
    timezone: Annotated[str, Field(max_length=64)] | None = None
    resume: Annotated[str, Field(max_length=512)] | None = Field(
        None, description="The token of the session to go on with."
    )
    last: Annotated[dict[Id, int], Field(max_length=64)] = Field(
        {}, description="By conversation, the newest `seq` that arrived."
    )


class Ping(_Part):
    """Are you there? Answered by `pong`."""

    type: Literal["ping"]
    id: Id | None = None
    t: Milliseconds | None = Field(None, description="Any client time; comes back.")


class NpcChoice(_Part):
    """An NPC for a conversation."""

    npc: Id = Field(description="The persona's id.")
    member: Id | None = Field(None, description="The id of the member; by default the persona's.")
    name: Name | None = Field(None, description="Another name than the persona's.")


class ConversationOpen(Command):
    """Open a conversation, or go on with one. Answered by `conversation.opened`."""

    type: Literal["conversation.open"]
    conversation: Id | None = Field(None, description="Its id; without one the server makes one.")
    npcs: Annotated[list[Id | NpcChoice], Field(max_length=15)] = Field(
        [], description="The NPCs; a new conversation needs them or a scene."
    )
    scene: Id | None = Field(None, description="The scene's id: place, cast and opening.")
    invite: Annotated[str, Field(max_length=128)] | None = Field(
        None, description="What `conversation.opened` gave another player: with it one comes in."
    )
    player: Player | None = Field(None, description="For whom (host only).")
    locale: Annotated[str, Field(max_length=35)] | None = None
    deadline_ms: Annotated[int, Field(ge=100, le=600_000)] | None = Field(
        None, description="By when a reply is to have begun."
    )
    greet: Literal["auto", "never"] = Field("auto", description="Whether a new NPC speaks first.")
    since: Annotated[int, Field(ge=0)] | None = Field(
        None, description="The newest `seq` at hand; the answer's tail begins after it."
    )


class ConversationClose(InConversation):
    """Leave a conversation. It is kept, and can be opened again."""

    type: Literal["conversation.close"]


class SpokenWord(_Part):
    """A word, and when it was spoken by the client's clock."""

    text: Annotated[str, Field(max_length=200)]
    start_ms: Milliseconds
    end_ms: Milliseconds


class Speech(_Part):
    """How something was spoken."""

    start_ms: Milliseconds
    end_ms: Milliseconds
    words: Annotated[list[SpokenWord], Field(max_length=2_000)] = []
    disfluencies_preserved: bool = Field(
        False, description="Whether the recogniser keeps 'um' and repeated words."
    )


class Say(InConversation):
    """The player says something."""

    type: Literal["say"]
    text: Text
    to: Annotated[list[Id], Field(max_length=16)] = Field(
        [], description="The addressees; by default found out from the words."
    )
    gaze: Id | None = Field(None, description="At whom the player looks; a hint, where no name is.")
    whisper: bool = Field(False, description="Only `to` hears it.")
    hearers: Annotated[list[Id], Field(max_length=16)] = Field(
        [], description="Who hears it besides `to` (host only); by default whoever is near."
    )
    respond: Literal["auto", "never"] = Field(
        "auto", description="`never` adds a segment that waits for the next `auto`."
    )
    overlap: Literal["backchannel", "turn"] | None = Field(
        None,
        description="Said while an NPC speaks: a `backchannel` (mhm) lets it go on, a `turn` cuts "
        "it. By default the words decide.",
    )
    speech: Speech | None = Field(None, description="How it was spoken, if it was.")
    deadline_ms: Annotated[int, Field(ge=100, le=600_000)] | None = None


class Event(InConversation):
    """Something happens in the world (host only)."""

    type: Literal["event"]
    text: Text = Field(description="What happens, such as `The lights go out.`")
    to: Annotated[list[Id], Field(max_length=16)] = Field(
        [], description="Whom it concerns; by default the NPCs."
    )
    hearers: Annotated[list[Id], Field(max_length=16)] = Field(
        [], description="Who perceives it besides `to`; by default everyone."
    )
    respond: Literal["auto", "must", "never"] = Field(
        "auto",
        description="Whether an NPC reacts: `auto` unless one is speaking, `must` even then, "
        "cutting it.",
    )
    instructions: Annotated[Text, Field(max_length=500)] | None = Field(
        None, description="What the reaction is to be about."
    )


class ConversationJoin(InConversation):
    """Bring an NPC or another player in (host only)."""

    type: Literal["conversation.join"]
    npc: Id | None = Field(None, description="The persona's id.")
    player: Id | None = Field(None, description="The player's id.")
    member: Id | None = Field(None, description="The id of the member; by default that of either.")
    name: Name | None = Field(None, description="What the others call it.")
    group: Name | None = Field(None, description="The group that it comes to.")


class ConversationLeave(InConversation):
    """Leave the cast, or have somebody leave it (host only)."""

    type: Literal["conversation.leave"]
    member: Id | None = Field(None, description="Who; by default oneself.")


class ConversationSet(InConversation):
    """What may happen from now on (host only). What is left out stays as it is."""

    type: Literal["conversation.set"]
    ambient: Literal["on", "off"] | None = Field(
        None, description="Whether NPCs speak among themselves, unasked."
    )
    hold: bool | None = Field(None, description="Whether the NPCs are held silent, in a cutscene.")
    actions: Annotated[
        dict[Id, Annotated[list[Name], Field(max_length=16)] | None], Field(max_length=16)
    ] = Field({}, description="By member, the actions that it may take now; null is all.")
    instructions: Annotated[Text, Field(max_length=500)] | None = Field(
        None, description="What everything is to be about; empty takes it away."
    )


class ContextSet(InConversation):
    """The state of the game changes. A player may set what begins with `player.` only."""

    type: Literal["context.set"]
    facts: Annotated[dict[Name, str | int | float | bool | None], Field(max_length=256)] = Field(
        description="By name; null takes one away."
    )


class SceneObject(_Part):
    """Something that is to be seen."""

    name: Name
    text: Annotated[Text, Field(max_length=500)] = ""


class SceneSet(InConversation):
    """Who stands where changes (host only). What is left out stays as it is."""

    type: Literal["scene.set"]
    scene: Id | None = Field(None, description="The id of another scene: its place and objects.")
    groups: (
        Annotated[dict[Name, Annotated[list[Id], Field(max_length=16)]], Field(max_length=16)]
        | None
    ) = Field(None, description="Members by group; those who share one hear one another.")
    distances: dict[Id, dict[Id, Annotated[float, Field(ge=0, le=1e6)]]] | None = Field(
        None, max_length=16, description="Metres between members; unknown is near."
    )
    objects: Annotated[list[SceneObject], Field(max_length=32)] | None = None


class NpcSet(InConversation):
    """How an NPC is (host only)."""

    type: Literal["npc.set"]
    member: Id
    mood: Annotated[Text, Field(max_length=200)] | None = Field(
        None, description="In a few words; empty takes it away."
    )
    affinity: Annotated[float, Field(ge=-1, le=1)] | None = None


class Rewind(InConversation):
    """Go back to a turn, or to another branch. The branch that is left stays."""

    type: Literal["rewind"]
    to_turn: Id | None = Field(None, description="It becomes the newest.")
    branch: Id | None = Field(None, description="The branch to return to.")


class TurnRedact(InConversation):
    """Take the words of a turn out, everywhere: one's own, or anyone's (host)."""

    type: Literal["turn.redact"]
    turn: Id


class ActionResult(InConversation):
    """What became of an action, from a host or from the player whom the NPC addresses."""

    type: Literal["action.result"]
    call: Id = Field(description="That of `reply.action`.")
    ok: bool = Field(description="Whether the game did it.")
    reason: Annotated[Text, Field(max_length=200)] | None = Field(
        None, description="Why it did not, in words that the NPC can take up."
    )
    result: Any = Field(None, description="What came of it, for the NPC to speak of; short.")


class Input(_InConversation):
    """The player is typing or speaking; never acknowledged."""

    type: Literal["input"]
    id: Id | None = None
    state: Literal["typing", "speaking", "idle"]
    text: Text | None = Field(None, description="What is known of it so far.")
    at_ms: Milliseconds | None = None


class Playback(_InConversation):
    """How far this player has heard a reply; never acknowledged."""

    type: Literal["playback"]
    id: Id | None = None
    turn: Id
    state: Literal["start", "progress", "end"]
    heard_chars: Annotated[int, Field(ge=0)]
    at_ms: Milliseconds | None = None


class Interrupt(InConversation):
    """The player cuts in. Works after `reply.done` too, while the reply still plays."""

    type: Literal["interrupt"]
    turn: Id | None = Field(None, description="The reply; without it all that are being spoken.")
    heard_chars: Annotated[int, Field(ge=0)] | None = Field(
        None, description="How much was heard, in code points."
    )


class Regenerate(InConversation):
    """Have the NPC say its newest reply anew: a new turn comes, with `replaces`."""

    type: Literal["regenerate"]
    turn: Id = Field(description="The reply; the newest turn, and complete.")


class HistoryGet(InConversation):
    """What this player heard. Answered by `history`."""

    type: Literal["history.get"]
    before: Id | None = Field(None, description="Only turns before this one.")
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class _Checkpoint(Command):
    name: Name = Field(description="The game's own name of the save.")


class CheckpointSave(_Checkpoint):
    """Save the whole world (host only). Answered by `checkpoint.saved`."""

    type: Literal["checkpoint.save"]


class CheckpointLoad(_Checkpoint):
    """Have the world as it was saved (host only). Answered by `checkpoint.loaded`."""

    type: Literal["checkpoint.load"]


class CheckpointFork(_Checkpoint):
    """Begin another world with a save (host only). Answered by `checkpoint.forked`."""

    type: Literal["checkpoint.fork"]
    world: Name = Field(description="The new world; one without conversations.")


class CheckpointDelete(_Checkpoint):
    """Delete a save (host only). Answered by `checkpoint.deleted`."""

    type: Literal["checkpoint.delete"]


class CheckpointList(Command):
    """The saves of this world (host only). Answered by `checkpoint.listed`."""

    type: Literal["checkpoint.list"]


class CheckpointExport(_Checkpoint):
    """A save as a file, in parts (host only). Answered by `checkpoint.exported`."""

    type: Literal["checkpoint.export"]


class CheckpointImport(_Checkpoint):
    """A part of a save's file (host only). Answered by `checkpoint.imported`."""

    type: Literal["checkpoint.import"]
    part: Annotated[int, Field(ge=1)]
    parts: Annotated[int, Field(ge=1, le=512)]
    data: Annotated[str, Field(max_length=65_536)] = Field(description="In base64.")


class PromptMessage(_Part):
    """A message of a prompt."""

    role: Literal["system", "user", "assistant"]
    text: Text


class PromptRun(InConversation):
    """Ask the model of a reply's NPC with an edited prompt (host only). Nothing of it is kept.

    Answered by `prompt.answer`. Where `/prompts` shows none, this is refused.
    """

    type: Literal["prompt.run"]
    turn: Id = Field(description="The reply.")
    messages: Annotated[list[PromptMessage], Field(min_length=1, max_length=400)]


class PlayerForget(Command):
    """Delete everything that is kept of a player in this world. Answered by `player.forgotten`."""

    type: Literal["player.forget"]
    player: Id | None = Field(None, description="Whom (host only); by default oneself.")


class PlayerExport(Command):
    """Everything that is kept of a player in this world. Answered by `player.exported`."""

    type: Literal["player.export"]
    player: Id | None = Field(None, description="Whom (host only); by default oneself.")


AnyCommand = Annotated[
    Hello
    | Ping
    | ConversationOpen
    | ConversationClose
    | Say
    | Event
    | ConversationJoin
    | ConversationLeave
    | ConversationSet
    | ContextSet
    | SceneSet
    | NpcSet
    | Rewind
    | TurnRedact
    | CheckpointSave
    | CheckpointLoad
    | CheckpointFork
    | CheckpointDelete
    | CheckpointList
    | CheckpointExport
    | CheckpointImport
    | PromptRun
    | ActionResult
    | Input
    | Playback
    | Interrupt
    | Regenerate
    | HistoryGet
    | PlayerForget
    | PlayerExport,
    Field(discriminator="type"),
]

# Else pydantic keeps thousands of short strings for later frames, also of forgotten players.
COMMANDS: TypeAdapter[Any] = TypeAdapter(AnyCommand, config=ConfigDict(cache_strings="keys"))
