"""Who answers, who has the floor, who takes it from whom, and that every turn is settled once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager

import pytest
from support import Json, Start, eventually, of, said, settled, table, told, until

from npc_server import dialogue, replies
from npc_server.app import App
from npc_server.client import Client, Refused

VARIED = [
    "Rain on the roof again.",
    "A horse went lame this morning.",
    "Nobody mends the bridge, do they?",
    "My back aches like an old door.",
    "There is soup left in the pot.",
    "I saw lanterns by the mill.",
    "Careful with that candle.",
    "Winter comes early this year.",
]
CALM: Json = {"rules": [{"reply": VARIED}]}
FOUR = ("bram", "ysolde", "pip", "vesper")
CALLING = {
    "rules": [
        {
            "reply": [
                "Ysolde, what do you make of the river?",
                "Bram, you live closest to the water.",
                "Ysolde, nobody asked about my cellar.",
                "Bram, then sweep the yard instead.",
                "Ysolde, that broom belongs to Marta.",
                "Bram, she will never miss it.",
                "Ysolde, you would steal the church bell.",
                "Bram, only when the moon is dark.",
                "Ysolde, spoken like a true neighbour.",
                "Bram, pass me the salt for once.",
            ]
        }
    ]
}
LONG = "One two three four. Five six seven eight. Nine ten eleven twelve. Thirteen and fourteen."


def slow(*rest: str) -> Json:
    """A long reply, slowly, and then others."""
    return {"rules": [{"reply": LONG, "piece_ms": 40, "times": 1}, {"reply": [*rest, *VARIED]}]}


def speakers(events: list[Json]) -> list[str]:
    return [event["speaker"] for event in of(events, "reply.started")]


def at(
    app: App, *players: str, npcs: tuple[str, ...] = ("bram", "ysolde")
) -> AbstractAsyncContextManager[tuple[str, list[Client]]]:
    return table(app, *players, npcs=npcs)


# Who answers


async def test_who_is_named_answers_in_that_order(start: Start) -> None:
    """Two who are called answer one after the other, and the turn is settled once, at the end."""
    async with start(CALM) as app, at(app, "minsu", npcs=FOUR) as (conversation, (minsu, _)):
        events = await said(minsu, conversation, "Ysolde, Bram, what news?")
        assert speakers(events) == ["ysolde", "bram"]
        assert {e["answers"] for e in of(events, "reply.started")} == {events[0]["turn"]}
        assert [e["type"] for e in events if e["type"] in {"reply.done", "scene.idle"}] == [
            *("reply.done", "reply.done"),
            "scene.idle",
        ]
        assert of(await told(minsu), "scene.idle") == []


async def test_one_of_four_is_named(start: Start) -> None:
    """Only it answers; what follows without a name goes to it too, and no model is asked."""
    async with start(CALM) as app, at(app, "minsu", npcs=FOUR) as (conversation, (minsu, _)):
        for text in ("Pip, what are you doing?", "And after that?"):
            assert speakers(await said(minsu, conversation, text)) == ["pip"]
        assert not app.engine.choices  # type: ignore[attr-defined]


async def test_everyone_is_answered_by_some(start: Start) -> None:
    """Of four who are all spoken to three answer, each once."""
    async with start(CALM) as app, at(app, "minsu", npcs=FOUR) as (conversation, (minsu, _)):
        answering = speakers(await said(minsu, conversation, "Hello everybody!"))
        assert len(answering) == len(set(answering)) == 3


WHO = {"match": "Who knows", "choose": "C"}


async def test_where_nobody_is_named_the_model_says_who(start: Start) -> None:
    """The NPC that the model finds likeliest answers."""
    script = {"rules": [WHO, *CALM["rules"]]}
    async with start(script) as app, at(app, "minsu", npcs=FOUR) as (conversation, (minsu, _)):
        assert speakers(await said(minsu, conversation, "Who knows a good song?")) == ["pip"]
        (asked, *_) = app.engine.choices  # type: ignore[attr-defined]
        assert "Minsu: Who knows a good song?" in asked.messages[-1].text


@pytest.mark.parametrize("trouble", [{"fail": "unavailable"}, {"first_ms": 60_000}])
async def test_words_say_who_where_the_model_does_not(start: Start, trouble: Json) -> None:
    """It fails, or takes too long: whoever knows of what was brought up answers all the same."""
    script = {"rules": [{**WHO, **trouble}, *CALM["rules"]]}
    timeouts = {"director": 0.05}
    async with (
        start(script, timeouts=timeouts) as app,
        at(app, "minsu", npcs=("vesper", "ysolde", "bram")) as (conversation, (minsu, _)),
    ):
        events = await said(minsu, conversation, "Who knows about the wolf?")
        assert speakers(events) == ["bram"]


async def test_nobody_may_have_anything_to_say(start: Start) -> None:
    """The model finds that nobody answers: one NPC is told to be quiet, and the turn is settled."""
    script = {"rules": [{"match": "thinking aloud", "choose": "E"}, *CALM["rules"]]}
    async with start(script) as app, at(app, "minsu", npcs=FOUR) as (conversation, (minsu, _)):
        events = await said(minsu, conversation, "I am just thinking aloud.")
        assert [e["type"] for e in events][-2:] == ["reply.silent", "scene.idle"]
        silent = events[-2]
        assert (silent["reason"], silent["answers"]) == ("quiet", events[0]["turn"])
        assert silent["speaker"] in FOUR
        assert speakers(events) == []


async def test_players_talk_among_themselves(start: Start) -> None:
    """What is said to another player is heard by all, and answered by no NPC."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        events = await said(minsu, conversation, "Shall we go?", to=["ana"])
        assert [e["type"] for e in events] == ["ack", "turn", "scene.idle"]
        assert of(await told(ana), "turn")[0]["to"] == ["ana"]
        await said(ana, conversation, "Bram, we are going.")
        asked = app.engine.requests[-1].messages[-1].text  # type: ignore[attr-defined]
        assert "Minsu: Shall we go?" in asked


