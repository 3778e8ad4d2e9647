"""PURE. A stream of text pieces -> speech, sentences, emotion, gestures."""

from npc_server.reply.parser import ReplyParser
from npc_server.reply.parts import Feeling, Finished, Gesture, Part, Sentence, Speech

__all__ = ["Feeling", "Finished", "Gesture", "Part", "ReplyParser", "Sentence", "Speech"]
