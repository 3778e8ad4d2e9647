"""The Director panel: what a game does to a conversation, done by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browser import OpenTalk, Talk, write_script
from playwright.async_api import WebSocketRoute, expect
from processes import Servers

from npc_server.server.keys import KeyFile

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def go_back(talk: Talk, line: int) -> None:
    """Go back to a line by its menu."""
    turn = talk.page.locator(".turn").nth(line)
    await turn.locator(".menu summary").click()
    before = len(talk.events("conversation.reset"))
    await turn.get_by_role("button", name="Go back to here").click()
    await talk.until(lambda: len(talk.events("conversation.reset")) > before)


async def test_the_director_hears_nothing(open_talk: OpenTalk) -> None:
    """The panel's connection is a host's and hears nothing: a whisper of others stays theirs."""
    async with open_talk() as anna, open_talk() as yuna:
        await anna.gather("bram", "marta")
        await yuna.page.goto(await anna.invite("Yuna"))
        await expect(yuna.person("bram")).to_be_visible()
        await yuna.direct()
        assert [e["role"] for e in yuna.events("welcome")] == ["player", "host"]
        await anna.page.locator('#chips [data-member="bram"]').click()
        await anna.page.locator("#whisper").click()
        await anna.answered("The key lies under the anvil")
        await anna.page.locator('#chips [data-member="bram"]').click()
        await anna.answered("Marta, good evening")
        await expect(yuna.replies().last).to_have_attribute("data-status", "done")
        assert "anvil" not in json.dumps(yuna.received)
        assert "anvil" not in " ".join(await yuna.transcript())
        turns = [event["turn"] for event in yuna.events("turn")]
        assert len(turns) == len(set(turns)) > 0


async def test_something_happens(talk: Talk) -> None:
    """An event stands in the transcript, and whom it concerns reacts."""
    await talk.gather("bram", "marta")
    await talk.direct("happen")
    form = talk.page.locator('[data-part="happen"]')
    await form.get_by_label("What happens").fill("The lights go out.")
    await form.get_by_role("group", name="It concerns").get_by_label("Marta").check()
    await form.get_by_role("combobox", name="Reaction").select_option("must")
    await form.get_by_role("button", name="Let it happen").click()
    await expect(talk.page.locator(".turn.event .words")).to_have_text("The lights go out.")
    await expect(talk.replies().nth(1).locator(".speaker")).to_have_text("Marta")
    await expect(talk.replies().nth(1)).to_have_attribute("data-status", "done")
    (event,) = talk.commands("event")
    assert (event["to"], event["hearers"], event["respond"]) == (["marta"], [], "must")
    await expect(form.get_by_label("What happens")).to_have_value("")


async def test_what_only_some_perceive(open_talk: OpenTalk) -> None:
    """An event that the director gives to some is on no other page."""
    async with open_talk() as anna, open_talk() as yuna:
        await anna.choose()
        await yuna.page.goto(await anna.invite("Yuna"))
        await expect(yuna.person("bram")).to_be_visible()
        await yuna.direct("happen")
        form = yuna.page.locator('[data-part="happen"]')
        for text, ticked in (("A mouse runs by.", True), ("A bell rings.", False)):
            await form.get_by_label("What happens").fill(text)
            by = form.get_by_role("group", name=re.compile("Perceived by"))
            await by.get_by_label("Yuna").set_checked(ticked)
            await form.get_by_role("combobox", name="Reaction").select_option("never")
            await form.get_by_role("button", name="Let it happen").click()
            await expect(yuna.page.locator(".turn.event .words").last).to_have_text(text)
        await expect(anna.page.locator(".turn.event .words")).to_have_text(["A bell rings."])


async def test_facts(talk: Talk) -> None:
    """A fact that is set stands in the table and in the next prompt, until it is removed."""
    await talk.choose()
    await talk.direct("factsTitle")
    part = talk.page.locator('[data-part="factsTitle"]')
    await part.get_by_label("Name").fill("weather")
    await part.get_by_label("Value").fill("hail")
    await part.get_by_role("button", name="Add").click()
    await expect(part.locator('[data-fact="weather"] input')).to_have_value("hail")
    assert talk.commands("context.set")[-1]["facts"] == {"weather": "hail"}
    await talk.answered("Good morning")
    await talk.replies().last.locator(".prompt-of").click()
    await expect(talk.page.locator(".messages")).to_contain_text("hail")
    await talk.page.keyboard.press("Escape")
    await part.get_by_role("button", name="Remove").click()
    await expect(part.locator("tr")).to_have_count(0)
    assert talk.commands("context.set")[-1]["facts"] == {"weather": None}
    await talk.answered("And good evening")
    await talk.replies().last.locator(".prompt-of").click()
    await expect(talk.page.locator(".messages")).to_contain_text("good evening")
    await expect(talk.page.locator(".messages")).not_to_contain_text("hail")


async def test_what_may_happen(talk: Talk) -> None:
    """Held NPCs are silent and answer later; until it is used, a switch is neither on nor off."""
    await talk.choose()
    await talk.direct("settingTitle")
    hold = talk.page.get_by_label("Hold the NPCs silent")
    assert await hold.evaluate("box => box.indeterminate")
    await hold.check()
    await talk.until(lambda: talk.events("ack", re=talk.commands("conversation.set")[-1]["id"]))
    assert talk.commands("conversation.set")[-1]["hold"] is True
    await talk.say("Good morning")
    await expect(talk.page.locator(".turn.mine")).to_have_attribute("data-status", "done")
    started = len(talk.events("reply.started"))
    await hold.uncheck()
    await talk.until(lambda: len(talk.events("reply.started")) > started)
    assert talk.commands("conversation.set")[-1]["hold"] is False
    await talk.page.get_by_label("NPCs talk among themselves").check()
    await talk.until(lambda: len(talk.commands("conversation.set")) == 3)
    assert talk.commands("conversation.set")[-1]["ambient"] == "on"


async def test_how_an_npc_is(talk: Talk) -> None:
    """Mood and affinity that are set here are the NPC's, and stand in the panel of a new tab."""
    await talk.choose()
    await talk.direct("castTitle")
    bram = talk.page.locator('.cast-list [data-member="bram"]')
    await bram.get_by_label("Mood").fill("worried about the kiln")
    await bram.get_by_label("Mood").press("Enter")
    await talk.until(lambda: talk.events("npc.state", mood="worried about the kiln"))
    await bram.get_by_label("Affinity").fill("0.5")
    await talk.until(lambda: talk.events("npc.state", affinity=0.5))
    await talk.page.reload()
    await talk.direct("castTitle")
    await expect(bram.get_by_label("Mood")).to_have_value("worried about the kiln")
    await expect(bram.get_by_label("Affinity")).to_have_value("0.5")


