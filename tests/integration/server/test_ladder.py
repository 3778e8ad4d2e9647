"""What is said when an engine is late, fails or repeats itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import yaml
from support import Json, Start, of, opened, reply_to

from npc_server.app import App
from npc_server.client import session
from npc_server.engines.base import GenerateRequest
from npc_server.engines.scripted import ScriptedEngine
from npc_server.errors import TooLarge

LINE = "Aye, I can mend that hinge before the evening bell."


def said(events: list[Json]) -> Json:
    """The end of the reply, which the deltas have told word for word."""
    done = of(events, "reply.done")[0]
    assert "".join(delta["text"] for delta in of(events, "reply.delta")) == done["text"]
    return done


async def metrics(app: App) -> str:
    """The metrics page."""
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(app.address.replace("ws", "http") + "/metrics")).text


def script_file(folder: Path, name: str, *rules: Json) -> str:
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({"model": name, "rules": list(rules)}))
    return str(file)


def persona_file(folder: Path, **fields: Any) -> Path:
    """A folder with one more persona, ``ana``."""
    folder.mkdir(exist_ok=True)
    prose = dict.fromkeys(("summary", "description", "personality", "speech"), "Calm.")
    (folder / "ana.yaml").write_text(
        yaml.safe_dump({"id": "ana", "name": "Ana", **prose, **fields})
    )
    return folder


async def test_a_late_reply_begins_with_a_filler(start: Start) -> None:
    """At the deadline the NPC says a filler of its own; its reply stands behind it, numbered on."""
    script = {"rules": [{"reply": LINE, "first_ms": 900}]}
    async with start(script) as app, session(app.address) as client:
        conversation = await opened(client, deadline_ms=300)
        events = await reply_to(client, conversation, "Can you mend this?")
        done = said(events)
        assert done["degraded"] == "filler"
        first = of(events, "reply.sentence")[0]
        fillers = app.library.get("bram").fillers
        assert (first["index"], first["start_char"]) == (0, 0)
        assert first["text"] in fillers
        assert done["text"] == f"{first['text']} {LINE}"
        assert [s["index"] for s in of(events, "reply.sentence")] == [0, 1]
        history = await client.ask("history.get", conversation=conversation)
        assert history["turns"][-1]["text"] == done["text"]


async def test_a_reply_in_time_has_no_filler(start: Start) -> None:
    """A reply that begins before its deadline is spoken as it is."""
    async with start({"rules": [{"reply": LINE}]}) as app, session(app.address) as client:
        conversation = await opened(client)
        events = await reply_to(client, conversation, "Can you mend this?")
        assert said(events)["text"] == LINE
        assert "degraded" not in said(events)


async def test_where_lateness_is_foreseen_the_reply_is_one_sentence(start: Start) -> None:
    """An engine known for slow beginnings is stopped at the end of the first sentence."""
    other = "Come round to my good side first."
    script = {"rules": [{"reply": [LINE, f"{other} And bring the pin."], "first_ms": 300}]}
    async with start(script) as app, session(app.address) as client:
        conversation = await opened(client)
        await reply_to(client, conversation, "Can you mend this?")
        await client.send("say", conversation=conversation, text="And now?", deadline_ms=200)
        done = said([event async for event in client.until_idle()])
        assert done["text"].endswith(other)
        assert (done["finish"], done["degraded"]) == ("stop", "filler")


async def test_where_no_engine_answers_an_authored_line_is_said(start: Start) -> None:
    """An engine that fails before its first word gives way to a whole line in character."""
    async with start({"rules": [{"fail": "unavailable"}]}) as app, session(app.address) as client:
        conversation = await opened(client)
        done = said(await reply_to(client, conversation, "Can you mend this?"))
        assert (done["finish"], done["degraded"]) == ("stop", "canned")
        assert done["text"] in app.library.get("bram").refusals


async def test_a_silent_engine_gives_way(start: Start) -> None:
    """An engine that says nothing: a filler at the deadline, then a whole line in character."""
    async with (
        start({"rules": [{"fail": "stall"}]}, timeouts={"first_token": 0.5}) as app,
        session(app.address) as client,
    ):
        conversation = await opened(client, deadline_ms=200)
        events = await reply_to(client, conversation, "Can you mend this?")
        done = said(events)
        assert (done["finish"], done["degraded"]) == ("stop", "canned")
        bram = app.library.get("bram")
        filler = of(events, "reply.sentence")[0]["text"]
        assert filler in bram.fillers
        assert done["text"].removeprefix(f"{filler} ") in bram.refusals


async def test_another_engine_takes_over(start: Start, tmp_path: Path) -> None:
    """Where an NPC's engine cannot begin, those of ``fallback`` are asked in turn."""
    engines = {
        "broken": {"script": script_file(tmp_path, "broken", {"fail": "unavailable"})},
        "spare": {"script": script_file(tmp_path, "spare", {"reply": "I stand in."})},
    }
    async with (
        start(
            {"rules": [{"fail": "unavailable"}]}, engines=engines, fallback=("broken", "spare")
        ) as app,
        session(app.address) as client,
    ):
        conversation = await opened(client)
        done = said(await reply_to(client, conversation, "Can you mend this?"))
        assert done["text"] == "I stand in."
        assert "degraded" not in done
        exposed = await metrics(app)
        assert 'npc_engine_failures_total{engine="default"} 1.0' in exposed


