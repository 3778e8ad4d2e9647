"""PURE. A stream of text pieces -> speech, sentences, emotion, gestures."""

from npc_server.reply.parser import ReplyParser
from npc_server.reply.parts import Feeling, Finished, Gesture, Opening, Part, Sentence, Speech

__all__ = [
    "Feeling",
    "Finished",
    "Gesture",
    "Opening",
    "Part",
    "ReplyParser",
    "Sentence",
    "Speech",
]
