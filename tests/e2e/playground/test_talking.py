from __future__ import annotations

import re
from typing import Any

import pytest
from browser import STORY, TALE, OpenTalk, Talk
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAMPLES = """() => {
  window.samples = [];
  const look = () => {
    const turn = document.querySelector(".turn.reply:last-child");
    const length = turn?.querySelector(".heard").textContent.length ?? 0;
    window.samples.push([length, turn?.dataset.status ?? ""]);
  };
  new MutationObserver(look).observe(document.querySelector("#turns"), {
    childList: true, subtree: true, characterData: true, attributes: true,
  });
}"""


async def test_a_chosen_persona_greets(talk: Talk) -> None:
    """Choosing a card opens a conversation, shows who it is with, and the NPC speaks first."""
    await talk.choose("bram")
    await expect(talk.page.locator("#npc-name")).to_have_text("Bram")
    await expect(talk.page.locator("#portrait svg")).to_be_visible()
    assert (await talk.transcript())[0] == talk.events("reply.done")[0]["text"]


async def test_every_persona_has_a_card_with_a_portrait(talk: Talk) -> None:
    """The cards show each persona that the server lists, drawn and named."""
    await talk.page.goto(talk.url)
    await expect(talk.page.locator(".card")).not_to_have_count(0)
    listed = await (await talk.page.request.get(talk.url + "personas")).json()
    names = await talk.page.locator(".card .name").all_inner_texts()
    assert sorted(names) == sorted(persona["name"] for persona in listed)
    await expect(talk.page.locator(".card svg")).to_have_count(len(listed))


async def test_words_appear_while_the_reply_is_made(talk: Talk) -> None:
    """The text of a reply grows step by step, long before the reply is done."""
    await talk.choose()
    await talk.page.evaluate(SAMPLES)
    await talk.answered("Tell me a story")
    samples = await talk.page.evaluate("window.samples")
    growing = sorted({length for length, status in samples if status == "speaking"})
    assert len(growing) > 10
    assert 0 < growing[0] < len(STORY) / 4
    assert (await talk.transcript())[-1] == STORY


async def test_deltas_join_to_the_text(talk: Talk) -> None:
    """What is on the screen equals the joined deltas and the final text."""
    await talk.choose()
    await talk.answered("Tell me a story")
    done = talk.events("reply.done")[-1]
    deltas = [e["text"] for e in talk.events("reply.delta", turn=done["turn"])]
    assert "".join(deltas) == done["text"] == (await talk.transcript())[-1]


async def _cut_with(talk: Talk, cut: Any) -> tuple[str, str]:
    """Let a reply be spoken at speaking pace, cut it, return what was heard and what was not."""
    await talk.choose()
    await talk.page.locator("#pace").select_option("spoken")
    await talk.say("Tell me a story")
    reply = talk.replies().nth(1)
    await expect(reply.locator(".heard")).to_have_text(re.compile(r".{20,}"))
    await cut()
    await expect(reply).to_have_attribute("data-status", "done")
    await talk.until(lambda: talk.events("reply.heard"))
    heard = await reply.locator(".heard").text_content()
    rest = await reply.locator("del").text_content()
    return heard or "", rest or ""


async def test_escape_cuts_the_reply_to_what_was_heard(talk: Talk) -> None:
    """Escape keeps what was shown, strikes out what was sent beyond it, and tells the server."""
    heard, rest = await _cut_with(talk, lambda: talk.page.keyboard.press("Escape"))
    done, event = talk.events("reply.done")[-1], talk.events("reply.heard")[-1]
    assert 20 <= len(heard) < len(STORY)
    assert heard + rest == done["text"]
    assert len(heard) == event["heard"] <= talk.commands("interrupt")[-1]["heard_chars"]
    await expect(talk.page.locator("#interrupt")).to_be_hidden()


async def test_the_button_cuts_and_gives_the_focus_back(talk: Talk) -> None:
    """The interrupt button works like Escape, and the focus returns to the text field."""
    heard, rest = await _cut_with(talk, talk.page.locator("#interrupt").click)
    assert heard
    assert rest
    await expect(talk.page.locator("#field")).to_be_focused()


async def test_a_cut_reply_is_the_same_after_a_reload(talk: Talk) -> None:
    """What was not heard is still struck out after a reload."""
    heard, rest = await _cut_with(talk, lambda: talk.page.keyboard.press("Escape"))
    await talk.page.reload()
    await expect(talk.replies().last.locator(".heard")).to_have_text(heard)
    assert await talk.replies().last.locator("del").text_content() == rest


