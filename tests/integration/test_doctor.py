"""The doctor says for each engine where its model would run, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_files import llama

from npc_server import doctor
from npc_server.config import Settings
from npc_server.doctor import Finding
from npc_server.engines import machine as machines
from npc_server.engines.placement import Gpu, Machine

CARD = Gpu("cuda", "RTX 3060", 12 << 30, 11 << 30)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(llama())
    return path


async def look(check: str, **settings: Any) -> Finding:
    """What one check finds."""
    findings = await doctor.examine(Settings(host="127.0.0.1", port=0, **settings))
    return next(finding for finding in findings if finding.name == check)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a card that ctransformers can use and llama.cpp cannot."""
    can, cannot = Machine((CARD,), frozenset({"cuda"})), Machine((CARD,))
    monkeypatch.setattr(machines, "for_ctransformers", lambda: can)
    monkeypatch.setattr(machines, "for_llamacpp", lambda: cannot)


async def test_the_plan_is_told(model: Path, tmp_path: Path) -> None:
    """Device, layers, what the model takes, free memory and the margin."""
    found = await look("gpu", model=str(model), engine="ctransformers", data_dir=tmp_path)
    assert found.ok
    for part in ("on cuda, 2 layers", "RTX 3060", "11264 MiB of 12288 MiB free", "1229 MiB kept"):
        assert part in found.text
    assert "keys and values" in found.text
    found = await look("gpu", model=str(model), engine="llamacpp", data_dir=tmp_path)
    assert "on cpu" in found.text
    assert "RTX 3060 is there, but the engine's build cannot use it" in found.text


async def test_several_engines_are_told_by_name(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endpoints and scripts need no device; each of the others has its plan.

    An endpoint that does not answer leaves the other models told.
    """
    monkeypatch.setattr(doctor, "ENDPOINT_SECONDS", 0.5)
    engines = {
        "small": {"engine": "ctransformers", "model": str(model)},
        "far": {"engine": "openai", "openai_base_url": "http://127.0.0.1:9/v1", "model": "big"},
    }
    chosen = {"engine": "scripted", "engines": engines, "data_dir": tmp_path}
    text = (await look("gpu", **chosen)).text
    assert "default: the model does not run here, so it needs no device" in text
    assert "far: the model does not run here, so it needs no device" in text
    assert "small: ctransformers runs tiny.gguf on cuda" in text
    found = await look("model", **chosen)
    assert not found.ok
    models = found.text.splitlines()
    assert "the scripted engine needs none" in models
    assert any(line.startswith("Tiny") for line in models)
    assert any("127.0.0.1:9 was not ready" in line for line in models)


async def test_what_was_asked_for_and_cannot_be_is_a_failure(model: Path, tmp_path: Path) -> None:
    """A device that is not there; the message says what to set."""
    found = await look(
        "gpu", model=str(model), engine="ctransformers", device="rocm", data_dir=tmp_path
    )
    assert not found.ok
    assert "no GPU for rocm" in found.text
    assert "NPC_DEVICE" in found.text


async def test_a_missing_model_is_told(tmp_path: Path) -> None:
    """No plan without a file, and the model's own check says how to fetch it."""
    assert "not here yet" in (await look("gpu", data_dir=tmp_path)).text
    found = await look("model", data_dir=tmp_path)
    assert not found.ok
    assert "models pull smollm2" in found.text
