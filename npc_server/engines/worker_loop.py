"""The loop of a model worker: several replies at once, a chunk or a token of each in turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, Literal, Protocol

import numpy as np

from npc_server.engines.drawing import RECENT, Logits, draw, log_probabilities
from npc_server.engines.json_mask import JsonMask, JsonMasks
from npc_server.engines.prefix import common_length
from npc_server.engines.seats import BLOCK, Seat, Seats, chunk
from npc_server.engines.templates import Template, render
from npc_server.engines.text_stream import StopFilter, Utf8Stream
from npc_server.engines.vocabulary import Vocabulary, encode_parts, encode_text, end_tokens
from npc_server.errors import NpcError, TooLarge
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message

Json = dict[str, Any]
Send = Callable[[Json], None]
Merge = Callable[[str, float], "Future[str]"]


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
        self.masks = JsonMasks(vocabulary, self.ends)

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

    def labelled(
        self, messages: Sequence[Sequence[str]], prefix: str, labels: Sequence[str]
    ) -> tuple[list[int], list[int]]:
        """A prompt, and the token that each label begins with behind it.

        Raises:
            ValueError: There are no labels, or two begin with the same token.
        """
        bare = self.prompt(messages, prefix)
        whole = [self.prompt(messages, prefix + label) for label in labels]
        at = min((common_length(bare, each) for each in whole), default=0)
        while len(found := {each[at] if at < len(each) else None for each in whole}) == 1:
            token = found.pop()
            if token is None or not self.vocabulary.piece(token).isspace():
                break
            # Some vocabularies have the space in front of a word as a token of its own.
            at += 1
        tokens = [each[at] for each in whole if at < len(each)]
        if not labels or len(set(tokens)) < len(labels):
            raise ValueError(
                f"The labels {', '.join(map(repr, labels))} cannot be told apart by their first "
                "tokens. Take different letters or digits."
            )
        return whole[0][:at], tokens


@dataclass
class Job:
    """One reply that is being made; or one look at what would come, or a prompt to read ahead.

    A job with an adapter waits until ``merged`` has the model file with that adapter.
    """

    id: int
    kind: Literal["generate", "score", "warm"]
    affinity: str
    prompt: list[int]
    merged: Future[str] | None = None
    labels: list[int] = field(default_factory=list)
    mask: JsonMask | None = None
    limit: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    stops: StopFilter = field(default_factory=lambda: StopFilter(()))
    chance: np.random.Generator = field(default_factory=np.random.default_rng)
    utf8: Utf8Stream = field(default_factory=Utf8Stream)
    seat: Seat | None = None
    cached: int = 0
    read: int = 0
    said: list[int] = field(default_factory=list)

    @property
    def hint(self) -> bool:
        """Whether nobody waits for it."""
        return self.kind == "warm"

    @property
    def can_begin(self) -> bool:
        """Whether its model file is there, or is known never to be."""
        return self.merged is None or self.merged.done()

    @property
    def target(self) -> int:
        """How many tokens of the prompt are to be read: a hint reads what can be used again."""
        return len(self.prompt) // BLOCK * BLOCK if self.hint else len(self.prompt)


class Loop:
    """Takes commands, makes replies, sends events.

    Args:
        tokens: Text to token ids.
        make: Makes the instance of a new seat, of the model with an adapter (a file that ``merge``
            gave) or of the bare model (an empty text).
        seats: How many replies are made at once at most.
        context: Tokens that prompt and reply share.
        send: Takes events.
        merge: Begins to make the model file with an adapter of a scale, in another thread.
        adapters: How many different adapters can be in use at once.
    """

    def __init__(
        self,
        tokens: Tokens,
        make: Callable[[str], Instance],
        *,
        seats: int,
        context: int,
        send: Send,
        merge: Merge,
        adapters: int = 1,
    ) -> None:
        self._tokens = tokens
        self._make = make
        self._merge = merge
        self._seats = Seats(seats, adapters=adapters)
        self._instances: dict[int, tuple[str, Instance]] = {}
        self._context = context
        self._send = send
        self._inbox: SimpleQueue[Job | Json] = SimpleQueue()
        self._waiting: deque[Job] = deque()
        self._active: deque[Job] = deque()

    def put(self, command: Json) -> None:
        """Take a command from another thread.

        Counting, tokenising and compiling a schema are done at once, in that thread.
        """
        match command["op"]:
            case "count_tokens":
                counts = [self._tokens.count(text) for text in command["texts"]]
                self._send({"id": command["id"], "counts": counts})
            case "count_prompt":
                counts = [len(self._tokens.prompt(command["messages"]))]
                self._send({"id": command["id"], "counts": counts})
            case "generate" | "score" | "warm":
                self._accept(command)
            case _:
                self._inbox.put(command)

    def run(self) -> None:
        """Work for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Take what has come, waiting for it where there is nothing to do; then one step."""
        self._take(wait=not self._active and not any(job.can_begin for job in self._waiting))
        self._seat_waiting()
        if self._active:
            job = self._active.popleft()
            if self._guarded(job):
                self._active.append(job)

    def _accept(self, command: Json) -> None:
        try:
            job = self._job(command)
        except (NpcError, ValueError) as error:
            self._fail(command["id"], error)
            return
        self._inbox.put(job)
        if job.merged is not None:
            job.merged.add_done_callback(lambda _done: self._inbox.put({"op": "merged"}))

    def _job(self, command: Json) -> Job:
        messages, prefix = command["messages"], command.get("prefix", "")
        prompt = self._tokens.prompt(messages, prefix)
        room = self._context - len(prompt)
        if room < 1:
            raise TooLarge(
                f"The prompt takes {len(prompt)} tokens, and the model's context has "
                f"{self._context}. Shorten it, or raise NPC_CONTEXT."
            )
        job = Job(command["id"], command["op"], command["affinity"], prompt)
        if job.kind == "score":
            job.prompt, job.labels = self._tokens.labelled(messages, prefix, command["labels"])
        if job.kind == "generate":
            self._prepare(job, command, room)
        adapter = command.get("adapter")
        if adapter is not None:
            job.merged = self._merge(*adapter)
        return job

    def _prepare(self, job: Job, command: Json, room: int) -> None:
        job.sampling = Sampling(**command["sampling"])
        job.limit = min(command["max_tokens"], room)
        job.chance = np.random.default_rng(command["seed"])
        schema = command.get("schema")
        if schema is not None:
            job.mask = self._tokens.masks.start(schema, command["prefix"])
        # A mark of the template inside a JSON string is no other turn.
        marks = self._tokens.template.stop if schema is None else ()
        # Templates leave the space before a reply's first word to the model.
        job.stops = StopFilter([*command["stop"], *marks], begun=bool(command["prefix"]))

    def _take(self, *, wait: bool) -> None:
        while True:
            try:
                command = self._inbox.get(block=wait)
            except Empty:
                return
            wait = False
            if isinstance(command, Job):
                self._waiting.append(command)
            elif command["op"] == "cancel":
                self._drop(command["id"])
            elif command["op"] == "forget":
                self._seats.forget(command["affinity"])

    def _seat_waiting(self) -> None:
        for job in [job for job in self._waiting if job.can_begin]:
            try:
                adapter = job.merged.result() if job.merged else ""
            except NpcError as error:
                self._waiting.remove(job)
                self._fail(job.id, error)
                continue
            seat = self._seats.take(job.id, job.affinity, hint=job.hint, adapter=adapter)
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
        instance = self._instance(seat)
        if job.read == 0:
            job.read = job.cached = seat.begin(job.prompt)
        if job.read < job.target:
            size = chunk(job.read, job.target, alone=not self._active)
            part = job.prompt[job.read : job.read + size]
            instance.read(part, job.read)
            seat.read(part)
            job.read += size
            return True
        if job.kind == "generate":
            return self._speak(job, instance)
        if job.kind == "score":
            self._send({"id": job.id, "scores": log_probabilities(instance.logits(), job.labels)})
            self._seats.leave(job.id)
        else:
            self._finish(job)
        return False

    def _instance(self, seat: Seat) -> Instance:
        adapters = {each.number: each.adapter for each in self._seats}
        for number, (adapter, _) in list(self._instances.items()):
            if adapters[number] != adapter:
                # Its memory is needed for the one that takes its place.
                del self._instances[number]
        if seat.number not in self._instances:
            self._instances[seat.number] = seat.adapter, self._make(seat.adapter)
        return self._instances[seat.number][1]

    def _speak(self, job: Job, instance: Instance) -> bool:
        left = max(1, job.limit - len(job.said))
        token = self._drawn(job, instance.logits(), left)
        if token is None or token in self._tokens.ends:
            self._finish(job, "stop")
            return False
        tokens = [token] if job.mask is None else job.mask.take(token, left)
        job.said += tokens
        self._say(job, b"".join(map(self._tokens.vocabulary.piece, tokens)))
        ended = job.stops.stopped or (job.mask is not None and job.mask.ended)
        if ended or len(job.said) >= job.limit:
            complete = ended or (job.mask is not None and job.mask.complete)
            self._finish(job, "stop" if complete else "length")
            return False
        instance.read(tokens, len(job.prompt) + len(job.said) - len(tokens))
        return True

    def _drawn(self, job: Job, logits: Logits, left: int) -> int | None:
        """The next token; ``None`` to end here."""
        vocabulary = self._tokens.vocabulary
        chance = job.chance.random()
        if job.mask is not None:
            # No penalty: quotes and commas have to come again.
            allowed = job.mask.allowed()
            token = draw(logits, (), job.sampling, self._tokens.barred, chance, allowed)
            return token if token in self._tokens.ends else job.mask.within(token, left)
        recent = [*job.prompt[-RECENT:], *job.said][-RECENT:]
        usable = [token for token in recent if token not in vocabulary.control]
        return draw(logits, usable, job.sampling, self._tokens.barred, chance)

    def _say(self, job: Job, data: bytes) -> None:
        text = job.stops.feed(job.utf8.feed(data))
        if text:
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

    def _fail(self, number: int, error: NpcError | ValueError) -> None:
        code = error.code if isinstance(error, NpcError) else "value_error"
        kind = type(error).__name__
        self._send({"id": number, "error": code, "kind": kind, "message": str(error)})
