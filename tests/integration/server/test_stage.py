"""Going back, other branches, words that are taken out, facts, and how a scene begins."""

from __future__ import annotations

from typing import Any

import pytest
from support import Json, Start, of, said, settled, table, told, until

from npc_server.app import App
from npc_server.client import Client, Refused, session

SCRIPT: Json = {
    "rules": [
        {
            "match": "Please count",
            "reply": "One two zanzibar. Four five six. Seven eight nine. Ten eleven twelve.",
            "piece_ms": 30,
        },
        {
            "reply": [
                "Amber it is.",
                "Basalt, then, you liar, you scoundrel!",
                "Cedar and no more.",
                "Dogwood grows by the gate.",
                "Elder makes good wine.",
                "Fennel for the fish.",
            ]
        },
    ]
}


def prompt(app: App, npc: str = "") -> str:
    """The newest prompt, of one NPC if need be, as the engine got it."""
    requests = reversed(app.engine.requests)  # type: ignore[attr-defined]
    request = next(each for each in requests if each.affinity.endswith(npc))
    return "\n".join(message.text for message in request.messages)


async def texts(client: Client, conversation: str) -> list[str]:
    page = await client.ask("history.get", conversation=conversation, limit=100)
    return [turn["text"] for turn in page["turns"]]


async def exchange(client: Client, conversation: str, text: str) -> Json:
    """Say something; the end of the answer."""
    return of(await said(client, conversation, text), "reply.done")[0]


async def test_going_back_keeps_the_turn_and_drops_what_came_later(start: Start) -> None:
    """History, prompts and the reset have everything up to it, and no word of what came after."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, _)):
        first = await exchange(minsu, talk, "The first word?")
        await exchange(minsu, talk, "The second word?")
        await exchange(minsu, talk, "The third word?")
        await minsu.send("rewind", conversation=talk, to_turn=first["turn"])
        reset = await until(minsu, "conversation.reset")
        assert [t["text"] for t in reset["tail"]] == ["The first word?", "Amber it is."]
        assert (reset["tail"][-1]["turn"], reset["branches"]) == (first["turn"], ["main"])
        assert await texts(minsu, talk) == ["The first word?", "Amber it is."]
        await exchange(minsu, talk, "Another second word?")
        for gone in ("The second", "The third", "Basalt", "Cedar"):
            assert gone not in prompt(app)
        assert "Amber it is." in prompt(app)
        assert await texts(minsu, talk) == [
            *("The first word?", "Amber it is."),
            *("Another second word?", "Dogwood grows by the gate."),
        ]
        page = await minsu.ask("history.get", conversation=talk, limit=2)
        older = await minsu.ask("history.get", conversation=talk, before=page["turns"][0]["turn"])
        assert [t["text"] for t in older["turns"]] == ["The first word?", "Amber it is."]
        assert not older["more"]


async def test_one_returns_to_a_branch(start: Start) -> None:
    """It goes on where it was left, without what was said meanwhile; and back again."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, _)):
        about = {"conversation": talk}
        first = await exchange(minsu, talk, "The first word?")
        await exchange(minsu, talk, "The second word?")
        main = await texts(minsu, talk)
        await minsu.send("rewind", **about, to_turn=first["turn"])
        other = (await until(minsu, "conversation.reset"))["branch"]
        await exchange(minsu, talk, "Another word?")
        side = await texts(minsu, talk)
        await minsu.send("rewind", **about, branch="main")
        reset = await until(minsu, "conversation.reset")
        assert (reset["branch"], reset["branches"]) == ("main", [other])
        assert [t["text"] for t in reset["tail"]] == await texts(minsu, talk) == main
        await exchange(minsu, talk, "The third word?")
        assert "Another word?" not in prompt(app)
        assert "The second word?" in prompt(app)
        await minsu.ask("rewind", **about, branch=other)
        assert await texts(minsu, talk) == side
        opened = await minsu.ask("conversation.open", **about)
        assert opened["branch"] == other
        for branch, reason in ((other, "goes on now"), ("nope", "no such branch")):
            with pytest.raises(Refused, match=reason):
                await minsu.ask("rewind", **about, branch=branch)


