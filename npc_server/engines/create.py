"""From settings to an engine."""

from __future__ import annotations

from pathlib import Path

from npc_server.config import EngineSettings
from npc_server.engines import models
from npc_server.engines.base import Engine
from npc_server.engines.ctransformers import CtransformersEngine, CtransformersSettings
from npc_server.engines.script import Script, load_script
from npc_server.engines.scripted import ScriptedEngine
from npc_server.engines.templates import named


def engine_kind(settings: EngineSettings) -> str:
    """The engine that the settings come to: what ``auto`` is."""
    if settings.engine != "auto":
        return settings.engine
    return "openai" if settings.openai_base_url else "ctransformers"


def create_engine(settings: EngineSettings, *, models_dir: Path, start_timeout: float) -> Engine:
    """The engine that the settings ask for, not started yet.

    Args:
        settings: What to run, and how.
        models_dir: Where models are kept.
        start_timeout: Seconds in which the model must be loaded.

    Raises:
        ConfigError: The script, the template or the endpoint cannot be used.
        ModelFileError: The model is not here.
    """
    if settings.engine == "scripted":
        return ScriptedEngine(load_script(settings.script) if settings.script else Script())
    if settings.template is not None:
        named(settings.template)
    return CtransformersEngine(
        CtransformersSettings(
            model=models.resolve(settings.model, models_dir),
            name=models.title(settings.model),
            template=settings.template,
            context=settings.context,
            seats=settings.seats,
            threads=settings.threads,
            device=settings.device,
            gpu_layers=settings.gpu_layers,
            cache_dir=models_dir,
            start_timeout=start_timeout,
        )
    )
