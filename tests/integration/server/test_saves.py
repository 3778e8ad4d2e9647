"""Saves of a world: what is loaded is the world as it was, and nothing of what came later."""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from support import Json, Start, eventually, of, opened, reply_to, until

from npc_server import saves
from npc_server.app import App
from npc_server.client import Client, Refused, session
from npc_server.store import checkpoints

INPUTS = (
    "Bram, what is the weather like?",
    "And what do you think, Mina?",
    "I have a plan. Who wants to hear it?",
    "Never mind.",
)
COUNTING = "One two three four five six seven eight nine ten."
SLOW = {"rules": [{"reply": COUNTING, "piece_ms": 30}]}


async def play(client: Client, conversation: str) -> list[Json]:
    """The same input every time: everything that comes of it."""
    about = {"conversation": conversation}
    events = await reply_to(client, conversation, INPUTS[0])
    (done,) = of(events, "reply.done")
    await client.send("regenerate", turn=done["turn"], **about)
    events += [event async for event in client.until_idle()]
    for text in INPUTS[1:]:
        events += await reply_to(client, conversation, text)
    await client.send("event", text="The bell rings.", respond="must", **about)
    events += [event async for event in client.until_idle()]
    await client.send("context.set", facts={"bell": True}, **about)
    await client.send("npc.set", member="bram", mood="startled", **about)
    events += await reply_to(client, conversation, "What was that?")
    first = of(events, "turn")[0]["turn"]
    await client.send("rewind", to_turn=first, **about)
    events.append(await until(client, "conversation.reset"))
    return events + await reply_to(client, conversation, "Once more.")


def normal(events: list[Json]) -> list[Json]:
    """Events with ids numbered as they come, without times, ``seq`` and what was cached."""
    numbers: dict[str, str] = {}

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: walk(v, k) for k, v in value.items() if k not in _PASSING}
        if isinstance(value, list):
            return [walk(item, key) for item in value]
        if key in _IDS and value != "main":
            return numbers.setdefault(value, f"#{len(numbers)}")
        return value

    return [walk(event) for event in events if event["type"] != "ack"]


_PASSING = {"seq", "re", "at_ms", "timings", "cached", "server_time", "call"}
_IDS = {"turn", "answers", "replaces", "replaced_by", "branch", "branches", "conversation"}


async def begun(client: Client, **fields: Any) -> str:
    """A conversation with a past, and with whatever a save should hold."""
    conversation = await opened(client, npcs=["bram", "mina"], **fields)
    about = {"conversation": conversation}
    await reply_to(client, conversation, "Good morning, Bram.")
    await client.ask("context.set", facts={"gold": 3, "player.name": "Minsu"}, **about)
    await client.ask("npc.set", member="mina", mood="sleepy", affinity=0.5, **about)
    await reply_to(client, conversation, "Are you awake, Mina?")
    return conversation


async def exported(client: Client, name: str) -> bytes:
    """The file of a save."""
    command = await client.send("checkpoint.export", name=name)
    parts: list[bytes] = []
    while True:
        part = await until(client, "checkpoint.exported", re=command)
        parts.append(base64.b64decode(part["data"]))
        assert part["part"] == len(parts)
        if part["part"] == part["parts"]:
            return b"".join(parts)


def parts_of(file: bytes) -> Iterator[Json]:
    """The fields of the commands that import a file."""
    chunks = [file[at : at + saves.PART] for at in range(0, len(file), saves.PART)] or [b""]
    for part, chunk in enumerate(chunks, start=1):
        data = base64.b64encode(chunk).decode()
        yield {"part": part, "parts": len(chunks), "data": data}


async def take(client: Client, name: str, file: bytes) -> Json:
    """Import a file; the last answer."""
    answer: Json = {}
    for fields in parts_of(file):
        answer = await client.ask("checkpoint.import", name=name, **fields)
    return answer


async def test_the_same_input_has_the_same_events_again(app: App, client: Client) -> None:
    """After a load the same input leads to the same events, again and again."""
    conversation = await begun(client)
    saved = await client.ask("checkpoint.save", name="morning")
    assert saved["conversations"] == 1
    first = normal(await play(client, conversation))
    assert len(of(first, "reply.done")) >= 7
    for _ in range(2):
        loaded = await client.ask("checkpoint.load", name="morning")
        assert loaded["conversations"] == 1
        assert normal(await play(client, conversation)) == first