async def test_a_reply_that_is_left_behind_stays_as_it_was_cut(start: Start) -> None:
    """Going back ends the reply in flight; the branch that is left keeps what was heard of it."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, host)):
        about = {"conversation": talk}
        first = await exchange(minsu, talk, "The first word?")
        ack = await minsu.ask("say", **about, text="Please count.")
        sentence = await until(minsu, "reply.sentence")
        turn = sentence["turn"]
        await minsu.send("playback", **about, turn=turn, state="progress", heard_chars=7)
        await minsu.send("rewind", **about, to_turn=first["turn"])
        events = await settled(minsu, ack["turn"])
        assert of(events, "reply.done")[0]["finish"] == "cancelled"
        assert await texts(minsu, talk) == ["The first word?", "Amber it is."]
        await exchange(minsu, talk, "Another word?")
        assert "zanzibar" not in prompt(app)
        await minsu.ask("rewind", **about, branch="main")
        assert (await texts(minsu, talk))[2:] == ["Please count.", "One two"]
        assert of(await told(host), "scene.idle")


async def test_what_waits_is_settled_by_going_back(start: Start) -> None:
    """A turn that was to be answered and is no more is settled, once, for those who heard it."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, host)):
        first = await exchange(minsu, talk, "The first word?")
        await host.ask("conversation.set", conversation=talk, hold=True)
        ack = await minsu.ask("say", conversation=talk, text="The second word?")
        await minsu.send("rewind", conversation=talk, to_turn=first["turn"])
        events = await settled(minsu, ack["turn"])
        await host.ask("conversation.set", conversation=talk, hold=False)
        events += await told(minsu)
        assert [e["turn"] for e in of(events, "scene.idle")] == [ack["turn"]]
        assert of(events, "reply.started") == []


async def test_feelings_and_facts_when_going_back(start: Start) -> None:
    """Feelings are as the turns tell; facts and what the game set stay, until one returns."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, host)):
        about = {"conversation": talk}
        await host.ask("context.set", **about, facts={"weather": "hail"})
        first = await exchange(minsu, talk, "The first word?")
        await exchange(minsu, talk, "The second word?")
        await host.ask("npc.set", **about, member="bram", mood="tired", affinity=0.5)
        await told(minsu)
        await minsu.send("rewind", **about, to_turn=first["turn"])
        (felt,) = (await until(minsu, "conversation.reset"))["state"]
        assert (felt["emotion"], felt["affinity"], felt["mood"]) == ("neutral", 0.5, "tired")
        await host.ask("context.set", **about, facts={"weather": "sunshine"})
        await host.ask("npc.set", **about, member="bram", mood="", affinity=-1)
        await exchange(minsu, talk, "Another word?")
        assert "sunshine" in prompt(app)
        await minsu.send("rewind", **about, branch="main")
        (felt,) = (await until(minsu, "conversation.reset"))["state"]
        assert (felt["emotion"], felt["affinity"], felt["mood"]) == ("angry", 0.5, "tired")
        await exchange(minsu, talk, "The third word?")
        assert "hail" in prompt(app)
        assert "sunshine" not in prompt(app)


async def test_saying_anew_in_one_branch_leaves_the_other(start: Start) -> None:
    """The reply that two branches share is replaced in the one where it was said anew."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, _)):
        about = {"conversation": talk}
        first = await exchange(minsu, talk, "The first word?")
        await exchange(minsu, talk, "The second word?")
        main = await texts(minsu, talk)
        await minsu.ask("rewind", **about, to_turn=first["turn"])
        ack = await minsu.ask("regenerate", **about, turn=first["turn"])
        assert (await until(minsu, "reply.done"))["turn"] == ack["turn"]
        await until(minsu, "scene.idle")
        assert await texts(minsu, talk) == ["The first word?", "Cedar and no more."]
        with pytest.raises(Refused, match="no such turn"):
            await minsu.ask("rewind", **about, to_turn=first["turn"])
        await exchange(minsu, talk, "Another word?")
        assert "Amber" not in prompt(app)
        await minsu.ask("rewind", **about, branch="main")
        assert await texts(minsu, talk) == main
        await exchange(minsu, talk, "The third word?")
        assert "Cedar" not in prompt(app)
        assert "Amber it is." in prompt(app)


