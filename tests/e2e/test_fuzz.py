"""A thousand bad frames: each gets a documented answer, and the server does not grow.

How the slope is computed: all frames are sent five times as a warm-up, while the allocator finds
its size; then they are sent again and the server's resident memory is read after every block of 25.
Of the differences between consecutive readings, the 95 % confidence interval of the mean (Student's
t) has to include zero or lie below it. Now and then the allocator takes a little longer: the
measurement is repeated a few times, and a leak grows in all of them.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

import orjson
import psutil
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from processes import Servers
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from npc_server.protocol.reference import CLOSE_CODES

FRAMES = 1_000
BLOCK = 25
WARM_UPS = 5
MEASUREMENTS = 6
T_95 = 2.02
"""Student's t for 39 degrees of freedom, two-sided 95 %."""
CODES = {"bad_json", "bad_message", "unknown_type", "too_large", "not_found", "conflict"}
HELLO = orjson.dumps({"type": "hello", "id": "h", "protocol": 1, "player": {"id": "p"}}).decode()

json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
types = st.sampled_from(["say", "hello", "conversation.open", "interrupt", "checkpoint.save", "x"])
commands = st.fixed_dictionaries(
    {"type": types | json_value}, optional={"id": json_value, "text": json_value}
)


def as_text(value: Any) -> str:
    return orjson.dumps(value, default=str).decode()


good = commands.map(as_text)
deep = st.integers(1, 3_000).map(lambda n: '{"type":"ping","x":' + "[" * n + "]" * n + "}")
surrogates = st.sampled_from(["\\ud800", "\\udfff x", "\\ud83d"]).map(
    lambda s: '{"type":"say","id":"1","conversation":"c","text":"' + s + '"}'
)
huge = st.integers(4_001, 90_000).map(
    lambda n: '{"type":"say","id":"1","conversation":"c","text":"' + "x" * n + '"}'
)
half = st.tuples(good, st.integers(1, 40)).map(lambda t: t[0][: -t[1]])
frame = st.one_of(good, half, deep, surrogates, huge, st.text(max_size=60), st.binary(max_size=60))


def made(count: int) -> list[str | bytes]:
    """Frames of all kinds, always the same."""
    found: list[str | bytes] = []

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(frame)
    def collect(value: str | bytes) -> None:
        found.append(value)

    collect()
    return (found * 2)[:count]


def growth(sizes: list[int]) -> tuple[float, float]:
    """Bytes of memory that a frame adds, and half of the 95 % interval of that mean."""
    steps = [after - before for before, after in itertools.pairwise(sizes)]
    margin = T_95 * statistics.stdev(steps) / len(steps) ** 0.5
    return statistics.mean(steps) / BLOCK, margin / BLOCK


async def joined(address: str) -> ClientConnection:
    connection = await connect(address, subprotocols=["npc.v1"], max_size=None)  # type: ignore[list-item]
    await connection.send(HELLO)
    await connection.recv()
    return connection


async def answer(connection: ClientConnection, raw: str | bytes) -> str | int:
    """Send a frame and then a ping: the code of the error, or of the close, or ``fine``."""
    seen: str | int = "fine"
    try:
        await connection.send(raw)
        await connection.send('{"type":"ping","t":7}')
        while True:
            event = orjson.loads(await connection.recv())
            if event["type"] == "pong" and event.get("t") == 7:
                return seen
            if event["type"] == "error":
                seen = str(event["code"])
    except ConnectionClosed:
        return connection.close_code or 0


async def test_bad_frames_are_answered_and_leave_no_trace(servers: Servers) -> None:
    """Every frame ends in a documented error or close code; memory has no slope over them."""
    served = servers.start(
        "--engine",
        "scripted",
        NPC_LIMITS__MESSAGES_PER_SECOND="1000000",
        NPC_LIMITS__MESSAGE_BURST="1000000",
        NPC_LIMITS__SIGNALS_PER_SECOND="1000000",
        NPC_LOG_LEVEL="error",
    )
    server = psutil.Process(served.process.pid)
    frames = made(FRAMES)
    seen: set[str | int] = set()
    told: list[str] = []
    connection = await joined(served.address)
    for passed in range(WARM_UPS + MEASUREMENTS):
        sizes: list[int] = [server.memory_info().rss]
        for number, raw in enumerate(frames, start=1):
            code = await answer(connection, raw)
            seen.add(code)
            if isinstance(code, int):
                assert code in CLOSE_CODES
                connection = await joined(served.address)
            if number % BLOCK == 0:
                sizes.append(server.memory_info().rss)
        if passed < WARM_UPS:
            continue
        slope, margin = growth(sizes)
        told.append(f"{slope:.0f} bytes a frame, 95 % within {margin:.0f}")
        if slope <= margin:
            break
    else:
        raise AssertionError(f"memory grew in every pass: {told}")
    await connection.close()
    assert {"bad_json", "bad_message", "unknown_type", "too_large"} <= seen
    assert {code for code in seen if isinstance(code, str)} <= {*CODES, "fine"}
