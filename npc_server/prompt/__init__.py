"""PURE. What goes into a prompt, in which order, within how many tokens."""

from npc_server.prompt.decision import (
    ActionOutcome,
    Decision,
    decision_messages,
    decision_question,
    decision_schema,
    instructed,
    read_decision,
    speaking_messages,
)
from npc_server.prompt.history import stops
from npc_server.prompt.layout import Material, gather, lay_out, shrink, texts_to_count
from npc_server.prompt.messages import Message
from npc_server.prompt.model import Dropped, Placed, Prompt, PromptInput

__all__ = [
    "ActionOutcome",
    "Decision",
    "Dropped",
    "Material",
    "Message",
    "Placed",
    "Prompt",
    "PromptInput",
    "decision_messages",
    "decision_question",
    "decision_schema",
    "gather",
    "instructed",
    "lay_out",
    "read_decision",
    "shrink",
    "speaking_messages",
    "stops",
    "texts_to_count",
]