async def test_another_server_goes_on_in_the_same_way(start: Start, tmp_path: Path) -> None:
    """Exported to a new server with a Redis of its own, the game goes on with the same events."""
    async with start() as app, session(app.address, player="minsu") as client:
        conversation = await begun(client)
        await client.ask("checkpoint.save", name="morning")
        first = normal(await play(client, conversation))
        file = await exported(client, "morning")
    async with (
        start(data_dir=tmp_path / "other") as app,
        session(app.address, player="minsu") as client,
    ):
        answer = await take(client, "moved", file)
        assert (answer["complete"], answer["name"]) == (True, "moved")
        await client.ask("checkpoint.load", name="moved")
        event = await client.ask("conversation.open", conversation=conversation)
        assert event["state"][1] == {
            "member": "mina",
            "emotion": event["state"][1]["emotion"],
            "affinity": 0.5,
            "mood": "sleepy",
        }
        assert normal(await play(client, conversation)) == first


async def test_a_save_of_what_was_loaded_is_the_same_file(start: Start, tmp_path: Path) -> None:
    """Save, load, save: the same bytes; here, on another server, and after the later game."""
    async with start() as app, session(app.address, player="minsu") as client:
        for name in ("river", "mill", "bridge"):
            await begun(client, conversation=name)
        await play(client, "mill")
        await client.ask("checkpoint.save", name="one")
        one = await exported(client, "one")
        await play(client, "river")
        await client.ask("checkpoint.load", name="one")
        await client.ask("checkpoint.save", name="two")
        assert await exported(client, "two") == one
    async with (
        start(data_dir=tmp_path / "other") as app,
        session(app.address, player="minsu") as client,
    ):
        await take(client, "three", one)
        assert await exported(client, "three") == one
        await client.ask("checkpoint.load", name="three")
        await client.ask("checkpoint.save", name="four")
        assert await exported(client, "four") == one


async def test_nothing_of_the_later_game_is_left(app: App, client: Client) -> None:
    """Words, facts, moods, members and conversations of the later game are in no prompt, no list.

    A player who came later is told that the conversation is closed, and is in it no more.
    """
    conversation = await begun(client)
    await client.ask("checkpoint.save", name="morning")
    about = {"conversation": conversation}
    invite = (await client.ask("conversation.open", **about))["invite"]
    await reply_to(client, conversation, "The canary sings.")
    await client.ask("context.set", facts={"gold": 4, "bird": "a canary"}, **about)
    await client.ask("npc.set", member="bram", mood="fond of the canary", **about)
    await client.ask("conversation.set", instructions="Speak of the canary.", **about)
    await client.ask("scene.set", objects=[{"name": "cage", "text": "A canary in it."}], **about)
    later = await opened(client, conversation="later")
    await reply_to(client, later, "Where is the canary?")
    async with session(app.address, player="jiwoo", role="player") as jiwoo:
        await jiwoo.ask("conversation.open", conversation=conversation, invite=invite)
        await jiwoo.send("say", conversation=conversation, text="Canary!")
        await until(jiwoo, "scene.idle")
        command = await client.send("checkpoint.load", name="morning")
        closed = await until(client, "conversation.closed")
        assert closed["conversation"] == "later"
        reset = await until(client, "conversation.reset")
        await until(client, "checkpoint.loaded", re=command)
        assert (await until(jiwoo, "conversation.closed"))["conversation"] == conversation
        with pytest.raises(Refused, match="no such conversation"):
            await jiwoo.ask("say", conversation=conversation, text="Am I here?")
    assert "canary" not in str(reset).lower()
    assert [member["member"] for member in reset["cast"]] == ["minsu", "bram", "mina"]
    with pytest.raises(Refused, match="no such conversation"):
        await client.ask("say", conversation="later", text="Hello?")
    assert await app.store.conversations("default") == [conversation]
    await reply_to(client, conversation, "What have you heard, Bram?")
    prompt = str(app.engine.requests[-1].messages)  # type: ignore[attr-defined]
    assert "canary" not in prompt.lower()
    assert "gold: 3" in prompt
    assert "Good morning, Bram." in prompt
    with pytest.raises(Refused):
        await jiwoo_history(app, conversation)


async def jiwoo_history(app: App, conversation: str) -> None:
    """The later player looks into the history of the earlier game."""
    async with session(app.address, player="jiwoo", role="player") as jiwoo:
        await jiwoo.ask("history.get", conversation=conversation)


