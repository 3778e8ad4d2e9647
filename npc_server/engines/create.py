"""From settings to an engine."""

from __future__ import annotations

from npc_server.config import Settings
from npc_server.engines.base import Engine
from npc_server.engines.script import Script, load_script
from npc_server.engines.scripted import ScriptedEngine
from npc_server.errors import ConfigError


def create_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for, not started yet.

    Raises:
        ConfigError: The script of a scripted engine cannot be used.
    """
    if settings.engine == "scripted":
        return ScriptedEngine(load_script(settings.script) if settings.script else Script())
    raise ConfigError(f"There is no engine {settings.engine!r}.")
