from __future__ import annotations

import json
import re

import pytest
from browser import OpenTalk, Talk
from playwright.async_api import Route, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_the_bar_shows_where_the_time_went(talk: Talk) -> None:
    """The bar shows queue, prefill and generate in proportion; numbers and tokens stand by it."""
    await talk.choose()
    await talk.answered("Tell me a story")
    done = talk.events("reply.done")[-1]
    timings, usage = done["timings"], done["usage"]
    bar = talk.replies().last.locator(".bar")
    shares = await bar.locator("span").evaluate_all("ns => ns.map(n => +n.style.flexGrow)")
    assert shares == pytest.approx(
        [
            timings["queue_ms"],
            timings["first_token_ms"] - timings["queue_ms"],
            timings["total_ms"] - timings["first_token_ms"],
        ],
        abs=1e-3,
    )
    widths = await bar.locator("span").evaluate_all(
        "ns => ns.map(n => n.getBoundingClientRect().width)"
    )
    assert widths[2] > widths[1] > widths[0]
    label = await bar.get_attribute("aria-label") or ""
    assert re.fullmatch(r"Queue \d+ ms, prefill \d+ ms, generate [\d.]+ m?s", label)
    tokens = await talk.replies().last.locator(".tokens").inner_text()
    numbers = [usage["prompt"], usage["cached"], usage["completion"]]
    assert [int(number) for number in re.findall(r"\d+", tokens)] == numbers


async def test_a_greeting_has_no_bar(talk: Talk) -> None:
    """A written greeting asks no model, so it shows neither timings nor a prompt."""
    await talk.choose()
    await expect(talk.replies().first.locator(".timings, .prompt-of")).to_have_count(0)


async def test_the_prompt_of_a_reply(talk: Talk) -> None:
    """The dialog shows the messages with their roles and the sections with their tokens."""
    await talk.choose()
    await talk.answered("Do you mend ploughs?")
    await talk.replies().last.locator(".prompt-of").click()
    dialog = talk.page.get_by_role("dialog")
    await expect(dialog.locator(".role").first).to_have_text("system")
    await expect(dialog.locator(".messages")).to_contain_text("Do you mend ploughs?")
    await expect(dialog.locator(".messages")).to_contain_text("Bram")
    await expect(dialog.locator(".sections li")).not_to_have_count(0)
    await expect(dialog.locator(".sections .tokens").first).to_have_text(re.compile(r"\d+ tokens"))
    await dialog.locator(".sections summary").first.click()
    await expect(dialog.locator(".sections pre").first).to_be_visible()
    await talk.page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(talk.replies().last.locator(".prompt-of")).to_be_focused()


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (403, "This server does not show prompts."),
        (404, "The server no longer has this prompt. It keeps the newest ones only."),
        (401, "The server shows prompts only to the API key of a host."),
    ],
)
async def test_a_prompt_that_is_not_shown(open_talk: OpenTalk, status: int, text: str) -> None:
    """Where the server does not show a prompt, the dialog says why in plain words."""
    async with open_talk() as talk:

        async def refuse(route: Route) -> None:
            await route.fulfill(status=status, body="no")

        await talk.page.route("**/prompts/*", refuse)
        await talk.choose()
        await talk.answered("Hello")
        await talk.replies().last.locator(".prompt-of").click()
        await expect(talk.page.locator("#prompt-body")).to_have_text(text)
        talk.problems = [p for p in talk.problems if f"status of {status}" not in p]


async def test_frames_of_both_directions(talk: Talk) -> None:
    """Every frame is in the panel in its order, and opens as indented JSON."""
    await talk.choose()
    await talk.answered("Hello")
    await talk.page.locator("#frames-toggle").click()
    rows = talk.page.locator("#frames-list li")
    await expect(rows).to_have_count(len(talk.sent) + len(talk.received))
    types = await rows.evaluate_all("ns => ns.map(n => [n.dataset.way, n.dataset.type])")
    assert [t for way, t in types if way == "out"] == [frame["type"] for frame in talk.sent]
    assert [t for way, t in types if way == "in"] == [frame["type"] for frame in talk.received]
    row = talk.page.locator('#frames-list li[data-type="reply.done"]').last
    await row.locator("summary").click()
    text = await row.locator("pre").inner_text()
    assert json.loads(text) == talk.events("reply.done")[-1]
    assert text.startswith('{\n  "')


async def test_frames_are_filtered_and_cleared(talk: Talk) -> None:
    """Words and the direction narrow the list, and it can be cleared."""
    await talk.choose()
    await talk.page.locator("#frames-toggle").click()
    rows = talk.page.locator("#frames-list li")
    await talk.page.get_by_label("Filter").fill("conversation.open")
    await talk.page.locator("#frames-direction").select_option("out")
    await expect(rows).to_have_count(1)
    await expect(talk.page.locator("#frames-count")).to_have_text(re.compile(r"1 of \d+"))
    await talk.page.locator("#frames-clear").click()
    await expect(rows).to_have_count(0)


async def test_frames_are_bounded(talk: Talk) -> None:
    """The panel keeps the newest 500 frames."""
    await talk.choose()
    await talk.page.locator("#frames-toggle").click()
    for _ in range(8):
        await talk.answered("Tell me everything")
        if len(talk.sent) + len(talk.received) > 550:
            break
    assert len(talk.sent) + len(talk.received) > 550
    await expect(talk.page.locator("#frames-count")).to_have_text("500 of 500")
    await expect(talk.page.locator("#frames-list li")).to_have_count(500)
    last = talk.page.locator("#frames-list li").last
    await expect(last).to_have_attribute("data-type", re.compile("scene.idle|playback|npc.state"))


async def test_frames_are_copied(open_talk: OpenTalk) -> None:
    """The shown frames go to the clipboard, one JSON object a line."""
    permissions = ["clipboard-read", "clipboard-write"]
    async with open_talk(permissions=permissions) as talk:
        await talk.choose()
        await talk.page.locator("#frames-toggle").click()
        await talk.page.get_by_label("Filter").fill("welcome")
        await talk.page.locator("#frames-copy").click()
        await expect(talk.page.locator("#frames-copy")).to_have_text("Copied")
        lines = (await talk.page.evaluate("navigator.clipboard.readText()")).splitlines()
        assert [json.loads(line) for line in lines] == [
            {"direction": "in", "frame": talk.events("welcome")[0]}
        ]
