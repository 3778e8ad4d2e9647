"""As much of a model goes onto the GPU as fits, and the reasons are told; on made-up machines."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.engines.gguf import Header, Tensor
from npc_server.engines.placement import (
    ALL_LAYERS,
    Footprint,
    Gpu,
    Kind,
    Machine,
    fewer,
    footprint,
    gpus_of,
    plan,
)

MIB, GIB = 1 << 20, 1 << 30
# Seven billion numbers at 4.5 bits; 4 seats of 2,048 tokens.
SEVEN = Footprint(4 * GIB, (120 * MIB,) * 32, 100 * MIB, (32 * MIB,) * 32)
LAYER = 152 * MIB


def card(kind: Kind = "cuda", total: float = 12, free: float | None = None, **fields: Any) -> Gpu:
    memory = int((total if free is None else free) * GIB)
    return Gpu(kind, f"{kind} card", int(total * GIB), memory, **fields)


def machine(*gpus: Gpu, offers: set[str] | None = None) -> Machine:
    return Machine(gpus, frozenset({gpu.kind for gpu in gpus} if offers is None else offers))


MACHINES: dict[str, tuple[Machine, str, int]] = {
    "nothing but a processor": (machine(), "cpu", 0),
    "a large card": (machine(card(total=24)), "cuda", 33),
    "a card that just holds it": (machine(card(total=12, free=6.2)), "cuda", 33),
    "a small card": (machine(card(total=4)), "cuda", (4 * GIB - 512 * MIB) // LAYER),
    "a card that others have filled": (machine(card(total=24, free=2)), "cpu", 0),
    "a card that the build cannot use": (machine(card(), offers=set()), "cpu", 0),
    "an AMD card": (machine(card("rocm", 16)), "rocm", 33),
    "two kinds": (machine(card("vulkan", 24), card("cuda", 12)), "cuda", 33),
    "one of two kinds in the build": (
        machine(card("cuda"), card("vulkan"), offers={"vulkan"}),
        "vulkan",
        33,
    ),
    "two small cards": (machine(card(total=2.5), card(total=2.5)), "cuda", 2 * (2048 // 152)),
    "an Apple with 16 GB": (machine(card("metal", 16, 9, unified=True)), "metal", 33),
    "an Apple with 8 GB": (
        machine(card("metal", 8, 8, unified=True)),
        "metal",
        int(8 * GIB * (2 / 3) - 0.1 * 8 * GIB) // LAYER,
    ),
}


@pytest.mark.parametrize("name", MACHINES)
def test_the_plan_fits_the_machine(name: str) -> None:
    """Device and layers are as the memory allows, and nothing is warned of."""
    there, device, layers = MACHINES[name]
    placed = plan(SEVEN, there, "auto", "auto")
    assert (placed.device, placed.gpu_layers, placed.warnings) == (device, layers, ())
    assert placed.reasons
    assert all(gpu.name in " ".join(placed.reasons) for gpu in there.gpus if gpu.kind == device)


def test_what_is_asked_for_is_done() -> None:
    """A number is honoured and clipped to the layers; one that does not fit is warned of."""
    small = machine(card(total=4))
    assert plan(SEVEN, small, "auto", 5).gpu_layers == 5
    assert plan(SEVEN, machine(card(total=24)), "auto", 900) == plan(
        SEVEN, machine(card(total=24)), "auto", "auto"
    )
    placed = plan(SEVEN, small, "cuda", 30)
    assert placed.gpu_layers == 30
    (warning,) = placed.warnings
    assert "30 layers need 4560 MiB" in warning
    assert "23 would fit" in warning


@pytest.mark.parametrize(("device", "layers"), [("cpu", "auto"), ("auto", 0), ("cuda", 0)])
def test_the_processor_can_be_asked_for(device: str, layers: int | str) -> None:
    """Whatever there is, nothing goes onto it."""
    placed = plan(SEVEN, machine(card()), device, layers)
    assert (placed.device, placed.gpu_layers, placed.warnings) == ("cpu", 0, ())


def test_a_device_that_is_not_there_is_warned_of() -> None:
    """The processor computes instead, and the reason names what is missing."""
    placed = plan(SEVEN, machine(card("cuda")), "rocm", "auto")
    assert (placed.device, placed.gpu_layers) == ("cpu", 0)
    assert "rocm" in placed.warnings[0]
    placed = plan(SEVEN, machine(card("cuda"), offers={"vulkan"}), "cuda", "auto")
    assert "cuda card is there, but the engine's build cannot use it (it uses vulkan)" in (
        placed.warnings
    )


def test_a_file_that_does_not_tell_its_layers_goes_whole_or_not_at_all() -> None:
    """Files before GGUF."""
    old = Footprint(4 * GIB)
    assert plan(old, machine(card(total=8)), "auto", "auto").gpu_layers == ALL_LAYERS
    assert plan(old, machine(card(total=4)), "auto", "auto").device == "cpu"
    assert plan(old, machine(card(total=4)), "auto", 20).warnings


@given(
    layers=st.lists(st.integers(0, 500 * MIB), min_size=1, max_size=80),
    free=st.lists(st.integers(0, 30 * GIB), min_size=1, max_size=4),
    output=st.integers(0, GIB),
)
def test_the_margin_stays_free(layers: list[int], free: list[int], output: int) -> None:
    """What goes onto the cards is never more than they have free, less what is kept."""
    model = Footprint(sum(layers), tuple(layers), output, (MIB,) * len(layers))
    cards = [Gpu("cuda", "card", 30 * GIB, each) for each in free]
    placed = plan(model, machine(*cards), "auto", "auto")
    assert 0 <= placed.gpu_layers <= len(layers) + 1
    assert sum(model.steps[: placed.gpu_layers]) <= sum(gpu.budget for gpu in cards)
    assert (placed.device == "cpu") == (placed.gpu_layers == 0)


def header(changes: dict[str, Any] | None = None, *, tied: bool = False) -> Header:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 4096,
        "llama.embedding_length": 64,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        **(changes or {}),
    }
    sizes = {
        "token_embd.weight": 1000,
        "blk.0.attn_q.weight": 10,
        "blk.0.ffn_up.weight": 20,
        "blk.1.attn_q.weight": 11,
        "output_norm.weight": 3,
        **({} if tied else {"output.weight": 500}),
    }
    tensors = tuple(Tensor(name, (1, 1), 0, 0, size) for name, size in sizes.items())
    return Header("GGUF", 3, 5000, metadata, {}, tensors)


def test_a_footprint_comes_from_the_header() -> None:
    """Weights by layer; keys and values of 2 heads of 8 channels, two bytes each."""
    found = footprint(header(), context=1000, seats=4)
    assert found == Footprint(5000, (30, 11), 503, (2 * 16 * 2 * 4000,) * 2)
    assert found.steps == (11 + 256_000, 30 + 256_000, 503)
    assert footprint(header(tied=True), context=1000, seats=4).output == 1003
    assert footprint(header(), context=1000, seats=4, copies=3).layers == (90, 33)


def test_the_cache_is_counted_as_it_is_stored() -> None:
    """8 bits take 34 bytes for 32 numbers, 4 bits 18; heads may differ in width and by layer."""
    assert footprint(header(), context=100, seats=1, kv_cache="q8_0").cache == (3400,) * 2
    assert footprint(header(), context=100, seats=1, kv_cache="q4_0").cache == (1800,) * 2
    wide = header({"llama.attention.key_length": 12, "llama.attention.value_length": 4})
    assert footprint(wide, context=100, seats=1).cache == (6400,) * 2
    mixed = header({"llama.attention.head_count_kv": [2, 4]})
    assert footprint(mixed, context=100, seats=1).cache == (6400, 12800)
    assert footprint(header(), context=9999, seats=1).cache[0] == 4096 * 64


def test_an_old_file_has_no_layers() -> None:
    """Its size is all that is known."""
    assert footprint(Header("GGJT", 3, 7000), context=100, seats=1, copies=2) == Footprint(14000)


def test_devices_of_llama_cpp_are_understood() -> None:
    """By their names; a graphics part of the processor shares its memory, the processor is none."""

    def device(name: str, kind: str = "GPU") -> dict[str, Any]:
        return {
            "name": name,
            "description": f"a {name}",
            "type": f"GGML_BACKEND_DEVICE_TYPE_{kind}",
            "memory_total": 8 * GIB,
            "memory_free": 7 * GIB,
        }

    names = ["CPU", "CUDA0", "ROCm1", "Vulkan0", "Metal", "MTL0"]
    found = gpus_of([*map(device, names), device("Vulkan1", "IGPU")])
    assert [gpu.kind for gpu in found] == ["cuda", "rocm", "vulkan", "metal", "metal", "vulkan"]
    assert [gpu.unified for gpu in found] == [False, False, False, True, True, True]
    assert found[0] == Gpu("cuda", "a CUDA0", 8 * GIB, 7 * GIB)


def test_stepping_down_ends_at_none() -> None:
    """Half as many each time."""
    tried = [33]
    while tried[-1]:
        tried.append(fewer(tried[-1]))
    assert tried == [33, 16, 8, 4, 2, 1, 0]
