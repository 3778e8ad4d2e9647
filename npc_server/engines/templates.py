"""PURE. The prompt templates that chat models were trained on, chosen by name or guessed.

A rendered prompt is a list of parts. A ``Mark`` is ours: it becomes the control token of that name
where the model has one, and the plain text of its name elsewhere. A ``Text`` is data: whatever it
contains, no part of it may come out as a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from npc_server.errors import ConfigError
from npc_server.prompt.messages import Message

Role = Literal["system", "user", "assistant"]

DEFAULT_SYSTEM = "You are a character in a conversation."
BOS, EOS = "bos", "eos"


@dataclass(frozen=True, slots=True)
class Mark:
    """A piece of the template. ``bos`` and ``eos`` are the model's own tokens, or nothing."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of data, or plain words of the template that mean nothing to the model alone."""

    text: str


Part = Mark | Text


@dataclass(frozen=True, slots=True)
class Template:
    """A way of laying messages out for a model.

    Attributes:
        name: The name by which a setting asks for it.
        marks: What must not come out of a player's text where it is no control token.
        stop: Texts at which a reply has ended, should the model write them out.
        late_system: Whether a system message may stand among the others.
        before_reply: What stands between the last mark and the reply.
        lay: Lays messages out, of which the first is the only system message unless
            ``late_system``, and no two neighbours of the others have the same role.
    """

    name: str
    marks: tuple[str, ...]
    stop: tuple[str, ...]
    late_system: bool
    before_reply: str
    lay: Callable[[Sequence[Message]], Iterable[Part]]


def render(template: Template, messages: Sequence[Message], prefix: str = "") -> tuple[Part, ...]:
    """Lay out a conversation up to where the model is to speak.

    There is always one system message. Where the template allows none later on, a late one is put
    before the user message that follows it, or behind the one before it.

    Args:
        template: Where to put what.
        messages: The conversation.
        prefix: What the reply already begins with.
    """
    laid = template.lay(_arranged(messages, late_system=template.late_system))
    # A space is a part of the word behind it and cannot end a prompt.
    reply = template.before_reply + prefix if prefix else template.before_reply.rstrip(" ")
    parts = [*laid, Text(reply)]
    return tuple(part for part in parts if part != Text(""))


def named(name: str) -> Template:
    """The template of that name.

    Raises:
        ConfigError: There is none; the message lists those that there are.
    """
    try:
        return TEMPLATES[name]
    except KeyError:
        raise ConfigError(
            f"There is no prompt template {name!r}. There are: {', '.join(TEMPLATES)}."
        ) from None


def guess(metadata: Mapping[str, object], file_name: str) -> str:
    """The name of the template that a model was probably trained on; ``plain`` if nothing tells.

    Args:
        metadata: A GGUF file's metadata; empty for older files.
        file_name: The model file's name.
    """
    chat = str(metadata.get("tokenizer.chat_template", ""))
    for name, sign in SIGNS_IN_TEMPLATE:
        if sign in chat:
            return name
    title = f"{metadata.get('general.name', '')} {file_name}".lower()
    for name, signs in SIGNS_IN_NAME:
        if any(sign in title for sign in signs):
            return name
    return "plain"


def _arranged(messages: Sequence[Message], *, late_system: bool) -> list[Message]:
    lead = 0
    while lead < len(messages) and messages[lead].role == "system":
        lead += 1
    system = "\n\n".join(message.text for message in messages[:lead]) or DEFAULT_SYSTEM
    rest = messages[lead:] if late_system else _folded(messages[lead:])
    arranged = [Message("system", system)]
    for message in rest:
        text = message.text
        if message.role == arranged[-1].role and len(arranged) > 1:
            text = f"{arranged.pop().text}\n{text}"
        arranged.append(Message(message.role, text))
    return arranged


def _folded(messages: Sequence[Message]) -> list[Message]:
    """Late system messages moved into the user messages beside them."""
    folded: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == "system":
            waiting.append(message.text)
        elif message.role == "user" and waiting:
            folded.append(Message("user", "\n\n".join([*waiting, message.text])))
            waiting = []
        else:
            folded.append(message)
    if waiting and folded and folded[-1].role == "user":
        folded[-1] = Message("user", "\n\n".join([folded[-1].text, *waiting]))
    elif waiting:
        folded.append(Message("user", "\n\n".join(waiting)))
    return folded


