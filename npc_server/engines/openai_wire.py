"""PURE. The words of OpenAI's chat completions: what is sent, and what may come back.

Endpoints differ in what they take and leave out. What one refuses is remembered in ``Quirks`` and
not sent to it again; what comes back is read without trust in its form.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import orjson
import regex

from npc_server.engines.base import Finish, Usage
from npc_server.engines.neutral import neutral
from npc_server.engines.templates import DEFAULT_SYSTEM
from npc_server.prompt.messages import Message

Json = dict[str, Any]

MOST_STOPS = 4
TOP_LOGPROBS = 20
THINKING_ROOM = 1024
FORMS = ("strict", "schema", "object", "plain")
FORMS_KEPT = 64
OPTIONAL = frozenset(
    {
        "frequency_penalty",
        "logprobs",
        "max_tokens",
        "response_format",
        "seed",
        "stop",
        "stream_options",
        "temperature",
        "top_logprobs",
        "top_p",
    }
)
"""What may be left out of a request to an endpoint that does not take it."""

_SCHEMA_WORDS = regex.compile(r"schema|grammar|guided|structured|json", flags=regex.IGNORECASE)
_TOO_LONG = regex.compile(
    r"context.{0,20}(length|size|window)|maximum context|exceed_context|too many tokens",
    flags=regex.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to a chat endpoint.

    Attributes:
        messages: The conversation; a last ``assistant`` message is what the reply begins with.
        max_tokens: The longest answer.
        temperature: 0 always takes the likeliest token.
        top_p: Keep the likeliest tokens up to this mass.
        stop: Where the answer ends; endpoints take four at most, the first ones are sent.
        seed: Asked for; endpoints promise little.
        stream: Whether it comes piece by piece.
        logprobs: Whether to tell what else could have come.
        schema: A JSON Schema for the answer.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    stream: bool = False
    logprobs: bool = False
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as an endpoint words it."""

    message: str = ""
    code: str = ""
    param: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one object of an answer says.

    Attributes:
        text: More of the reply.
        finish: Why it ended, with the last text.
        usage: Tokens, once they are known.
        top: The likeliest first tokens of the answer and their log probabilities.
        problem: What went wrong, where the object is an error.
    """

    text: str = ""
    finish: Finish | None = None
    usage: Usage | None = None
    top: tuple[tuple[str, float], ...] = ()
    problem: Problem | None = None


class Quirks:
    """What an endpoint was found not to take."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self._form = 0
        self._forms: OrderedDict[bytes, int] = OrderedDict()

    @property
    def thinks(self) -> bool:
        """Whether it wants ``max_completion_tokens``, as models that think first do."""
        return "max_tokens" in self.refused

    @property
    def takes_schemas(self) -> bool:
        """Whether no plain schema was refused so far."""
        return FORMS[self._form] in ("strict", "schema")

    def form(self, schema: Mapping[str, Any]) -> str:
        """How a schema is asked for: the strictest way that was not refused."""
        return FORMS[max(self._form, self._forms.get(_key(schema), 0))]

    def learn(self, problem: Problem, body: Json, ask: Ask, *, of_all: bool = False) -> bool:
        """Note what a request was refused for.

        Args:
            problem: What the endpoint said.
            body: What was sent.
            ask: What it was made from.
            of_all: Whether a schema that is refused stands for all schemas.

        Returns:
            Whether the next body would be another one.
        """
        field = _refused_field(problem, body)
        if field == "response_format" and ask.schema is not None:
            return self._step(ask.schema, of_all=of_all)
        if field is None or field in self.refused:
            return False
        self.refused.add(field)
        return True

    def _step(self, schema: Mapping[str, Any], *, of_all: bool) -> bool:
        following = FORMS.index(self.form(schema)) + 1
        if following == len(FORMS):
            return False
        if of_all:
            self._form = following
        self._forms[_key(schema)] = following
        while len(self._forms) > FORMS_KEPT:
            self._forms.popitem(last=False)
        return True


def body_of(model: str, ask: Ask, quirks: Quirks) -> Json:
    """The request's body. No text in it can be read as a control token.

    Args:
        model: The endpoint's name of the model.
        ask: What is asked.
        quirks: What this endpoint does not take.
    """
    form = "plain" if ask.schema is None else quirks.form(ask.schema)
    room = THINKING_ROOM if quirks.thinks else 0
    limit = "max_completion_tokens" if quirks.thinks else "max_tokens"
    body: Json = {
        "model": model,
        "messages": _messages(ask, form),
        limit: ask.max_tokens + room,
        "temperature": ask.temperature,
        "top_p": ask.top_p,
        "stream": ask.stream,
    }
    if ask.stop:
        body["stop"] = list(ask.stop[:MOST_STOPS])
    if ask.seed is not None:
        body["seed"] = ask.seed & 0x7FFFFFFF
    if ask.stream:
        body["stream_options"] = {"include_usage": True}
    if ask.logprobs:
        body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
    if ask.schema is not None and form != "plain":
        body["response_format"] = _response_format(ask.schema, form)
    return {name: value for name, value in body.items() if name not in quirks.refused}


def chunk_of(found: Json) -> Chunk:
    """Read one object of an answer, of a stream or whole; what is malformed is left out."""
    if found.get("error"):
        return Chunk(problem=problem_of(found))
    choices = found.get("choices")
    choice = _mapping(choices[0] if isinstance(choices, list) and choices else None)
    said = _mapping(choice.get("delta")) or _mapping(choice.get("message"))
    return Chunk(
        text=_text(said.get("content")),
        finish=_finish(choice.get("finish_reason")),
        usage=_usage(_mapping(found.get("usage"))),
        top=_top(_mapping(choice.get("logprobs"))),
    )


