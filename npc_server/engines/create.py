"""From settings to an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from npc_server.config import EngineSettings
from npc_server.engines import models
from npc_server.engines.base import Engine
from npc_server.engines.ctransformers import CtransformersEngine, CtransformersSettings
from npc_server.engines.gguf import read_header
from npc_server.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from npc_server.engines.model_info import llamacpp_reads
from npc_server.engines.openai import OpenAIEngine, OpenAISettings
from npc_server.engines.script import Script, load_script
from npc_server.engines.scripted import ScriptedEngine
from npc_server.engines.templates import named
from npc_server.errors import ConfigError, ModelFileError

Kind = Literal["llamacpp", "ctransformers", "openai", "scripted"]


def engine_kind(settings: EngineSettings, models_dir: Path) -> Kind:
    """The engine that the settings come to: what ``auto`` is.

    Raises:
        ModelFileError: The model is not here.
    """
    if settings.engine != "auto":
        return settings.engine
    if settings.remote:
        return "openai"
    path = models.resolve(settings.model, models_dir)
    try:
        return "llamacpp" if llamacpp_reads(read_header(path)) else "ctransformers"
    except ModelFileError:
        # Whichever engine it is: it says so when it is started, and the server lives.
        return "llamacpp"


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
    kind = engine_kind(settings, models_dir)
    if kind == "scripted":
        return ScriptedEngine(load_script(settings.script) if settings.script else Script())
    if kind == "openai":
        return OpenAIEngine(_openai(settings, start_timeout))
    if settings.template is not None:
        named(settings.template)
    if kind == "llamacpp":
        return LlamaCppEngine(_llamacpp(settings, models_dir, start_timeout))
    return CtransformersEngine(_ctransformers(settings, models_dir, start_timeout))


def _llamacpp(settings: EngineSettings, models_dir: Path, start_timeout: float) -> LlamaCppSettings:
    return LlamaCppSettings(
        model=models.resolve(settings.model, models_dir),
        name=models.title(settings.model),
        template=settings.template,
        context=settings.context,
        seats=settings.seats,
        threads=settings.threads,
        device=settings.device,
        gpu_layers=settings.gpu_layers,
        kv_cache=settings.kv_cache,
        flash_attention=settings.flash_attention,
        prompt_cache_mib=settings.prompt_cache_mib,
        start_timeout=start_timeout,
    )


def _ctransformers(
    settings: EngineSettings, models_dir: Path, start_timeout: float
) -> CtransformersSettings:
    return CtransformersSettings(
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


def _openai(settings: EngineSettings, start_timeout: float) -> OpenAISettings:
    if settings.openai_base_url is None:
        raise ConfigError(
            "The engine `openai` needs an address: set NPC_OPENAI_BASE_URL, for example to "
            "https://api.openai.com/v1 for ChatGPT or http://127.0.0.1:11434/v1 for Ollama."
        )
    if settings.model == EngineSettings.model_fields["model"].default:
        raise ConfigError(
            "Name the endpoint's model: set NPC_MODEL, for example to gpt-4o-mini for ChatGPT or "
            "llama3.2 for Ollama. `GET /models` at the endpoint lists those that it has."
        )
    return OpenAISettings(
        base_url=settings.openai_base_url,
        model=settings.model,
        key=settings.openai_api_key,
        context=settings.context,
        seats=settings.seats,
        start_timeout=start_timeout,
    )
