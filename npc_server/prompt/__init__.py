"""PURE. What goes into a prompt, in which order, within how many tokens."""

from npc_server.prompt.history import stops
from npc_server.prompt.layout import lay_out, shrink, texts_to_count
from npc_server.prompt.messages import Message
from npc_server.prompt.model import Dropped, Placed, Prompt, PromptInput

__all__ = [
    "Dropped",
    "Message",
    "Placed",
    "Prompt",
    "PromptInput",
    "lay_out",
    "shrink",
    "stops",
    "texts_to_count",
]