async def test_somebody_comes_and_goes(talk: Talk) -> None:
    """An NPC that is brought in is drawn and can be spoken to; sent away, all is as before."""
    await talk.choose()
    await talk.direct("castTitle")
    part = talk.page.locator('[data-part="castTitle"]')
    await part.get_by_label("Who is to come in").select_option("marta")
    await part.get_by_role("button", name="Add").click()
    await expect(talk.page.locator(".turn.cast .note")).to_have_text("Marta came")
    await expect(talk.person("marta")).to_be_visible()
    await expect(talk.page.locator("#portrait")).to_be_hidden()
    await talk.answered("Marta, good evening")
    await expect(talk.replies().last.locator(".speaker")).to_have_text("Marta")
    marta = part.locator('.cast-list [data-member="marta"]')
    await marta.get_by_role("button", name="Send away").click()
    await expect(talk.page.locator(".turn.cast .note").last).to_have_text("Marta left")
    await expect(talk.page.locator("#portrait svg")).to_be_visible()
    await expect(talk.page.locator("#gathering")).to_be_hidden()


async def test_heads_are_dragged(talk: Talk) -> None:
    """A head that is dragged onto another group stands there; without the panel it stays."""
    await talk.page.goto(talk.url)
    await talk.page.locator('[data-scene="tavern"]').click()
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    await talk.direct()
    await talk.person("pip").drag_to(talk.page.locator('[data-group="fireplace"]'))
    await expect(talk.page.locator('[data-group="fireplace"] .person')).to_have_count(3)
    groups = talk.commands("scene.set")[-1]["groups"]
    assert groups["fireplace"] == ["bram", "ysolde", "pip"]
    assert talk.events("scene.changed")[-1]["groups"] == groups
    await talk.page.locator("#director-close").click()
    await talk.person("pip").drag_to(talk.page.locator('[data-group="bar"]'))
    assert len(talk.commands("scene.set")) == 1


async def test_a_group_is_chosen_from_the_list(talk: Talk) -> None:
    """Who cannot drag moves members with the list of groups in the panel."""
    await talk.page.goto(talk.url)
    await talk.page.locator('[data-scene="tavern"]').click()
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    await talk.direct("castTitle")
    ysolde = talk.page.locator('.cast-list [data-member="ysolde"]')
    await ysolde.get_by_label("Stands with").select_option("bar")
    await expect(talk.page.locator('[data-group="bar"] [data-member="ysolde"]')).to_be_visible()


