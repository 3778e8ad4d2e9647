"""PURE. Which device computes, and how many of a model's layers go onto it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import regex

from npc_server.engines.gguf import Header

Kind = Literal["cuda", "rocm", "metal", "vulkan"]

PREFERENCE: tuple[Kind, ...] = ("cuda", "rocm", "metal", "vulkan")
DEVICE_NAMES: Mapping[str, Kind] = {
    "cuda": "cuda",
    "rocm": "rocm",
    "hip": "rocm",
    "metal": "metal",
    "mtl": "metal",
    "vulkan": "vulkan",
}
MARGIN_LEAST = 512 << 20
MARGIN_SHARE = 0.1
# macOS lets a program have about that much of the memory for its GPU.
UNIFIED_SHARE = 2 / 3
CACHE_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
ALL_LAYERS = 1_000
LAYER = regex.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics card.

    Attributes:
        kind: How programs use it.
        name: What it is called.
        total: Its memory in bytes; with ``unified`` the machine's.
        free: How much of that is free.
        unified: Whether it shares the machine's memory.
    """

    kind: Kind
    name: str
    total: int
    free: int
    unified: bool = False

    @property
    def margin(self) -> int:
        """The bytes that are kept free, for buffers and for other programs."""
        return max(MARGIN_LEAST, int(self.total * MARGIN_SHARE))

    @property
    def budget(self) -> int:
        """The bytes that a model may take."""
        usable = min(self.free, int(self.total * UNIFIED_SHARE)) if self.unified else self.free
        return max(0, usable - self.margin)