def _chatml(messages: Sequence[Message]) -> Iterable[Part]:
    for message in messages:
        yield from (Mark("<|im_start|>"), Text(f"{message.role}\n{message.text}"))
        yield from (Mark("<|im_end|>"), Text("\n"))
    yield from (Mark("<|im_start|>"), Text("assistant\n"))


def _llama3(messages: Sequence[Message]) -> Iterable[Part]:
    yield Mark("<|begin_of_text|>")
    for message in [*messages, Message("assistant", "")]:
        yield from (Mark("<|start_header_id|>"), Text(message.role), Mark("<|end_header_id|>"))
        yield Text("\n\n" + message.text)
        if message.text:
            yield Mark("<|eot_id|>")


def _llama2(messages: Sequence[Message]) -> Iterable[Part]:
    system, *rest = messages
    yield from (Mark(BOS), Mark("[INST]"), Text(" "), Mark("<<SYS>>"), Text(f"\n{system.text}\n"))
    yield from (Mark("<</SYS>>"), Text("\n\n"))
    inside = True
    for message in rest:
        if message.role == "assistant":
            yield from _closing(inside=inside)
            yield from (Text(f" {message.text} "), Mark(EOS))
            inside = False
        else:
            if not inside:
                yield from (Mark(BOS), Mark("[INST]"), Text(" "))
            yield Text(message.text)
            inside = True
    yield from _closing(inside=inside)


def _closing(*, inside: bool) -> Iterable[Part]:
    if inside:
        yield from (Text(" "), Mark("[/INST]"))


def _headed(
    user: str, assistant: str, *, before: str, after: str, end: tuple[Part, ...] = ()
) -> Callable[[Sequence[Message]], Iterable[Part]]:
    """A template of plain text, in which each message stands behind its speaker's heading."""

    def lay(messages: Sequence[Message]) -> Iterable[Part]:
        yield from (Mark(BOS), Text(messages[0].text))
        for message in messages[1:]:
            heading = user if message.role == "user" else assistant
            yield from (Text(before), Mark(heading), Text(after + message.text))
            if message.role == "assistant":
                yield from end
        yield from (Text(before), Mark(assistant))

    return lay


TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            "chatml",
            ("<|im_start|>", "<|im_end|>"),
            ("<|im_end|>", "<|im_start|>"),
            True,
            "",
            _chatml,
        ),
        Template(
            "llama-3",
            ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
            ("<|eot_id|>", "<|start_header_id|>"),
            True,
            "",
            _llama3,
        ),
        Template(
            "llama-2",
            ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
            ("[INST]", "[/INST]", "<<SYS>>"),
            False,
            " ",
            _llama2,
        ),
        Template(
            "alpaca",
            ("### Instruction:", "### Response:", "### Input:"),
            ("### Instruction:", "### Response:", "### Input:"),
            False,
            "\n",
            _headed("### Instruction:", "### Response:", before="\n\n", after="\n"),
        ),
        Template(
            "vicuna",
            ("USER:", "ASSISTANT:"),
            ("USER:", "ASSISTANT:"),
            False,
            " ",
            _headed("USER:", "ASSISTANT:", before=" ", after=" ", end=(Mark(EOS),)),
        ),
        Template(
            "plain",
            ("User:", "Assistant:"),
            ("\nUser:", "\nAssistant:"),
            False,
            " ",
            _headed("User:", "Assistant:", before="\n\n", after=" "),
        ),
    )
}

SIGNS_IN_TEMPLATE = (
    ("chatml", "<|im_start|>"),
    ("llama-3", "<|start_header_id|>"),
    ("llama-2", "[INST]"),
    ("alpaca", "### Instruction"),
    ("vicuna", "USER:"),
)
SIGNS_IN_NAME = (
    ("vicuna", ("vicuna", "wizardlm", "airoboros")),
    ("alpaca", ("alpaca", "wizardcoder", "nous-hermes", "mythomax")),
    ("llama-3", ("llama-3", "llama3")),
    ("llama-2", ("llama-2", "llama2", "mistral-7b-instruct")),
    ("chatml", ("chatml", "smollm", "openhermes", "dolphin", "qwen")),
)