async def test_rewind_and_branches(talk: Talk) -> None:
    """Going back takes what came later off the page; the tree leads to it and back again."""
    await talk.choose()
    greeting = (await talk.transcript())[0]
    await talk.direct("branchesTitle")
    await expect(talk.page.locator(".branches .note")).to_contain_text("None yet")
    await talk.answered("What of the well?")
    first = await talk.transcript()
    await go_back(talk, 0)
    await expect(talk.page.locator(".turn")).to_have_count(1)
    assert await talk.transcript() == [greeting]
    await talk.answered("Can you shoe a mare?")
    second = await talk.transcript()
    rows = talk.page.locator(".tree li")
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("That it sings")
    await expect(talk.page.locator(".tree path.current")).to_have_count(1)
    await rows.first.get_by_role("button").click()
    await expect(talk.page.locator(".turn")).to_have_count(len(first))
    assert await talk.transcript() == first
    await talk.page.reload()
    await expect(talk.page.locator(".turn")).to_have_count(len(first))
    assert await talk.transcript() == first
    await talk.direct("branchesTitle")
    await expect(rows).to_have_count(2)
    await rows.nth(1).get_by_role("button").click()
    await expect(talk.page.locator(".turn .words").last).to_contain_text("Grey mare")
    assert await talk.transcript() == second


async def test_a_rewind_is_on_every_page(open_talk: OpenTalk) -> None:
    """Where others play along the director goes back for all, each to what it heard itself."""
    async with open_talk() as anna, open_talk() as yuna:
        await anna.choose()
        await anna.answered("Good morning")
        await yuna.page.goto(await anna.invite("Yuna"))
        await expect(yuna.person("bram")).to_be_visible()
        await anna.answered("Bram, what of the well?")
        await expect(yuna.replies()).to_have_count(1)
        await anna.direct()
        await go_back(anna, 2)
        await expect(anna.page.locator(".turn .words")).to_have_count(3)
        await expect(yuna.page.locator(".turn")).to_have_count(0)
        await yuna.answered("Bram, can you shoe a mare?")
        await expect(anna.replies().last.locator(".heard")).to_contain_text("Grey mare")


async def test_words_are_taken_out(open_talk: OpenTalk) -> None:
    """Redacted words leave every page at once, and do not come back with a reload."""
    async with open_talk() as anna, open_talk() as yuna:
        await anna.choose()
        await yuna.page.goto(await anna.invite("Yuna"))
        await expect(yuna.person("bram")).to_be_visible()
        await anna.answered("Bram, my number is 555")
        await expect(yuna.page.locator(".turn.theirs.say .words")).to_have_text(
            "Bram, my number is 555"
        )
        await anna.direct()
        line = anna.page.locator(".turn.mine")
        await line.locator(".menu summary").click()
        await line.get_by_role("button", name="Take the words out").click()
        for page in (anna, yuna):
            await expect(page.page.locator(".turn.say .note")).to_have_text("words taken out")
            await expect(page.page.get_by_text("555")).to_have_count(0)
        await anna.page.reload()
        await expect(anna.replies().last).to_have_attribute("data-status", "done")
        assert "555" not in " ".join(await anna.transcript())


async def test_saves(talk: Talk, tmp_path: Path) -> None:
    """A save brings the conversation back as it was; as a file it outlives its own deletion."""
    await talk.choose()
    await talk.answered("What of the well?")
    saved = await talk.transcript()
    await talk.direct("savesTitle")
    part = talk.page.locator('[data-part="savesTitle"]')
    await part.get_by_label("Name of the save").fill("evening")
    await part.get_by_role("button", name="Save", exact=True).click()
    row = part.locator('[data-save="evening"]')
    await expect(row).to_be_visible()
    async with talk.page.expect_download() as download:
        await row.get_by_role("button", name="Export").click()
    file = tmp_path / (await download.value).suggested_filename
    assert file.name == "evening.npcsave"
    await (await download.value).save_as(file)
    await row.get_by_role("button", name="Remove").click()
    await expect(row).to_have_count(0)
    await talk.answered("Can you shoe a mare?")
    await part.locator("input[type=file]").set_input_files(file)
    await expect(row).to_be_visible()
    await row.get_by_role("button", name="Load").click()
    await talk.until(lambda: talk.events("checkpoint.loaded"))
    await expect(talk.page.locator(".turn")).to_have_count(len(saved))
    assert await talk.transcript() == saved
    await talk.answered("And a story")