async def test_engines_forget_the_later_game(start: Start) -> None:
    """What engines hold of a conversation goes too, also where nobody has it open any more."""
    async with start() as app:
        async with session(app.address, player="minsu") as client:
            conversation = await begun(client)
            await client.ask("checkpoint.save", name="morning")
            await reply_to(client, conversation, "Bram, the canary sings.")
        async with session(app.address, player="minsu") as client:
            assert app.dialogue.rooms.known("default", conversation) is None
            await client.ask("checkpoint.load", name="morning")
            held = app.engine._prompts  # type: ignore[attr-defined]
            assert not [affinity for affinity in held if conversation in affinity]


async def test_branches_are_restored(app: App, client: Client) -> None:
    """A game that was rewound before it was saved can be returned to after a load."""
    conversation = await begun(client)
    about = {"conversation": conversation}
    events = await reply_to(client, conversation, "I choose the left path.")
    chosen = of(events, "turn")[0]["turn"]
    history = await client.ask("history.get", **about)
    await client.ask("rewind", to_turn=history["turns"][0]["turn"], **about)
    await reply_to(client, conversation, "I choose the right path.")
    await client.ask("checkpoint.save", name="fork")
    await reply_to(client, conversation, "Later.")
    await client.send("checkpoint.load", name="fork")
    reset = await until(client, "conversation.reset")
    assert len(reset["branches"]) == 1
    texts = [turn["text"] for turn in reset["tail"]]
    assert "I choose the right path." in texts
    assert "I choose the left path." not in texts
    await client.send("rewind", branch="main", **about)
    back = await until(client, "conversation.reset")
    assert chosen in [turn["turn"] for turn in back["tail"]]


async def test_the_budget_of_talk_is_restored(start: Start) -> None:
    """When NPCs spoke unasked is part of a save: a load gives no new budget, and takes none."""
    async with start() as app, session(app.address, player="minsu") as client:
        conversation = await begun(client)
        state = await app.store.load("default", conversation)
        assert state is not None
        await client.ask("checkpoint.save", name="morning")
        await play(client, conversation)
        await client.ask("checkpoint.load", name="morning")
        again = await app.store.load("default", conversation)
        assert again is not None
        for field in ("unasked", "seed", "facts", "npcs", "around", "next", "invite", "created_ms"):
            assert getattr(again, field) == getattr(state, field), field
        assert (again.revision, again.seq) > (state.revision, state.seq)


async def test_a_world_is_forked(app: App, client: Client) -> None:
    """A save begins another world, whose game goes on apart; one in use is refused."""
    conversation = await begun(client)
    await client.ask("checkpoint.save", name="morning")
    first = normal(await play(client, conversation))
    answer = await client.ask("checkpoint.fork", name="morning", world="what-if")
    assert (answer["world"], answer["conversations"]) == ("what-if", 1)
    assert await app.store.conversations("what-if") == [conversation]
    assert await app.store.conversations_of("what-if", ":minsu") == [conversation]
    async with session(app.address, player="minsu", world="what-if") as other:
        await other.ask("conversation.open", conversation=conversation)
        assert normal(await play(other, conversation)) == first
        assert (await other.ask("checkpoint.list"))["checkpoints"] == []
        saved = await other.ask("checkpoint.save", name="here")
        assert saved["conversations"] == 1
    history = await client.ask("history.get", conversation=conversation)
    assert history["turns"][-2]["text"] == "Once more."
    with pytest.raises(Refused, match="in use"):
        await client.ask("checkpoint.fork", name="morning", world="what-if")


async def test_saves_are_listed_and_deleted(app: App, client: Client) -> None:
    """The newest comes first; one that is saved again is replaced; what is deleted is gone."""
    await begun(client)
    for name in ("a", "b", "a"):
        await client.ask("checkpoint.save", name=name)
        await asyncio.sleep(0.002)
    listed = (await client.ask("checkpoint.list"))["checkpoints"]
    assert [save["name"] for save in listed] == ["a", "b"]
    for save in listed:
        assert save["bytes"] == len(await exported(client, save["name"]))
        assert save["conversations"] == 1
    await client.ask("checkpoint.delete", name="b")
    assert [s["name"] for s in (await client.ask("checkpoint.list"))["checkpoints"]] == ["a"]
    for command in ("load", "delete", "export"):
        with pytest.raises(Refused, match="no save 'b'"):
            await client.ask(f"checkpoint.{command}", name="b")
    with pytest.raises(Refused, match="no save 'b'"):
        await client.ask("checkpoint.fork", name="b", world="elsewhere")