async def test_going_back_twice_with_one_id(start: Start) -> None:
    """The second time it gets the first answer, and what was said in between stays."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, _)):
        first = await exchange(minsu, talk, "The first word?")
        await exchange(minsu, talk, "The second word?")
        frame = {"conversation": talk, "to_turn": first["turn"]}
        command = await minsu.send("rewind", **frame)
        ack = await until(minsu, "ack")
        await exchange(minsu, talk, "Another word?")
        kept = await texts(minsu, talk)
        await minsu.send("rewind", **{**frame, "id": command})
        assert await minsu.receive() == ack
        assert await texts(minsu, talk) == kept


async def test_only_a_host_goes_back_where_others_play(start: Start) -> None:
    """A player who is alone may; where there is another one the game decides, and all are told."""
    async with start(SCRIPT) as app, table(app, "minsu", "ana", npcs=["bram"]) as (talk, clients):
        minsu, ana, host = clients
        about = {"conversation": talk}
        await exchange(minsu, talk, "The first word?")
        whispered = await said(ana, talk, "The canary is Zanzibarra.", to=["bram"], whisper=True)
        last = await exchange(minsu, talk, "The second word?")
        with pytest.raises(Refused, match="only a host"):
            await minsu.ask("rewind", **about, to_turn=last["turn"])
        for fields, reason in (
            ({"to_turn": "nope"}, "no such turn"),
            ({"to_turn": whispered[0]["turn"], "player": "minsu"}, "no such turn"),
            ({"to_turn": last["turn"], "branch": "main"}, "either"),
            ({}, "either"),
        ):
            with pytest.raises(Refused, match=reason):
                await host.ask("rewind", **about, **fields)
        for client in clients:
            await told(client)
        await host.ask("rewind", **about, to_turn=last["turn"])
        tails = [
            [t["text"] for t in of(await told(client), "conversation.reset")[0]["tail"]]
            for client in (minsu, ana)
        ]
        assert ["Zanzibarra" in str(tail) for tail in tails] == [False, True]
        await ana.ask("conversation.leave", **about)
        await minsu.ask("rewind", **about, to_turn=last["turn"])


async def test_words_are_taken_out_everywhere(start: Start) -> None:
    """No branch, no tail, no export, no prompt and no file has them any more; others are told."""
    async with start(SCRIPT) as app, table(app, "minsu", "ana", npcs=["bram"]) as (talk, clients):
        minsu, ana, host = clients
        about = {"conversation": talk}
        secret = (await said(minsu, talk, "The canary is Zanzibarra."))[0]["turn"]
        reply = await exchange(minsu, talk, "The second word?")
        await host.ask("rewind", **about, to_turn=reply["turn"])
        await exchange(minsu, talk, "Another word?")
        with pytest.raises(Refused, match="host"):
            await ana.ask("turn.redact", **about, turn=secret)
        with pytest.raises(Refused, match="no such turn"):
            await minsu.ask("turn.redact", **about, turn="nope")
        await told(ana)
        await minsu.ask("turn.redact", **about, turn=secret)
        assert of(await told(ana), "turn.redacted")[0]["turn"] == secret
        for branch in (None, "main"):
            if branch is not None:
                await host.ask("rewind", **about, branch=branch)
            for client in (minsu, ana):
                opened = await client.ask("conversation.open", **about)
                page = await client.ask("history.get", **about, limit=100)
                assert "Zanzibarra" not in str((opened, page))
            await exchange(minsu, talk, f"What now, in {branch}?")
            assert "Zanzibarra" not in prompt(app)
        assert "Zanzibarra" not in str(await minsu.ask("player.export"))
        async for key in _keys(app):
            assert b"Zanzibarra" not in await _dump(app, key)


async def _keys(app: App):  # type: ignore[no-untyped-def]
    async with app.store._link.use() as client:
        async for key in client.scan_iter("*"):
            yield key


async def _dump(app: App, key: bytes) -> bytes:
    """All that Redis holds under a key, as it would be read."""
    async with app.store._link.use() as client:
        kind = await client.type(key)
        found: Any = None
        match kind:
            case b"hash":
                found = await client.hgetall(key)
            case b"stream":
                found = await client.xrange(key)
            case b"string":
                found = await client.get(key)
    return repr(found).encode()


async def test_a_host_takes_out_what_an_npc_said(start: Start) -> None:
    """The words of a reply go, also where it was said anew in another branch, as do its events."""
    async with start(SCRIPT) as app, table(app, "minsu", npcs=["bram"]) as (talk, (minsu, host)):
        about = {"conversation": talk}
        first = await exchange(minsu, talk, "The first word?")
        await exchange(minsu, talk, "The second word?")
        await minsu.ask("rewind", **about, to_turn=first["turn"])
        await minsu.ask("regenerate", **about, turn=first["turn"])
        await until(minsu, "scene.idle")
        with pytest.raises(Refused, match="host"):
            await minsu.ask("turn.redact", **about, turn=first["turn"])
        await host.ask("turn.redact", **about, turn=first["turn"])
        await minsu.ask("rewind", **about, branch="main")
        assert "Amber" not in str(await texts(minsu, talk))
        assert "Amber" not in str(await minsu.ask("player.export"))
        assert "Amber" not in str(await minsu.ask("conversation.open", **about))


# Facts and scenes


async def test_facts_open_and_close_what_an_npc_knows(start: Start) -> None:
    """A secret of the scene is in the prompt as long as the game says what it waits for."""
    async with start(SCRIPT) as app, table(app, "minsu", scene="tavern") as (talk, (minsu, host)):
        about = {"conversation": talk}
        await exchange(minsu, talk, "Pip, are you well?")
        assert "Lin has had no water" in prompt(app, "/pip")
        assert "heavy rain" in prompt(app, "/pip")
        await host.ask("context.set", **about, facts={"rider": "gone", "_plan": "Zanzibarra"})
        await exchange(minsu, talk, "Pip, and now?")
        assert "Lin has had no water" not in prompt(app, "/pip")
        assert "Zanzibarra" not in prompt(app, "/pip")
        await host.ask("context.set", **about, facts={"rider": "upstairs", "weather": None})
        await exchange(minsu, talk, "Pip, and now again?")
        assert "Lin has had no water" in prompt(app, "/pip")
        assert "heavy rain" not in prompt(app, "/pip")


async def test_a_player_sets_facts_of_its_own(start: Start) -> None:
    """Those that begin with ``player.``, and no others; nothing of a refused command holds."""
    async with start(SCRIPT) as app, table(app, "minsu", scene="tavern") as (talk, (minsu, _)):
        about = {"conversation": talk}
        await minsu.ask("context.set", **about, facts={"player.purse": "three groats"})
        with pytest.raises(Refused, match=r"player\."):
            await minsu.ask(
                "context.set", **about, facts={"player.purse": "a fortune", "rider": "gone"}
            )
        await exchange(minsu, talk, "Pip, what can I buy?")
        assert "three groats" in prompt(app, "/pip")
        assert "Lin has had no water" in prompt(app, "/pip")


async def test_a_scene_begins_as_it_was_written(app: App) -> None:
    """Its event and its line come in order, word for word, without a model; then silence."""
    async with session(app.address, player="minsu", role="player") as minsu:
        opened = await minsu.ask("conversation.open", scene="tavern")
        assert [m["member"] for m in opened["cast"]][1:] == ["marta", "pip", "bram", "ysolde"]
        assert opened["scene"]["groups"]["bar"] == ["marta", "pip", "minsu"]
        events = [event async for event in minsu.until_idle()]
        (turn,), (started,), (done,) = (
            of(events, kind) for kind in ("turn", "reply.started", "reply.done")
        )
        assert (turn["kind"], turn["text"][:21]) == ("event", "Boots go up the stair")
        assert (started["speaker"], started["to"]) == ("marta", ["minsu"])
        assert started["hearers"] == ["marta", "minsu", "pip"]
        assert done["text"].startswith("There, he's down for the night.")
        assert "What'll it be?" in done["text"]
        assert not app.engine.requests  # type: ignore[attr-defined]
        again = await minsu.ask("conversation.open", conversation=opened["conversation"])
        assert "reply" not in again


async def test_a_scene_may_begin_in_silence(app: App) -> None:
    """``greet: never`` leaves the opening out."""
    async with session(app.address, player="minsu", role="player") as minsu:
        opened = await minsu.ask("conversation.open", scene="tavern", greet="never")
        assert await told(minsu) == []
        page = await minsu.ask("history.get", conversation=opened["conversation"])
        assert page["turns"] == []
        with pytest.raises(Refused, match="Leave 'npcs' out"):
            await minsu.ask("conversation.open", scene="tavern", npcs=["bram"])


async def test_players_come_in_where_players_begin(app: App) -> None:
    """By invite or brought by the game, a player stands in the scene's group for players."""
    async with table(app, "minsu", "ana", scene="tavern") as (talk, (minsu, ana, host)):
        events = await said(ana, talk, "Pip, hello.")
        assert set(of(events, "turn")[0]["hearers"]) == {"ana", "minsu", "marta", "pip"}
        await host.ask("conversation.join", conversation=talk, player="eve")
        scene = of(await told(minsu), "scene.changed")[-1]
        assert set(scene["groups"]["bar"]) == {"marta", "pip", "minsu", "ana", "eve"}
        await host.ask("conversation.join", conversation=talk, npc="vesper", group="fireplace")
        scene = of(await told(ana), "scene.changed")[-1]
        assert "vesper" in scene["groups"]["fireplace"]
        with pytest.raises(Refused, match="no group"):
            await host.ask("conversation.join", conversation=talk, npc="nari", group="cellar")
        silent = of(await said(minsu, talk, "Bram!", to=["bram"]), "reply.silent")[0]
        assert silent["reason"] == "out_of_earshot"