@dataclass(frozen=True, slots=True)
class Machine:
    """What could compute: the cards that are there, and the kinds that the engine's build uses."""

    gpus: tuple[Gpu, ...] = ()
    offers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, in bytes.

    Attributes:
        size: The file.
        layers: The weights of each layer; empty where the file does not tell.
        output: The weights behind the last layer.
        cache: Keys and values of each layer, for all seats.
    """

    size: int
    layers: tuple[int, ...] = ()
    output: int = 0
    cache: tuple[int, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """What each layer more on the GPU takes there: the last one first, then the output."""
        if not self.layers:
            return (self.size,)
        both = zip(self.layers, self.cache, strict=True)
        return (*(sum(layer) for layer in reversed(list(both))), self.output)


@dataclass(frozen=True, slots=True)
class Placement:
    """What was decided.

    Attributes:
        device: ``cpu``, or the kind of the cards.
        gpu_layers: Layers on them, the output counted as one.
        reasons: Why, in lines for people.
        warnings: What was asked for and cannot be done.
    """

    device: str
    gpu_layers: int
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def footprint(
    header: Header, *, context: int, seats: int, kv_cache: str = "f16", copies: int = 1
) -> Footprint:
    """What a model takes on a GPU.

    Args:
        header: The model's header.
        context: Tokens of each seat; no more than the model was trained with are counted.
        seats: How many replies are made at once.
        kv_cache: How keys and values are stored: a key of ``CACHE_BYTES``.
        copies: How often the engine loads the weights.
    """
    name = header.text("general.architecture")
    count = header.number(f"{name}.block_count") or 0
    if not header.tensors or not count:
        return Footprint(header.size * copies)
    layers = [0] * count
    output = {"output.weight": 0, "output_norm.weight": 0, "token_embd.weight": 0}
    for tensor in header.tensors:
        found = LAYER.match(tensor.name)
        if found and int(found[1]) < count:
            layers[int(found[1])] += tensor.size * copies
        elif tensor.name in output:
            output[tensor.name] = tensor.size * copies
    # Without a matrix of its own the output is made by the embeddings, which are then there twice.
    matrix = output["output.weight"] or output["token_embd.weight"]
    context = min(context, header.number(f"{name}.context_length") or context)
    each = seats * context * CACHE_BYTES[kv_cache]
    cache = tuple(int(width * each) for width in _cache_widths(header, name, count))
    return Footprint(header.size, tuple(layers), matrix + output["output_norm.weight"], cache)


def plan(model: Footprint, machine: Machine, device: str, gpu_layers: int | str) -> Placement:
    """Decide where a model runs.

    Args:
        model: What it takes.
        machine: What there is.
        device: ``auto``, ``cpu`` or a kind of GPU.
        gpu_layers: A number, or ``auto`` for as many as fit.
    """
    if device == "cpu" or gpu_layers == 0:
        return Placement("cpu", 0, ("the settings ask for the processor",))
    gpus = _usable(machine, device)
    if not gpus:
        why = _why_none(machine, device)
        return Placement("cpu", 0, (why,), (why,) if device != "auto" else ())
    steps = model.steps
    fitting = _fitting(steps, [gpu.budget for gpu in gpus])
    reasons = (*(_told(gpu) for gpu in gpus), _needs(model))
    if gpu_layers == "auto":
        layers = fitting
    else:
        layers = min(int(gpu_layers), len(steps)) if model.layers else len(steps)
    warnings = _too_many(layers, fitting, steps)
    verdict = (
        f"all {len(steps)} layers go onto it"
        if layers == len(steps) and model.layers
        else f"{layers} of {len(steps)} layers go onto it"
    )
    if not model.layers:
        verdict = "the whole model goes onto it" if layers else "the model does not fit"
        layers *= ALL_LAYERS
    return Placement(gpus[0].kind if layers else "cpu", layers, (*reasons, verdict), warnings)


def gpus_of(devices: Sequence[Mapping[str, Any]]) -> tuple[Gpu, ...]:
    """The cards among the devices that llama.cpp lists.

    Args:
        devices: With ``name`` (such as ``CUDA0``), ``description``, ``type``, ``memory_free`` and
            ``memory_total`` in bytes.
    """
    found = []
    for device in devices:
        name = str(device["name"]).lower()
        kind = next((kind for sign, kind in DEVICE_NAMES.items() if name.startswith(sign)), None)
        if kind is not None:
            unified = kind == "metal" or "IGPU" in str(device.get("type", ""))
            total, free = int(device["memory_total"]), int(device["memory_free"])
            found.append(Gpu(kind, str(device["description"]), total, free, unified))
    return tuple(found)


def fewer(layers: int) -> int:
    """How many layers to try after so many could not be loaded."""
    return layers // 2


def _cache_widths(header: Header, name: str, count: int) -> list[int]:
    """How many numbers each layer keeps of a token."""
    heads = header.number(f"{name}.attention.head_count") or 1
    width = (header.number(f"{name}.embedding_length") or 0) // heads
    key = header.number(f"{name}.attention.key_length") or width
    value = header.number(f"{name}.attention.value_length") or width
    kept = header.metadata.get(f"{name}.attention.head_count_kv", heads)
    each = [int(item) for item in kept] if isinstance(kept, list) else [int(kept or heads)] * count
    return [(key + value) * item for item in (each + [heads] * count)[:count]]


def _usable(machine: Machine, device: str) -> tuple[Gpu, ...]:
    """The cards of the best kind that may be used."""
    for kind in PREFERENCE:
        found = tuple(gpu for gpu in machine.gpus if gpu.kind == kind)
        if found and kind in machine.offers and device in {"auto", kind}:
            return found
    return ()


def _why_none(machine: Machine, device: str) -> str:
    kinds = {gpu.kind for gpu in machine.gpus}
    wanted = kinds if device == "auto" else kinds & {device}
    if not wanted:
        return "no GPU was found" if device == "auto" else f"no GPU for {device} was found"
    names = ", ".join(gpu.name for gpu in machine.gpus if gpu.kind in wanted)
    uses = ", ".join(sorted(machine.offers)) or "none"
    return f"{names} is there, but the engine's build cannot use it (it uses {uses})"


def _fitting(steps: Sequence[int], budgets: Sequence[int]) -> int:
    """How many steps fit onto the cards, one card after the other."""
    rooms = list(budgets)
    for count, step in enumerate(steps):
        while rooms and rooms[0] < step:
            del rooms[0]
        if not rooms:
            return count
        rooms[0] -= step
    return len(steps)


def _too_many(layers: int, fitting: int, steps: Sequence[int]) -> tuple[str, ...]:
    if layers <= fitting:
        return ()
    need = mib(sum(steps[:layers]))
    return (f"{layers} layers need {need}, which is not free; {fitting} would fit",)


def _told(gpu: Gpu) -> str:
    shared = ", shared with the processor" if gpu.unified else ""
    return (
        f"{gpu.name} ({gpu.kind}): {mib(gpu.free)} of {mib(gpu.total)} free{shared}, "
        f"{mib(gpu.margin)} kept free"
    )


def _needs(model: Footprint) -> str:
    if not model.layers:
        return f"the file has {mib(model.size)} and does not tell its layers"
    return (
        f"the file has {mib(model.size)}; {len(model.layers)} layers take "
        f"{mib(sum(model.layers))}, the output {mib(model.output)}, "
        f"keys and values {mib(sum(model.cache))}"
    )


def mib(count: int) -> str:
    """So many bytes for people."""
    return f"{count / (1 << 20):.0f} MiB"