async def test_at_whom_one_looks(start: Start) -> None:
    """A look decides where no name does; a name goes before it."""
    async with start(CALM) as app, at(app, "minsu", npcs=FOUR) as (conversation, (minsu, _)):
        events = await said(minsu, conversation, "What is that?", gaze="vesper")
        assert speakers(events) == ["vesper"]
        events = await said(minsu, conversation, "Pip, what is that?", gaze="vesper")
        assert speakers(events) == ["pip"]
        assert not app.engine.choices  # type: ignore[attr-defined]


# The floor


async def test_a_player_cuts_the_reply_to_it(start: Start) -> None:
    """It ends for all who hear it; each keeps what it had heard, and the new turn is answered."""
    async with start(slow()) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        about = {"conversation": conversation}
        first = await minsu.ask("say", **about, text="Bram, count!")
        for client, heard in ((minsu, 5), (ana, 9)):
            sentence = await until(client, "reply.sentence")
            await client.send(
                "playback", **about, turn=sentence["turn"], state="progress", heard_chars=heard
            )
            await told(client)
        events = await said(minsu, conversation, "Bram, that is enough!")
        done, second = of(events, "reply.done")
        assert (done["finish"], second["finish"]) == ("interrupted", "stop")
        idles = [e["turn"] for e in of(events, "scene.idle")]
        assert idles == [first["turn"], events[0]["turn"]]
        for client, words in ((minsu, "One t"), (ana, "One two t")):
            turns = (await client.ask("history.get", **about))["turns"]
            cut = next(t for t in turns if t["turn"] == done["turn"])
            assert (cut["text"], cut["cut"]) == (words, True)


async def test_another_player_waits(start: Start) -> None:
    """What a bystander says is heard at once, cuts nothing, and is answered afterwards."""
    async with start(slow()) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        await minsu.ask("say", conversation=conversation, text="Bram, count!")
        await until(minsu, "reply.sentence")
        ack = await ana.ask("say", conversation=conversation, text="Ysolde, is he well?")
        events = await settled(minsu, ack["turn"])
        kinds = [(e["type"], e.get("speaker")) for e in events if e["type"] != "reply.delta"]
        assert kinds.index(("turn", "ana")) < kinds.index(("reply.done", None))
        first, second = of(events, "reply.done")
        assert (first["text"], first["finish"]) == (LONG, "stop")
        (started,) = of(events, "reply.started")
        assert (started["speaker"], started["answers"]) == ("ysolde", ack["turn"])
        assert events.index(first) < events.index(started) < events.index(second)


