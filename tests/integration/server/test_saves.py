"""Saves of a world: what they bring back, what they leave out, and where they may be carried."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from support import Json, Start, of, opened, reply_to, until

from npc_server.app import App
from npc_server.client import Client, Refused, session
from npc_server.store import encode

LATER = "zanzibarra"
SCRIPT: Json = {
    "rules": [
        {"match": "news", "reply": "*smiles* Hay is dear, and Bram knows it. Is it not, Bram?"},
        {"match": "Where am I", "reply": "At the inn, and it rains."},
        {"reply": "Aye, that is so."},
    ]
}
UNLIKE = {"seq", "re", "turn", "timings", "answers", "conversation", "usage", "hearers", "at_ms"}
"""What differs between two games that go the same way: ids, times, and what was cached."""


def alike(events: list[Json]) -> list[Json]:
    """Events without ids and times; deltas joined to what they say."""
    kept = [e for e in events if e["type"] not in {"ack", "reply.delta", "player.presence"}]
    return [{name: value for name, value in e.items() if name not in UNLIKE} for e in kept]


async def exported(client: Client, name: str) -> list[Json]:
    """The parts of a save's file."""
    await client.send("checkpoint.export", name=name)
    parts = [await until(client, "checkpoint.exported")]
    while parts[-1]["part"] < parts[-1]["parts"]:
        parts.append(await until(client, "checkpoint.exported"))
    return parts


def asked_of(app: App) -> list[str]:
    """Every prompt that the model was given since the server began."""
    engine: Any = app.brains.default.engine
    return ["\n".join(m.text for m in request.messages) for request in engine.requests]


async def test_a_loaded_game_goes_the_same_way(start: Start) -> None:
    """After loading, the same words bring the same events, and nothing later is in any mind."""
    async with start(SCRIPT) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client, npcs=["bram", "marta"], conversation="inn")
        await reply_to(client, conversation, "Bram, I am Minsu.")
        await client.ask("context.set", conversation=conversation, facts={"gold": 3})
        saved = await client.ask("checkpoint.save", name="morning")
        assert (saved["conversations"], saved["bytes"] > 0) == (1, True)
        first = await reply_to(client, conversation, "Marta, is there news?")
        await reply_to(client, conversation, f"Bram, the word is {LATER}.")
        await opened(client, conversation="later")
        await client.ask("context.set", conversation=conversation, facts={"gold": 99})

        before = len(asked_of(app))
        await client.send("checkpoint.load", name="morning")
        reset = await until(client, "conversation.reset")
        assert LATER not in str(reset)
        assert next(turn["text"] for turn in reset["tail"]) == "Bram, I am Minsu."
        history = await client.ask("history.get", conversation=conversation)
        assert LATER not in str(history)
        again = await reply_to(client, conversation, "Marta, is there news?")
        assert alike(again) == alike(first)
        asked = "\n".join(asked_of(app)[before:])
        assert LATER not in asked
        assert "gold: 3" in asked
        with pytest.raises(Refused, match="no such conversation"):
            await client.ask("history.get", conversation="later")


async def test_saving_what_was_loaded_gives_the_same_file(start: Start) -> None:
    """Save, go on, load, save: the two files are the same to the byte."""
    async with start(SCRIPT) as app, session(app.address) as client:
        conversation = await opened(client, conversation="inn")
        await reply_to(client, conversation, "Good morning.")
        await reply_to(client, conversation, "And good night.")
        turn = (await client.ask("history.get", conversation=conversation))["turns"][0]["turn"]
        await client.ask("rewind", conversation=conversation, to_turn=turn)
        await client.ask("checkpoint.save", name="one")
        await reply_to(client, conversation, LATER)
        await client.ask("checkpoint.load", name="one")
        await client.ask("checkpoint.save", name="two")
        one, two = await exported(client, "one"), await exported(client, "two")
        assert [part["data"] for part in one] == [part["data"] for part in two]


async def test_a_save_is_carried_to_another_server(start: Start, tmp_path: Path) -> None:
    """As a file it goes to a server of another Redis, and the game goes the same way there."""
    async with start(SCRIPT) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client, conversation="inn")
        await reply_to(client, conversation, "I am Minsu.")
        await client.ask("checkpoint.save", name="trip")
        parts = await exported(client, "trip")
        there = await reply_to(client, conversation, "Where am I?")
    async with (
        start(SCRIPT, data_dir=tmp_path / "elsewhere") as app,
        session(app.address, player="minsu") as client,
    ):
        for part in parts:
            about = {name: part[name] for name in ("name", "part", "parts", "data")}
            done = await client.ask("checkpoint.import", **about)
        assert done["complete"]
        await client.ask("checkpoint.load", name="trip")
        await client.ask("conversation.open", conversation="inn")
        assert alike(await reply_to(client, "inn", "Where am I?")) == alike(there)


async def test_another_world_begins_with_a_save(start: Start) -> None:
    """A fork goes its own way; saves are listed and deleted by their names."""
    async with start(SCRIPT) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client, conversation="inn")
        await reply_to(client, conversation, "I am Minsu.")
        await client.ask("checkpoint.save", name="morning")
        forked = await client.ask("checkpoint.fork", name="morning", world="other")
        assert forked["conversations"] == 1
        with pytest.raises(Refused, match="in use"):
            await client.ask("checkpoint.fork", name="morning", world="other")
        async with session(app.address, player="minsu", world="other") as other:
            again = await other.ask("conversation.open", conversation="inn")
            assert again["conversation"] == "inn"
            await reply_to(other, "inn", LATER)
        assert LATER not in str(await client.ask("history.get", conversation="inn"))
        listed = await client.ask("checkpoint.list")
        assert [save["name"] for save in listed["checkpoints"]] == ["morning"]
        await client.ask("checkpoint.delete", name="morning")
        with pytest.raises(Refused, match="no save"):
            await client.ask("checkpoint.load", name="morning")


async def test_a_player_saves_nothing(start: Start) -> None:
    """Saves are a host's."""
    async with start() as app, session(app.address, role="player") as client:
        with pytest.raises(Refused, match="Only a host"):
            await client.ask("checkpoint.save", name="x")


@pytest.mark.parametrize(
    ("file", "why"),
    [
        (b"hello", "no save"),
        (encode(())[:-4], "damaged"),
        (encode(())[:20] + b"\0" + encode(())[21:], "damaged"),
    ],
)
async def test_a_damaged_file_changes_nothing(start: Start, file: bytes, why: str) -> None:
    """What is no save, or is broken, is refused with the reason; nothing is kept of it."""
    async with start() as app, session(app.address) as client:
        data = base64.b64encode(file).decode()
        with pytest.raises(Refused, match=why):
            await client.ask("checkpoint.import", name="x", part=1, parts=1, data=data)
        assert (await client.ask("checkpoint.list"))["checkpoints"] == []


async def test_a_game_is_loaded_while_an_npc_speaks(start: Start) -> None:
    """The reply in flight ends nowhere: it is no part of the game that was loaded."""
    script = {"rules": [{"reply": "One two three four five six seven.", "piece_ms": 50}]}
    async with start(script) as app, session(app.address) as client:
        conversation = await opened(client, conversation="inn")
        await client.ask("checkpoint.save", name="before")
        await client.send("say", conversation=conversation, text="Count!")
        await until(client, "reply.delta")
        await client.send("checkpoint.load", name="before")
        reset = await until(client, "conversation.reset")
        assert reset["tail"] == []
        events = await reply_to(client, conversation, "Count!")
        assert of(events, "reply.done")[-1]["text"] == "One two three four five six seven."
