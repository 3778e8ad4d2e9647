"""Conversations of several NPCs and several players, as each of their pages shows them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from browser import ANSWERS, OpenTalk, Talk
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

SECRET = "The key lies under the anvil"


@asynccontextmanager
async def three(open_talk: OpenTalk) -> AsyncIterator[tuple[Talk, Talk, Talk]]:
    """Anna, who talks with Bram and Marta, and Yuna and Kim, who came by her invites."""
    async with AsyncExitStack() as stack:
        anna, *guests = [await stack.enter_async_context(open_talk()) for _ in range(3)]
        await anna.page.goto(anna.url)
        await anna.page.locator("#player-name").fill("Anna")
        await anna.gather("bram", "marta")
        for guest, name in zip(guests, ("Yuna", "Kim"), strict=True):
            await guest.page.goto(await anna.invite(name))
            await expect(guest.person("bram")).to_be_visible()
        for page in (anna, *guests):
            await expect(page.page.locator(".person")).to_have_count(5)
        yield anna, guests[0], guests[1]


async def whisper(talk: Talk, member: str, text: str) -> None:
    """Choose one addressee, whisper, and speak aloud again."""
    await talk.page.locator(f'#chips [data-member="{member}"]').click()
    await talk.page.locator("#whisper").click()
    await talk.say(text)
    await talk.page.locator(f'#chips [data-member="{member}"]').click()


def mine(talk: Talk) -> str:
    """The member id of the page's own player."""
    return str(talk.commands("hello")[-1]["player"]["id"])


async def test_several_are_chosen(talk: Talk) -> None:
    """Two cards make a conversation of three, who are drawn, each with a chip to speak to it."""
    await talk.gather("bram", "marta")
    assert talk.commands("conversation.open")[-1]["npcs"] == ["bram", "marta"]
    await expect(talk.page.locator(".person svg")).to_have_count(3)
    await expect(talk.page.locator("#chips .chip")).to_have_text(["Bram", "Marta"])
    await expect(talk.page.locator("#npc-name")).to_have_text("Bram, Marta")
    await expect(talk.page.locator("#portrait")).to_be_hidden()


async def test_one_is_as_it_was(talk: Talk) -> None:
    """With one NPC there is the large portrait, and nothing of what several need."""
    await talk.choose()
    await talk.answered("Good morning")
    await expect(talk.page.locator("#portrait svg")).to_be_visible()
    for part in ("#gathering", "#audience", "#doing"):
        await expect(talk.page.locator(part)).to_be_hidden()
    for part in (".menu", ".addressed"):
        assert not any([await each.is_visible() for each in await talk.page.locator(part).all()])


async def test_the_page_is_a_player(talk: Talk) -> None:
    """On loopback too, where it could be a host, the page says that it is a player."""
    await talk.choose()
    assert [frame["role"] for frame in talk.commands("hello")] == ["player"]
    assert [event["role"] for event in talk.events("welcome")] == ["player"]


async def test_a_scene_is_entered(talk: Talk) -> None:
    """A scene opens with its event and first line; its groups are drawn with who stands there."""
    await talk.page.goto(talk.url)
    await talk.page.locator('[data-scene="tavern"]').click()
    await expect(talk.page.locator(".turn.event .words")).to_contain_text("Boots go up the stairs")
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    assert talk.commands("conversation.open")[-1]["scene"] == "tavern"
    groups = await talk.page.locator(".place[data-group]").evaluate_all(
        """ns => ns.map(n => [n.dataset.group,
          [...n.querySelectorAll('.person')].map(p => p.dataset.member)])"""
    )
    assert dict(groups) == {"bar": ["marta", "pip", mine(talk)], "fireplace": ["bram", "ysolde"]}
    await expect(talk.page.locator("#npc-name")).to_have_text("A wet night at the Two Herons")


async def test_a_server_without_scenes(open_talk: OpenTalk) -> None:
    """Where the server knows no scenes, the page offers none and works as before."""
    async with open_talk() as talk:
        await talk.page.route("**/scenes", lambda route: route.fulfill(status=404, body="no"))
        await talk.choose()
        await talk.page.locator("#people").click()
        await expect(talk.page.locator(".card").first).to_be_visible()
        await expect(talk.page.locator("#scenes-part")).to_be_hidden()
        talk.problems = [p for p in talk.problems if "status of 404" not in p]


async def test_hearers_are_lit(talk: Talk) -> None:
    """Who heard the newest turn is lit, who did not is dim, and a line leads to the addressee."""
    await talk.page.goto(talk.url)
    await talk.page.locator('[data-scene="tavern"]').click()
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    await expect(talk.person("marta")).to_have_class(re.compile("speaks"))
    for member in ("pip", mine(talk)):
        await expect(talk.person(member)).to_have_class(re.compile("hears"))
    for member in ("bram", "ysolde"):
        await expect(talk.person(member)).to_have_class(re.compile("deaf"))
        await expect(talk.person(member)).to_have_accessible_name(re.compile("does not hear"))
    await expect(talk.page.locator(".arrows > g path")).to_have_count(1)


