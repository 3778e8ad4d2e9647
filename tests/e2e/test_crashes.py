"""Processes that are killed: nothing acknowledged is lost, and nothing is left running."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil
from processes import Servers
from support import eventually, of, opened, reply_to, until

from npc_server.client import session


async def test_a_killed_worker_ends_its_reply_only(servers: Servers, smollm2: Path) -> None:
    """Kill -9 of the worker in mid-reply: the reply ends, and the next say is answered."""
    served = servers.start("--model", str(smollm2))
    async with session(served.address) as client:
        conversation = await opened(client)
        await client.send("say", conversation=conversation, text="Tell me a long story.")
        first = await until(client, "reply.delta")
        served.worker().kill()
        sent = first["text"]
        while (event := await client.receive())["type"] != "scene.idle":
            if event["type"] == "reply.delta":
                sent += event["text"]
            if event["type"] == "reply.done":
                assert event["finish"] in {"stop", "length", "error"}
                assert event["text"] == sent
        events = await reply_to(client, conversation, "Are you still there?")
        assert of(events, "reply.done")[0]["finish"] in {"stop", "length"}


async def test_a_killed_server_keeps_every_acknowledged_turn(servers: Servers) -> None:
    """Kill -9 of the server: its Redis ends with it, and all turns are there at the next start."""
    served = servers.start("--engine", "scripted")
    async with session(served.address) as client:
        conversation = await opened(client, conversation="kept")
        for number in range(5):
            await reply_to(client, conversation, f"Number {number}")
        await client.ask("say", conversation=conversation, text="The last one")
        left = served.children()
        assert left
        served.stop(signal.SIGKILL)

    await eventually(lambda: gone(left))
    again = servers.start("--engine", "scripted")
    async with session(again.address) as client:
        event = await client.ask("conversation.open", conversation="kept")
        said = [e["text"] for e in event["tail"] if e["type"] == "turn"]
        assert said == [f"Number {n}" for n in range(5)] + ["The last one"]
        ends = of(event["tail"], "reply.done")
        assert event.get("reply") or len(ends) == 6
        if event.get("reply"):
            # It is said anew, from its beginning.
            last = [each async for each in client.until_idle()]
            assert of(last, "reply.started")[0]["attempt"] == 2
            assert of(last, "reply.done")[0]["turn"] == event["reply"]
        events = await reply_to(client, "kept", "And on")
        assert of(events, "reply.done")[0]["finish"] == "stop"


async def gone(processes: list[psutil.Process]) -> bool:
    """Whether none of these runs any more."""
    return not any(
        p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes if p.is_running()
    )


async def test_sigterm_leaves_nothing(servers: Servers, smollm2: Path) -> None:
    """SIGTERM ends the server with 0 and leaves neither worker nor Redis."""
    served = servers.start("--model", str(smollm2))
    async with session(served.address) as client:
        await opened(client)
        left = served.children()
        assert len(left) >= 2
        assert await asyncio.to_thread(served.stop) == 0
    await eventually(lambda: gone(left))
    assert not list(served.data.rglob("*.sock"))


async def test_a_killed_worker_while_idle_comes_back(servers: Servers, smollm2: Path) -> None:
    """Kill -9 of an idle worker: the next say is answered by a new one."""
    served = servers.start("--model", str(smollm2))
    async with session(served.address) as client:
        conversation = await opened(client)
        old = served.worker()
        old.kill()
        events = await reply_to(client, conversation, "Hello?")
        assert of(events, "reply.done")[0]["finish"] in {"stop", "length"}
        assert served.worker().pid != old.pid
