"""Processes that are killed: nothing acknowledged is lost, and nothing is left running."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil
import yaml
from processes import Servers
from support import Json, eventually, of, opened, reply_to, until

from npc_server.client import session

SLOW: Json = {
    "match": "The last one",
    "reply": "This is what I say slowly, word after word, since it is the last.",
    "piece_ms": 150,
}


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


async def test_a_killed_server_keeps_every_acknowledged_turn(
    servers: Servers, tmp_path: Path
) -> None:
    """Kill -9 of the server: its Redis ends with it, and all turns are there at the next start.

    The reply that it was saying is said anew, in a second attempt, as soon as its player is back.
    """
    script = tmp_path / "script.yaml"
    script.write_text(yaml.safe_dump({"rules": [SLOW, {"reply": "Yes."}]}))
    served = servers.start("--engine", "scripted", NPC_SCRIPT=str(script))
    async with session(served.address, player="minsu") as client:
        conversation = await opened(client, conversation="kept")
        for number in range(5):
            await reply_to(client, conversation, f"Number {number}")
        await client.ask("say", conversation=conversation, text="The last one")
        begun = await until(client, "reply.started")
        await until(client, "reply.delta")
        left = served.children()
        assert left
        served.stop(signal.SIGKILL)

    await eventually(lambda: gone(left))
    again = servers.start("--engine", "scripted", NPC_SCRIPT=str(script))
    token, last = client.welcome["resume"], {"kept": begun["seq"]}
    async with session(again.address, player="minsu", resume=token, last=last) as client:
        assert client.welcome["resumed"]
        events = [event async for event in client.until_idle()]
        (anew,) = of(events, "reply.started")
        assert (anew["turn"], anew["attempt"]) == (begun["turn"], 2)
        text = "".join(event["text"] for event in of(events, "reply.delta"))
        (done,) = of(events, "reply.done")
        assert (done["text"], done["finish"], text) == (SLOW["reply"], "stop", SLOW["reply"])
        history = await client.ask("history.get", conversation="kept")
        said = [turn["text"] for turn in history["turns"] if turn["kind"] == "say"]
        assert said == [f"Number {n}" for n in range(5)] + ["The last one"]
        assert len(history["turns"]) == 12
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
