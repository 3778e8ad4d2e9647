"""Two servers on one Redis, of which one is killed, 20 times."""

from __future__ import annotations

from pathlib import Path

import redis_servers
from processes import Servers
from soak_progress import Progress
from takeovers import Two

KILLS, AT_ONCE = 20, 5
SECONDS = 5.0


async def test_20_kills(servers: Servers, tmp_path: Path, progress: Progress) -> None:
    """Kill -9 in mid-reply: within 5 s the other server says it anew; nothing lost or doubled."""
    redis = redis_servers.Server(tmp_path / "redis")
    redis.start()
    try:
        for part in progress.left(KILLS // AT_ONCE):
            redis.ask("FLUSHALL")
            two = Two(servers, redis.url, tmp_path)
            for number in range(AT_ONCE):
                await two.kill(number + part)
            await two.check()
            servers.end()
            assert max(two.seconds) < SECONDS, two.seconds
    finally:
        redis.kill()
