"""The llama.cpp engine: the server's side. The model runs in a worker process of its own."""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson
from llguidance import LLMatcher

from npc_server.engines import gbnf
from npc_server.engines.base import (
    Adapter,
    Capabilities,
    GenerateRequest,
    Piece,
    ScoreRequest,
    Usage,
)
from npc_server.engines.gguf import Header, read_header
from npc_server.engines.kept_worker import KeptWorker, load_worker, with_layers_that_fit
from npc_server.engines.llamacpp_http import HttpFailed, HttpRefused, Json
from npc_server.engines.llamacpp_running import RunningLlama
from npc_server.engines.llamacpp_tokens import PromptTokens
from npc_server.engines.machine import for_llamacpp
from npc_server.engines.model_info import llamacpp_reads
from npc_server.engines.placement import Footprint, Machine, footprint, plan
from npc_server.engines.prefix import common_length
from npc_server.engines.templates import guess, named
from npc_server.engines.text_stream import StopFilter
from npc_server.errors import EngineUnavailable, ModelFileError, TooLarge
from npc_server.observability import get_logger
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

WORKER = "npc_server.engines.llamacpp_worker"
ATTEMPTS = 2
ADAPTERS_MOST = 32
MOST_UNUSABLE = 256
MOST_BARRED = 1024
RECENT = 64
LAST_SEED = 0xFFFF_FFFE
# Enough to lift a label over every other token, little enough to leave 32-bit floats their digits.
LIFT = 100.0
LEAST_LOG = -87.0
FINAL_FIELDS = ["content", "stop", "stop_type", "tokens_predicted", "timings"]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LlamaCppSettings:
    """What the engine needs to know.

    Attributes:
        model: The model's file (GGUF 2 or later).
        name: The model's name for people; the file's name by default.
        template: The prompt template; guessed by default.
        context: Tokens of prompt and reply; no more than the model was trained with.
        seats: Replies that are generated at once.
        threads: Threads that compute; by default the cores.
        device: What computes: ``auto``, ``cpu`` or a kind of GPU.
        gpu_layers: Layers on the GPU, or ``auto``; fewer where its memory turns out to be short.
        kv_cache: How what was read is stored: ``f16``, ``q8_0`` or ``q4_0``.
        flash_attention: ``auto``, ``on`` or ``off``.
        prompt_cache_mib: Memory for what those without a seat have read.
        start_timeout: Seconds in which the model must be loaded.
        backoff_first: Seconds before a crashed worker is started again; doubled each time.
        backoff_most: The longest such wait, in seconds.
        command: The worker's command line, for tests.
        machine: What there is to compute with, for tests; by default it is looked for.
    """

    model: Path
    name: str | None = None
    template: str | None = None
    context: int = 2048
    seats: int = 4
    threads: int | None = None
    device: str = "cpu"
    gpu_layers: int | Literal["auto"] = "auto"
    kv_cache: str = "f16"
    flash_attention: str = "auto"
    prompt_cache_mib: int = 512
    start_timeout: float = 180.0
    backoff_first: float = 0.1
    backoff_most: float = 30.0
    command: tuple[str, ...] = ()
    machine: Machine | None = None


