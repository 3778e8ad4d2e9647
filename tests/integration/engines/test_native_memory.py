"""No more seats are given than memory has room for."""

from types import SimpleNamespace

import psutil
import pytest

from npc_server.engines import ctransformers_model as native
from npc_server.engines.gguf import Header


def test_a_seat_costs_its_keys_and_values() -> None:
    """30 layers of 192 channels at 4,096 tokens are 94 MB, and what the library needs besides."""
    facts = {"block_count": 30, "embedding_length": 576}
    heads = {"attention.head_count": 9, "attention.head_count_kv": 3}
    metadata = {"general.architecture": "llama"} | {
        f"llama.{key}": value for key, value in (facts | heads).items()
    }
    header = Header("GGUF", 3, 100, dict(metadata))
    assert native.seat_bytes(header, 4096, 0) == 94_371_840 + native.SCRATCH
    assert native.seat_bytes(header, 4096, 200 << 20) == 94_371_840 + (200 << 20)
    assert native.seat_bytes(Header("GGJT", 3, 100), 4096, 0) == native.SCRATCH


def test_seats_fit_into_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as are asked for, fewer where memory is short, one at least."""
    free = SimpleNamespace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    assert native.affordable_seats(4, 100) == 4
    assert native.affordable_seats(16, 100) == 9
    assert native.affordable_seats(4, 5000) == 1
    assert native.memory_used() > 0


def test_the_device_and_its_library_are_known() -> None:
    """Without layers on a GPU the processor computes, by a library that is there."""
    assert native.device(0) == "cpu"
    assert native.device(5) in {"cuda", "metal"}
    assert native.library(0).endswith((".so", ".dylib", ".dll"))
