"""What waits for a client is bounded, joined and written in order."""

import asyncio

import orjson
import pytest

from npc_server.config import Limits
from npc_server.protocol.events import Pong, ReplyDelta
from npc_server.server.outbox import Outbox, Slow


def delta(text: str, turn: str = "t") -> ReplyDelta:
    return ReplyDelta(conversation="c", turn=turn, text=text)


async def written(outbox: Outbox) -> list[dict[str, object]]:
    sent: list[dict[str, object]] = []

    async def send(payload: bytes) -> None:
        sent.append(orjson.loads(payload))

    writer = asyncio.create_task(outbox.write_to(send))
    await outbox.drained()
    writer.cancel()
    return sent


async def test_waiting_deltas_of_a_turn_are_joined() -> None:
    """Deltas that wait behind each other become one; another turn's, or one behind it, do not."""
    outbox = Outbox(Limits(), 1)
    for event in (delta("a"), delta("b"), delta("c", "u"), Pong(server_time=1), delta("d", "u")):
        outbox.put(event)
    sent = await written(outbox)
    assert [e.get("text") for e in sent] == ["ab", "c", None, "d"]


async def test_what_can_be_written_at_once_does_not_wait() -> None:
    """Nothing overtakes what waits: the writer has to write that before."""
    sent: list[bytes] = []
    free = True

    def write_now(payload: bytes) -> bool:
        if free:
            sent.append(payload)
        return free

    outbox = Outbox(Limits(), 1, write_now)
    outbox.put(delta("a"))
    free = False
    outbox.put(delta("b"))
    free = True
    outbox.put(delta("c"))
    assert [orjson.loads(payload)["text"] for payload in sent] == ["a"]
    assert [e["text"] for e in await written(outbox)] == ["bc"]
    outbox.put(delta("d"))
    assert [orjson.loads(payload)["text"] for payload in sent] == ["a", "d"]


async def test_nothing_overtakes_a_write_that_is_blocked() -> None:
    """While the writer waits for the client, the next event waits behind it."""
    sent: list[str] = []
    free, go = False, asyncio.Event()

    async def send(payload: bytes) -> None:
        await go.wait()
        sent.append(orjson.loads(payload)["text"])

    def write_now(payload: bytes) -> bool:
        if free:
            sent.append(orjson.loads(payload)["text"])
        return free

    outbox = Outbox(Limits(), 1, write_now)
    writer = asyncio.create_task(outbox.write_to(send))
    outbox.put(delta("a"))
    await asyncio.sleep(0)
    free = True
    outbox.put(delta("b"))
    go.set()
    await outbox.drained()
    writer.cancel()
    assert sent == ["a", "b"]


async def test_deltas_do_not_count_as_messages() -> None:
    """Many deltas between few messages do not overflow; many messages do."""
    outbox = Outbox(Limits(outbox_messages=8), 1)
    for number in range(8):
        outbox.put(Pong(server_time=number))
        for _ in range(50):
            outbox.put(delta("x"))
    assert not outbox.overflowing
    outbox.put(Pong(server_time=9))
    assert outbox.overflowing


async def test_an_overflow_ends_the_writer() -> None:
    """Past its bounds in bytes the outbox takes no more and its writer says why."""
    outbox = Outbox(Limits(outbox_bytes=65_536), 1)
    for _ in range(10):
        outbox.put(delta("x" * 10_000))
    with pytest.raises(Slow):
        await written_or_raised(outbox)


async def written_or_raised(outbox: Outbox) -> None:
    async def send(payload: bytes) -> None:
        del payload

    await outbox.write_to(send)


async def test_a_blocked_write_ends_the_writer() -> None:
    """A write that does not end in time is a slow client."""
    outbox = Outbox(Limits(), 0.01)
    outbox.put(Pong(server_time=1))

    async def send(payload: bytes) -> None:
        del payload
        await asyncio.Event().wait()

    with pytest.raises(Slow, match="blocked"):
        await outbox.write_to(send)


async def test_a_closed_outbox_takes_nothing() -> None:
    """Once nobody writes, nothing waits and nobody waits for it."""
    outbox = Outbox(Limits(), 1)
    outbox.put(Pong(server_time=1))
    outbox.close()
    outbox.put(Pong(server_time=2))
    async with asyncio.timeout(1):
        await outbox.drained()
    assert await written(outbox) == []
