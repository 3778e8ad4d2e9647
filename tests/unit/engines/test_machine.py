"""Graphics cards are found by what the system says of them; engines by what is installed."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from npc_server.engines import machine
from npc_server.engines.placement import Gpu, Machine

MIB = 1 << 20


def test_nvidia_cards_are_read() -> None:
    """Name, memory in all and free, in MiB; cards without numbers are left out."""
    table = "NVIDIA GeForce RTX 3060, 12288, 11850\nNVIDIA GB10, [N/A], [N/A]\n\nbroken\n"
    assert machine.nvidia(table) == (
        Gpu("cuda", "NVIDIA GeForce RTX 3060", 12288 * MIB, 11850 * MIB),
    )
    assert machine.nvidia("") == ()


def test_amd_cards_are_read(tmp_path: Path) -> None:
    """From Linux' folder; cards of others and those that tell no memory are left out."""
    for at, (vendor, total) in enumerate([("0x1002", 16), ("0x10de", 8), ("0x1002", None)]):
        device = tmp_path / f"card{at}" / "device"
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        if total is not None:
            (device / "mem_info_vram_total").write_text(str(total << 30))
            (device / "mem_info_vram_used").write_text(str(1 << 30))
    assert machine.amd(tmp_path) == (Gpu("rocm", "AMD card0", 16 << 30, 15 << 30),)


def test_apple_silicon_shares_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found on macOS on ARM only."""
    memory = SimpleNamespace(total=16 << 30, available=9 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    (gpu,) = machine.apple()
    assert (gpu.kind, gpu.unified, gpu.total, gpu.free) == ("metal", True, 16 << 30, 9 << 30)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert machine.apple() == ()


def test_what_ctransformers_uses_is_seen_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA needs NVIDIA's libraries beside it; one that was built here says what it needs."""
    offers = machine.ctransformers_offers
    lib = tmp_path / "lib"
    (lib / "cuda").mkdir(parents=True)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(machine, "_package", lambda _name: None)
    assert not offers(None)
    assert not offers(tmp_path)
    monkeypatch.setattr(machine, "_package", lambda _name: tmp_path)
    assert offers(tmp_path) == {"cuda"}
    (lib / "local").mkdir()
    (lib / "local" / "libctransformers.so").write_bytes(b"\x7fELF libhipblas.so.2 ...")
    assert offers(tmp_path) == {"rocm"}


def test_a_program_that_is_not_there_or_hangs_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broken driver does not keep the server from starting."""
    monkeypatch.setattr(machine, "DEVICES_SECONDS", 0.2)
    assert machine._output(("no-such-program-here",)) == b""
    assert machine._output((sys.executable, "-c", "import time; time.sleep(60)")) == b""
    assert machine._output((sys.executable, "-c", "raise SystemExit(3)")) == b""


def test_packages_are_found_without_importing_them() -> None:
    """The folder of one that is there; none for one that is not."""
    assert machine._package("no_such_package.inside") is None
    assert machine._package("no_such_package") is None
    package = machine._package("npc_server")
    assert package is not None
    assert (package / "doctor.py").is_file()


def test_cards_that_llama_cpp_cannot_use_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own list counts where it has one; else the system's, with nothing on offer."""
    own = b'[{"name": "Vulkan0", "description": "card", "type": "GGML_BACKEND_DEVICE_TYPE_GPU", '
    own += b'"memory_total": 8, "memory_free": 7}]'
    seen = Gpu("cuda", "seen", 8, 7)
    monkeypatch.setattr(machine, "gpus", lambda: (seen,))
    monkeypatch.setattr(machine, "_output", lambda _command: own)
    assert machine.for_llamacpp().offers == {"vulkan"}
    monkeypatch.setattr(machine, "_output", lambda _command: b"")
    assert machine.for_llamacpp() == Machine((seen,))
