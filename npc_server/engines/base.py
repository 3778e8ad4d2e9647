"""What every engine is: a thing that turns messages into a stream of text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, known once it has started.

    Attributes:
        engine: The engine's name, such as ``ctransformers``.
        model: The model's name for people; never a path.
        context: Tokens that prompt and reply share.
        seats: How many replies can be generated at once, each with a prefix cache of its own.
        device: ``cpu``, ``cuda``, ``metal`` ..., as in use; ``remote`` for an endpoint.
        schema: Whether replies can be held to a JSON Schema while they are made. Without, a schema
            is only asked for, and the reply may be anything.
        scores: Whether ``score`` tells true probabilities. Without, the one label that the model
            chose has all of the probability.
        adapters: Whether requests may name a LoRA adapter.
    """

    engine: str
    model: str
    context: int
    seats: int
    device: str
    schema: bool = False
    scores: bool = False
    adapters: bool = False


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter (GGUF) for one character.

    Attributes:
        path: The file.
        scale: How strongly it acts; 1 is as it was trained, 0 not at all.
    """

    path: Path
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request: of the prompt, how many of these were cached, of the completion."""

    prompt: int
    cached: int
    completion: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a reply. The last piece carries ``finish`` and ``usage``, and maybe no text."""

    text: str
    finish: Finish | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One reply to be generated.

    Attributes:
        messages: The conversation, the system message first.
        sampling: How words are drawn; ``sampling.max_tokens`` bounds the reply.
        affinity: Who asks (conversation and member): the same one returns to the same seat.
        stop: Generation ends before any of these, and none of it is in the text.
        seed: Same request, same seed, same engine: same reply.
        prefix: What the reply already begins with; the engine goes on from there and does not
            send it again.
        schema: A JSON Schema that the whole reply is to satisfy as one compact JSON text; see
            ``Capabilities.schema``. Not together with ``prefix``.
        adapter: The adapter to speak with; ``None`` is the bare model.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    affinity: str
    stop: tuple[str, ...] = ()
    seed: int = 0
    prefix: str = ""
    schema: Mapping[str, Any] | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One look at what the model would say next.

    Attributes:
        messages: The conversation, the system message first, a user message last.
        labels: What the reply may begin with: different texts whose first tokens differ, such as
            ``A``, ``B`` and ``C``.
        affinity: As for a reply: the same one finds its prompt cached.
        prefix: What the reply already begins with.
        adapter: As for a reply.
    """

    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    affinity: str
    prefix: str = ""
    adapter: Adapter | None = None


class Engine(Protocol):
    """A language model at work.

    ``generate`` and ``count_tokens`` raise ``EngineUnavailable`` where the engine is down and
    could not be brought back, ``ModelFileError`` where there is no usable model.
    """

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do; valid after ``start``."""
        ...

    async def start(self) -> None:
        """Load the model. Returns once a request would be answered."""
        ...

    async def close(self) -> None:
        """End every reply and release everything. May be called twice."""
        ...

    def generate(
        self, request: GenerateRequest
    ) -> AbstractAsyncContextManager[AsyncIterator[Piece]]:
        """Stream one reply. Leaving the context cancels what is still being generated."""
        ...

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text takes."""
        ...

    async def count_prompt(self, messages: Sequence[Message]) -> int:
        """How many tokens the whole prompt takes, template included."""
        ...

    async def score(self, request: ScoreRequest) -> list[float]:
        """The natural logarithm of each label's probability of coming next, from one pass.

        The probabilities are relative to the labels: they add up to 1. See ``Capabilities.scores``.
        """
        ...

    async def warm(
        self, messages: Sequence[Message], affinity: str, adapter: Adapter | None = None
    ) -> None:
        """Read a prompt into the seat of ``affinity`` ahead of time; a hint, never an error.

        Cancelling it frees the seat; what was read stays of use.
        """
        ...

    async def forget(self, affinity: str) -> None:
        """Drop what seats hold for every ``affinity`` that starts with this text."""
        ...
