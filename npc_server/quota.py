"""How much one client, one player and one API key may ask for in a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from npc_server.config import Quota, Settings
from npc_server.errors import RateLimited

REMEMBERED = 10_000
"""How many players and keys are accounted for; the one unseen for longest is dropped first."""


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

    def spend(self, amount: float) -> None:
        """Take out what was used already, even beyond what there is."""
        self._tokens -= amount


@dataclass(slots=True)
class _Account:
    quota: Quota
    opened: TokenBucket
    tokens: TokenBucket
    replies: int = field(default=0)


class Quotas:
    """Accounts of players and keys. A key's account is the sum of its players'.

    Args:
        settings: The quotas.
        monotonic: Seconds that never go back.
    """

    def __init__(self, settings: Settings, monotonic: Callable[[], float]) -> None:
        self._player = settings.player_quota
        self._key = settings.key_quota
        self._monotonic = monotonic
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    def opening(self, namespace: str, ref: str) -> None:
        """A new conversation is to be opened.

        Raises:
            RateLimited: The player or the key opened too many within the hour.
        """
        for account in self._both(namespace, ref):
            account.opened.take("new conversations")

    @contextmanager
    def replying(self, namespace: str, ref: str) -> Iterator[Callable[[int], None]]:
        """A reply is being made; call what is yielded with the tokens that it took."""
        accounts = self._both(namespace, ref)
        for account in accounts:
            account.replies += 1

        def spend(tokens: int) -> None:
            for account in accounts:
                account.tokens.spend(tokens)

        try:
            yield spend
        finally:
            for account in accounts:
                account.replies -= 1

    def speaking(self, namespace: str, ref: str, *, replaces: int) -> None:
        """A reply is to be asked for.

        Args:
            namespace: The key's id.
            ref: The player.
            replaces: How many of the player's replies end by this.

        Raises:
            RateLimited: Too many replies at once, or too many tokens within the minute.
        """
        for account in self._both(namespace, ref):
            if account.replies - replaces >= account.quota.replies_at_once:
                raise RateLimited(
                    f"{account.replies} replies are being made already. Wait for one to end.",
                    retry_after_ms=1_000,
                )
            account.tokens.take("tokens", 0)

    def _both(self, namespace: str, ref: str) -> list[_Account]:
        found = [self._account(f"player {ref}", self._player)]
        return [*found, self._account(f"key {namespace}", self._key)] if namespace else found

    def _account(self, name: str, quota: Quota) -> _Account:
        account = self._accounts.get(name)
        if account is None:
            hourly, per_minute = quota.conversations_per_hour, quota.tokens_per_minute
            account = _Account(
                quota,
                TokenBucket(hourly / 3_600, hourly, self._monotonic),
                TokenBucket(per_minute / 60, per_minute, self._monotonic),
            )
            self._accounts[name] = account
        self._accounts.move_to_end(name)
        if len(self._accounts) > REMEMBERED:
            self._accounts.popitem(last=False)
        return account
