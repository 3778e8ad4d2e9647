"""The ctransformers engine: the server's side. The model runs in a worker process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from npc_server.engines.base import (
    Adapter,
    Capabilities,
    GenerateRequest,
    Piece,
    ScoreRequest,
    Usage,
)
from npc_server.engines.gguf import read_header
from npc_server.engines.kept_worker import KeptWorker, load_worker, with_layers_that_fit
from npc_server.engines.machine import for_ctransformers
from npc_server.engines.placement import Footprint, Machine, Placement, footprint, plan
from npc_server.engines.worker_process import Json, WorkerDied, WorkerProcess
from npc_server.errors import BadMessage, EngineUnavailable, ModelFileError, TooLarge
from npc_server.observability import get_logger
from npc_server.prompt.messages import Message

WORKER = "npc_server.engines.ctransformers_worker"
ATTEMPTS = 2

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CtransformersSettings:
    """What the engine needs to know.

    Attributes:
        model: The model's file.
        name: The model's name for people; the file's name by default.
        model_type: ctransformers' name of the kind of model, for files before GGUF; guessed from
            their name by default.
        template: The prompt template; guessed by default.
        context: Tokens of prompt and reply; no more than the model was trained with.
        seats: Replies that are generated at once; fewer where memory is short.
        threads: Threads that compute; by default the cores, less one where there are three or more.
        device: ``auto``, ``cpu`` or a kind of GPU.
        gpu_layers: Layers on the GPU; ``auto`` is as many as fit.
        cache_dir: Where a rewritten model goes if the model's own folder cannot be written.
        start_timeout: Seconds in which the model must be loaded.
        backoff_first: Seconds before a crashed worker is started again; doubled each time.
        backoff_most: The longest such wait, in seconds.
        command: The worker's command line, for tests.
        machine: What there is to compute with, for tests; by default it is looked for.
    """

    model: Path
    name: str | None = None
    model_type: str | None = None
    template: str | None = None
    context: int = 2048
    seats: int = 4
    threads: int | None = None
    device: str = "auto"
    gpu_layers: int | Literal["auto"] = 0
    cache_dir: Path | None = None
    start_timeout: float = 180.0
    backoff_first: float = 0.1
    backoff_most: float = 30.0
    command: tuple[str, ...] = ()
    machine: Machine | None = None


class CtransformersEngine:
    """Runs a model by ctransformers in a worker process, which is started again when it crashes.

    Args:
        settings: What to load, and how.
    """

    def __init__(self, settings: CtransformersSettings) -> None:
        self._settings = settings
        self._kept = KeptWorker(
            self._launch,
            backoff_first=settings.backoff_first,
            backoff_most=settings.backoff_most,
        )
        self._facts: Json = {}
        self._gpu_layers: int | None = None

    @property
    def pid(self) -> int | None:
        """The number of the worker's process; ``None`` while there is none."""
        return self._kept.pid

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do; before ``start``, what it was asked for."""
        settings = self._settings
        facts = self._facts
        return Capabilities(
            "ctransformers",
            settings.name or settings.model.stem,
            facts.get("context", settings.context),
            facts.get("seats", settings.seats),
            facts.get("device", "cpu"),
            schema=True,
            scores=True,
            adapters=facts.get("adapters", False),
        )

    async def start(self) -> None:
        """Load the model, which may rewrite its file first.

        Raises:
            ModelFileError: The model cannot be read or run.
            ConfigError: There is no such template.
            EngineUnavailable: It was not loaded in time, or the engine is closed.
        """
        await self._kept.start()

    async def close(self) -> None:
        """End the worker and with it every reply."""
        await self._kept.close()

    @asynccontextmanager
    async def generate(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Piece]]:
        """Stream one reply. A reply that a crash cuts is gone on with once, from where it was.

        Raises:
            EngineUnavailable: The worker crashed twice, or cannot be started.
            TooLarge: The prompt does not fit into the context.
            BadMessage: The JSON Schema asks for something that cannot be enforced.
            ModelFileError: The adapter does not fit the model, or is none.
        """
        async with aclosing(self._pieces(request)) as pieces:
            yield pieces

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of this model each text takes."""
        asked = {"op": "count_tokens", "texts": [_clean(text) for text in texts]}
        return [int(count) for count in await self._answer(asked, "counts")]

    async def count_prompt(self, messages: Sequence[Message]) -> int:
        """How many tokens the prompt takes, template included."""
        asked = {"op": "count_prompt", "messages": _pairs(messages)}
        return int((await self._answer(asked, "counts"))[0])

    async def score(self, request: ScoreRequest) -> list[float]:
        """The logarithm of each label's probability of coming next, relative to the labels.

        Raises:
            ValueError: Two labels begin with the same token.
            EngineUnavailable: The worker crashed twice, or cannot be started.
            TooLarge: The prompt does not fit into the context.
            ModelFileError: The adapter does not fit the model, or is none.
        """
        asked = {
            "op": "score",
            "messages": _pairs(request.messages),
            "labels": [_clean(label) for label in request.labels],
            "affinity": _clean(request.affinity),
            "prefix": _clean(request.prefix),
            "adapter": _adapter(request.adapter),
        }
        return await self._answer(asked, "scores")

    async def warm(
        self, messages: Sequence[Message], affinity: str, adapter: Adapter | None = None
    ) -> None:
        """Read a prompt ahead of time; given up as soon as a reply needs the seat."""
        command = {
            "op": "warm",
            "messages": _pairs(messages),
            "affinity": _clean(affinity),
            "adapter": _adapter(adapter),
        }
        worker = self._kept.worker
        if worker is None:
            return
        with suppress(WorkerDied):
            async with aclosing(worker.ask(command)) as events:
                async for _ in events:
                    pass

    async def forget(self, affinity: str) -> None:
        """Drop what seats hold for every affinity that begins so."""
        if self._kept.worker is not None:
            self._kept.worker.tell({"op": "forget", "affinity": _clean(affinity)})

    async def _pieces(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        said, before = "", 0
        for attempt in range(1, ATTEMPTS + 1):
            worker = await self._kept.current()
            command = _command(request, request.prefix + said, before)
            made = before
            try:
                async with aclosing(worker.ask(command)) as events:
                    async for event in events:
                        piece = _piece(event, before)
                        made = before + event.get("made", 0)
                        said += piece.text
                        yield piece
            except WorkerDied as error:
                reason = str(error)
                log.warning("reply_cut", attempt=attempt, reason=reason)
            else:
                self._kept.failures = 0
                return
            before = min(made, request.sampling.max_tokens - 1)
        raise EngineUnavailable(f"The model's worker crashed twice in one reply: {reason}.")

    async def _answer(self, command: Json, name: str) -> list[float]:
        for _ in range(ATTEMPTS):
            worker = await self._kept.current()
            with suppress(WorkerDied):
                async with aclosing(worker.ask(command)) as events:
                    async for event in events:
                        _raise_error(event)
                        return list(event[name])
        raise EngineUnavailable(f"The model's worker crashed twice; it was asked for {name}.")

    async def _launch(self) -> WorkerProcess:
        """Load the model, with fewer layers on the GPU where they cannot be loaded."""
        layers = await self._chosen_layers()
        worker, self._gpu_layers = await with_layers_that_fit(self._load, layers)
        return worker

    async def _chosen_layers(self) -> int:
        if self._gpu_layers is None:
            placed = await asyncio.to_thread(placement, self._settings)
            log.info("model_placed", device=placed.device, gpu_layers=placed.gpu_layers)
            for warning in placed.warnings:
                log.warning("placement", reason=warning)
            return placed.gpu_layers
        return self._gpu_layers

    async def _load(self, layers: int) -> WorkerProcess:
        settings = self._settings
        name = settings.model.name
        worker = await load_worker(
            settings.command or WORKER,
            _load_command(settings, layers),
            model=name,
            library="ctransformers",
            seconds=settings.start_timeout,
        )
        facts = worker.facts
        self._facts = facts
        log.info("model_loaded", pid=worker.pid, model=name, **_told(facts))
        self._warn(facts)
        return worker

    def _warn(self, facts: Json) -> None:
        settings = self._settings
        if facts["context"] < settings.context:
            log.warning("context_limited", asked=settings.context, context=facts["context"])
        if facts["seats"] < settings.seats:
            log.warning("seats_limited", asked=settings.seats, seats=facts["seats"])
        if not facts["split_known"]:
            log.warning("tokenizer_guessed", model=settings.model.name, used=facts["split"])
        if facts["template_guessed"] and facts["template"] == "plain":
            log.warning("template_unknown", model=settings.model.name, used="plain")


def placement(settings: CtransformersSettings) -> Placement:
    """Where the model runs, and why. Looks at the machine where a GPU may be used.

    Raises:
        ModelFileError: The model cannot be read.
    """
    if settings.device == "cpu" or settings.gpu_layers == 0:
        return plan(Footprint(0), Machine(), "cpu", 0)
    # Each seat loads the weights that it has on the GPU by itself.
    model = footprint(
        read_header(settings.model),
        context=settings.context,
        seats=settings.seats,
        copies=settings.seats,
    )
    machine = settings.machine or for_ctransformers()
    return plan(model, machine, settings.device, settings.gpu_layers)


def _load_command(settings: CtransformersSettings, layers: int) -> Json:
    wanted = asdict(settings) | {"gpu_layers": layers}
    del wanted["machine"]
    paths = {"model": str(settings.model.absolute())}
    if settings.cache_dir is not None:
        paths["cache_dir"] = str(settings.cache_dir.absolute())
    return {**wanted, **paths}


def _command(request: GenerateRequest, prefix: str, made: int) -> Json:
    return {
        "op": "generate",
        "messages": _pairs(request.messages),
        "sampling": request.sampling.model_dump(),
        "max_tokens": request.sampling.max_tokens - made,
        "affinity": _clean(request.affinity),
        "stop": [_clean(stop) for stop in request.stop],
        "seed": request.seed & 0xFFFFFFFFFFFFFFFF >> 1,
        "prefix": _clean(prefix),
        "schema": request.schema,
        "adapter": _adapter(request.adapter),
    }


def _adapter(adapter: Adapter | None) -> tuple[str, float] | None:
    """The adapter as the worker takes it; one of the scale 0 is none."""
    return (str(adapter.path.absolute()), adapter.scale) if adapter and adapter.scale else None


def _piece(event: Json, made: int) -> Piece:
    _raise_error(event)
    if "finish" not in event:
        return Piece(event["text"])
    prompt, cached, completion = event["usage"]
    return Piece(event["text"], event["finish"], Usage(prompt, cached, completion + made))


def _raise_error(event: Json) -> None:
    if "error" in event:
        kinds: tuple[type[Exception], ...] = (TooLarge, BadMessage, ModelFileError, ValueError)
        known = {kind.__name__: kind for kind in kinds}
        raise known.get(event.get("kind", ""), EngineUnavailable)(event["message"])


def _told(facts: Json) -> Json:
    return {name: facts[name] for name in ("context", "seats", "device", "template")}


def _pairs(messages: Sequence[Message]) -> list[list[str]]:
    return [[message.role, _clean(message.text)] for message in messages]


def _clean(text: str) -> str:
    """The text without lone surrogates, which JSON cannot carry."""
    return text.encode(errors="replace").decode()