async def test_there_are_so_many_saves_at_most(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more than the limit is refused; one of the same name is not one more."""
    monkeypatch.setattr(checkpoints, "SAVES", 2)
    for name in ("a", "b", "a"):
        await client.ask("checkpoint.save", name=name)
    with pytest.raises(Refused, match="which is the limit"):
        await client.ask("checkpoint.save", name="c")


async def test_players_may_not_touch_saves(app: App) -> None:
    """Only a host saves, loads, lists, forks, deletes, exports and imports."""
    async with session(app.address, player="minsu", role="player") as player:
        for command in ("save", "load", "delete", "list", "export"):
            with pytest.raises(Refused, match="host"):
                await player.ask(f"checkpoint.{command}", name="x")
        with pytest.raises(Refused, match="host"):
            await player.ask("checkpoint.fork", name="x", world="y")
        with pytest.raises(Refused, match="host"):
            await player.ask("checkpoint.import", name="x", part=1, parts=1, data="")


def newer(file: bytes) -> bytes:
    """A save as a later release would write it."""
    body = orjson.loads(zlib.decompress(file[len(checkpoints.MAGIC) :]))
    return checkpoints.MAGIC + zlib.compress(orjson.dumps({**body, "v": 99}))


def wrong(file: bytes) -> bytes:
    """A save in which a turn's text is a number."""
    body = orjson.loads(zlib.decompress(file[len(checkpoints.MAGIC) :]))
    turn = orjson.loads(body["conversations"][0]["turns"][0])
    body["conversations"][0]["turns"][0] = orjson.dumps({**turn, "text": 7}).decode()
    return checkpoints.MAGIC + zlib.compress(orjson.dumps(body))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: b"", "no save of npc-server"),
        (lambda file: b"PK" + file[2:], "no save of npc-server"),
        (lambda file: file[: len(file) // 2], "damaged"),
        (lambda file: file[:-1], "damaged"),
        (lambda file: file + b"more", "damaged"),
        (lambda file: file[:60] + bytes([file[60] ^ 1]) + file[61:], "damaged"),
        (lambda file: checkpoints.MAGIC + zlib.compress(b"[]"), "damaged"),
        (lambda file: checkpoints.MAGIC + zlib.compress(b'{"v":1,"conversations":[7]}'), "damaged"),
        (wrong, "damaged"),
        (lambda file: checkpoints.MAGIC + zlib.compress(bytes(2**27)), "unpacked"),
        (newer, "newer release"),
    ],
    ids=[
        "empty",
        "foreign",
        "half",
        "truncated",
        "longer",
        "flipped",
        "list",
        "number",
        "wrong",
        "bomb",
        "newer",
    ],
)
async def test_a_bad_file_is_refused(app: App, client: Client, damage: Any, message: str) -> None:
    """Damaged, truncated, foreign, too large or newer: the error says so, and nothing changes."""
    conversation = await begun(client)
    await client.ask("checkpoint.save", name="good")
    file = await exported(client, "good")
    before = await app.store.load("default", conversation)
    with pytest.raises(Refused, match=message):
        await take(client, "bad", damage(file))
    assert [s["name"] for s in (await client.ask("checkpoint.list"))["checkpoints"]] == ["good"]
    about = checkpoints.About("bad", 1, 1, 1)
    await app.store.checkpoints.put("default", about, damage(file))
    with pytest.raises(Refused, match=message):
        await client.ask("checkpoint.load", name="bad")
    assert await app.store.load("default", conversation) == before
    assert of(await reply_to(client, conversation, "Still here?"), "reply.done")


async def test_parts_come_in_order(app: App, client: Client) -> None:
    """Parts out of order, no base64 and too much are refused; after that one begins anew."""
    await begun(client)
    await client.ask("checkpoint.save", name="a")
    file = await exported(client, "a")
    half = base64.b64encode(file[:100]).decode()
    rest = base64.b64encode(file[100:]).decode()
    with pytest.raises(Refused, match="in order"):
        await client.ask("checkpoint.import", name="b", part=2, parts=2, data=rest)
    with pytest.raises(Refused, match="base64"):
        await client.ask("checkpoint.import", name="b", part=1, parts=1, data="?")
    first = await client.ask("checkpoint.import", name="b", part=1, parts=2, data=half)
    assert not first["complete"]
    answer = await client.ask("checkpoint.import", name="b", part=2, parts=2, data=rest)
    assert answer["complete"]
    assert await exported(client, "b") == file


