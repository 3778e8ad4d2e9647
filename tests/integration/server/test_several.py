"""Who is in the cast, who hears what, and who answers: several players and NPCs at one table."""

from __future__ import annotations

import pytest
from support import Json, Start, of, said, settled, table, told, until

from npc_server.app import App
from npc_server.client import Client, Refused, session

SLOW = {"rules": [{"reply": "One two zanzibar. Four five six. Seven eight nine.", "piece_ms": 30}]}


async def history(client: Client, conversation: str) -> list[Json]:
    page = await client.ask("history.get", conversation=conversation, limit=100)
    return list(page["turns"])


def prompts(app: App, npc: str) -> list[str]:
    """What an NPC was asked, as the engine got it, oldest first."""
    requests = app.engine.requests  # type: ignore[attr-defined]
    return [
        "\n".join(message.text for message in request.messages)
        for request in requests
        if request.affinity.endswith(f"/{npc}")
    ]


async def test_an_invite_brings_a_player_in(app: App) -> None:
    """The newcomer gets the cast, the others hear of it once, and each hears the other."""
    async with table(app, "minsu") as (conversation, (minsu, host)):
        about = {"conversation": conversation}
        invite = (await minsu.ask("conversation.open", **about))["invite"]
        async with session(app.address, player="ana", name="Ana", role="player") as ana:
            with pytest.raises(Refused, match="no such conversation"):
                await ana.ask("conversation.open", **about, invite="a guess")
            opened = await ana.ask("conversation.open", **about, invite=invite)
            assert [m["member"] for m in opened["cast"]] == ["minsu", "bram", "ysolde", "ana"]
            assert of(await told(ana), "conversation.opened") == []
            for client in (minsu, host):
                (joined,) = of(await told(client), "cast.changed")
                assert (joined["change"], joined["member"]["member"]) == ("joined", "ana")
                assert len(joined["cast"]) == 4
            events = await said(minsu, conversation, "Bram, good evening.")
            heard = [e for e in await told(ana) if e["type"] != "player.presence"]
            assert heard == [e for e in events if e["type"] != "ack"]
            again = await ana.ask("conversation.open", **about, since=opened["seq"])
            assert [e["type"] for e in again["tail"]][:1] == ["cast.changed"]


async def test_a_newcomer_hears_nothing_of_before(app: App) -> None:
    """Neither the history and the tail of a player nor the prompt of an NPC has what came first."""
    async with table(app, "minsu", npcs=["bram"]) as (conversation, (minsu, host)):
        about = {"conversation": conversation}
        await said(minsu, conversation, "The canary is Zanzibarra.")
        invite = (await minsu.ask("conversation.open", **about))["invite"]
        await host.ask("conversation.join", **about, npc="ysolde")
        async with session(app.address, player="ana", role="player") as ana:
            opened = await ana.ask("conversation.open", **about, invite=invite)
            assert opened["tail"] == []
            assert await history(ana, conversation) == []
            await said(ana, conversation, "Ysolde, what did I miss?")
            assert [t["speaker"] for t in await history(ana, conversation)] == ["ana", "ysolde"]
            page = await ana.ask("player.export")
            assert "Zanzibarra" not in str(page["data"])
        assert "miss" in prompts(app, "ysolde")[-1]
        assert "Zanzibarra" not in prompts(app, "ysolde")[-1]
        assert len(await history(minsu, conversation)) == 4


async def test_an_npc_joins_leaves_and_comes_back(app: App) -> None:
    """It hears what is said while it is there, remembers that, and knows nothing of the rest."""
    async with table(app, "minsu", npcs=["bram"]) as (conversation, (minsu, host)):
        about = {"conversation": conversation}
        await host.ask("conversation.join", **about, npc="ysolde", name="Old Yso")
        (joined,) = of(await told(minsu), "cast.changed")
        assert joined["member"]["name"] == "Old Yso"
        await said(minsu, conversation, "Bram, the first word is amber.")
        await host.ask("conversation.leave", **about, member="ysolde")
        (left,) = of(await told(minsu), "cast.changed")
        assert (left["change"], left["member"]["member"]) == ("left", "ysolde")
        assert "ysolde" not in [m["member"] for m in left["cast"]]
        with pytest.raises(Refused, match="not in this conversation"):
            await minsu.ask("say", **about, text="Still there?", to=["ysolde"])
        await said(minsu, conversation, "Bram, the second word is basalt.")
        await host.ask("conversation.join", **about, npc="ysolde")
        await said(minsu, conversation, "Ysolde, the third word is cedar.")
        asked = prompts(app, "ysolde")[-1]
        assert ("amber" in asked, "basalt" in asked, "cedar" in asked) == (True, False, True)