def problem_of(found: object) -> Problem:
    """Read an error object, in any of the forms that endpoints send."""
    error = _mapping(found).get("error", found)
    if not isinstance(error, dict):
        return Problem(_line(error))
    code = error.get("code")
    # llama.cpp and vLLM put the HTTP status there.
    status = code if type(code) is int else None
    kind = error.get("type") if status is not None or code is None else code
    return Problem(
        _line(error.get("message", "")), _line(kind or ""), _line(error.get("param") or ""), status
    )


def is_too_long(problem: Problem) -> bool:
    """Whether a prompt was refused because it does not fit into the context."""
    return _TOO_LONG.search(f"{problem.code} {problem.message}") is not None


def label_logs(top: Sequence[tuple[str, float]], labels: Sequence[str]) -> list[float]:
    """Log probabilities of labels from the likeliest first tokens; their probabilities add up to 1.

    A token stands for a label where, spaces left out, one begins with the other and it does so for
    no other label. A label that is not among them is taken to be as likely as the last that is.

    Args:
        top: Tokens and their log probabilities.
        labels: Different texts whose first tokens differ.
    """
    mass = [0.0] * len(labels)
    for token, log in top:
        owners = [at for at, label in enumerate(labels) if _begins(token, label)]
        if len(owners) == 1:
            mass[owners[0]] += math.exp(min(log, 0.0))
    least = math.exp(min((min(log, 0.0) for _, log in top), default=0.0))
    floor = max(least, 1e-12)
    filled = [share or floor for share in mass]
    total = sum(filled)
    return [math.log(share / total) for share in filled]


def chosen_label(answer: str, labels: Sequence[str]) -> int | None:
    """Which label an answer in words names first; ``None`` if it names none."""
    places = []
    for at, label in enumerate(labels):
        found = regex.search(rf"(?<!\w){regex.escape(label)}(?!\w)", answer)
        if found:
            places.append((found.start(), at))
    return min(places)[1] if places else None


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds that a ``Retry-After`` header asks for (RFC 9110, section 10.2.3).

    Args:
        header: Seconds or a date; ``None`` where there is none.
        now: Seconds since 1970.
    """
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON cannot carry."""
    return text.encode(errors="replace").decode()


def _messages(ask: Ask, form: str) -> list[Json]:
    messages = list(ask.messages)
    if not messages or messages[0].role != "system":
        messages.insert(0, Message("system", DEFAULT_SYSTEM))
    if ask.schema is not None and form in ("object", "plain"):
        # Behind the newest words, so that what was read before stays of use.
        last = messages.pop()
        told = f"{last.text}\n\n{_instruction(ask.schema)}"
        messages.append(Message(last.role, told))
    return [{"role": m.role, "content": neutral(clean(m.text))} for m in messages]


def _instruction(schema: Mapping[str, Any]) -> str:
    text = orjson.dumps(schema).decode()
    return f"Answer with one JSON value that satisfies this JSON Schema, and nothing else: {text}"


def _response_format(schema: Mapping[str, Any], form: str) -> Json:
    if form == "object":
        return {"type": "json_object"}
    wanted = {"name": "reply", "schema": dict(schema), "strict": form == "strict"}
    return {"type": "json_schema", "json_schema": wanted}


def _refused_field(problem: Problem, body: Json) -> str | None:
    sent = OPTIONAL & body.keys()
    named = problem.param.split(".")[0]
    if named in sent:
        return named
    words = regex.findall(r"\w+", problem.message)
    for word in words:
        if word in sent:
            return str(word)
    if "response_format" in sent and _SCHEMA_WORDS.search(problem.message):
        return "response_format"
    return None


def _key(schema: Mapping[str, Any]) -> bytes:
    return orjson.dumps(schema, option=orjson.OPT_SORT_KEYS)


def _mapping(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(_text(_mapping(part).get("text")) for part in content)
    return content if isinstance(content, str) else ""


def _line(value: object) -> str:
    return " ".join(str(value).split())[:300]


def _finish(reason: object) -> Finish | None:
    if not isinstance(reason, str) or not reason:
        return None
    return "length" if reason in ("length", "max_tokens") else "stop"


def _usage(usage: Json) -> Usage | None:
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if type(prompt) is not int or prompt < 0:
        return None
    cached = _mapping(usage.get("prompt_tokens_details")).get("cached_tokens")
    return Usage(
        prompt,
        min(cached, prompt) if type(cached) is int and cached > 0 else 0,
        completion if type(completion) is int and completion > 0 else 0,
    )


def _top(logprobs: Json) -> tuple[tuple[str, float], ...]:
    content = logprobs.get("content")
    first = _mapping(content[0] if isinstance(content, list) and content else None)
    listed = first.get("top_logprobs")
    found = [_mapping(item) for item in listed] if isinstance(listed, list) else []
    return tuple(
        (item["token"], float(item["logprob"]))
        for item in found
        if isinstance(item.get("token"), str) and isinstance(item.get("logprob"), int | float)
    )


def _begins(token: str, label: str) -> bool:
    bare = token.strip(" \t\n▁Ġ")
    return bool(bare) and (
        label.startswith(bare) or (bare.startswith(label) and not bare[len(label)].isalnum())
    )
