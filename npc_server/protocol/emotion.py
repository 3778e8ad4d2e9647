"""The expressions that an NPC can wear."""

from typing import Literal

Emotion = Literal["neutral", "happy", "sad", "angry", "relaxed", "surprised"]
"""The emotions among the preset expressions of VRM 1.0, and ``neutral``."""

EMOTIONS: tuple[Emotion, ...] = ("neutral", "happy", "sad", "angry", "relaxed", "surprised")