class LlamaCppEngine:
    """Runs a model by llama.cpp in a worker process, which is started again when it crashes.

    Args:
        settings: What to load, and how.
    """

    def __init__(self, settings: LlamaCppSettings) -> None:
        self._settings = settings
        self._kept = KeptWorker(
            self._launch,
            backoff_first=settings.backoff_first,
            backoff_most=settings.backoff_most,
        )
        self._tokens: PromptTokens | None = None
        self._architecture = ""
        self._hides_spaces = False
        self._context = settings.context
        self._footprint = Footprint(0)
        self._gpu_layers: int | None = None
        self._device = "cpu"
        self._adapters: tuple[Path, ...] = ()
        self._unusable: dict[tuple[Path, float], str] = {}
        self._swapping = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The number of the worker's process; ``None`` while there is none."""
        return self._kept.pid

    @property
    def capabilities(self) -> Capabilities:
        """What the engine can do; before ``start``, what it was asked for."""
        settings = self._settings
        return Capabilities(
            "llamacpp",
            settings.name or settings.model.stem,
            self._context,
            settings.seats,
            self._device,
            schema=True,
            scores=True,
            adapters=True,
        )

    async def start(self) -> None:
        """Load the model.

        Raises:
            ModelFileError: The model cannot be read or run.
            ConfigError: There is no such template.
            EngineUnavailable: It was not loaded in time, or the engine is closed.
        """
        await asyncio.to_thread(self._read)
        await self._kept.start()

    async def close(self) -> None:
        """End the worker and with it every reply."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        await self._kept.close()

    @asynccontextmanager
    async def generate(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Piece]]:
        """Stream one reply. A reply that a crash cuts is gone on with once, from where it was.

        Raises:
            EngineUnavailable: The worker crashed twice, or cannot be started.
            ModelFileError: The adapter cannot be used.
            TooLarge: The prompt does not fit into the context.
            ValueError: The schema cannot be kept.
        """
        async with aclosing(self._pieces(request)) as pieces:
            yield pieces

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of this model each text takes."""
        tokens, ask = self._known_tokens(), self._tokenize
        return [await tokens.count(text, ask) for text in texts]

    async def count_prompt(self, messages: Sequence[Message]) -> int:
        """How many tokens the prompt takes, template included."""
        return len(await self._known_tokens().prompt(messages, "", self._tokenize))

    async def score(self, request: ScoreRequest) -> list[float]:
        """The natural logarithm of each label's probability of coming next, from one pass.

        Raises:
            ValueError: Labels do not part at one token.
            EngineUnavailable: The worker crashed twice, or cannot be started.
            TooLarge: The prompt does not fit into the context.
        """
        if len(request.labels) == 1:
            return [0.0]
        prompt, choices = await self._choices(request)
        body = {
            "prompt": prompt,
            "n_predict": 1,
            "n_probs": len(choices),
            "post_sampling_probs": True,
            "samplers": ["temperature"],
            "temperature": 1.0,
            "logit_bias": [[token, LIFT] for token in choices],
            "response_fields": ["stop"],
        }
        for _ in range(ATTEMPTS):
            llama = await self._loaded(request.adapter)
            with suppress(HttpFailed):
                answer = await self._once(llama, body, request.affinity, request.adapter)
                return _relative(answer, choices)
            await _gone(llama)
        raise EngineUnavailable("The model's worker crashed while it weighed labels.")

    async def warm(
        self, messages: Sequence[Message], affinity: str, adapter: Adapter | None = None
    ) -> None:
        """Read a prompt ahead of time; given up as soon as a reply needs the seat."""
        llama = self._kept.worker
        if llama is None or (adapter is not None and adapter.path not in llama.adapters):
            return
        reading = asyncio.create_task(self._read_ahead(llama, messages, affinity, adapter))
        try:
            await asyncio.wait([reading])
        finally:
            reading.cancel()
        if not reading.cancelled() and (error := reading.exception()) is not None:
            log.debug("not_read_ahead", reason=str(error))

    async def forget(self, affinity: str) -> None:
        """Drop what seats hold for every affinity that begins so, and the texts that were read."""
        if self._tokens is not None:
            self._tokens.forget()
        if self._kept.worker is not None:
            await self._kept.worker.seats.forget(affinity)

    async def _pieces(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        said, before, reason = "", 0, ""
        for attempt in range(1, ATTEMPTS + 1):
            llama = await self._loaded(request.adapter)
            made = before
            try:
                async with aclosing(self._reply(llama, request, said, before)) as pieces:
                    async for piece, made in pieces:  # noqa: B007 - it is needed when it fails
                        said += piece.text
                        yield piece
            except HttpFailed as error:
                reason = str(error)
                log.warning("reply_cut", attempt=attempt, reason=reason)
                await _gone(llama)
            else:
                self._kept.failures = 0
                return
            if said and request.schema is not None:
                raise EngineUnavailable(f"The model's worker crashed within an answer: {reason}.")
            before = min(made, request.sampling.max_tokens - 1)
        raise EngineUnavailable(f"The model's worker crashed twice in one reply: {reason}.")

    async def _reply(
        self, llama: RunningLlama, request: GenerateRequest, said: str, before: int
    ) -> AsyncGenerator[tuple[Piece, int]]:
        """The pieces of one attempt, each with the number of tokens that were made by then."""
        tokens = self._known_tokens()
        prefix = request.prefix + said
        with llama.used():
            prompt = await tokens.prompt(request.messages, prefix, llama.tokenize)
            free = request.schema is None
            stops = [*request.stop, *tokens.template.stop] if free else []
            body = _body(request, self._checked(prompt), stops, tokens.barred)
            body["n_predict"] = min(
                request.sampling.max_tokens - before, self._context - len(prompt)
            )
            if request.schema is not None:
                guided = llama.facts["guidance"] and not self._hides_spaces
                body["grammar"] = (_guidance if guided else gbnf.grammar)(request.schema)
            reply = _Reply(len(prompt), before, stops, begun=bool(prefix) or not free)
            async with (
                llama.seats.seat(llama.key(request.affinity, request.adapter)) as seat,
                aclosing(self._events(llama, body, seat, request.adapter)) as events,
            ):
                async for event in events:
                    piece = reply.take(event)
                    if piece is not None:
                        yield piece, reply.made
                    if reply.ended:
                        return

    async def _events(
        self, llama: RunningLlama, body: Json, seat: int, adapter: Adapter | None
    ) -> AsyncGenerator[Json]:
        """What llama.cpp answers to a prompt, as it comes; progress is told after each chunk.

        It writes then, and so notices that nobody listens any more.
        """
        body = {
            **body,
            "id_slot": seat,
            "cache_prompt": True,
            "stream": True,
            "return_progress": True,
            "lora": llama.lora(adapter),
        }
        try:
            async with aclosing(llama.http.events("/completion", body)) as events:
                async for event in events:
                    yield event
        except HttpRefused as error:
            kind = TooLarge if error.kind == "exceed_context_size_error" else EngineUnavailable
            raise kind(f"llama.cpp refused the request: {error}.") from error

    async def _once(
        self, llama: RunningLlama, body: Json, affinity: str, adapter: Adapter | None
    ) -> Json:
        """The first event of an answer that is not about progress."""
        told: Json = {}
        with llama.used():
            async with (
                llama.seats.seat(llama.key(affinity, adapter)) as seat,
                aclosing(self._events(llama, body, seat, adapter)) as events,
            ):
                async for event in events:
                    if not told and "prompt_progress" not in event:
                        told = event
        return told

    async def _read_ahead(
        self,
        llama: RunningLlama,
        messages: Sequence[Message],
        affinity: str,
        adapter: Adapter | None,
    ) -> None:
        task = asyncio.current_task()
        prompt = await self._known_tokens().prompt(messages, "", llama.tokenize)
        if task is None or len(prompt) >= self._context:
            return
        body = {"prompt": prompt, "n_predict": 0, "response_fields": ["stop"]}
        with llama.used():
            async with llama.seats.hinted_seat(llama.key(affinity, adapter), task) as seat:
                if seat is not None:
                    async with aclosing(self._events(llama, body, seat, adapter)) as events:
                        async for _ in events:
                            pass

    async def _choices(self, request: ScoreRequest) -> tuple[list[int], list[int]]:
        """The prompt up to where the labels part, and each label's token there."""
        tokens = self._known_tokens()

        async def encoded(label: str) -> list[int]:
            return await tokens.prompt(request.messages, request.prefix + label, self._tokenize)

        prompts = [await encoded(label) for label in request.labels]
        shared = min(common_length(prompts[0], other) for other in prompts)
        choices = [prompt[shared] for prompt in prompts if len(prompt) > shared]
        if len({*choices}) < len(prompts):
            raise ValueError(f"These labels do not differ in their first tokens: {request.labels}")
        return self._checked(prompts[0][:shared]), choices

    def _checked(self, prompt: list[int]) -> list[int]:
        if len(prompt) >= self._context:
            raise TooLarge(
                f"The prompt takes {len(prompt)} tokens, and the model's context has "
                f"{self._context}. Shorten it, or raise NPC_CONTEXT."
            )
        return prompt

    def _known_tokens(self) -> PromptTokens:
        if self._tokens is None:
            raise EngineUnavailable("The engine is closed or was never started.")
        return self._tokens

    async def _tokenize(self, text: str) -> list[int]:
        for _ in range(ATTEMPTS):
            llama = await self._kept.current()
            with suppress(HttpFailed):
                return await llama.tokenize(text)
            await _gone(llama)
        raise EngineUnavailable("The model's worker crashed while it counted tokens.")

    def _read(self) -> None:
        """Read the model's header: what it is, and its tokens."""
        settings = self._settings
        header = read_header(settings.model)
        if not llamacpp_reads(header):
            raise ModelFileError(
                f"llama.cpp does not read {header.format} {header.version} files such as "
                f"{settings.model.name}. Set NPC_ENGINE=ctransformers, or take a GGUF 3 file."
            )
        template = settings.template or guess(header.metadata, settings.model.name)
        self._context = _context(header, settings.context)
        self._tokens = PromptTokens(header, named(template), self._context)
        self._architecture = header.text("general.architecture")
        self._footprint = footprint(
            header, context=settings.context, seats=settings.seats, kv_cache=settings.kv_cache
        )
        self._hides_spaces = _hides_spaces(header)
        if self._context < settings.context:
            log.warning("context_limited", asked=settings.context, context=self._context)
        if template == "plain" and settings.template is None:
            log.warning("template_unknown", model=settings.model.name, used="plain")

    async def _launch(self) -> RunningLlama:
        """Start a worker; with half of the layers on the GPU where all of them do not fit."""
        layers = await self._chosen_layers()
        llama, self._gpu_layers = await with_layers_that_fit(self._launch_with, layers)
        return llama

    async def _chosen_layers(self) -> int:
        settings = self._settings
        if self._gpu_layers is not None:
            return self._gpu_layers
        if settings.device == "cpu" or settings.gpu_layers == 0:
            return 0
        machine = settings.machine
        if machine is None:
            machine = await asyncio.to_thread(for_llamacpp)
        placed = plan(self._footprint, machine, settings.device, settings.gpu_layers)
        log.info("model_placed", device=placed.device, gpu_layers=placed.gpu_layers)
        for warning in placed.warnings:
            log.warning("placement", reason=warning)
        return placed.gpu_layers

    async def _launch_with(self, gpu_layers: int) -> RunningLlama:
        settings = self._settings
        adapters = [path for path in self._adapters if path.is_file()]
        process = await load_worker(
            settings.command or WORKER,
            {
                **asdict(replace(settings, gpu_layers=gpu_layers, machine=None)),
                "model": str(settings.model.absolute()),
                "context": self._context,
                "threads": settings.threads or _cores(),
                "adapters": [str(path.absolute()) for path in adapters],
            },
            model=settings.model.name,
            library="llama.cpp",
            seconds=settings.start_timeout,
        )
        self._device = process.facts["device"]
        log.info(
            "model_loaded",
            pid=process.pid,
            model=settings.model.name,
            context=self._context,
            seats=settings.seats,
            device=self._device,
            adapters=len(adapters),
        )
        return RunningLlama(
            process, adapters, seats=settings.seats, cache_mib=settings.prompt_cache_mib
        )

    async def _loaded(self, adapter: Adapter | None) -> RunningLlama:
        """A worker that has loaded this adapter; the first who asks for it makes one."""
        llama = await self._kept.current()
        if adapter is None or adapter.path in llama.adapters:
            return llama
        async with self._swapping:
            llama = await self._kept.current()
            if adapter.path not in llama.adapters:
                await self._add(adapter.path)
            return await self._kept.current()

    async def _add(self, path: Path) -> None:
        """Put a worker that has loaded one adapter more in the place of the one that runs.

        Replies that are being made end where they began.
        """
        version = await asyncio.to_thread(self._check, path)
        before, layers = self._adapters, self._gpu_layers
        self._adapters = (*[other for other in before if other != path][1 - ADAPTERS_MOST :], path)
        try:
            old = await self._kept.replace()
        except ModelFileError as error:
            if len(self._unusable) >= MOST_UNUSABLE:
                self._unusable.clear()
            self._unusable[version] = error.message
            raise ModelFileError(
                f"The adapter {path} cannot be used with {self._settings.model.name}: "
                f"{error.message}"
            ) from error
        finally:
            llama = self._kept.worker
            if llama is None or path not in llama.adapters:
                self._adapters, self._gpu_layers = before, layers
        if old is not None:
            retiring = asyncio.create_task(old.retire())
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)

    def _check(self, path: Path) -> tuple[Path, float]:
        """Raise ``ModelFileError`` if a file is no adapter for this model; returns its version."""
        header = read_header(path)
        version = path, path.stat().st_mtime
        reason = self._unusable.get(version, "")
        kind = header.text("adapter.type")
        architecture = header.text("general.architecture")
        if kind != "lora":
            reason = "it is no LoRA adapter in GGUF form"
        elif architecture != self._architecture:
            reason = f"it is for a model of the kind {architecture!r}, not {self._architecture!r}"
        if reason:
            raise ModelFileError(f"The adapter {path} cannot be used: {reason}.")
        return version