async def test_the_last_npc_stays(app: App) -> None:
    """It cannot be made to leave; nobody can, twice."""
    async with table(app, "minsu") as (conversation, (_, host)):
        about = {"conversation": conversation}
        await host.ask("conversation.leave", **about, member="bram")
        with pytest.raises(Refused, match="not in this conversation"):
            await host.ask("conversation.leave", **about, member="bram")
        with pytest.raises(Refused, match="last NPC"):
            await host.ask("conversation.leave", **about, member="ysolde")


async def test_a_player_who_is_made_to_leave_hears_no_more(app: App) -> None:
    """It is told that it left, and then nothing; it needs an invite to come back."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        with pytest.raises(Refused, match="host"):
            await minsu.ask("conversation.leave", **about, member="ana")
        await host.ask("conversation.leave", **about, member="ana")
        (left,) = of(await told(ana), "cast.changed")
        assert left["member"]["member"] == "ana"
        await said(minsu, conversation, "Bram, has she gone?")
        assert await told(ana) == []
        for command in ({"type_": "say", "text": "Hello?"}, {"type_": "history.get"}):
            with pytest.raises(Refused, match="no such conversation"):
                await ana.ask(**command, **about)
        with pytest.raises(Refused, match="no such conversation"):
            await ana.ask("conversation.open", **about)
        invite = (await minsu.ask("conversation.open", **about))["invite"]
        await ana.ask("conversation.open", **about, invite=invite)
        assert "has she gone" not in str(await history(ana, conversation))


async def test_one_of_several_players_closes(app: App) -> None:
    """The others play on, and are told; it hears nothing meanwhile, and comes back as it was."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        about = {"conversation": conversation}
        await said(ana, conversation, "Bram, one.")
        await ana.ask("conversation.close", **about)
        await told(ana)
        (left,) = of(await told(minsu), "cast.changed")
        assert (left["change"], left["member"]["away"]) == ("left", True)
        events = await said(minsu, conversation, "Bram, two.")
        assert of(events, "turn")[0]["hearers"] == ["minsu", "bram", "ysolde"]
        assert await told(ana) == []
        with pytest.raises(Refused, match="closed this conversation"):
            await ana.ask("say", **about, text="Three")
        again = await ana.ask("conversation.open", **about)
        assert "two" not in str(again["tail"])
        (joined,) = of(await told(minsu), "cast.changed")
        assert (joined["change"], "away" in joined["member"]) == ("joined", False)
        await said(minsu, conversation, "Bram, four.")
        texts = [t["text"] for t in await history(ana, conversation) if t["kind"] == "say"]
        assert texts == ["Bram, one.", "Bram, four."]


async def test_the_last_player_closes(app: App) -> None:
    """Then the conversation is closed for everybody, until one of them opens it again."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        await minsu.ask("conversation.close", **about)
        await ana.ask("conversation.close", **about)
        for client, player in ((minsu, None), (ana, None), (host, "ana")):
            with pytest.raises(Refused, match="closed"):
                await client.ask("say", **about, player=player, text="Anybody?")
        await ana.ask("conversation.open", **about)
        assert of(await said(ana, conversation, "Bram, hello."), "reply.done")


async def test_a_host_closes_for_one_of_its_players(app: App) -> None:
    """A bridge that speaks for several players still hears the others when one of them leaves."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, _, host)):
        await host.ask("conversation.close", conversation=conversation, player="ana")
        await told(host)
        await said(minsu, conversation, "Bram, who is left?")
        assert of(await told(host), "turn", "reply.done")


