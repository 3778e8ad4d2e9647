"""Quantised weights are read as their formats say, number by number."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from npc_server.engines.dequantise import LAYOUTS, dequantised
from npc_server.engines.ggml_types import GGML_TYPES

BLOCKS = 5


def half(block: bytes, at: int) -> float:
    value: float = struct.unpack_from("<e", block, at)[0]
    return value


def nibble(block: bytes, at: int, index: int) -> int:
    """Number ``index`` of 32: the low halves of 16 bytes, then the high ones."""
    return block[at + index % 16] >> 4 * (index // 16) & 15


def bit(block: bytes, at: int, index: int) -> int:
    return block[at + index // 8] >> index % 8 & 1


def part(block: bytes, index: int) -> tuple[float, float]:
    """Scale and offset of one of the eight parts of a K block."""
    packed = block[4:16]
    if index < 4:
        scale, offset = packed[index] & 63, packed[index + 4] & 63
    else:
        scale = packed[index + 4] & 15 | packed[index - 4] >> 6 << 4
        offset = packed[index + 4] >> 4 | packed[index] >> 6 << 4
    return half(block, 0) * scale, half(block, 2) * offset


def q4_k(block: bytes, index: int) -> float:
    scale, offset = part(block, index // 32)
    return scale * (block[16 + index // 64 * 32 + index % 32] >> index // 32 % 2 * 4 & 15) - offset


def q5_k(block: bytes, index: int) -> float:
    scale, offset = part(block, index // 32)
    low = block[48 + index // 64 * 32 + index % 32] >> index // 32 % 2 * 4 & 15
    return scale * (low + 16 * (block[16 + index % 32] >> index // 32 & 1)) - offset


def q6_k(block: bytes, index: int) -> float:
    upper, rest = divmod(index, 128)
    low = block[upper * 64 + rest % 64] >> rest // 64 * 4 & 15
    high = block[128 + upper * 32 + rest % 32] >> rest // 32 * 2 & 3
    scale: int = struct.unpack_from("<b", block, 192 + index // 16)[0]
    return half(block, 208) * scale * ((low | high << 4) - 32)


FORMATS: dict[str, Callable[[bytes, int], float]] = {
    "F32": lambda block, _: float(struct.unpack("<f", block)[0]),
    "F16": lambda block, _: half(block, 0),
    "BF16": lambda block, _: float(struct.unpack("<f", b"\0\0" + block)[0]),
    "Q4_0": lambda block, i: half(block, 0) * (nibble(block, 2, i) - 8),
    "Q4_1": lambda block, i: half(block, 0) * nibble(block, 4, i) + half(block, 2),
    "Q5_0": lambda b, i: half(b, 0) * (nibble(b, 6, i) + 16 * bit(b, 2, i) - 16),
    "Q5_1": lambda b, i: half(b, 0) * (nibble(b, 8, i) + 16 * bit(b, 4, i)) + half(b, 2),
    "Q8_0": lambda block, i: half(block, 0) * struct.unpack_from("<b", block, 2 + i)[0],
    "Q4_K": q4_k,
    "Q5_K": q5_k,
    "Q6_K": q6_k,
}
SCALES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def test_every_format_has_its_test() -> None:
    """What can be read is what is checked here."""
    assert {GGML_TYPES[kind].name for kind in LAYOUTS} == FORMATS.keys()


@pytest.mark.parametrize("kind", LAYOUTS, ids=lambda kind: GGML_TYPES[kind].name)
def test_numbers_are_those_of_the_format(kind: int) -> None:
    """Random blocks with scales of about one give the numbers that the definition gives."""
    name, count, size = GGML_TYPES[kind]
    blocks = np.random.default_rng(kind).integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for row in blocks:
        for at in SCALES.get(name, (0,)):
            row[at : at + 2] = np.frombuffer(np.float16(0.75).tobytes(), np.uint8)
        if name == "F32":
            row[:] = np.frombuffer(np.float32(0.1).tobytes(), np.uint8)
    found = dequantised(blocks.tobytes(), kind)
    wanted = [FORMATS[name](row.tobytes(), i) for row in blocks for i in range(count)]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(wanted), rtol=1e-6, atol=1e-6)