async def test_speaking_cuts_in(talk: Talk) -> None:
    """Saying something while the NPC speaks cuts the reply to what was heard of it."""
    await talk.choose()
    await talk.page.locator("#pace").select_option("spoken")
    await talk.say("Tell me a story")
    cut = talk.replies().nth(1)
    await expect(cut.locator(".heard")).to_have_text(re.compile(r".{20,}"))
    await talk.answered("Wait a moment")
    heard = await cut.locator(".heard").text_content() or ""
    assert 20 <= len(heard) < len(STORY)
    assert talk.events("reply.heard")[-1]["heard"] == len(heard)


async def test_speaking_pace_reports_how_far_was_heard(talk: Talk) -> None:
    """At speaking pace the page tells the server where playing starts, stands and ends."""
    await talk.choose()
    await talk.page.locator("#pace").select_option("spoken")
    await talk.answered("Hello")
    turn = talk.events("reply.done")[-1]
    told = [f for f in talk.commands("playback") if f["turn"] == turn["turn"]]
    heard = [frame["heard_chars"] for frame in told]
    assert [told[0]["state"], told[-1]["state"]] == ["start", "end"]
    assert {frame["state"] for frame in told[1:-1]} == {"progress"}
    assert heard == sorted(heard)
    assert heard[-1] == len(turn["text"])


async def test_korean_goes_round(open_talk: OpenTalk) -> None:
    """Korean said and answered stands on the page as it was, marked as Korean."""
    async with open_talk(locale="ko-KR") as talk:
        await talk.choose()
        await talk.answered("할머니, 옛날이야기 해 주세요! 👵🏼")
        assert (await talk.transcript())[-2:] == ["할머니, 옛날이야기 해 주세요! 👵🏼", TALE]
        await expect(talk.replies().last.locator(".words")).to_have_attribute("lang", "ko")
        assert talk.commands("say")[-1]["text"] == "할머니, 옛날이야기 해 주세요! 👵🏼"


async def test_enter_in_a_composition_does_not_send(talk: Talk) -> None:
    """While an input method composes, Enter is the input method's; after it, Enter sends."""
    await talk.choose()
    await talk.page.locator("#field").focus()
    await talk.page.evaluate(
        """() => {
          window.composing = [];
          document.querySelector("#field").addEventListener("keydown", (event) =>
            window.composing.push([event.key, event.isComposing]));
        }"""
    )
    devtools = await talk.page.context.new_cdp_session(talk.page)
    await devtools.send(
        "Input.imeSetComposition", {"text": "안녕", "selectionStart": 2, "selectionEnd": 2}
    )
    await talk.page.keyboard.press("Enter")
    assert await talk.page.evaluate("window.composing") == [["Enter", True]]
    assert talk.commands("say") == []
    await devtools.send("Input.insertText", {"text": "안녕하세요"})
    await talk.page.locator("#field").fill("안녕하세요")
    await talk.page.keyboard.press("Enter")
    await talk.until(lambda: talk.commands("say"))
    assert [frame["text"] for frame in talk.commands("say")] == ["안녕하세요"]


async def test_the_key_that_ends_a_composition_does_not_send(talk: Talk) -> None:
    """Where only key code 229 tells that Enter ends a composition, nothing is sent either."""
    await talk.choose()
    await talk.page.locator("#field").fill("안녕")
    await talk.page.evaluate(
        """() => document.querySelector("#field").dispatchEvent(new KeyboardEvent(
          "keydown", { key: "Enter", keyCode: 229, bubbles: true, cancelable: true }))"""
    )
    await talk.answered("반가워요")
    assert [frame["text"] for frame in talk.commands("say")] == ["반가워요"]


async def test_shift_enter_makes_a_line(talk: Talk) -> None:
    """Shift+Enter writes a new line, which is kept on the way and on the page."""
    await talk.choose()
    await talk.page.locator("#field").focus()
    await talk.page.keyboard.type("one")
    await talk.page.keyboard.press("Shift+Enter")
    await talk.page.keyboard.type("two")
    await talk.answered(await talk.page.locator("#field").input_value())
    assert talk.commands("say")[-1]["text"] == "one\ntwo"
    assert (await talk.transcript())[-2] == "one\ntwo"


async def test_typing_is_told_now_and_then(talk: Talk) -> None:
    """The server learns that the player types, not of every key."""
    await talk.choose()
    await talk.page.locator("#field").press_sequentially("Good morning to you", delay=5)
    await talk.page.locator("#field").fill("")
    await talk.until(lambda: len(talk.commands("input")) == 2)
    assert [frame["state"] for frame in talk.commands("input")] == ["typing", "idle"]
    assert "text" not in talk.commands("input")[0]


