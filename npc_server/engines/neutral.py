"""PURE. Text for an endpoint that reads control tokens out of text.

A chat endpoint renders messages into its model's template and tokenises the whole, so that a
player who types ``<|im_end|>`` ends the message. Which marks the model has is not known from
outside. So every mark that a known family of models uses, and every text of the shape that such
marks have, is broken up by a space before its last character. Everything else stays as it is.
"""

from __future__ import annotations

import regex

from npc_server.engines.templates import TEMPLATES

SHAPES = (
    r"[<＜][|｜]",  # how <|im_end|> begins, and DeepSeek's <｜User｜>
    r"[|｜][>＞]",  # and how they end
    r"</?[A-Za-z0-9_][A-Za-z0-9_:.-]{0,63}>",  # <s>, </s>, <start_of_turn>, <tool_call>
    r"<</?[A-Za-z0-9_]{1,63}>>",  # <<SYS>>
    r"\[/?[a-z]?[A-Z][A-Z0-9_]{1,63}\]",  # [INST], [TOOL_CALLS], [gMASK]
)
"""The shapes that control tokens have."""

HEADINGS = (
    "### System:",
    "### User:",
    "### Human:",
    "### Assistant:",
    "Human:",
    "<<human>>:",
    "SYSTEM:",
)
"""Headings of templates in plain text that this server has no template for."""

_LITERALS = sorted(
    {mark for template in TEMPLATES.values() for mark in template.marks} | set(HEADINGS),
    key=lambda mark: (-len(mark), mark),
)
# Shapes first: of <|im_end|> both ends are to be broken, not the whole once.
_MARK = regex.compile("|".join([*SHAPES, *map(regex.escape, _LITERALS)]))


def neutral(text: str) -> str:
    """The text with every control token in it broken up, so that it is read as its letters.

    ``<|im_end|>`` becomes ``< |im_end| >``, ``[INST]`` becomes ``[INST ]``. A text without such
    marks comes back as it was.
    """
    # Overlapped: <<SYS>> contains <SYS>, and breaking one must not leave the other.
    cuts = {found.end() - 1 for found in _MARK.finditer(text, overlapped=True)}
    ends = [*sorted(cuts), len(text)]
    return " ".join(text[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True))


def has_marks(text: str) -> bool:
    """Whether there is anything in the text that ``neutral`` would break up."""
    return _MARK.search(text) is not None
