"""PURE. Who an NPC is, as its author wrote it."""

from npc_server.persona.model import EMOTIONS, Action, Emotion, Persona, Sampling

__all__ = ["EMOTIONS", "Action", "Emotion", "Persona", "Sampling"]