async def test_a_large_file_goes_up_in_parts(talk: Talk, tmp_path: Path) -> None:
    """A file goes up in parts of 48 KiB of base64, and one that is no save is refused in words."""
    await talk.choose()
    await talk.direct("savesTitle")
    file = tmp_path / "broken.npcsave"
    file.write_bytes(bytes(100_000))
    await talk.page.locator("input[type=file]").set_input_files(file)
    await expect(talk.page.locator("#director-note")).to_be_visible()
    await talk.until(lambda: talk.events("error"))
    parts = talk.commands("checkpoint.import")
    assert [(p["part"], p["parts"]) for p in parts] == [(1, 3), (2, 3), (3, 3)]
    assert max(len(p["data"]) for p in parts) == 48 * 1024
    told = talk.events("error")[-1]["message"]
    await expect(talk.page.locator("#director-note")).to_have_text(told)


async def test_a_players_key_directs_nothing(
    open_talk: OpenTalk, servers: Servers, tmp_path: Path
) -> None:
    """With the key of a player the page plays, and the panel says that it needs a host's."""
    _, key = KeyFile(tmp_path / "data" / "keys.json").add("tests", "player", 0)
    script = str(write_script(tmp_path))
    url = servers.start("--engine", "scripted", "--auth", "keys", NPC_SCRIPT=script).page
    async with open_talk(url=url) as talk:
        await talk.page.goto(url)
        dialog = talk.page.get_by_role("dialog", name="This server asks for an API key")
        await dialog.get_by_label("API key").fill(key)
        await dialog.get_by_role("button", name="Connect").click()
        await talk.choose()
        await talk.page.locator("#director-toggle").click()
        await expect(talk.page.locator("#director-note")).to_contain_text("API key of a host")
        await expect(talk.page.locator("#director-body")).to_have_attribute("inert", "")
        await talk.answered("Good morning")


async def test_the_prompt_in_colours(talk: Talk) -> None:
    """Each source has a colour of its own, and the legend adds up to the sections' tokens."""
    await talk.choose()
    await talk.answered("Do you mend ploughs?")
    await talk.replies().last.locator(".prompt-of").click()
    tokens = await talk.page.locator(".sections .tokens").all_inner_texts()
    legend = await talk.page.locator(".legend .tokens").all_inner_texts()
    total = sum(int(re.sub(r"\D", "", text)) for text in tokens)
    assert sum(map(int, legend)) == total
    await expect(talk.page.locator(".shares .note")).to_have_text(
        f"Tokens of the sections: {total}"
    )
    colours = await talk.page.locator(".share-bar span").evaluate_all(
        "ns => ns.map(n => getComputedStyle(n).backgroundColor)"
    )
    assert len(colours) == len(set(colours)) == len(legend) >= 4


async def test_an_edited_prompt_is_tried(talk: Talk) -> None:
    """The model's answer to an edited prompt stands beside the original; nothing of it is kept."""
    await talk.choose()
    await talk.answered("Good morning")
    before = await talk.transcript()
    await talk.replies().last.locator(".prompt-of").click()
    await talk.page.locator(".try > summary").click()
    await talk.page.locator(".rerun textarea").last.fill("Can you shoe a mare?")
    await talk.page.get_by_role("button", name="Ask the model").click()
    answers = talk.page.locator(".answers pre")
    await expect(answers.nth(0)).to_have_text(before[-1])
    await expect(answers.nth(1)).to_contain_text("Grey mare")
    await talk.page.keyboard.press("Escape")
    assert await talk.transcript() == before
    assert talk.commands("prompt.run")[-1]["messages"][-1]["text"] == "Can you shoe a mare?"


async def test_a_server_that_tries_no_prompts(talk: Talk) -> None:
    """A server that does not know the command is named as the reason, in plain words."""

    def route(socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()

        def outwards(message: str | bytes) -> None:
            frame = json.loads(message)
            if frame["type"] != "prompt.run":
                server.send(message)
                return
            error = {"type": "error", "re": frame["id"], "code": "unknown_type", "message": "?"}
            socket.send(json.dumps({**error, "retryable": False}))

        socket.on_message(outwards)

    await talk.page.route_web_socket("**/*", route)
    await talk.choose()
    await talk.answered("Good morning")
    await talk.replies().last.locator(".prompt-of").click()
    await talk.page.locator(".try > summary").click()
    await talk.page.get_by_role("button", name="Ask the model").click()
    await expect(talk.page.locator(".rerun .problem")).to_contain_text("cannot try prompts out")
