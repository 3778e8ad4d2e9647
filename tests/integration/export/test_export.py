"""Training data out of real conversations: what is in it, and what never is."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

from processes import COMMAND, ROOT
from support import Json, Start, of, opened, reply_to, until

from npc_server.client import Client, session
from npc_server.store import EmbeddedRedis

CANARY = "zanzibarra"
SCRIPT: Json = {
    "rules": [
        {"match": "mare", "reply": ["*nods* Four shoes, Minsu.", "Bring her, Minsu."]},
        {"match": "count", "reply": "One two three. Four five six. Seven.", "piece_ms": 30},
        {"match": "canary", "reply": f"Your {CANARY} sings."},
        {"match": "nothing", "reply": ""},
        {"match": "fail", "fail": "unavailable"},
        {"reply": "Good day."},
    ]
}
MINSU: Json = {"player": "p-4711", "name": "Minsu"}


def export(
    data: Path, kind: str, *arguments: str, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run the command as a person does."""
    ran = subprocess.run(
        [*COMMAND, "export", kind, "--data-dir", str(data), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "100"},
    )
    assert ran.returncode == status, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran


def rows(text: str) -> list[Json]:
    return [json.loads(line) for line in text.splitlines()]


def said(row: Json, role: str) -> list[str]:
    return [m["content"] for m in row["messages"] if m["role"] == role]


async def test_what_was_said_becomes_a_line(start: Start, tmp_path: Path) -> None:
    """A consented conversation is one line, while the server runs and after it.

    It holds the persona, what the NPC heard and what it said with its gestures, and no name or id
    of the player.
    """
    async with start(SCRIPT) as app:
        async with session(app.address, **MINSU, consent=["training"]) as client:
            conversation = await opened(client, conversation="talk-815")
            await reply_to(client, conversation, "Can you shoe my mare?")
            await reply_to(client, conversation, "I am Minsu. Good morning")
        online = await _beside(tmp_path / "data", "sft")
    offline = export(tmp_path / "data", "sft")
    assert online.stdout == offline.stdout
    (row,) = rows(offline.stdout)
    assert [m["role"] for m in row["messages"]] == ["system", *["user", "assistant"] * 2]
    assert "You are Bram." in row["messages"][0]["content"]
    assert "Player" in row["messages"][0]["content"]
    assert said(row, "user")[1] == "I am Player. Good morning"
    assert said(row, "assistant") == ["*nod* Four shoes, Player.", "Good day."]
    for word in ("Minsu", "p-4711", "talk-815"):
        assert word not in offline.stdout
    for part in ("conversations", "replies in them", "tokens"):
        assert part in offline.stderr
    kept = export(tmp_path / "data", "sft", "--keep-names")
    assert said(rows(kept.stdout)[0], "assistant")[0] == "*nod* Four shoes, Minsu."
    assert "p-4711" not in kept.stdout


