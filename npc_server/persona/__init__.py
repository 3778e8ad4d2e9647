"""PURE. Who an NPC is, as its author wrote it."""

from npc_server.persona.model import Action, Persona, Sampling

__all__ = ["Action", "Persona", "Sampling"]
