"""The loop of a model worker: several replies at once, a chunk or a token of each in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np

from npc_server.engines.drawing import RECENT, Logits, draw
from npc_server.engines.seats import BLOCK, Seat, Seats, chunk
from npc_server.engines.templates import Template, render
from npc_server.engines.text_stream import StopFilter, Utf8Stream
from npc_server.engines.vocabulary import Vocabulary, encode_parts, encode_text, end_tokens
from npc_server.errors import NpcError, TooLarge
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

Json = dict[str, Any]
Send = Callable[[Json], None]


class Instance(Protocol):
    """One instance of a model: reads tokens, tells what may come next."""

    def read(self, tokens: Sequence[int], position: int) -> None:
        """Read tokens that follow the first ``position`` ones."""
        ...

    def logits(self) -> Logits:
        """One logit for each token, behind what was read last."""
        ...


class Tokens:
    """Text to token ids for one model. Several threads may use it at once.

    Args:
        vocabulary: The model's tokens.
        template: How it was taught to be talked to.
    """

    def __init__(self, vocabulary: Vocabulary, template: Template) -> None:
        self.vocabulary = vocabulary
        self.template = template
        self.ends = end_tokens(vocabulary)
        barred = sorted(vocabulary.control.keys() - self.ends)
        self.barred = np.asarray(barred, dtype=np.int64)

    def count(self, text: str) -> int:
        """How many tokens a text takes."""
        return len(encode_text(self.vocabulary, text))

    def prompt(self, messages: Sequence[Sequence[str]], prefix: str = "") -> list[int]:
        """The token ids of a whole prompt, one at least.

        Args:
            messages: Pairs of role and text.
            prefix: What the reply already begins with.
        """
        laid = [Message(role, text) for role, text in messages]  # type: ignore[arg-type]
        parts = render(self.template, laid, prefix)
        return encode_parts(self.vocabulary, parts, self.template.marks) or [0]


@dataclass
class Job:
    """One reply that is being made; or, as a hint, one prompt that is read ahead of time."""

    id: int
    affinity: str
    prompt: list[int]
    hint: bool
    limit: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stops: StopFilter = field(default_factory=lambda: StopFilter(()))
    chance: np.random.Generator = field(default_factory=np.random.default_rng)
    utf8: Utf8Stream = field(default_factory=Utf8Stream)
    begun: bool = False
    seat: Seat | None = None
    cached: int = 0
    read: int = 0
    said: list[int] = field(default_factory=list)

    @property
    def target(self) -> int:
        """How many tokens of the prompt are to be read: a hint reads what can be used again."""
        return len(self.prompt) // BLOCK * BLOCK if self.hint else len(self.prompt)


class Loop:
    """Takes commands, makes replies, sends events.

    Args:
        tokens: Text to token ids.
        make: Makes the instance of a new seat.
        seats: How many replies are made at once at most.
        context: Tokens that prompt and reply share.
        send: Takes events.
    """

    def __init__(
        self,
        tokens: Tokens,
        make: Callable[[], Instance],
        *,
        seats: int,
        context: int,
        send: Send,
    ) -> None:
        self._tokens = tokens
        self._make = make
        self._seats = Seats(seats)
        self._instances: dict[int, Instance] = {}
        self._context = context
        self._send = send
        self._inbox: SimpleQueue[Json] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._active: deque[Job] = deque()

    def put(self, command: Json) -> None:
        """Take a command from another thread. Counting is answered at once, in that thread."""
        if command["op"] not in {"count_tokens", "count_prompt"}:
            self._inbox.put(command)
            return
        if command["op"] == "count_tokens":
            counts = [self._tokens.count(text) for text in command["texts"]]
        else:
            counts = [len(self._tokens.prompt(command["messages"]))]
        self._send({"id": command["id"], "counts": counts})

    def run(self) -> None:
        """Work for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take what has come, waiting for it where there is nothing to do; then one step."""
        self._take(wait=not self._active and not self._waiting)
        self._seat_waiting()
        if self._active:
            job = self._active.popleft()
            if self._guarded(job):
                self._active.append(job)

    def _take(self, *, wait: bool) -> None:
        while True:
            try:
                command = self._inbox.get(block=wait)
            except Empty:
                return
            wait = False
            match command["op"]:
                case "generate" | "warm":
                    self._accept(command)
                case "cancel":
                    self._drop(command["id"])
                case "forget":
                    self._seats.forget(command["affinity"])

    def _accept(self, command: Json) -> None:
        try:
            self._waiting.append(self._job(command))
        except NpcError as error:
            self._fail(command["id"], error)

    def _job(self, command: Json) -> Job:
        prompt = self._tokens.prompt(command["messages"], command.get("prefix", ""))
        hint = command["op"] == "warm"
        room = self._context - len(prompt)
        if room < 1:
            raise TooLarge(
                f"The prompt takes {len(prompt)} tokens, and the model's context has "
                f"{self._context}. Shorten it, or raise NPC_CONTEXT."
            )
        job = Job(command["id"], command["affinity"], prompt, hint)
        if not hint:
            job.sampling = Sampling(**command["sampling"])
            job.limit = min(command["max_tokens"], room)
            job.stops = StopFilter([*command["stop"], *self._tokens.template.stop])
            job.chance = np.random.default_rng(command["seed"])
            job.begun = bool(command["prefix"])
        return job

    def _seat_waiting(self) -> None:
        for job in list(self._waiting):
            seat = self._seats.take(job.id, job.affinity, hint=job.hint)
            if seat is None and not job.hint:
                continue
            self._waiting.remove(job)
            if seat is None:
                self._finish(job)
                continue
            for displaced in [other for other in self._active if other.seat is seat]:
                self._active.remove(displaced)
                self._finish(displaced)
            job.seat = seat
            self._active.append(job)

    def _guarded(self, job: Job) -> bool:
        try:
            return self._step(job)
        except NpcError as error:
            if job.seat is not None:
                job.seat.tokens.clear()
                job.seat.whole = 0
            self._seats.leave(job.id)
            self._fail(job.id, error)
            return False

    def _step(self, job: Job) -> bool:
        """One chunk of the prompt, or one token of the reply; returns whether there is more."""
        seat = job.seat
        if seat is None:
            raise RuntimeError("a job without a seat cannot work")
        if seat.number not in self._instances:
            self._instances[seat.number] = self._make()
        instance = self._instances[seat.number]
        if job.read == 0:
            job.read = job.cached = seat.begin(job.prompt)
        if job.read < job.target:
            size = chunk(job.read, job.target, alone=not self._active)
            part = job.prompt[job.read : job.read + size]
            instance.read(part, job.read)
            seat.read(part)
            job.read += size
            return True
        if job.hint:
            self._finish(job)
            return False
        return self._speak(job, instance)

    def _speak(self, job: Job, instance: Instance) -> bool:
        recent = [*job.prompt[-RECENT:], *job.said][-RECENT:]
        usable = [token for token in recent if token not in self._tokens.vocabulary.control]
        chance = job.chance.random()
        token = draw(instance.logits(), usable, job.sampling, self._tokens.barred, chance)
        if token in self._tokens.ends:
            self._finish(job, "stop")
            return False
        job.said.append(token)
        self._say(job, self._tokens.vocabulary.piece(token))
        if job.stops.stopped or len(job.said) >= job.limit:
            self._finish(job, "stop" if job.stops.stopped else "length")
            return False
        instance.read([token], len(job.prompt) + len(job.said) - 1)
        return True

    def _say(self, job: Job, data: bytes) -> None:
        text = job.utf8.feed(data)
        # Templates leave the space before a reply's first word to the model.
        text = job.stops.feed(text if job.begun else text.lstrip())
        if text:
            job.begun = True
            self._send({"id": job.id, "text": text, "made": len(job.said)})

    def _finish(self, job: Job, finish: str = "stop") -> None:
        self._seats.leave(job.id)
        rest = job.stops.end()
        usage = [len(job.prompt), job.cached, len(job.said)]
        self._send({"id": job.id, "text": rest, "finish": finish, "usage": usage})

    def _drop(self, number: int) -> None:
        for jobs in (self._waiting, self._active):
            for job in [job for job in jobs if job.id == number]:
                jobs.remove(job)
        self._seats.leave(number)

    def _fail(self, number: int, error: NpcError) -> None:
        self._send({"id": number, "error": error.code, "message": error.message})