async def test_what_npcs_tell_one_another_gives_way(start: Start) -> None:
    """Any player who speaks ends it, and what they would have said next."""
    script = {
        "rules": [
            {"reply": "Ysolde, tell them of the flood.", "times": 1},
            *slow("Bram, your turn.")["rules"],
        ]
    }
    async with start(script) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        first = await minsu.ask("say", conversation=conversation, text="Bram, a story!")
        started = await until(ana, "reply.started", speaker="ysolde")
        assert started["to"] == ["bram"]
        await until(ana, "reply.sentence", turn=started["turn"])
        events = await said(ana, conversation, "Bram, a quick question.")
        done = of(events, "reply.done")[0]
        assert (done["turn"], done["finish"]) == (started["turn"], "interrupted")
        assert of(events, "scene.idle")[0]["turn"] == first["turn"]
        assert speakers(events)[0] == "bram"


@pytest.mark.parametrize(
    "said_so",
    [{"text": "mhm"}, {"text": "응응"}, {"text": "Do go on then", "overlap": "backchannel"}],
)
async def test_a_backchannel_cuts_nothing(start: Start, said_so: Json) -> None:
    """The reply to that very player goes on to its end; the sound is heard, and not answered."""
    async with start(slow()) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        await minsu.ask("say", conversation=conversation, text="Bram, count!")
        await until(minsu, "reply.sentence")
        events = await said(minsu, conversation, **said_so)
        assert [e["type"] for e in of(events, "turn", "scene.idle")] == ["turn", "scene.idle"]
        assert of(events, "reply.done") == []
        done = await until(minsu, "reply.done")
        assert (done["text"], done["finish"]) == (LONG, "stop")
        await until(minsu, "scene.idle")
        assert of(await told(ana), "turn")[-1]["text"] == said_so["text"]
        assert of(await told(minsu), "reply.started") == []
        await said(minsu, conversation, "Bram, thank you.")
        asked = app.engine.requests[-1].messages  # type: ignore[attr-defined]
        assert any(f"Minsu: {said_so['text']}" in message.text for message in asked)


async def test_the_same_sound_may_be_a_turn(start: Start) -> None:
    """The client says that it is one, or nobody is speaking: then it is answered."""
    async with start(slow()) as app, at(app, "minsu", npcs=("bram",)) as (talk, (minsu, _)):
        await minsu.ask("say", conversation=talk, text="Bram, count!")
        await until(minsu, "reply.sentence")
        events = await said(minsu, talk, "Yeah", overlap="turn")
        assert [e["finish"] for e in of(events, "reply.done")] == ["interrupted", "stop"]
        events = await said(minsu, talk, "Yeah")
        assert len(of(events, "reply.done")) == 1


async def test_a_backchannel_leaves_what_plays(start: Start) -> None:
    """A finished reply that still plays is not cut by it, and can be cut afterwards."""
    async with start(CALM) as app, at(app, "minsu", npcs=("bram",)) as (talk, (minsu, _)):
        done = of(await said(minsu, talk, "Bram, hello."), "reply.done")[0]
        where = {"turn": done["turn"], "state": "progress", "heard_chars": 4}
        await minsu.send("playback", conversation=talk, **where)
        assert of(await said(minsu, talk, "mhm"), "reply.heard", "reply.started") == []
        await minsu.ask("interrupt", conversation=talk)
        turns = (await minsu.ask("history.get", conversation=talk))["turns"]
        assert [t["text"] for t in turns if t["kind"] == "reply"] == [done["text"][:4]]


async def test_what_is_said_to_another_is_not_ones_to_cut(start: Start) -> None:
    """A bystander's interrupt is forbidden, a stranger's not found; the host may."""
    async with start(slow()) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        await minsu.ask("say", **about, text="Bram, count!")
        turn = (await until(minsu, "reply.sentence"))["turn"]
        for fields in ({}, {"turn": turn, "heard_chars": 1}):
            with pytest.raises(Refused, match="somebody else"):
                await ana.ask("interrupt", **about, **fields)
        await host.ask("interrupt", **about, player="minsu")
        assert (await until(minsu, "reply.done"))["finish"] == "interrupted"