async def test_who_leaves_while_an_npc_speaks_heard_what_was_sent(start: Start) -> None:
    """The reply goes on for the others; who left keeps the part that reached it, and no more."""
    async with start(SLOW) as app, table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        ack = await minsu.ask("say", **about, text="Bram, count!")
        await until(ana, "reply.sentence")
        await ana.ask("conversation.close", **about)
        done = of(await settled(minsu, ack["turn"]), "reply.done")[0]
        assert done["finish"] == "stop"
        assert of(await told(ana), "reply.done", "reply.delta") == []
        again = await ana.ask("conversation.open", **about)
        assert of(again["tail"], "reply.done") == []
        kept = (await history(ana, conversation))[-1]
        assert (kept["turn"], kept["cut"]) == (done["turn"], True)
        assert 0 < len(kept["text"]) < len(done["text"])
        assert of(again["tail"], "reply.heard")[0]["heard"] == len(kept["text"])
        whole = (await history(minsu, conversation))[-1]
        assert (whole["text"], whole["cut"]) == (done["text"], False)
        # The same of an NPC.
        ack = await minsu.ask("say", **about, text="Bram, once more!")
        await until(minsu, "reply.sentence")
        await host.ask("conversation.leave", **about, member="ysolde")
        await settled(minsu, ack["turn"])
        await host.ask("conversation.join", **about, npc="ysolde")
        await said(minsu, conversation, "Ysolde, what did he say?")
        asked = prompts(app, "ysolde")[-1]
        assert asked.count("zanzibar") == 2
        assert asked.count("nine") == 1


async def test_a_reply_to_a_player_who_left_is_of_nobody(start: Start) -> None:
    """The only player who hears it leaves: the reply ends, and its own turn is settled."""
    async with start(SLOW) as app, table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        await minsu.ask("say", **about, text="Count for me", to=["bram"], whisper=True)
        await until(minsu, "reply.sentence")
        await minsu.ask("conversation.leave", **about)
        assert (await until(host, "reply.done"))["finish"] == "cancelled"
        assert "turn" in await until(host, "scene.idle")
        assert of(await said(ana, conversation, "Bram, hello."), "reply.done")


async def test_the_ids_of_others_are_taken(app: App) -> None:
    """Nobody comes in under the member id of somebody else, nor twice; a twin gets its own."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, _, host)):
        about = {"conversation": conversation}
        for taken in ({"npc": "pip", "member": "bram"}, {"player": "eve", "member": "minsu"}):
            with pytest.raises(Refused, match="somebody else"):
                await host.ask("conversation.join", **about, **taken)
        for again in ({"npc": "bram"}, {"player": "ana"}, {"player": "ana", "member": "anna"}):
            with pytest.raises(Refused, match="already"):
                await host.ask("conversation.join", **about, **again)
        await host.ask("conversation.join", **about, npc="bram", member="twin", name="Bert")
        events = await said(minsu, conversation, "Bert, are you his twin?")
        assert [e["speaker"] for e in of(events, "reply.started")] == ["twin"]


async def test_a_cast_has_an_end(start: Start) -> None:
    """No more come in than the limit allows, by whatever way."""
    async with (
        start(limits={"members": 4}) as app,
        table(app, "minsu") as (conversation, (minsu, host)),
    ):
        about = {"conversation": conversation}
        await host.ask("conversation.join", **about, npc="pip")
        with pytest.raises(Refused, match="no room"):
            await host.ask("conversation.join", **about, npc="nari")
        invite = (await minsu.ask("conversation.open", **about))["invite"]
        async with session(app.address, player="ana", role="player") as ana:
            with pytest.raises(Refused, match="no room"):
                await ana.ask("conversation.open", **about, invite=invite)


async def test_a_whisper_is_answered_with_a_whisper(app: App) -> None:
    """Only the one whom it is for hears it, and the answer; no other history or prompt has it."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        with pytest.raises(Refused, match="To whom"):
            await minsu.ask("say", conversation=conversation, text="Psst", whisper=True)
        events = await said(
            minsu, conversation, "The key is under Zanzibarra.", to=["ysolde"], whisper=True
        )
        (turn,) = of(events, "turn")
        assert turn["hearers"] == ["minsu", "ysolde"]
        (started,) = of(events, "reply.started")
        assert (started["speaker"], started["hearers"]) == ("ysolde", ["minsu", "ysolde"])
        assert await told(ana) == []
        assert of(await told(host), "turn", "reply.done")
        await said(ana, conversation, "Bram, what did they say?")
        assert "Zanzibarra" not in str(await history(ana, conversation))
        assert "Zanzibarra" not in prompts(app, "bram")[-1]
        assert "Zanzibarra" in prompts(app, "ysolde")[-1]