async def test_too_long_a_text_is_not_lost(talk: Talk) -> None:
    """A text over the server's limit says by how much, cannot be sent, and stays in the field."""
    await talk.choose()
    limit = talk.events("welcome")[-1]["limits"]["text_chars"]
    await talk.page.locator("#field").fill("é" * (limit + 3))
    await expect(talk.page.locator("#counter")).to_have_text("3 too many")
    await expect(talk.page.locator("#send")).to_be_disabled()
    await talk.page.locator("#field").press("Enter")
    assert len(await talk.page.locator("#field").input_value()) == limit + 3
    await talk.answered("🙂" * limit)
    assert talk.commands("say")[-1]["text"] == "🙂" * limit


async def test_markup_stays_text(talk: Talk) -> None:
    """What players write is shown as it is written and never becomes part of the page."""
    await talk.page.goto(talk.url)
    evil = '<img src="x" onerror="document.title=1"><script>document.title=2</script>&amp;'
    await talk.page.locator("#player-name").fill("<b>Ana</b>")
    await talk.choose()
    await talk.answered(evil)
    assert (await talk.transcript())[-2] == evil
    await expect(talk.page.locator(".turn img, .turn script, .turn b")).to_have_count(0)
    assert await talk.page.title() == "npc-server playground"


async def test_a_failure_is_told_in_plain_words(talk: Talk) -> None:
    """A reply that breaks off says so in the server's words, and one can go on.

    What was said of it stays.
    """
    await talk.choose()
    await talk.answered("Please break")
    error = talk.events("error")[-1]
    assert (await talk.transcript())[-1] == talk.events("reply.done")[-1]["text"].strip() != ""
    await expect(talk.replies().last.locator(".problem")).to_have_text(error["message"])
    await expect(talk.replies().last.locator(".note")).to_have_text("failed")
    await talk.answered("Good morning")
    assert (await talk.transcript())[-1] == "All right. I will think about that."


async def test_a_reply_can_be_said_anew(open_talk: OpenTalk) -> None:
    """A button under the newest reply brings another; the old one is greyed, after a reload too."""
    async with open_talk(locale="ko-KR") as talk:
        await talk.choose()
        await talk.answered("Good morning")
        buttons = talk.page.locator(".anew:visible")
        await expect(buttons).to_have_text(["다른 대답 듣기"])
        await buttons.click()
        await expect(talk.replies().nth(2)).to_have_attribute("data-status", "done")
        started = talk.events("reply.started")[-1]
        assert started["replaces"] == talk.commands("regenerate")[-1]["turn"]
        for _ in range(2):
            await expect(talk.page.locator(".turn.replaced")).to_have_count(1)
            old = talk.replies().nth(1)
            await expect(old).to_have_attribute("data-turn", started["replaces"])
            await expect(old.locator(".note")).to_have_text("다시 말함")
            await expect(talk.replies().nth(2).locator(".anew")).to_be_visible()
            await expect(buttons).to_have_count(1)
            await talk.page.reload()


async def test_the_name_reaches_the_server(talk: Talk) -> None:
    """A name typed on the first page is the player's name in the conversation."""
    await talk.page.goto(talk.url)
    await talk.page.locator("#player-name").fill("Minsu")
    await talk.page.locator('[data-npc="bram"]').click()
    await talk.until(lambda: talk.events("conversation.opened"))
    cast = talk.events("conversation.opened")[-1]["cast"]
    assert [m["name"] for m in cast if m["kind"] == "player"] == ["Minsu"]


async def test_emotions_reach_the_face(talk: Talk) -> None:
    """The portrait wears the emotion of the newest event, and says so in words."""
    await talk.choose()
    await talk.answered("Tell me a story")
    emotion = talk.events("reply.emotion")[-1]["emotion"]
    await expect(talk.page.locator("#portrait svg")).to_have_attribute("data-emotion", emotion)
    label = await talk.page.locator("#portrait").get_attribute("aria-label")
    assert label == f"Bram, {await talk.page.locator('#npc-mood').inner_text()}"


async def test_the_newest_words_stay_in_view(open_talk: OpenTalk) -> None:
    """A long talk keeps its end in view, unless the reader has scrolled away from it."""
    async with open_talk(viewport={"width": 1000, "height": 420}) as talk:
        scroller = talk.page.locator("#scroller")
        await talk.choose()
        await talk.answered("Tell me everything")
        below = "s => s.scrollHeight - s.scrollTop - s.clientHeight"
        assert await scroller.evaluate(below) < 2
        await talk.say("Tell me a story")
        story = talk.replies().nth(2)
        await expect(story.locator(".heard")).to_have_text(re.compile(r".{20,}"))
        await scroller.evaluate("s => s.scrollTo(0, 0)")
        await expect(story).to_have_attribute("data-status", "done")
        assert await scroller.evaluate("s => s.scrollTop") == 0
        assert await scroller.evaluate(below) > 100