async def _beside(data: Path, kind: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(export, data, kind, *arguments)


async def _talk(client: Client, name: str, *words: str) -> None:
    await opened(client, conversation=name)
    for text in words:
        await reply_to(client, name, text)


async def test_nothing_without_consent_comes_out(start: Start, tmp_path: Path) -> None:
    """What was said without consent, before it, or before it was taken back, is in no line.

    Nor is what was allowed for something else, in another world, or before being forgotten.
    """
    async with start(SCRIPT) as app:
        async with session(app.address, player="never") as client:
            await _talk(client, "a", f"My canary is called {CANARY}")
        async with session(app.address, player="late") as client:
            await _talk(client, "b", f"My canary is called {CANARY}")
        async with session(app.address, player="late", consent=["training"]) as client:
            await client.ask("conversation.open", conversation="b")
            await reply_to(client, "b", "What is my canary called?")
            await _talk(client, "c", "Only this one counts")
        for consent in (["training"], []):
            async with session(app.address, player="gone", consent=consent) as client:
                await _talk(client, f"d{len(consent)}", f"My canary is {CANARY}")
        async with session(app.address, player="other", consent=["research"]) as client:
            await _talk(client, "e", f"My canary is called {CANARY}")
        async with session(app.address, player="forgets", consent=["training"]) as client:
            await _talk(client, "f", f"My canary is called {CANARY}")
            await client.ask("player.forget")
            await _talk(client, "g", f"My canary is called {CANARY}")
        async with session(
            app.address, player="late", world="second", consent=["training"]
        ) as client:
            await _talk(client, "h", f"My canary is called {CANARY}")
    done = export(tmp_path / "data", "sft")
    assert [said(row, "user") for row in rows(done.stdout)] == [["Only this one counts"]]
    assert CANARY not in done.stdout
    table = {" ".join(line.split()) for line in done.stderr.splitlines()}
    assert "left out, conversation: no consent 5" in table
    assert "left out, conversation: begun without consent 1" in table
    assert CANARY in export(tmp_path / "data", "sft", "--world", "second").stdout


async def test_consent_given_again_counts_from_then_on(start: Start, tmp_path: Path) -> None:
    """What was said before consent was taken back stays out for good."""
    async with start(SCRIPT) as app:
        for name, consent in (("a", ["training"]), ("b", []), ("c", ["training"])):
            async with session(app.address, player="minsu", consent=consent) as client:
                await _talk(client, name, f"This is {name}")
    done = export(tmp_path / "data", "sft")
    assert [said(row, "user") for row in rows(done.stdout)] == [["This is c"]]


async def test_a_host_tells_what_its_players_allow(start: Start, tmp_path: Path) -> None:
    """A host gives and takes back a player's consent with the opening; its own counts for itself.

    Where the opening does not speak of it, it stays as it was.
    """
    async with (
        start(SCRIPT) as app,
        session(app.address, player="game", consent=["training"]) as host,
    ):
        for name, player in (
            ("a", {"id": "ana", "consent": ["training"]}),
            ("b", {"id": "ana"}),
            ("c", {"id": "bo"}),
            ("d", {"id": "cy", "consent": ["training"]}),
        ):
            await opened(host, conversation=name, player=player)
            await host.send("say", conversation=name, player=player["id"], text=f"This is {name}")
            await until(host, "scene.idle")
        await host.ask("conversation.open", conversation="d", player={"id": "cy", "consent": []})
        done = await _beside(tmp_path / "data", "sft")
    assert [said(row, "user") for row in rows(done.stdout)] == [["This is a"], ["This is b"]]


async def test_only_whole_replies_are_learnt(start: Start, tmp_path: Path) -> None:
    """A reply that was cut, or was a written line, stays out together with what it answers.

    One that was said anew stays out alone. What the NPC did not hear is nowhere.
    """
    async with (
        start(SCRIPT) as app,
        session(app.address, **MINSU, consent=["training"]) as client,
    ):
        conversation = await opened(client)
        await reply_to(client, conversation, "Good morning")
        await client.send("say", conversation=conversation, text="Please count!")
        await until(client, "reply.sentence")
        await client.send("interrupt", conversation=conversation, heard_chars=7)
        await until(client, "scene.idle")
        await reply_to(client, conversation, "Say nothing")
        await client.send("say", conversation=conversation, text="Now fail")
        await until(client, "scene.idle")
        await client.send(
            "say",
            conversation=conversation,
            text=f"I mutter {CANARY}",
            whisper=True,
            to=["p-4711"],
            respond="never",
        )
        await until(client, "scene.idle")
        await reply_to(client, conversation, "And now my mare")
        await _anew(client, conversation)
    done = export(tmp_path / "data", "sft")
    (row,) = rows(done.stdout)
    # Where the engine failed a written line was heard: it stays out with what it answers.
    assert said(row, "user") == ["Good morning", "And now my mare"]
    assert said(row, "assistant") == ["Good day.", "Bring her, Player."]
    table = {" ".join(line.split()) for line in done.stderr.splitlines()}
    assert {
        "left out, reply: cut off 1",
        "left out, reply: a written line stood in for it 2",
    } <= table
    assert CANARY not in done.stdout


async def _anew(client: Client, conversation: str) -> list[Json]:
    history = await client.ask("history.get", conversation=conversation)
    await client.send("regenerate", conversation=conversation, turn=history["turns"][-1]["turn"])
    return [event async for event in client.until_idle()]


async def test_a_reply_said_anew_makes_a_pair(start: Start, tmp_path: Path) -> None:
    """The pair has the prompt that the model saw, the kept reply and the replaced one.

    Two equal replies teach nothing and stay out.
    """
    async with (
        start(SCRIPT) as app,
        session(app.address, player="p-815", name="Ana", consent=["training"]) as client,
    ):
        conversation = await opened(client)
        await reply_to(client, conversation, "Hello, I am Ana")
        await _anew(client, conversation)
        await reply_to(client, conversation, "Can you shoe my mare?")
        events = await _anew(client, conversation)
        prompt = app.dialogue.prompt_of(of(events, "reply.done")[0]["turn"])
    assert prompt is not None
    done = export(tmp_path / "data", "preferences")
    (row,) = rows(done.stdout)
    assert list(row) == ["prompt", "chosen", "rejected"]
    assert row["chosen"] == [{"role": "assistant", "content": "Bring her, Minsu."}]
    assert row["rejected"] == [{"role": "assistant", "content": "*nod* Four shoes, Minsu."}]
    seen = [
        {"role": m["role"], "content": m["text"].replace("Ana", "Player")}
        for m in prompt["messages"]
    ]
    assert row["prompt"] == seen
    assert "pair: twice the same" in done.stderr


async def test_a_share_is_held_out(start: Start, tmp_path: Path) -> None:
    """With --split each conversation is in one of two files, the same one every time."""
    async with (
        start(SCRIPT) as app,
        session(app.address, player="minsu", consent=["training"]) as client,
    ):
        for number in range(12):
            name = f"c{number}"
            await _talk(client, name, f"This is {name}")
            await client.ask("conversation.close", conversation=name)
    files = []
    for name in ("one.jsonl", "two.jsonl"):
        out = tmp_path / name
        done = export(tmp_path / "data", "sft", "--out", str(out), "--split", "0.3")
        assert done.stdout == ""
        files.append((out.read_text(), out.with_name(f"{out.stem}.heldout.jsonl").read_text()))
    assert files[0] == files[1]
    train, held = ([said(row, "user")[0] for row in rows(text)] for text in files[0])
    assert sorted(train + held) == sorted(f"This is c{n}" for n in range(12))
    assert 0 < len(held) < 12
    refused = export(tmp_path / "data", "sft", "--split", "0.3", status=2)
    assert "--out" in refused.stderr


async def test_who_and_how_long_can_be_chosen(start: Start, tmp_path: Path) -> None:
    """--npc and --min-turns leave out the rest, and an unknown persona is named."""
    async with (
        start(SCRIPT) as app,
        session(app.address, player="minsu", consent=["training"]) as client,
    ):
        await _talk(client, "a", "One")
        await _talk(client, "b", "One", "Two")
        await opened(client, conversation="c", npcs=["marta"])
        await reply_to(client, "c", "One")
    data = tmp_path / "data"
    assert len(rows(export(data, "sft").stdout)) == 3
    assert len(rows(export(data, "sft", "--npc", "bram").stdout)) == 2
    assert len(rows(export(data, "sft", "--npc", "bram", "--npc", "marta").stdout)) == 3
    assert len(rows(export(data, "sft", "--min-turns", "2").stdout)) == 1
    assert "brom" in export(data, "sft", "--npc", "brom", status=1).stderr


def test_where_nothing_was_said_it_says_so(tmp_path: Path) -> None:
    """A folder without conversations is an error that names the options, and is left untouched."""
    folder = tmp_path / "nowhere"
    assert "--data-dir" in export(folder, "sft", status=1).stderr.replace("\n", " ")
    assert not folder.exists()


async def test_a_redis_can_be_named(start: Start, tmp_path: Path) -> None:
    """With --redis-url the data comes from there."""
    redis = EmbeddedRedis(tmp_path / "elsewhere")
    url = await redis.start()
    try:
        async with (
            start(SCRIPT, redis_url=url) as app,
            session(app.address, player="minsu", consent=["training"]) as client,
        ):
            await _talk(client, "a", "Over there")
        done = await _beside(tmp_path / "unused", "sft", "--redis-url", url)
        assert len(rows(done.stdout)) == 1
    finally:
        await redis.stop()
