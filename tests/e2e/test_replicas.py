"""Two servers on one Redis, of which one is killed."""

from __future__ import annotations

from pathlib import Path

import redis_servers
from processes import Servers
from takeovers import Two

KILLS = 3


async def test_the_other_server_takes_over(servers: Servers, tmp_path: Path) -> None:
    """Kill -9 in mid-reply, 3 times: the other server says it anew; nothing is lost or doubled."""
    redis = redis_servers.Server(tmp_path / "redis")
    redis.start()
    try:
        two = Two(servers, redis.url, tmp_path)
        for number in range(KILLS):
            await two.kill(number)
        await two.check()
    finally:
        redis.kill()