async def test_a_host_says_who_hears(app: App) -> None:
    """``hearers`` of a host stand, and whoever is in ``to`` hears it too; players set none."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        with pytest.raises(Refused, match="hearers"):
            await minsu.ask("say", **about, text="Psst", hearers=["bram"])
        fields = {"player": "minsu", "hearers": ["ana"], "to": ["ysolde"]}
        events = await said(host, conversation, "A word with you two.", **fields)
        assert of(events, "turn")[0]["hearers"] == ["minsu", "ana", "ysolde"]
        (started,) = of(events, "reply.started")
        assert started["speaker"] == "ysolde"
        assert set(started["hearers"]) == {"minsu", "ana", "ysolde"}
        assert of(await told(ana), "turn", "reply.done")
        await said(minsu, conversation, "Bram, hello.")
        assert "A word with" not in prompts(app, "bram")[-1]


async def test_groups_hear_themselves(app: App) -> None:
    """What is said in one group reaches nobody of another, until somebody moves."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        groups = {"bar": ["minsu", "bram"], "fire": ["ana", "ysolde"]}
        await host.ask("scene.set", **about, groups=groups)
        (changed,) = of(await told(ana), "scene.changed")
        assert changed["groups"] == groups
        events = await said(minsu, conversation, "Is anybody there?")
        assert of(events, "turn")[0]["hearers"] == ["minsu", "bram"]
        assert [e["speaker"] for e in of(events, "reply.started")] == ["bram"]
        events = await said(ana, conversation, "And who is here?")
        assert [e["speaker"] for e in of(events, "reply.started")] == ["ysolde"]
        assert of(await told(minsu), "turn", "reply.started", "reply.delta", "reply.done") == []
        await host.ask("scene.set", **about, groups={"bar": ["minsu", "bram", "ana"], "fire": []})
        await told(ana)
        await said(minsu, conversation, "Now you hear me.")
        assert of(await told(ana), "turn")[0]["text"] == "Now you hear me."


@pytest.mark.parametrize(
    "far",
    [
        {"groups": {"here": ["minsu", "bram"], "there": ["ysolde"]}},
        {"distances": {"minsu": {"ysolde": 10.5, "bram": 1}}},
    ],
)
async def test_whom_one_does_not_reach(app: App, far: Json) -> None:
    """An NPC out of earshot is silent when it is spoken to; the player is told so, and is done."""
    async with table(app, "minsu") as (conversation, (minsu, host)):
        await host.ask("scene.set", conversation=conversation, **far)
        await told(minsu)
        for fields in ({}, {"whisper": True}):
            events = await said(minsu, conversation, "Come here!", to=["ysolde"], **fields)
            kinds = [e["type"] for e in events]
            assert kinds == ["ack", "turn", "reply.silent", "scene.idle"]
            silent = events[2]
            assert (silent["speaker"], silent["reason"]) == ("ysolde", "out_of_earshot")
            assert silent["answers"] == events[-1]["turn"] == events[0]["turn"]
        events = await said(minsu, conversation, "Come here, both!", to=["ysolde", "bram"])
        assert [e["reason"] for e in of(events, "reply.silent")] == ["out_of_earshot"]
        assert [e["speaker"] for e in of(events, "reply.started")] == ["bram"]
        await host.ask("scene.set", conversation=conversation, groups={}, distances={})
        events = await said(minsu, conversation, "Come here!", to=["ysolde"])
        assert [e["speaker"] for e in of(events, "reply.started")] == ["ysolde"]


async def test_who_is_away_keeps_its_place(app: App) -> None:
    """A host may set the scene while a player who stands in a group has closed the conversation."""
    async with table(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        await host.ask("scene.set", **about, groups={"bar": ["minsu", "ana", "bram", "ysolde"]})
        await ana.ask("conversation.close", **about)
        await host.ask("scene.set", **about, objects=[{"name": "a bell", "text": "It rings."}])
        await ana.ask("conversation.open", **about)
        events = await said(ana, conversation, "Bram, I am back.")
        assert "minsu" in of(events, "turn")[0]["hearers"]
        assert of(await told(minsu), "turn")
