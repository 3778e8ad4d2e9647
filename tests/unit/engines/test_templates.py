"""Prompts are laid out as each model was taught."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.templates import TEMPLATES, Mark, Part, Text, guess, named, render
from npc_server.errors import ConfigError
from npc_server.prompt.messages import Message

SYSTEM = Message("system", "You are Bram.")
TALK = (
    SYSTEM,
    Message("user", "Hello."),
    Message("assistant", "Hm."),
    Message("user", "Who are you?"),
)


def shown(parts: tuple[Part, ...]) -> str:
    return "".join(part.text if isinstance(part, Text) else part.name for part in parts)


EXPECTED = {
    "chatml": (
        "<|im_start|>system\nYou are Bram.<|im_end|>\n<|im_start|>user\nHello.<|im_end|>\n"
        "<|im_start|>assistant\nHm.<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "llama-3": (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are Bram.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHello.<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHm.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama-2": (
        "bos[INST] <<SYS>>\nYou are Bram.\n<</SYS>>\n\nHello. [/INST] Hm. eos"
        "bos[INST] Who are you? [/INST]"
    ),
    "alpaca": (
        "bosYou are Bram.\n\n### Instruction:\nHello.\n\n### Response:\nHm."
        "\n\n### Instruction:\nWho are you?\n\n### Response:\n"
    ),
    "vicuna": "bosYou are Bram. USER: Hello. ASSISTANT: Hm.eos USER: Who are you? ASSISTANT:",
    "plain": (
        "bosYou are Bram.\n\nUser: Hello.\n\nAssistant: Hm.\n\nUser: Who are you?\n\nAssistant:"
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_template_lays_out_a_conversation(name: str) -> None:
    """System, both speakers and the opening of the reply stand where the model expects them."""
    assert shown(render(named(name), TALK)) == EXPECTED[name]


def test_every_template_is_shown() -> None:
    """No template is without its expected layout above."""
    assert EXPECTED.keys() == TEMPLATES.keys()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("chatml", "assistant\nI am"),
        ("llama-2", "[/INST] I am"),
        ("vicuna", "ASSISTANT: I am"),
        ("alpaca", "### Response:\nI am"),
        ("plain", "Assistant: I am"),
    ],
)
def test_a_reply_can_be_gone_on_with(name: str, end: str) -> None:
    """What the reply already says stands behind its heading."""
    assert shown(render(named(name), TALK, "I am")).endswith(end)


@pytest.mark.parametrize("name", TEMPLATES)
def test_there_is_always_a_system_message(name: str) -> None:
    """Without one the model gets a neutral one instead of its template's own."""
    assert "You are a character" in shown(render(named(name), [Message("user", "Hello.")]))
    assert "You are a character" in shown(render(named(name), []))


def test_leading_system_messages_become_one() -> None:
    """Several at the beginning are put together, everywhere."""
    parts = render(named("chatml"), [SYSTEM, Message("system", "It rains."), TALK[1]])
    assert "system\nYou are Bram.\n\nIt rains.<|im_end|>" in shown(parts)


def test_late_system_messages_stay_where_a_template_allows_them() -> None:
    """ChatML keeps a late system message in its place."""
    late = Message("system", "Be short.")
    assert "<|im_start|>system\nBe short." in shown(render(named("chatml"), [*TALK, late]))


@pytest.mark.parametrize("name", ["llama-2", "alpaca", "vicuna", "plain"])
def test_late_system_messages_join_a_user_message_elsewhere(name: str) -> None:
    """A late one goes before the user message behind it, else behind the one before it."""
    late = Message("system", "Be short.")
    before = shown(render(named(name), [SYSTEM, late, TALK[1], TALK[2], late, TALK[3]]))
    assert "Be short.\n\nWho are you?" in before
    behind = shown(render(named(name), [*TALK, late]))
    assert "Who are you?\n\nBe short." in behind
    alone = shown(render(named(name), [*TALK[:3], late]))
    assert alone.index("Hm.") < alone.index("Be short.")


def test_neighbours_of_one_role_become_one() -> None:
    """Two user messages in a row are one, so that roles alternate."""
    parts = render(named("llama-2"), [*TALK, Message("user", "Well?")])
    assert "Who are you?\nWell? [/INST]" in shown(parts)


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), st.text())))
def test_data_is_never_a_mark(messages: list[Message]) -> None:
    """Whatever is said, the marks are the template's, and every said text is in the data."""
    for template in TEMPLATES.values():
        parts = render(template, messages)
        marks = {part.name for part in parts if isinstance(part, Mark)}
        assert marks <= {*template.marks, "bos", "eos"}
        data = "".join(part.text for part in parts if isinstance(part, Text))
        assert all(message.text in data for message in messages)


@pytest.mark.parametrize(
    ("metadata", "file", "name"),
    [
        ({"tokenizer.chat_template": "{{'<|im_start|>'}}"}, "x.gguf", "chatml"),
        ({"tokenizer.chat_template": "{{'[INST]'}}"}, "vicuna.gguf", "llama-2"),
        ({"tokenizer.chat_template": "<|start_header_id|>"}, "x.gguf", "llama-3"),
        ({"tokenizer.chat_template": "### Instruction:"}, "x.gguf", "alpaca"),
        ({"tokenizer.chat_template": "USER: "}, "x.gguf", "vicuna"),
        ({"general.name": "LLaMA-2-Chat"}, "model.gguf", "llama-2"),
        ({}, "wizard-vicuna-7b.ggmlv3.q4_0.bin", "vicuna"),
        ({}, "ggml-alpaca-7b-q4.bin", "alpaca"),
        ({}, "llama-2-7b-chat.ggmlv3.q4_K_M.bin", "llama-2"),
        ({}, "Meta-Llama-3-8B.gguf", "llama-3"),
        ({}, "SmolLM2-135M-Instruct.Q4_1.gguf", "chatml"),
        ({}, "story.bin", "plain"),
    ],
)
def test_templates_are_guessed(metadata: dict[str, object], file: str, name: str) -> None:
    """The model's own template tells first, then its name."""
    assert guess(metadata, file) == name


def test_an_unknown_template_lists_the_known() -> None:
    """A wrong name in the settings gets an answer that helps."""
    with pytest.raises(ConfigError, match=r"chatml, llama-3, llama-2, alpaca, vicuna, plain"):
        named("chatlm")
