"""What this machine has to compute with, and what the installed engines can use of it."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import psutil

from npc_server.engines.placement import Gpu, Machine, gpus_of

LOOK_SECONDS = 10.0
DEVICES_SECONDS = 30.0
AMD = "0x1002"
DRM = Path("/sys/class/drm")
NVIDIA = (
    "nvidia-smi",
    "--query-gpu=name,memory.total,memory.free",
    "--format=csv,noheader,nounits",
)
DEVICES = "npc_server.engines.llamacpp_devices"


def for_ctransformers() -> Machine:
    """The machine as ctransformers can use it. Asks other programs: takes up to seconds."""
    return Machine(gpus(), ctransformers_offers(_package("ctransformers")))


def for_llamacpp() -> Machine:
    """The machine as llama.cpp can use it. Asks other programs: takes up to seconds."""
    offered = gpus_of(orjson.loads(_output((sys.executable, "-P", "-m", DEVICES)) or b"[]"))
    # Cards that it cannot use are told all the same.
    return Machine(offered or gpus(), frozenset(gpu.kind for gpu in offered))


def gpus() -> tuple[Gpu, ...]:
    """The graphics cards that the system knows of."""
    return (*nvidia(_output(NVIDIA).decode(errors="replace")), *amd(DRM), *apple())


def nvidia(table: str) -> tuple[Gpu, ...]:
    """The cards in what ``nvidia-smi`` printed: name, MiB in all, MiB free."""
    found = []
    for line in table.splitlines():
        name, _, rest = line.partition(",")
        total, _, free = rest.partition(",")
        # Cards that share the machine's memory have no numbers here.
        if total.strip().isdigit() and free.strip().isdigit():
            found.append(Gpu("cuda", name.strip(), int(total) << 20, int(free) << 20))
    return tuple(found)


def amd(folder: Path) -> tuple[Gpu, ...]:
    """The AMD cards in Linux' folder of graphics cards."""
    found = []
    for device in sorted(folder.glob("card*/device")):
        try:
            if (device / "vendor").read_text().strip() != AMD:
                continue
            total = int((device / "mem_info_vram_total").read_text())
            used = int((device / "mem_info_vram_used").read_text())
        except (OSError, ValueError):
            continue
        found.append(Gpu("rocm", f"AMD {device.parent.name}", total, total - used))
    return tuple(found)


def apple() -> tuple[Gpu, ...]:
    """The graphics part of Apple silicon, which shares the machine's memory."""
    if platform.system() != "Darwin" or platform.machine() != "arm64":
        return ()
    memory = psutil.virtual_memory()
    return (Gpu("metal", "Apple silicon", memory.total, memory.available, unified=True),)


def ctransformers_offers(package: Path | None) -> frozenset[str]:
    """The kinds of GPU that the installed ctransformers can use.

    Args:
        package: Its folder; ``None`` where it is not installed.
    """
    if package is None:
        return frozenset()
    local = package / "lib" / "local"
    if local.is_dir():
        # One that was built here says which libraries it needs.
        built = b"".join(path.read_bytes() for path in local.glob("*ctransformers.*"))
        signs = {"cuda": b"cublas", "rocm": b"hipblas", "metal": b"ggml_metal"}
        return frozenset(kind for kind, sign in signs.items() if sign in built)
    if platform.system() == "Darwin":
        return frozenset({"metal"} if (package / "lib" / "metal").is_dir() else ())
    cuda = (package / "lib" / "cuda").is_dir() and _package("nvidia.cublas") is not None
    return frozenset({"cuda"} if cuda else ())


def _package(name: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _output(command: Sequence[str]) -> bytes:
    """What a program prints; nothing where it is not there, fails or hangs."""
    seconds = DEVICES_SECONDS if command[0] == sys.executable else LOOK_SECONDS
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, timeout=seconds, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return b""
    return done.stdout
