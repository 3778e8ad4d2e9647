"""Checks of everything that the server needs; each says OK or what to do."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import shutil
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from npc_server.config import EngineSettings, Settings, unknown_variables
from npc_server.engines import create_engine, models
from npc_server.engines import machine as machines
from npc_server.engines.create import engine_kind
from npc_server.engines.gguf import read_header
from npc_server.engines.placement import footprint, plan
from npc_server.errors import NpcError
from npc_server.library import open_library
from npc_server.store import find_redis_server, open_store

ENDPOINT_SECONDS = 10.0
PACKAGES = ("websockets", "xllamacpp", "ctransformers", "redis", "pydantic", "orjson")


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, whether it is well, and what was seen or is to be done."""

    name: str
    ok: bool
    text: str


async def examine(settings: Settings) -> list[Finding]:
    """Run every check; one that fails does not stop the others."""
    checks: list[tuple[str, Callable[[Settings], Awaitable[str]]]] = [
        ("python", _python),
        ("packages", _packages),
        ("processor", _processor),
        ("gpu", _gpu),
        ("memory", _memory),
        ("data folder", _data_folder),
        ("model", _model),
        ("redis", _redis),
        ("port", _port),
        ("personas and scenes", _library),
        ("environment", _environment),
    ]
    findings = []
    for name, check in checks:
        try:
            findings.append(Finding(name, True, await check(settings)))
        except NpcError as error:
            findings.append(Finding(name, False, error.message))
    return findings


async def _python(settings: Settings) -> str:
    del settings
    return platform.python_version()


async def _packages(settings: Settings) -> str:
    del settings
    try:
        found = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES]
    except importlib.metadata.PackageNotFoundError as error:
        raise NpcError(f"{error.name} is missing. Run `pip install npc-server` again.") from error
    return ", ".join(found)


async def _processor(settings: Settings) -> str:
    del settings
    flags = _cpu_flags()
    if flags and "avx2" not in flags:
        raise NpcError(
            "The processor has no AVX2, which ctransformers' binaries use. "
            "Build it from source: pip install ctransformers --no-binary ctransformers."
        )
    known = [flag for flag in ("avx2", "f16c", "fma", "avx512f", "neon", "asimd") if flag in flags]
    return f"{os.cpu_count()} cores, {platform.machine()} {' '.join(known)}".rstrip()


async def _gpu(settings: Settings) -> str:
    told = []
    for name in settings.engine_names:
        engine = settings.engine_settings(name)
        lines = await asyncio.to_thread(_placement, engine, settings.models_dir)
        several = len(settings.engine_names) > 1
        told += [f"{name}: {line}" if several else line for line in lines]
    return "\n".join(told)


def _placement(engine: EngineSettings, models_dir: Path) -> list[str]:
    """Where an engine's model runs, and why."""
    if engine.remote or engine.engine == "scripted":
        return ["the model does not run here, so it needs no device"]
    path = models.find(engine.model, models_dir)
    if path is None:
        return [f"{engine.model} is not here yet, so nothing can be planned"]
    kind = engine_kind(engine, models_dir)
    native = kind == "ctransformers"
    model = footprint(
        read_header(path),
        context=engine.context,
        seats=engine.seats,
        kv_cache="f16" if native else engine.kv_cache,
        copies=engine.seats if native else 1,
    )
    machine = machines.for_ctransformers() if native else machines.for_llamacpp()
    placed = plan(model, machine, engine.device, engine.gpu_layers)
    if placed.warnings:
        raise NpcError(
            f"{path.name}: {'; '.join(placed.warnings)}. "
            "Set NPC_DEVICE and NPC_GPU_LAYERS to `auto`, or see docs/reference/models.md."
        )
    verdict = f"{kind} runs {path.name} on {placed.device}, {placed.gpu_layers} layers on a GPU"
    return [verdict, *(f"  {reason}" for reason in placed.reasons)]


async def _memory(settings: Settings) -> str:
    del settings
    free = psutil.virtual_memory().available
    if free < 1 << 30:
        raise NpcError(f"Only {free >> 20} MiB of memory are free. Close something.")
    return f"{free / (1 << 30):.1f} GiB free"


async def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise NpcError(f"Cannot write in {folder}: {error.strerror}. Set NPC_DATA_DIR.") from error
    free = shutil.disk_usage(folder).free
    if free < 512 << 20:
        raise NpcError(f"Only {free >> 20} MiB are free at {folder}. Make room.")
    return f"{folder}, {free / (1 << 30):.1f} GiB free"


async def _model(settings: Settings) -> str:
    told, failed = [], False
    for name in settings.engine_names:
        try:
            told.append(await _model_of(settings.engine_settings(name), settings.models_dir))
        except NpcError as error:
            told.append(error.message)
            failed = True
    text = "\n".join(dict.fromkeys(told))
    if failed:
        raise NpcError(text)
    return text


async def _model_of(settings: EngineSettings, models_dir: Path) -> str:
    if settings.engine == "scripted":
        return "the scripted engine needs none"
    if settings.remote:
        return await _endpoint(settings, models_dir)
    path = models.find(settings.model, models_dir)
    if path is None:
        raise NpcError(
            f"{settings.model} is not here yet. Run `npc-server models pull {settings.model}`."
        )
    return models.info(path).one_line()


async def _endpoint(settings: EngineSettings, models_dir: Path) -> str:
    engine = create_engine(settings, models_dir=models_dir, start_timeout=ENDPOINT_SECONDS)
    try:
        await engine.start()
        facts = engine.capabilities
    finally:
        await engine.close()
    offered = [name for name in ("schema", "scores") if getattr(facts, name)]
    return f"{facts.model} answers, context {facts.context}, offers {', '.join(offered) or 'text'}"


async def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        return f"one of our own will run: {find_redis_server()}"
    async with open_store(settings.redis_url, settings, owner="doctor") as store:
        await store.ping()
    return "answers"


async def _port(settings: Settings) -> str:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise NpcError(
                f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. "
                "Choose another with NPC_PORT."
            ) from error
    return f"{settings.host}:{settings.port} is free"


async def _library(settings: Settings) -> str:
    library = open_library(settings)
    problems = library.problems()
    if problems:
        raise NpcError("; ".join(problem.message for problem in problems))
    return f"{len(library.all())} personas, {len(library.scenes())} scenes"


async def _environment(settings: Settings) -> str:
    del settings
    unknown = unknown_variables(os.environ)
    if unknown:
        raise NpcError(f"Not settings of this server: {', '.join(unknown)}.")
    return "every NPC_ variable is a setting"


def _cpu_flags() -> set[str]:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith(("flags", "Features")):
            return set(line.partition(":")[2].split())
    return set()
