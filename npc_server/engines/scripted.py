"""An engine without a model: says what a script says. For tests and for client developers."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

import orjson

from npc_server.engines.base import (
    Adapter,
    Capabilities,
    Finish,
    GenerateRequest,
    Piece,
    ScoreRequest,
    Usage,
)
from npc_server.engines.instance import minimal
from npc_server.engines.prefix import common_length
from npc_server.engines.script import Kind, Rule, Script, default_reply, load_script
from npc_server.engines.text_stream import StopFilter
from npc_server.errors import EngineUnavailable, TooLarge
from npc_server.prompt.messages import Message

__all__ = ["Rule", "Script", "ScriptedEngine", "load_script"]

REQUESTS_KEPT = 256
PROMPTS_KEPT = 1024
BYTES_PER_TOKEN = 4


def tokens_of(text: str) -> int:
    """Tokens of a text by this engine's rule: one for every four bytes of UTF-8, rounded up."""
    return -(-len(_encode(text)) // BYTES_PER_TOKEN)


class ScriptedEngine:
    """Says what a script says, at the pace that it says, and fails where it says so.

    Args:
        script: The rules; without any rule that applies the built-in answers are given.

    Attributes:
        requests: The last requests for replies, oldest first, for tests.
        choices: The last requests for choices, oldest first.
    """

    def __init__(self, script: Script | None = None) -> None:
        self._script = script or Script()
        self._used: Counter[int] = Counter()
        self._prompts: OrderedDict[str, bytes] = OrderedDict()
        self._seats = asyncio.Semaphore(self._script.seats)
        self._closed = asyncio.Event()
        self.requests: deque[GenerateRequest] = deque(maxlen=REQUESTS_KEPT)
        self.choices: deque[ScoreRequest] = deque(maxlen=REQUESTS_KEPT)

    @property
    def capabilities(self) -> Capabilities:
        """What the script says of them."""
        script = self._script
        return Capabilities(
            engine="scripted",
            model=script.model,
            context=script.context,
            seats=script.seats,
            device="cpu",
            schema=script.holds_schema,
            scores=script.scores,
            adapters=script.adapters,
        )

    async def start(self) -> None:
        """There is nothing to load."""
        self._closed.clear()

    async def close(self) -> None:
        """End every reply, those that stall too."""
        self._closed.set()

    @asynccontextmanager
    async def generate(self, request: GenerateRequest) -> AsyncIterator[AsyncIterator[Piece]]:
        """Stream what the script says to this request.

        Raises:
            EngineUnavailable: The script says so, or the engine was closed.
            TooLarge: The prompt does not fit into the script's context.
        """
        self.requests.append(request)
        async with self._seats, aclosing(self._pieces(request)) as pieces:
            yield pieces

    async def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """One token for every four bytes of UTF-8, rounded up."""
        return [tokens_of(text) for text in texts]

    async def count_prompt(self, messages: Sequence[Message]) -> int:
        """The same rule over all messages, each with its role on a line of its own."""
        return -(-len(_render(messages)) // BYTES_PER_TOKEN)

    async def score(self, request: ScoreRequest) -> list[float]:
        """What the script chooses; without a rule every label is as likely as the others.

        Raises:
            EngineUnavailable: The script says so, or the engine was closed.
        """
        self.choices.append(request)
        async with self._seats:
            rule, _ = self._rule(request.messages, "choose")
            await self._pause(rule.first_ms)
            if rule.failure:
                await self._fail(rule)
        chosen = {rule.choose: 1.0} if isinstance(rule.choose, str) else rule.choose or {}
        weights = [chosen.get(label, 0.0) for label in request.labels]
        total = sum(weights)
        if not total:
            return [-math.log(len(weights))] * len(weights)
        return [math.log(weight / total) if weight else -math.inf for weight in weights]

    async def warm(
        self, messages: Sequence[Message], affinity: str, adapter: Adapter | None = None
    ) -> None:
        """Count this prompt as cached from now on, with whatever adapter."""
        del adapter
        self._remember(affinity, _render(messages))

    async def forget(self, affinity: str) -> None:
        """Count no prompt of these affinities as cached."""
        for known in [known for known in self._prompts if known.startswith(affinity)]:
            del self._prompts[known]

    async def _pieces(self, request: GenerateRequest) -> AsyncGenerator[Piece]:
        prompt, cached, room = self._measure(request)
        rule, reply = self._answer(request)
        pieces = rule.cut(reply)
        stops = StopFilter(request.stop)
        full = False
        said = 0
        await self._pause(rule.first_ms)
        for index, piece in enumerate(pieces[: rule.fail_after] if rule.failure else pieces):
            if index:
                await self._pause(rule.piece_ms)
            fitting = _encode(piece)[: room - said].decode(errors="ignore")
            said += len(_encode(fitting))
            if text := stops.feed(fitting):
                yield Piece(text)
            full = len(fitting) < len(piece)
            if full or stops.stopped:
                break
        if rule.failure and not (full or stops.stopped):
            await self._fail(rule)
        finish: Finish = "length" if full and not stops.stopped else "stop"
        yield Piece(stops.end(), finish, Usage(prompt, cached, -(-said // BYTES_PER_TOKEN)))

    def _measure(self, request: GenerateRequest) -> tuple[int, int, int]:
        """Tokens of the prompt, how many of them are cached, bytes that the reply may have."""
        rendered = _render(request.messages) + _encode(request.prefix)
        prompt = -(-len(rendered) // BYTES_PER_TOKEN)
        room = min(request.sampling.max_tokens, self._script.context - prompt)
        if room <= 0:
            raise TooLarge(
                f"The prompt takes {prompt} tokens, and the model's context has "
                f"{self._script.context}. Shorten it, or raise the context."
            )
        common = common_length(rendered, self._prompts.get(request.affinity, b""))
        self._remember(request.affinity, rendered)
        return prompt, min(common // BYTES_PER_TOKEN, prompt - 1), room * BYTES_PER_TOKEN

    def _answer(self, request: GenerateRequest) -> tuple[Rule, str]:
        if request.schema is not None and self._script.holds_schema:
            rule, _ = self._rule(request.messages, "json")
            data = minimal(request.schema) if rule.data is None else rule.data
            return rule, orjson.dumps(data).decode()
        rule, used = self._rule(request.messages, "reply")
        if rule.reply or rule.failure:
            reply = rule.reply[used % len(rule.reply)] if rule.reply else ""
        else:
            reply = default_reply(_asked(request.messages), request.seed)
        return rule, reply.removeprefix(request.prefix)

    def _rule(self, messages: Sequence[Message], kind: Kind) -> tuple[Rule, int]:
        """The first rule that applies, and how often it was used before."""
        for index, rule in enumerate(self._script.rules):
            used = self._used[index]
            if rule.applies(_asked(messages), kind) and (rule.times is None or used < rule.times):
                self._used[index] += 1
                return rule, used
        return Rule(), 0

    def _remember(self, affinity: str, rendered: bytes) -> None:
        self._prompts[affinity] = rendered
        self._prompts.move_to_end(affinity)
        while len(self._prompts) > PROMPTS_KEPT:
            self._prompts.popitem(last=False)

    async def _pause(self, milliseconds: float | None) -> None:
        try:
            async with asyncio.timeout(None if milliseconds is None else milliseconds / 1000):
                await self._closed.wait()
        except TimeoutError:
            return
        raise EngineUnavailable("The engine was closed while it was answering.")

    async def _fail(self, rule: Rule) -> None:
        if rule.failure == "stall":
            await self._pause(None)
        raise EngineUnavailable("The script says that the engine fails here.")


def _asked(messages: Sequence[Message]) -> str:
    return next((m.text for m in reversed(messages) if m.role == "user"), "")


def _render(messages: Sequence[Message]) -> bytes:
    return b"".join(_encode(f"{message.role}\n{message.text}\n") for message in messages)


def _encode(text: str) -> bytes:
    return text.encode(errors="replace")