async def test_who_did_not_hear_a_reply_cannot_cut_it(start: Start) -> None:
    """A whisper to another is no reply that one could cut, neither while it is said nor later."""
    async with start(slow()) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        about = {"conversation": conversation}
        ack = await minsu.ask("say", **about, text="Count!", to=["bram"], whisper=True)
        turn = (await until(minsu, "reply.sentence"))["turn"]
        with pytest.raises(Refused, match="no such reply"):
            await ana.ask("interrupt", **about, turn=turn, heard_chars=1)
        await ana.ask("interrupt", **about)
        done = of(await settled(minsu, ack["turn"]), "reply.done")[0]
        assert done["finish"] == "stop"
        with pytest.raises(Refused, match="no such reply"):
            await ana.ask("interrupt", **about, turn=turn, heard_chars=1)
        assert of(await told(minsu), "reply.heard") == []


async def test_nobody_begins_while_a_player_types(start: Start) -> None:
    """The reply is made, and held back until the typing ends; others are told who types."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        await ana.send("input", conversation=conversation, state="typing")
        presence = await until(minsu, "player.presence")
        assert (presence["member"], presence["input"]) == ("ana", "typing")
        ack = await minsu.ask("say", conversation=conversation, text="Bram, hello.")
        await until(minsu, "reply.started")

        async def asked() -> bool:
            return bool(app.engine.requests)  # type: ignore[attr-defined]

        await eventually(asked)
        assert of(await told(minsu), "reply.emotion", "reply.delta", "reply.done") == []
        await ana.send("input", conversation=conversation, state="idle")
        assert of(await settled(minsu, ack["turn"]), "reply.done")


async def test_who_has_spoken_types_no_more(start: Start) -> None:
    """A say ends the typing: what waited for it goes on at once."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        await ana.send("input", conversation=conversation, state="speaking")
        await minsu.ask("say", conversation=conversation, text="Bram, hello.")
        await until(minsu, "reply.started")
        ack = await ana.ask("say", conversation=conversation, text="Ysolde, hello.")
        async with asyncio.timeout(4):
            events = await settled(minsu, ack["turn"])
        assert len(of(events, "reply.done")) == 2


async def test_typing_out_of_earshot_holds_nothing_up(start: Start) -> None:
    """Whoever would not hear the reply may type as it likes."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        groups = {"bar": ["minsu", "bram"], "fire": ["ana", "ysolde"]}
        await host.ask("scene.set", conversation=conversation, groups=groups)
        await ana.send("input", conversation=conversation, state="speaking")
        await told(ana)
        async with asyncio.timeout(4):
            assert of(await said(minsu, conversation, "Hello."), "reply.done")


@pytest.mark.parametrize("module", [dialogue, replies])
async def test_typing_holds_a_reply_up_for_a_while(
    start: Start, monkeypatch: pytest.MonkeyPatch, module: object
) -> None:
    """It lapses after the last sign of it; and one who types on and on delays a reply once."""
    monkeypatch.setattr(module, "INPUT_SECONDS", 0.05)
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        await ana.send("input", conversation=conversation, state="typing")
        await told(ana)
        async with asyncio.timeout(4):
            assert of(await said(minsu, conversation, "Bram, hello."), "reply.done")


# NPCs among themselves


async def test_npcs_answer_one_another_by_name(start: Start) -> None:
    """The chain ends where it is bound, and settles the turn that it came from, once."""
    async with start(CALLING) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        events = await said(minsu, conversation, "Bram, what about the river?")
        assert speakers(events) == ["bram", "ysolde", "bram"]
        started = of(events, "reply.started")
        assert [e["to"] for e in started] == [["minsu"], ["bram"], ["ysolde"]]
        turns = [events[0]["turn"], *(e["turn"] for e in started)]
        assert [e["answers"] for e in started] == turns[:3]
        assert len(of(events, "scene.idle")) == 1
        assert len(of(await told(ana), "reply.done")) == 3


async def test_npcs_keep_to_their_budget(start: Start) -> None:
    """Four replies a minute that no player asked for; then players alone are answered."""
    async with start(CALLING) as app, at(app, "minsu") as (conversation, (minsu, _)):
        spoken = [
            speakers(await said(minsu, conversation, f"{name}, and now?"))
            for name in ("Bram", "Ysolde", "Bram", "Ysolde")
        ]
        assert [len(each) for each in spoken] == [3, 3, 1, 1]


async def test_a_player_is_answered_before_npcs_talk_on(start: Start) -> None:
    """What a player said meanwhile comes first, whoever was called by an NPC."""
    script = {
        "rules": [
            {"reply": f"{LONG} Ysolde, go on.", "piece_ms": 20, "times": 1},
            {"reply": VARIED},
        ]
    }
    async with start(script) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        await minsu.ask("say", conversation=conversation, text="Bram, count!")
        await until(minsu, "reply.sentence")
        ack = await ana.ask("say", conversation=conversation, text="Bram, and for me?")
        events = await settled(minsu, ack["turn"])
        assert of(events, "reply.started")[0]["answers"] == ack["turn"]


# What the game says


async def test_hold_keeps_everybody_silent(start: Start) -> None:
    """Nothing is said in a cutscene; what was asked meanwhile is answered behind it, in order."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        about = {"conversation": conversation}
        with pytest.raises(Refused, match="host"):
            await minsu.ask("conversation.set", **about, hold=True)
        await host.ask("conversation.set", **about, hold=True)
        first = await minsu.ask("say", **about, text="Bram, hello.")
        second = await ana.ask("say", **about, text="Ysolde, hello.")
        third = await host.ask("event", **about, text="The bell rings.", to=["bram"])
        assert of(await told(minsu), "reply.started", "scene.idle") == []
        await host.ask("conversation.set", **about, hold=False)
        events = await settled(minsu, third["turn"])
        turns = [first["turn"], second["turn"], third["turn"]]
        assert [e["answers"] for e in of(events, "reply.started")] == turns
        assert [e["turn"] for e in of(events, "scene.idle")] == turns


