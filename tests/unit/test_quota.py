"""Buckets and accounts bound what a client, a player and a key use up."""

import pytest

from npc_server.config import Quota, Settings
from npc_server.errors import RateLimited
from npc_server.quota import REMEMBERED, Quotas, TokenBucket


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_lets_a_burst_through_and_then_its_rate() -> None:
    """After a burst, one more gets through for each that the rate gives; the wait is told."""
    time = Time()
    bucket = TokenBucket(2, 3, time)
    for _ in range(3):
        bucket.take("commands")
    with pytest.raises(RateLimited) as caught:
        bucket.take("commands")
    assert caught.value.retry_after_ms == 501
    time.now = 0.5
    bucket.take("commands")
    time.now = 100
    for _ in range(3):
        bucket.take("commands")
    with pytest.raises(RateLimited):
        bucket.take("commands")


def quotas(time: Time, **player: int) -> Quotas:
    key = Quota(tokens_per_minute=600, replies_at_once=3, conversations_per_hour=100)
    return Quotas(Settings(player_quota=Quota(**player), key_quota=key), time)


def test_replies_at_once_are_counted_per_player() -> None:
    """A player at its bound waits; one whose reply is being replaced does not."""
    account = quotas(Time(), replies_at_once=1)
    with account.replying("k", "k:a"):
        with pytest.raises(RateLimited, match="1 replies"):
            account.speaking("k", "k:a", replaces=0)
        account.speaking("k", "k:a", replaces=1)
        account.speaking("k", "k:b", replaces=0)
    account.speaking("k", "k:a", replaces=0)


def test_a_key_pays_for_all_its_players() -> None:
    """Three players of a key with three replies at once leave none for a fourth."""
    account = quotas(Time())
    with account.replying("k", "k:a"), account.replying("k", "k:b"), account.replying("k", "k:c"):
        with pytest.raises(RateLimited):
            account.speaking("k", "k:d", replaces=0)
        account.speaking("", ":d", replaces=0)


def test_tokens_are_paid_back_over_time() -> None:
    """Who overdraws its minute waits until the bucket is above zero again."""
    time = Time()
    account = quotas(time, tokens_per_minute=60)
    with account.replying("", ":a") as spend:
        spend(90)
    with pytest.raises(RateLimited):
        account.speaking("", ":a", replaces=0)
    time.now = 31
    account.speaking("", ":a", replaces=0)


def test_new_conversations_are_bounded_by_the_hour() -> None:
    """The third of two allowed conversations is refused."""
    account = quotas(Time(), conversations_per_hour=2)
    account.opening("", ":a")
    account.opening("", ":a")
    with pytest.raises(RateLimited, match="new conversations"):
        account.opening("", ":a")


def test_accounts_are_bounded() -> None:
    """More players than are remembered do not make the server grow."""
    account = quotas(Time())
    for number in range(REMEMBERED + 50):
        account.opening("", f":{number}")
    assert len(account._accounts) == REMEMBERED
