"""PURE. A stream of text pieces -> speech, sentences, emotion, gestures."""

from npc_server.reply.guard import Instructions
from npc_server.reply.parser import ReplyParser
from npc_server.reply.parts import Feeling, Finished, Gesture, Opening, Part, Sentence, Speech
from npc_server.reply.repetition import Learnt, learn

__all__ = [
    "Feeling",
    "Finished",
    "Gesture",
    "Instructions",
    "Learnt",
    "Opening",
    "Part",
    "ReplyParser",
    "Sentence",
    "Speech",
    "learn",
]