async def test_who_is_out_of_earshot(talk: Talk) -> None:
    """Speaking to somebody in another group is answered by a note that it was not heard."""
    await talk.page.goto(talk.url)
    await talk.page.locator('[data-scene="tavern"]').click()
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    await talk.person("bram").click()
    await expect(talk.page.locator('#chips [data-member="bram"]')).to_have_attribute(
        "aria-pressed", "true"
    )
    await talk.say("Can you hear me over there?")
    await expect(talk.page.locator(".turn.silent .note").first).to_have_text("Bram did not hear it")


async def test_the_words_tell_who_is_meant(talk: Talk) -> None:
    """Without a chip the server finds out who is meant, and the line shows to whom it went."""
    await talk.gather("bram", "marta")
    await talk.answered("Marta, is there some soup?")
    assert "to" not in talk.commands("say")[-1]
    await expect(talk.page.locator(".turn.mine .addressed")).to_have_text("→ Marta")
    await expect(talk.replies().nth(1).locator(".speaker")).to_have_text("Marta")
    await expect(talk.replies().nth(1).locator(".addressed")).to_have_text("→ You")


async def test_three_pages_at_once(open_talk: OpenTalk) -> None:
    """What is said aloud is on all three pages, each under its speaker's name."""
    async with three(open_talk) as (anna, yuna, kim):
        await yuna.say("Bram, can you shoe a mare?")
        for page in (anna, yuna, kim):
            reply = page.page.locator(".turn.reply", has_text="Grey mare")
            await expect(reply).to_have_attribute("data-status", "done")
        await expect(yuna.page.locator(".turn.mine .words")).to_have_text(
            "Bram, can you shoe a mare?"
        )
        for page in (anna, kim):
            line = page.page.locator(".turn.theirs.say")
            await expect(line.locator(".words")).to_have_text("Bram, can you shoe a mare?")
            await expect(line.locator(".speaker")).to_have_text("Yuna")
            await expect(page.replies().last.locator(".addressed")).to_have_text("→ Yuna")


async def test_a_whisper_is_on_two_pages_only(open_talk: OpenTalk) -> None:
    """A whisper to another player, and one to an NPC, reach nobody else: no page, no frame."""
    async with three(open_talk) as (anna, yuna, kim):
        await whisper(anna, mine(yuna), SECRET)
        line = yuna.page.locator(".turn.theirs.say.whisper")
        await expect(line.locator(".words")).to_have_text(SECRET)
        await expect(line.locator(".addressed")).to_have_text("whispers → You")
        await whisper(anna, "bram", "And not a word of the well")
        await expect(anna.page.locator(".turn.reply.whisper .heard")).to_contain_text("sings")
        await expect(anna.page.locator(".arrows > g")).to_have_class("whisper")
        await anna.until(lambda: anna.events("scene.idle"))
        await kim.answered("Marta, good evening")
        for page, secrets in ((kim, (SECRET, "the well", "sings")), (yuna, ("the well", "sings"))):
            shown = " ".join(await page.transcript())
            told = json.dumps(page.received)
            assert not [words for words in secrets if words in shown + told]


async def test_a_whisper_needs_somebody(talk: Talk) -> None:
    """Without a chip there is no whispering; with one, the field says to whom."""
    await talk.gather("bram", "marta")
    button = talk.page.locator("#whisper")
    await expect(button).to_be_disabled()
    await talk.page.locator('#chips [data-member="bram"]').click()
    await button.click()
    await expect(talk.page.get_by_placeholder("Whisper to Bram")).to_be_visible()
    await talk.page.locator('#chips [data-member="bram"]').click()
    await expect(button).to_have_attribute("aria-pressed", "false")
    await expect(talk.page.get_by_placeholder("Say something")).to_be_visible()


async def test_joining_by_a_link(open_talk: OpenTalk) -> None:
    """An invite's link names its player, who keeps nothing in common with the browser's own."""
    async with open_talk() as anna:
        await anna.choose()
        link = await anna.invite("Yuna")
        own = mine(anna)
        tab = Talk(await anna.page.context.new_page(), anna.url)
        tab.watch()
        await tab.page.goto(link)
        await expect(tab.person("bram")).to_be_visible()
        parts = parse_qs(urlsplit(link).query)
        assert mine(tab) == parts["player"][0] != own
        assert tab.commands("hello")[-1]["player"]["name"] == "Yuna"
        assert await tab.page.evaluate("localStorage.getItem('npc.player')") == own
        await expect(anna.page.locator(".turn.cast .note")).to_have_text("Yuna came")
        await expect(anna.page.locator(".person")).to_have_count(3)
        await tab.answered("Bram, good morning")
        await expect(anna.page.locator(".turn.theirs.say .speaker")).to_have_text("Yuna")
        before = await tab.transcript()
        await tab.page.reload()
        await expect(tab.page.locator(".turn.reply")).to_have_count(1)
        assert await tab.transcript() == before
        assert tab.problems == []