class _Reply:
    """The events of one attempt as pieces of a reply.

    Args:
        prompt: How many tokens the prompt has.
        before: How many tokens of the reply were made before.
        stops: Where it ends.
        begun: Whether the reply has a beginning already; space before one is left out.

    Attributes:
        made: Tokens of the reply, those before included.
        ended: Whether the last piece was given.
    """

    def __init__(self, prompt: int, before: int, stops: Sequence[str], *, begun: bool) -> None:
        self._prompt = prompt
        self._before = before
        self._stops = StopFilter(stops, begun=begun)
        self._cached = 0
        self.made = before
        self.ended = False

    def take(self, event: Json) -> Piece | None:
        """Take an event; returns the piece that comes of it, if any."""
        progress = event.get("prompt_progress")
        if progress is not None:
            self._cached = progress["cache"]
            return None
        text = event["content"]
        self.made = self._before + event["tokens_predicted"]
        text = self._stops.feed(text)
        if event["stop"]:
            kind = event["stop_type"]
            self._cached = event["timings"]["cache_n"]
            self.made -= kind == "eos"
            return self._last(text + self._stops.end(), "limit" if kind == "limit" else "stop")
        if self._stops.stopped:
            return self._last(text, "stop")
        return Piece(text) if text else None

    def _last(self, text: str, kind: str) -> Piece:
        self.ended = True
        usage = Usage(self._prompt, self._cached, self.made)
        return Piece(text, "length" if kind == "limit" else "stop", usage)