async def test_a_large_save_goes_out_and_comes_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More parts than a slow client may have waiting: it is exported and imported all the same."""
    monkeypatch.setattr(saves, "PART", 16)
    await begun(client)
    await client.ask("checkpoint.save", name="a")
    file = await exported(client, "a")
    monkeypatch.setattr(saves, "PART", len(file) // 300)
    again = await exported(client, "a")
    assert again == file
    monkeypatch.setattr(saves, "LARGEST_SAVE", len(file) - 1)
    with pytest.raises(Refused, match="larger than"):
        await take(client, "b", file)


async def test_a_load_ends_the_reply_that_is_being_said(start: Start) -> None:
    """Loading in mid-reply: the reply is no more, and its NPC knows nothing of it."""
    async with start(SLOW) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        await client.ask("checkpoint.save", name="before")
        await client.send("say", conversation=conversation, text="Count, canary!")
        await until(client, "reply.delta")
        await client.send("checkpoint.load", name="before")
        reset = await until(client, "conversation.reset")
        assert reset["tail"] == []
        events = await reply_to(client, conversation, "Again!")
        assert [event["text"] for event in of(events, "turn")] == ["Again!"]
        (done,) = of(events, "reply.done")
        assert (done["text"], done["finish"]) == (COUNTING, "stop")
        assert "canary" not in str(app.engine.requests[-1].messages)  # type: ignore[attr-defined]


async def test_a_reply_in_flight_is_not_saved(start: Start) -> None:
    """A save in mid-reply holds what was said before; one in mid-regenerate holds the old reply."""
    async with start(SLOW) as app, session(app.address, player="minsu") as client:
        conversation = await opened(client)
        about = {"conversation": conversation}
        events = await reply_to(client, conversation, "Count!")
        (done,) = of(events, "reply.done")
        await client.send("regenerate", turn=done["turn"], **about)
        await until(client, "reply.delta")
        await client.ask("checkpoint.save", name="regenerating")
        await until(client, "scene.idle")
        await client.send("say", text="And again!", **about)
        await until(client, "reply.delta")
        await client.ask("checkpoint.save", name="speaking")
        await until(client, "scene.idle")
        await client.send("checkpoint.load", name="speaking")
        texts = [t["text"] for t in (await until(client, "conversation.reset"))["tail"]]
        assert texts == ["Count!", COUNTING, "And again!"]
        await client.send("checkpoint.load", name="regenerating")
        (said, reply) = (await until(client, "conversation.reset"))["tail"]
        assert (said["text"], reply["text"], reply["turn"]) == ("Count!", COUNTING, done["turn"])


async def test_saving_amid_a_storm_of_commits(app: App) -> None:
    """While others talk as fast as they can, each conversation is saved as it was at one moment."""
    async with session(app.address, player="host") as host, asyncio.TaskGroup() as group:
        stop = asyncio.Event()

        async def talk(number: int) -> None:
            async with session(app.address, player=f"player{number}") as client:
                conversation = await opened(client, conversation=f"talk{number}")
                count = 0
                while not stop.is_set():
                    count += 1
                    await reply_to(client, conversation, f"Number {count}.")

        talks = [group.create_task(talk(number)) for number in range(4)]

        async def talking() -> bool:
            return len(await app.store.conversations("default")) == 4

        await eventually(talking)
        for number in range(8):
            await host.ask("checkpoint.save", name=f"save{number}")
        files = [await exported(host, f"save{number}") for number in range(8)]
        stop.set()
        await asyncio.wait(talks)
        for file in files:
            found = checkpoints.decode(file)
            assert len(found) == 4
            for saved in found:
                indices = [turn.index for turn in saved.turns]
                assert indices == list(range(saved.state.next))
                assert saved.state.reply is None
                said = [turn.text for turn in saved.turns if turn.kind == "say"]
                assert said == [f"Number {n + 1}." for n in range(len(said))]
        for number in (2, 7):
            await host.ask("checkpoint.load", name=f"save{number}")
            await host.ask("checkpoint.save", name="again")
            assert await exported(host, "again") == files[number]
