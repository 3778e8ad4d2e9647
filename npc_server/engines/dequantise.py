"""PURE. The numbers of quantised weights; layouts as in the ggml project.

A block is one row of bytes here: first its scales, then packed integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from npc_server.engines.ggml_types import GGML_TYPES

Blocks = NDArray[np.uint8]
Numbers = NDArray[np.float32]


def dequantised(data: bytes, kind: int) -> Numbers:
    """The numbers of a piece of a tensor.

    Args:
        data: Whole blocks.
        kind: The ggml type; a key of ``LAYOUTS``.
    """
    blocks = np.frombuffer(data, np.uint8).reshape(-1, GGML_TYPES[kind].size)
    return LAYOUTS[kind](blocks).astype(np.float32, copy=False).reshape(-1)


def _half(blocks: Blocks, at: int) -> Numbers:
    """The 16-bit number at a byte of each block, as a column."""
    return blocks[:, at : at + 2].copy().view(np.float16).astype(np.float32)


def _nibbles(packed: Blocks) -> Numbers:
    """The low halves of all bytes, then the high ones."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def _fifth_bits(packed: Blocks) -> Numbers:
    """One bit for each of 32 numbers, as the 16 that it adds."""
    return np.unpackbits(packed, axis=1, bitorder="little").astype(np.float32) * 16


def _q4_0(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * (_nibbles(blocks[:, 2:]) - 8)


def _q4_1(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * _nibbles(blocks[:, 4:]) + _half(blocks, 2)


def _q5_0(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * (_nibbles(blocks[:, 6:]) + _fifth_bits(blocks[:, 2:6]) - 16)


def _q5_1(blocks: Blocks) -> Numbers:
    numbers = _nibbles(blocks[:, 8:]) + _fifth_bits(blocks[:, 4:8])
    return _half(blocks, 0) * numbers + _half(blocks, 2)


def _q8_0(blocks: Blocks) -> Numbers:
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _scales(blocks: Blocks) -> tuple[Numbers, Numbers]:
    """The scale and the offset of each of the 8 parts of a K block, packed into 6 bits each."""
    packed = blocks[:, 4:16]
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate([low & 63, (rest & 15) | (low >> 6 << 4)], axis=1)
    offsets = np.concatenate([high & 63, (rest >> 4) | (high >> 6 << 4)], axis=1)
    return _half(blocks, 0) * scales, _half(blocks, 2) * offsets


def _parts(packed: Blocks) -> Numbers:
    """The 8 parts of 32 numbers each: low and high halves of 32 bytes in turn."""
    grouped = packed.reshape(-1, 4, 32)
    halves = np.stack([grouped & 15, grouped >> 4], axis=2)
    return halves.reshape(-1, 8, 32).astype(np.float32)


def _q4_k(blocks: Blocks) -> Numbers:
    scales, offsets = _scales(blocks)
    return scales[:, :, None] * _parts(blocks[:, 16:]) - offsets[:, :, None]


def _q5_k(blocks: Blocks) -> Numbers:
    scales, offsets = _scales(blocks)
    bits = blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None] & 1
    return scales[:, :, None] * (_parts(blocks[:, 48:]) + bits * 16.0) - offsets[:, :, None]


def _q6_k(blocks: Blocks) -> Numbers:
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8)[:, None] & 15
    shifts = np.array([0, 2, 4, 6], np.uint8)[:, None]
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts & 3
    numbers = low.reshape(-1, 16, 16) | high.reshape(-1, 16, 16) << 4
    scales = blocks[:, 192:208].view(np.int8)[:, :, None].astype(np.float32)
    return _half(blocks, 208)[:, :, None] * scales * (numbers.astype(np.float32) - 32)


def _bf16(blocks: Blocks) -> Numbers:
    wide = blocks.copy().view(np.uint16).astype(np.uint32) << 16
    return wide.view(np.float32)


LAYOUTS: Mapping[int, Callable[[Blocks], Numbers]] = {
    0: lambda blocks: blocks.copy().view(np.float32),
    1: lambda blocks: _half(blocks, 0),
    2: _q4_0,
    3: _q4_1,
    6: _q5_0,
    7: _q5_1,
    8: _q8_0,
    12: _q4_k,
    13: _q5_k,
    14: _q6_k,
    30: _bf16,
}
"""How to read each type of weights, by its number."""
