"""From settings to an engine."""

from __future__ import annotations

from npc_server.config import Settings
from npc_server.engines import models
from npc_server.engines.base import Engine
from npc_server.engines.ctransformers import CtransformersEngine, CtransformersSettings
from npc_server.engines.script import Script, load_script
from npc_server.engines.scripted import ScriptedEngine
from npc_server.engines.templates import named
from npc_server.errors import ConfigError


def create_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for, not started yet.

    ``auto`` is ctransformers, which runs the model's file.

    Raises:
        ConfigError: The script, the template or the adapter cannot be used.
        ModelFileError: The model is not here.
    """
    if settings.engine == "scripted":
        return ScriptedEngine(load_script(settings.script) if settings.script else Script())
    if settings.lora is not None:
        raise ConfigError(
            "ctransformers 0.2.27 cannot load a LoRA adapter beside a model. Leave NPC_LORA out, "
            "and use a model that the adapter was merged into."
        )
    if settings.template is not None:
        named(settings.template)
    return CtransformersEngine(
        CtransformersSettings(
            model=models.resolve(settings.model, settings.models_dir),
            name=models.title(settings.model),
            template=settings.template,
            context=settings.context,
            seats=settings.seats,
            threads=settings.threads,
            gpu_layers=settings.gpu_layers,
            cache_dir=settings.models_dir,
            start_timeout=settings.timeouts.start,
        )
    )
