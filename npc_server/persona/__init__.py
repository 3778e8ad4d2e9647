"""PURE. What authors write: who an NPC is, and the scenes in which NPCs meet."""

from npc_server.persona.model import Action, Persona, Sampling
from npc_server.persona.scene import Scene

__all__ = ["Action", "Persona", "Sampling", "Scene"]