async def test_a_line_of_the_opening_gives_way(start: Start) -> None:
    """A player who speaks while a scene begins is answered; what was still to be said is not."""
    async with start(SCRIPT) as app, session(app.address, player="minsu", role="player") as minsu:
        opened = await minsu.ask("conversation.open", scene="haenim-dalnim")
        await until(minsu, "reply.started", speaker="halmeoni")
        talk = opened["conversation"]
        ack = await minsu.ask("say", conversation=talk, text="Who are you?", to=["dalmi"])
        events = await settled(minsu, ack["turn"])
        assert of(events, "reply.started")[-1]["speaker"] == "dalmi"
        assert of(await told(minsu), "reply.started") == []


async def test_the_game_directs_while_it_runs(start: Start) -> None:
    """Instructions and another scene's place reach the next prompt; empty takes them away."""
    async with start(SCRIPT) as app, table(app, "minsu", scene="tavern") as (talk, (minsu, host)):
        about = {"conversation": talk}
        await host.ask("conversation.set", **about, instructions="Speak of the Zanzibarra.")
        await exchange(minsu, talk, "Pip, hello.")
        assert "Zanzibarra" in prompt(app, "/pip")
        await host.ask("conversation.set", **about, instructions="")
        await host.ask("scene.set", **about, scene="vr-party")
        changed = of(await told(minsu), "scene.changed")[0]
        assert (changed["scene"], "the cake stand" in changed["objects"]) == ("vr-party", True)
        await exchange(minsu, talk, "Pip, hello again.")
        assert "Zanzibarra" not in prompt(app, "/pip")
        assert "small flat in Busan" in prompt(app, "/pip")
        assert "Rain on the shutters" not in prompt(app, "/pip")
        theirs: list[tuple[str, Json]] = [
            ("scene.set", {"scene": "tavern"}),
            ("npc.set", {"member": "pip", "mood": "glad"}),
            ("conversation.set", {"ambient": "off"}),
            ("conversation.join", {"npc": "nari"}),
        ]
        for command, fields in theirs:
            with pytest.raises(Refused, match="host"):
                await minsu.ask(command, **about, **fields)
        wrong: list[tuple[str, Json]] = [
            ("scene.set", {"groups": {"bar": ["nobody"]}}),
            ("scene.set", {"scene": "nowhere"}),
            ("npc.set", {"member": "minsu", "mood": "glad"}),
            ("conversation.set", {"actions": {"minsu": []}}),
        ]
        for command, fields in wrong:
            with pytest.raises(Refused, match=r"no |not in"):
                await host.ask(command, **about, **fields)
        groups = {"bar": ["pip", "minsu"], "fire": ["pip"]}
        with pytest.raises(Refused, match="one group"):
            await host.ask("scene.set", **about, groups=groups)