async def test_a_false_invite_leads_nowhere(open_talk: OpenTalk) -> None:
    """With an invite that is not the conversation's own, nobody comes in and nothing is told."""
    async with open_talk() as anna, open_talk() as thief:
        await anna.choose()
        await thief.page.goto((await anna.invite("Thief")).replace("invite=", "invite=x"))
        await expect(thief.page.locator("#notice")).to_contain_text("no such conversation")
        await expect(thief.page.locator("#chooser")).to_be_visible()
        assert thief.events("turn") == thief.events("reply.started") == []
        await expect(anna.page.locator(".turn.cast")).to_have_count(0)


async def test_who_types_and_who_is_away(open_talk: OpenTalk) -> None:
    """The others see that a player types, that it has said it, and that it has gone."""
    async with three(open_talk) as (anna, yuna, kim):
        await yuna.page.locator("#field").fill("Good evening all")
        for page in (anna, kim):
            await expect(page.page.locator("#doing")).to_have_text("Yuna typing…")
            await expect(page.person(mine(yuna))).to_have_attribute("data-doing", "typing")
        await yuna.page.locator("#field").press("Enter")
        for page in (anna, kim):
            await expect(page.page.locator("#doing")).to_be_hidden()
        await kim.page.goto("about:blank")
        await expect(anna.person(mine(kim))).to_have_class(re.compile("away"))
        await yuna.page.locator("#people").click()
        await expect(anna.page.locator(".turn.cast .note").last).to_have_text("Yuna left")


async def _two_answers(talk: Talk) -> Any:
    """Have two NPCs answer at speaking pace; the second answer when both are complete."""
    await talk.gather("bram", "marta")
    await talk.page.locator("#pace").select_option("spoken")
    await talk.say("Bram and Marta, I ask both of you")
    await talk.until(lambda: len(talk.events("reply.done")) == 3)
    assert {event["text"] for event in talk.events("reply.done")[1:]} == set(ANSWERS)
    return talk.replies().nth(2)


async def test_replies_play_one_after_another(talk: Talk) -> None:
    """A reply that comes while another one still plays waits for its end, and is shown whole."""
    second = await _two_answers(talk)
    assert await second.locator(".heard").text_content() == ""
    first = talk.replies().nth(1).locator(".heard")
    await expect(first).to_have_text(talk.events("reply.done")[1]["text"], timeout=20_000)
    await expect(second.locator(".heard")).to_have_text(re.compile(".{10,}"))
    await talk.page.locator("#pace").select_option("instant")
    await expect(second.locator(".heard")).to_have_text(talk.events("reply.done")[2]["text"])
    await expect(talk.page.locator("del")).to_have_count(0)


async def test_what_waits_is_cut_too(talk: Talk) -> None:
    """Cutting in ends what plays, of which a part was heard, and what waits, of which nothing."""
    second = await _two_answers(talk)
    first = talk.replies().nth(1).locator(".heard")
    await expect(first).to_have_text(re.compile(".{10,}"))
    await talk.page.keyboard.press("Escape")
    await talk.until(lambda: len(talk.events("reply.heard")) == 2)
    heard = {event["turn"]: event["heard"] for event in talk.events("reply.heard")}
    one, two = (event["turn"] for event in talk.events("reply.done")[1:])
    assert 0 < heard[one] == len(await first.text_content() or "")
    assert heard[two] == 0
    await expect(second.locator("del")).to_have_text(talk.events("reply.done")[2]["text"])


async def test_several_fit_a_phone(open_talk: OpenTalk) -> None:
    """On every width nothing of a scene or of the Director panel sticks out at the side."""
    async with open_talk() as talk:
        await talk.page.goto(talk.url)
        await talk.page.locator('[data-scene="vr-party"]').click()
        await expect(talk.replies().first).to_have_attribute("data-status", "done")
        for panel in (False, True):
            if panel:
                await talk.direct("happen", "castTitle", "factsTitle", "savesTitle")
            for width in (360, 768, 1280):
                await talk.page.set_viewport_size({"width": width, "height": 740})
                assert await talk.page.evaluate("document.documentElement.scrollWidth") <= width
                for part in ("#scroller", "#director-body"):
                    inner = "s => s.offsetParent === null || s.scrollWidth <= s.clientWidth + 1"
                    assert await talk.page.locator(part).evaluate(inner), (part, width)
        await talk.page.set_viewport_size({"width": 360, "height": 640})
        await talk.page.locator("#director-close").click()
        for part in ("#field", "#send", ".person >> nth=0"):
            await expect(talk.page.locator(part)).to_be_in_viewport()
