"""The engine for OpenAI-compatible endpoints: ChatGPT, vLLM, Ollama, llama.cpp's server."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from pydantic import SecretStr

from npc_server.engines import estimate, openai_wire
from npc_server.engines.base import (
    Adapter,
    Capabilities,
    Finish,
    GenerateRequest,
    Piece,
    ScoreRequest,
    Usage,
)
from npc_server.engines.openai_http import Endpoint, Failure, Json, open_endpoint
from npc_server.engines.openai_wire import Ask, Chunk, Problem, Quirks
from npc_server.engines.text_stream import EchoFilter, StopFilter
from npc_server.errors import ConfigError, EngineUnavailable, NpcError, TooLarge
from npc_server.observability import get_logger
from npc_server.prompt.messages import Message

ATTEMPTS = 4
CUTS = 1
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
PATIENCE = 10.0
START_PAUSE = 2.0
USAGE_SECONDS = 2.0
WHOLE_SECONDS = 60.0
SPARE_CONNECTIONS = 4
OVERSHOOT = 0.15

PROBE_SCHEMA: Json = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
PROBE = Ask(
    (Message("system", "You are a friendly neighbour."), Message("user", "Hello! How are you?")),
    max_tokens=16,
    logprobs=True,
    schema=PROBE_SCHEMA,
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """What the engine needs to know.

    Attributes:
        base_url: The address under which ``chat/completions`` is.
        model: The endpoint's name of the model.
        key: The endpoint's key; never shown.
        context: Tokens of prompt and reply; less where the endpoint says that it has less.
        seats: Replies that are asked for at once.
        start_timeout: Seconds in which the endpoint must have answered.
        sleep: Waits for so many seconds.
        chance: A number from 0 up to 1, to spread attempts.
    """

    base_url: str
    model: str
    key: SecretStr | None = None
    context: int = 2048
    seats: int = 4
    start_timeout: float = 180.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random


class OpenAIEngine:
    """Asks an endpoint. What it can do is found out at the start, and what it refuses is learned.

    Args:
        settings: Whom to ask, for what.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._endpoint: Endpoint | None = None
        self._quirks = Quirks()
        self._correction = estimate.Correction()
        self._context = settings.context
        self._schema = False
        self._scores: bool | None = None
        self._closed = asyncio.Event()

    @property
    def capabilities(self) -> Capabilities:
        """What the endpoint was found to do; before ``start``, the least."""
        settings = self._settings
        return Capabilities(
            "openai",
            settings.model,
            self._context,
            settings.seats,
            "remote",
            schema=self._schema and self._quirks.takes_schemas,
            scores=bool(self._scores),
        )

    async def start(self) -> None:
        """Check address, key and model with one tiny request, and find out what is offered.

        An endpoint that is down is asked again until the time is up. After that the engine can be
        used all the same: it answers as soon as the endpoint does.

        Raises:
            ConfigError: The address, the key or the model is refused.
            EngineUnavailable: There was no answer in time, or the engine is closed.
        """
        settings = self._settings
        if self._closed.is_set():
            raise EngineUnavailable("The engine is closed.")
        if self._endpoint is None:
            connections = 2 * settings.seats + SPARE_CONNECTIONS
            self._endpoint = await open_endpoint(
                settings.base_url, settings.key, connections=connections
            )
        if self._endpoint.in_clear:
            log.warning("key_in_clear", host=self._endpoint.host)
        reason = "it does not answer"
        try:
            async with asyncio.timeout(settings.start_timeout):
                while (failure := await self._look()) is not None:
                    reason = failure.problem.message or f"it answers {failure.problem.status}"
                    log.warning("endpoint_not_ready", host=self._endpoint.host, reason=reason)
                    await self._pause(failure.retry_after or START_PAUSE)
        except TimeoutError:
            raise EngineUnavailable(
                f"The model's endpoint {self._endpoint.host} was not ready within "
                f"{settings.start_timeout:.0f} seconds: {reason}. Start it, or check "
                "NPC_OPENAI_BASE_URL."
            ) from None
        log.info("endpoint_ready", host=self._endpoint.host, **self._told())

    async def close(self) -> None:
        """Close every connection, and end with them every reply."""
        self._closed.set()
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    @asynccontextmanager
    async def generate(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Piece]]:
        """Stream one reply.

        Before its first piece the endpoint is asked again where that may help. A reply that breaks
        off later is gone on with once, from what was said.

        Raises:
            EngineUnavailable: The endpoint refuses, or cannot be reached.
            TooLarge: The prompt does not fit into the context.
        """
        async with aclosing(self._pieces(request)) as pieces:
            yield pieces

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """About how many tokens each text takes, corrected by what the endpoint reports."""
        return [self._correction.apply(estimate.text_tokens(text)) for text in texts]

    async def count_prompt(self, messages: Sequence[Message]) -> int:
        """About how many tokens the prompt takes, corrected by what the endpoint reports."""
        return self._correction.apply(estimate.prompt_tokens(messages))

    async def score(self, request: ScoreRequest) -> list[float]:
        """The log probability of each label, or, without any at the endpoint, its one choice.

        Raises:
            EngineUnavailable: The endpoint refuses, or cannot be reached.
            TooLarge: The prompt does not fit into the context.
        """
        messages = _begun(request.messages, request.prefix)
        if self._scores is not False:
            chunk = await self._whole(Ask(messages, max_tokens=1, logprobs=True))
            self._scores = bool(self._scores or chunk.top)
            if chunk.top:
                return openai_wire.label_logs(chunk.top, request.labels)
        return await self._choice(messages, request.labels)

    async def warm(
        self, messages: Sequence[Message], affinity: str, adapter: Adapter | None = None
    ) -> None:
        """Nothing: an endpoint keeps what it has read as it likes, and reading costs money."""

    async def forget(self, affinity: str) -> None:
        """Nothing: no conversation is kept here."""

    async def _pieces(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        reply = _Reply(request, self._correction)
        for left in range(CUTS, -1, -1):
            ask = reply.ask()
            try:
                async with aclosing(self._chunks(ask)) as chunks, aclosing(_ended(chunks)) as told:
                    async for chunk in told:
                        if text := reply.take(chunk):
                            yield Piece(text)
                        if reply.stopped or reply.too_long(thinks=self._quirks.thinks):
                            break
            except Failure as failure:
                log.warning("reply_cut", reason=failure.problem.message, left=left)
                if not left or self._closed.is_set():
                    raise self._error(failure) from failure
                reply.cut()
            else:
                break
        if reply.usage is not None and request.schema is None:
            self._correction.learn(estimate.prompt_tokens(ask.messages), reply.usage.prompt)
        yield reply.end()

    async def _choice(self, messages: tuple[Message, ...], labels: Sequence[str]) -> list[float]:
        """Log probabilities of which the label that the model names has all."""
        schema = _one_of(labels) if self.capabilities.schema else None
        chunk = await self._whole(Ask(messages, 24, temperature=0.0, schema=schema))
        chosen = openai_wire.chosen_label(chunk.text, labels)
        if chosen is None:
            return [-math.log(len(labels))] * len(labels)
        return [0.0 if at == chosen else -math.inf for at in range(len(labels))]

    async def _whole(self, ask: Ask) -> Chunk:
        """The answer to a question that is not streamed."""
        try:
            async with asyncio.timeout(WHOLE_SECONDS), aclosing(self._chunks(ask)) as chunks:
                return await anext(chunks)
        except Failure as failure:
            raise self._error(failure) from failure
        except TimeoutError:
            raise self._error(Failure(Problem("it does not answer"))) from None

    async def _chunks(self, ask: Ask) -> AsyncGenerator[Chunk]:
        """The chunks of an answer. Until there is a first one, the endpoint is asked again.

        Raises:
            Failure: The answer broke off after its first chunk.
            EngineUnavailable: There was no first chunk.
            TooLarge: The prompt does not fit into the context.
        """
        attempt = 0
        while True:
            begun = False
            body = openai_wire.body_of(self._settings.model, ask, self._quirks)
            try:
                async with aclosing(self._ask(body)) as chunks:
                    async for chunk in chunks:
                        begun = begun or bool(chunk.text or chunk.finish)
                        yield chunk
                if begun:
                    return
                failure = Failure(Problem("it ended without an answer"))
            except Failure as error:
                if begun:
                    raise
                failure = error
            if not self._adapt(failure, body, ask):
                attempt += 1
                await self._before_next(attempt, failure)

    async def _ask(self, body: Json) -> AsyncGenerator[Chunk]:
        async with aclosing(self._connected().ask(body)) as objects:
            async for found in objects:
                chunk = openai_wire.chunk_of(found)
                if chunk.problem is not None:
                    raise Failure(self._connected().shown(chunk.problem))
                yield chunk

    def _connected(self) -> Endpoint:
        if self._endpoint is None:
            raise EngineUnavailable("The engine is closed or was never started.")
        return self._endpoint

    def _adapt(self, failure: Failure, body: Json, ask: Ask, *, of_all: bool = False) -> bool:
        """Whether the endpoint refused something that can be left out from now on."""
        problem = failure.problem
        if problem.status not in (400, 422, 501) or openai_wire.is_too_long(problem):
            return False
        learned = self._quirks.learn(problem, body, ask, of_all=of_all)
        if learned:
            log.info(
                "endpoint_refuses", reason=problem.message, refused=sorted(self._quirks.refused)
            )
        return learned

    async def _before_next(self, attempt: int, failure: Failure) -> None:
        wanted = failure.retry_after or 0.0
        if not failure.passing or attempt >= ATTEMPTS or wanted > PATIENCE:
            raise self._error(failure) from failure
        doubled = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
        await self._pause(max(wanted, doubled * (0.5 + 0.5 * self._settings.chance())))

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the engine's end."""
        sleeping = asyncio.ensure_future(self._settings.sleep(seconds))
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((sleeping, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            closing.cancel()
        if self._closed.is_set():
            raise EngineUnavailable("The engine is closed.")

    async def _look(self) -> Failure | None:
        """Ask for what is needed to begin; gives a failure that may pass.

        Raises:
            ConfigError: It will not pass.
        """
        try:
            await self._list()
            await self._probe()
        except Failure as failure:
            if failure.passing and not self._closed.is_set():
                return failure
            error = self._error(failure)
            if failure.problem.status in (401, 403, 404):
                raise ConfigError(error.message) from failure
            raise error from failure
        return None

    async def _list(self) -> None:
        """Look the model up; an endpoint that lists none is fine."""
        try:
            listed = (await self._connected().models()).get("data")
        except Failure as failure:
            if failure.problem.status in (401, 403) or failure.problem.status is None:
                raise
            return
        models = [m for m in listed if isinstance(m, dict)] if isinstance(listed, list) else []
        name = self._settings.model
        mine = next((m for m in models if str(m.get("id")).removesuffix(":latest") == name), None)
        if mine is None and len(models) == 1:
            # A server of one model answers with it under any name.
            mine = models[0]
        if mine is None and models:
            names = ", ".join(sorted(str(m.get("id")) for m in models)[:20])
            log.warning("model_not_listed", model=name, listed=names)
        self._context = min(self._settings.context, _context_of(mine or {}))

    async def _probe(self) -> None:
        """Find out whether replies are held to a schema, and whether probabilities are told."""
        while True:
            body = openai_wire.body_of(self._settings.model, PROBE, self._quirks)
            try:
                async with aclosing(self._ask(body)) as chunks:
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                raise Failure(Problem("it ended without an answer")) from None
            except Failure as failure:
                if not self._adapt(failure, body, PROBE, of_all=True):
                    raise
            else:
                break
        held = not chunk.text.strip() or chunk.text.lstrip().startswith("{")
        self._schema = self._quirks.takes_schemas and held
        self._scores = bool(chunk.top)

    def _error(self, failure: Failure) -> NpcError:
        """The error that says what to do about a failure."""
        problem = failure.problem
        if openai_wire.is_too_long(problem):
            self._correction.raise_by(OVERSHOOT)
            return TooLarge("The prompt does not fit into the model's context. Lower NPC_CONTEXT.")
        if self._closed.is_set():
            return EngineUnavailable("The engine is closed.")
        host = self._endpoint.host if self._endpoint else "the endpoint"
        wait = failure.retry_after
        return EngineUnavailable(
            _explained(problem, host, self._settings.model),
            retry_after_ms=None if wait is None else math.ceil(wait * 1000),
        )

    def _told(self) -> Json:
        facts = self.capabilities
        return {
            name: getattr(facts, name) for name in ("model", "context", "seats", "schema", "scores")
        }


class _Reply:
    """One reply while it comes: what was said, and why it ended."""

    def __init__(self, request: GenerateRequest, correction: estimate.Correction) -> None:
        self._request = request
        self._correction = correction
        self._stops = StopFilter(request.stop)
        self._echo = EchoFilter(request.prefix)
        self._said = ""
        self._guess = 0.0
        self._before = 0
        self._finish: Finish | None = None
        self.usage: Usage | None = None

    @property
    def stopped(self) -> bool:
        """Whether a stop string came."""
        return self._stops.stopped

    def ask(self) -> Ask:
        """What to ask for, given what was said."""
        request, sampling = self._request, self._request.sampling
        return Ask(
            _begun(request.messages, request.prefix + self._said),
            max_tokens=max(1, sampling.max_tokens - self._before),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            stop=request.stop,
            seed=request.seed,
            stream=True,
            schema=request.schema,
        )

    def take(self, chunk: Chunk) -> str:
        """Take a chunk; returns what may be shown of it."""
        self.usage = chunk.usage or self.usage
        self._finish = chunk.finish or self._finish
        text = self._echo.feed(chunk.text)
        if chunk.finish is not None:
            text += self._echo.end()
        return self._say(text)

    def too_long(self, *, thinks: bool) -> bool:
        """Whether the endpoint goes on beyond what was asked for.

        What a model says before it speaks counts too, so one that thinks has no limit of its own.
        """
        most = self._request.sampling.max_tokens
        if self._correction.apply(self._guess) <= (most if thinks else 4 * most):
            return False
        self._finish = "length"
        return True

    def cut(self) -> None:
        """The connection broke; the next one goes on from here."""
        self._before = self._correction.apply(self._guess)
        self._echo = EchoFilter(self._request.prefix + self._said)
        self.usage = None

    def end(self) -> Piece:
        """The last piece."""
        text = self._say(self._echo.end()) + self._stops.end()
        made = self._before + self.usage.completion if self.usage else 0
        made = made or self._correction.apply(self._guess)
        finish: Finish = "length" if made >= self._request.sampling.max_tokens else "stop"
        finish = "stop" if self._stops.stopped else self._finish or finish
        prompt = self._correction.apply(estimate.prompt_tokens(self._request.messages))
        usage = self.usage or Usage(prompt, 0, made)
        return Piece(text, finish, Usage(usage.prompt, usage.cached, made))

    def _say(self, text: str) -> str:
        self._said += text
        self._guess += estimate.text_tokens(text)
        return self._stops.feed(text)


async def _ended(chunks: AsyncGenerator[Chunk]) -> AsyncGenerator[Chunk]:
    """The chunks; behind the one that ends the reply only what comes at once, such as usage."""
    finished = False
    while True:
        try:
            async with asyncio.timeout(USAGE_SECONDS if finished else None):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except (Failure, TimeoutError):
            if finished:
                return
            raise
        yield chunk
        finished = finished or chunk.finish is not None


def _begun(messages: tuple[Message, ...], prefix: str) -> tuple[Message, ...]:
    """The messages, the last of them what the reply begins with."""
    return (*messages, Message("assistant", prefix)) if prefix else messages


def _one_of(labels: Sequence[str]) -> Json:
    return {
        "type": "object",
        "properties": {"answer": {"type": "string", "enum": list(labels)}},
        "required": ["answer"],
        "additionalProperties": False,
    }


def _context_of(model: Json) -> int:
    """The context that an endpoint tells of a model: vLLM's or llama.cpp's way."""
    meta = model.get("meta")
    told = (model.get("max_model_len"), meta.get("n_ctx") if isinstance(meta, dict) else None)
    return min((size for size in told if type(size) is int and size > 0), default=1 << 30)


def _explained(problem: Problem, host: str, model: str) -> str:
    said = f": {problem.message}" if problem.message else ""
    match problem.status:
        case None:
            return f"The model's endpoint {host} cannot be used{said}. Check NPC_OPENAI_BASE_URL."
        case 401:
            return f"The model's endpoint {host} refuses the key. Check NPC_OPENAI_API_KEY."
        case 403:
            return (
                f"The model's endpoint {host} does not let this key use {model}. "
                "Check NPC_OPENAI_API_KEY and NPC_MODEL."
            )
        case 404:
            return (
                f"The model's endpoint {host} has no model {model}, or nothing at this address"
                f"{said}. Check NPC_MODEL, and NPC_OPENAI_BASE_URL, which usually ends in /v1."
            )
        case 429:
            return f"The model's endpoint {host} is asked too often or has no credit left{said}."
        case status:
            return f"The model's endpoint {host} answered {status}{said}."
