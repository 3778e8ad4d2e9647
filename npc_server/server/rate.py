"""How much one client may ask for in a while."""

from __future__ import annotations

from collections.abc import Callable

from npc_server.errors import RateLimited


class TokenBucket:
    """Lets through ``rate`` a second, and ``burst`` at once.

    Args:
        rate: Tokens that flow in a second.
        burst: Tokens that it holds, and begins with.
        monotonic: Seconds that never go back.
    """

    def __init__(self, rate: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = burst
        self._at = monotonic()

    def take(self, what: str, amount: float = 1) -> None:
        """Take tokens out.

        Raises:
            RateLimited: There are too few; says when there will be enough.
        """
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < amount:
            wait_ms = int((amount - self._tokens) / self._rate * 1000) + 1
            raise RateLimited(
                f"Too many {what}: {self._rate:g} a second are allowed. Wait {wait_ms} ms.",
                retry_after_ms=wait_ms,
            )
        self._tokens -= amount
