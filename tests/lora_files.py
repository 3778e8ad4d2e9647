"""Small LoRA adapters in GGUF form, made by the tests themselves."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from model_files import HIDDEN, WIDTH, text, value

SHAPES = {
    "blk.0.attn_q.weight": (WIDTH, WIDTH),
    "blk.0.attn_v.weight": (WIDTH, WIDTH),
    "blk.0.ffn_down.weight": (HIDDEN, WIDTH),
}


def lora(
    *,
    seed: int = 1,
    rank: int = 4,
    alpha: float | None = 8.0,
    size: float = 1.0,
    shapes: Mapping[str, tuple[int, int]] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> bytes:
    """An adapter of random numbers.

    Args:
        seed: Which ones.
        rank: Of the two matrices of each weight.
        alpha: As the metadata have it; ``None`` leaves it out.
        size: How large the numbers of ``lora_a`` are; those of ``lora_b`` are about 1.
        shapes: Length and number of the rows of each weight that it changes.
        changes: To the metadata; ``None`` leaves a key out.
    """
    chance = np.random.default_rng(seed)
    metadata = {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": alpha,
        **(changes or {}),
    }
    kept = {key: item for key, item in metadata.items() if item is not None}
    matrices: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
    for name, (width, height) in (SHAPES if shapes is None else shapes).items():
        a, b = chance.normal(size=(rank, width)) * size, chance.normal(size=(height, rank))
        matrices[f"{name}.lora_a"] = a.astype(np.float32)
        matrices[f"{name}.lora_b"] = b.astype(np.float32)
    return file_of(kept, matrices)


def file_of(
    metadata: Mapping[str, Any], matrices: Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]
) -> bytes:
    """A GGUF file of these 32-bit matrices."""
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(matrices), len(metadata))
    for key, item in metadata.items():
        head += text(key) + value(item)
    data = b""
    for name, matrix in matrices.items():
        shape = matrix.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        head += struct.pack("<IQ", 0, len(data))
        data += matrix.tobytes()
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data
