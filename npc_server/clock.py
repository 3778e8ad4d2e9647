"""Time and chance, injected wherever they are needed so that tests can hold them still."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Where time comes from.

    Attributes:
        wall_ms: Unix time in milliseconds.
        monotonic: Seconds from any start, never going back; for durations.
        sleep: Waits for some seconds.
    """

    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


def uuid7(unix_ms: int, random_bits: int) -> str:
    """A UUID of version 7 (RFC 9562, section 5.7).

    Args:
        unix_ms: Unix time in milliseconds, 48 bits.
        random_bits: At least 74 random bits.
    """
    value = (unix_ms & (1 << 48) - 1) << 80
    value |= 7 << 76 | (random_bits >> 62 & 0xFFF) << 64
    value |= 2 << 62 | random_bits & (1 << 62) - 1
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


@dataclass(frozen=True, slots=True)
class Ids:
    """Makes ids: UUIDv7 from a clock and a source of random bits."""

    clock: Clock = Clock()
    bits: Callable[[int], int] = secrets.randbits

    def new(self) -> str:
        """An id that was never used before."""
        return uuid7(self.clock.wall_ms(), self.bits(74))