async def test_a_prompt_too_large_for_an_engine_gives_way(start: Start, tmp_path: Path) -> None:
    """An engine that turns out to have less context than it said is passed over as well."""

    class Smaller(ScriptedEngine):
        def generate(self, request: GenerateRequest) -> Any:
            raise TooLarge("It does not fit.")

    engines = {"spare": {"script": script_file(tmp_path, "spare", {"reply": "I stand in."})}}
    async with (
        start({"rules": [{"reply": LINE}]}, engines=engines, fallback=("spare",)) as app,
        session(app.address) as client,
    ):
        app.engine.__class__ = Smaller
        conversation = await opened(client)
        assert said(await reply_to(client, conversation, "Hello"))["text"] == "I stand in."


async def test_an_adapter_stays_with_its_engine(start: Start, tmp_path: Path) -> None:
    """Another engine, which has another model, stands in without the persona's adapter."""
    engines = {"spare": {"script": script_file(tmp_path, "spare", {"reply": "I stand in."})}}
    personas = persona_file(tmp_path / "more", adapter={"path": "ana.gguf"})
    async with (
        start(
            {"rules": [{"fail": "unavailable"}]},
            engines=engines,
            fallback=("spare",),
            personas=(personas,),
        ) as app,
        session(app.address) as client,
    ):
        conversation = await opened(client, npcs=["ana"])
        assert said(await reply_to(client, conversation, "Hello"))["text"] == "I stand in."
        adapters = [
            [request.adapter is not None for request in brain.engine.requests]  # type: ignore[attr-defined]
            for brain in app.brains.all()
        ]
        assert adapters == [[True], [False]]


async def test_a_persona_speaks_with_its_own_engine(start: Start, tmp_path: Path) -> None:
    """A persona that names an engine is answered by it, the others by the default one."""
    engines = {"small": {"script": script_file(tmp_path, "small", {"reply": "Small talk."})}}
    async with (
        start(
            {"rules": [{"reply": "Big talk."}]},
            engines=engines,
            personas=(persona_file(tmp_path / "more", engine="small"),),
        ) as app,
        session(app.address) as client,
    ):
        for npc, text in (("ana", "Small talk."), ("bram", "Big talk.")):
            conversation = await opened(client, npcs=[npc])
            assert said(await reply_to(client, conversation, "Hello"))["text"] == text


async def test_a_repeated_line_is_drawn_anew(start: Start) -> None:
    """A reply that begins like an earlier one goes on from two words, with other settings."""
    other = "Aye, I hear you, but the hinge waits until the mare is shod."
    script = {"rules": [{"reply": [LINE, LINE, other]}]}
    async with start(script) as app, session(app.address) as client:
        conversation = await opened(client)
        await reply_to(client, conversation, "Can you mend this?")
        events = await reply_to(client, conversation, "And this?")
        assert said(events)["text"] == other
        asked = list(app.engine.requests)[-2:]  # type: ignore[attr-defined]
        assert asked[0].sampling.temperature < asked[1].sampling.temperature
        assert asked[0].seed != asked[1].seed
        assert [request.prefix for request in asked] == ["", "Aye, I"]
        deltas = [event["text"] for event in events if event["type"] == "reply.delta"]
        assert "".join(deltas) == other
        exposed = await metrics(app)
        assert 'npc_repetitions_total{done="resampled"} 1.0' in exposed


async def test_a_name_among_the_first_words_is_said_once(start: Start) -> None:
    """What the next parser still takes for the beginning of a label was sent all the same."""
    line = "Aye. Bram can mend that hinge before the evening bell."
    other = "Aye. Bram waits until the mare is shod, and the rain is over."
    script = {"rules": [{"reply": [line, line, other]}]}
    async with start(script) as app, session(app.address) as client:
        conversation = await opened(client)
        await reply_to(client, conversation, "Can you mend this?")
        events = await reply_to(client, conversation, "And this?")
        assert list(app.engine.requests)[-1].prefix == "Aye. Bram"  # type: ignore[attr-defined]
        assert said(events)["text"] == other


async def test_the_same_question_may_have_the_same_answer(start: Start) -> None:
    """Where every draw is like an earlier reply, the last one is spoken all the same."""
    async with start({"rules": [{"reply": LINE}]}) as app, session(app.address) as client:
        conversation = await opened(client)
        await reply_to(client, conversation, "Can you mend this?")
        before = len(app.engine.requests)  # type: ignore[attr-defined]
        assert said(await reply_to(client, conversation, "Can you mend this?"))["text"] == LINE
        assert len(app.engine.requests) - before == 3  # type: ignore[attr-defined]


async def test_a_loop_inside_a_reply_is_cut(start: Start) -> None:
    """A reply that goes round and round ends where it began to."""
    loop = "The fire is hot and " + "round and round we go " * 12
    async with start({"rules": [{"reply": loop}]}) as app, session(app.address) as client:
        conversation = await opened(client)
        done = said(await reply_to(client, conversation, "Tell me."))
        assert done["text"].startswith("The fire is hot")
        assert len(done["text"]) < len(loop) / 2
        assert done["finish"] == "stop"


async def test_a_reply_that_takes_too_long_ends(start: Start) -> None:
    """A reply past its time ends as ``deadline``; what was sent stands."""
    script = {
        "rules": [{"reply": "One by one the sparks go out over the dark forge.", "piece_ms": 80}]
    }
    async with start(script, timeouts={"reply": 0.4}) as app, session(app.address) as other:
        conversation = await opened(other)
        done = said(await reply_to(other, conversation, "Tell me."))
        assert done["finish"] == "deadline"
        assert done["text"].startswith("One")