async def test_what_is_too_much_to_wait_is_settled(start: Start) -> None:
    """Beyond what may wait an event is taken in all the same, and settled without an answer."""
    async with start(CALM) as app, at(app, "minsu") as (conversation, (_, host)):
        about = {"conversation": conversation}
        await host.ask("conversation.set", **about, hold=True)
        acks = [
            await host.ask("event", **about, text=f"Bell {n}.", to=["bram", "ysolde"])
            for n in range(20)
        ]
        await told(host)
        await host.ask("conversation.set", **about, hold=False)
        events: list[Json] = []
        while len(of(events, "scene.idle")) < 16:
            events.append(await host.receive())
        expected = Counter(ack["turn"] for ack in acks[:16])
        assert Counter(e["turn"] for e in of(events, "scene.idle")) == expected
        assert of(await told(host), "reply.started", "scene.idle") == []


async def test_segments_are_answered_together(start: Start) -> None:
    """What came with ``respond: never`` is settled at once and answered with the next turn."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, _)):
        for text in ("Bram, I was", "thinking that"):
            events = await said(minsu, conversation, text, respond="never")
            assert [e["type"] for e in events] == ["ack", "turn", "scene.idle"]
        events = await said(minsu, conversation, "you could mend this.")
        assert speakers(events) in (["bram"], ["ysolde"])
        (request,) = app.engine.requests  # type: ignore[attr-defined]
        lines = [line for line in request.messages[-1].text.splitlines() if "Minsu: " in line]
        texts = ["Minsu: Bram, I was", "Minsu: thinking that", "Minsu: you could mend this."]
        assert lines == texts
        assert len(of(await told(ana), "turn")) == 3


@pytest.mark.parametrize("respond", ["auto", "must", "never"])
async def test_events_are_reacted_to_as_the_game_says(start: Start, respond: str) -> None:
    """Where nobody speaks ``auto`` and ``must`` are reacted to; each event is settled once."""
    async with start(CALM) as app, at(app, "minsu") as (conversation, (minsu, host)):
        with pytest.raises(Refused, match="host"):
            await minsu.ask("event", conversation=conversation, text="Fire!")
        fields = {"text": "The lights go out.", "respond": respond, "to": ["ysolde"]}
        ack = await host.ask("event", conversation=conversation, **fields)
        events = await settled(minsu, ack["turn"])
        assert (of(events, "turn")[0]["kind"], of(events, "turn")[0]["speaker"]) == ("event", "")
        assert speakers(events) == ([] if respond == "never" else ["ysolde"])
        assert of(await told(minsu), "scene.idle") == []


@pytest.mark.parametrize("respond", ["auto", "must", "never"])
async def test_an_event_while_somebody_speaks(start: Start, respond: str) -> None:
    """Only what must be reacted to cuts the reply; each is settled exactly once all the same."""
    async with start(slow()) as app, at(app, "minsu") as (conversation, (minsu, host)):
        about = {"conversation": conversation}
        first = await minsu.ask("say", **about, text="Bram, count!")
        await until(minsu, "reply.sentence")
        fields = {"text": "Lightning strikes.", "respond": respond, "to": ["ysolde"]}
        second = await host.ask("event", **about, **fields)
        must = respond == "must"
        events = await settled(minsu, second["turn"])
        if not must:
            events += await settled(minsu, first["turn"])
        assert of(events, "reply.done")[0]["finish"] == ("interrupted" if must else "stop")
        assert speakers(events) == (["ysolde"] if must else [])
        turns = Counter(e["turn"] for e in of(events, "scene.idle"))
        assert turns == {first["turn"]: 1, second["turn"]: 1}


async def test_an_event_that_some_perceive(start: Start) -> None:
    """Others get no word of it, and who reacts to it does so among those who perceived it."""
    async with start(CALM) as app, at(app, "minsu", "ana") as (conversation, (minsu, ana, host)):
        fields = {"text": "A mouse runs over your foot.", "hearers": ["minsu", "ysolde"]}
        ack = await host.ask("event", conversation=conversation, **fields, instructions="Scream.")
        events = await settled(minsu, ack["turn"])
        (started,) = of(events, "reply.started")
        assert (started["speaker"], set(started["hearers"])) == ("ysolde", {"minsu", "ysolde"})
        assert await told(ana) == []
        (request,) = app.engine.requests  # type: ignore[attr-defined]
        assert "Scream." in request.messages[-1].text
        assert "[A mouse runs over your foot.]" in request.messages[-1].text


async def test_who_has_left_does_not_answer(start: Start) -> None:
    """An NPC that was to answer and left meanwhile is silent; the turn is settled once."""
    async with start(slow()) as app, at(app, "minsu") as (conversation, (minsu, host)):
        about = {"conversation": conversation}
        ack = await minsu.ask("say", **about, text="Bram, Ysolde, count!")
        await until(minsu, "reply.sentence")
        await host.ask("conversation.leave", **about, member="ysolde")
        events = await settled(minsu, ack["turn"])
        (silent,) = of(events, "reply.silent")
        assert (silent["speaker"], silent["reason"]) == ("ysolde", "gone")
        assert silent["answers"] == ack["turn"]
        assert len(of(events, "scene.idle")) == 1
        assert speakers(events) == []


async def test_who_leaves_while_it_speaks_is_cut_short(start: Start) -> None:
    """Its reply ends as cancelled with what was sent, and the next one has its turn."""
    async with start(slow()) as app, at(app, "minsu") as (conversation, (minsu, host)):
        about = {"conversation": conversation}
        ack = await minsu.ask("say", **about, text="Bram, Ysolde, count!")
        await until(minsu, "reply.sentence")
        await host.ask("conversation.leave", **about, member="bram")
        events = await settled(minsu, ack["turn"])
        assert [e["finish"] for e in of(events, "reply.done")] == ["cancelled", "stop"]
        assert speakers(events) == ["ysolde"]


async def test_an_engine_that_fails_settles_all_the_same(start: Start) -> None:
    """A reply that breaks off is told, the next one begins, and the turn is settled once."""
    broken = {"reply": "No, I never", "fail": "unavailable", "fail_after": 2, "times": 1}
    async with (
        start({"rules": [broken, *CALM["rules"]]}) as app,
        at(app, "minsu") as (conversation, (minsu, _)),
    ):
        ack = await minsu.ask("say", conversation=conversation, text="Bram, Ysolde, hello.")
        events: list[Json] = []
        while not of(events, "scene.idle"):
            events.append(await minsu.receive())
        assert [e["finish"] for e in of(events, "reply.done")] == ["error", "stop"]
        assert of(events, "scene.idle")[0]["turn"] == ack["turn"]