def _body(
    request: GenerateRequest, prompt: list[int], stops: Sequence[str], barred: Sequence[int]
) -> Json:
    sampling: Sampling = request.sampling
    return {
        "prompt": prompt,
        "samplers": ["penalties", "top_k", "temperature", "top_p"],
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": 0.0,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": RECENT,
        # The last number stands for chance.
        "seed": request.seed % LAST_SEED,
        "stop": [stop.encode(errors="replace").decode() for stop in stops],
        "logit_bias": [[token, False] for token in barred[:MOST_BARRED]],
        "response_fields": FINAL_FIELDS,
    }


def _guidance(schema: Mapping[str, Any]) -> str:
    """The grammar of a schema, for llguidance, without white space."""
    compact = orjson.dumps({**schema, "x-guidance": {"whitespace_flexible": False}}).decode()
    grammar = f"start: %json {compact}"
    # llama.cpp would only log it, and hold the reply to nothing.
    error = LLMatcher.validate_grammar(grammar)
    if error:
        raise ValueError(f"The schema cannot be kept: {error}")
    return f"%llguidance {{}}\n{grammar}"


def _relative(answer: Json, choices: Sequence[int]) -> list[float]:
    """Logarithms of probabilities that add up to 1, in the order of the choices."""
    told = answer["completion_probabilities"][0]["top_probs"]
    probabilities = {item["id"]: item["prob"] for item in told}
    logs = [
        max(math.log(probabilities.get(token) or math.exp(LEAST_LOG)), LEAST_LOG)
        for token in choices
    ]
    total = math.log(sum(math.exp(each) for each in logs))
    return [each - total for each in logs]


def _hides_spaces(header: Header) -> bool:
    """Whether llama.cpp shows its grammars the tokens without the spaces that they begin with.

    It does where texts are given a space in front, as SentencePiece vocabularies mostly want it.
    Grammars break at once then.
    """
    spaced = header.metadata.get("tokenizer.ggml.add_space_prefix", True)
    return header.text("tokenizer.ggml.model") == "llama" and bool(spaced)


def _context(header: Header, wanted: int) -> int:
    """The context that is asked for, no longer than the one the model was trained with."""
    trained = header.number(f"{header.text('general.architecture')}.context_length")
    return min(wanted, trained) if trained else wanted


def _cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


async def _gone(llama: RunningLlama) -> None:
    """Wait a moment for a process whose connection broke to have ended."""
    with suppress(TimeoutError):
        async with asyncio.timeout(2):
            await llama.ended.wait()
