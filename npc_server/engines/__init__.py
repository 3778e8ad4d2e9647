"""The language models, and the files that they are made of."""

from npc_server.engines.create import create_engine

__all__ = ["create_engine"]
