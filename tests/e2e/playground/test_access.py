from __future__ import annotations

from typing import Any

import pytest
from browser import OpenTalk, Talk
from playwright.async_api import Page, expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTROLS = {"button", "textbox", "searchbox", "combobox", "link", "dialog", "region", "img"}
PAIRS = [
    ("--ink", "--page"),
    ("--ink", "--raised"),
    ("--ink", "--mine"),
    ("--soft-ink", "--page"),
    ("--soft-ink", "--raised"),
    ("--accent", "--page"),
    ("--accent", "--raised"),
    ("--on-accent", "--accent"),
    ("--bad", "--page"),
    ("--bad", "--raised"),
]
FOCUSED = """() => {
  const node = document.activeElement;
  const { outlineStyle, outlineWidth } = getComputedStyle(node);
  return [node.id || node.className, outlineStyle, parseFloat(outlineWidth)];
}"""


async def _nameless(page: Page) -> list[str]:
    devtools = await page.context.new_cdp_session(page)
    tree: dict[str, Any] = await devtools.send("Accessibility.getFullAXTree")
    return [
        node["role"]["value"]
        for node in tree["nodes"]
        if not node.get("ignored")
        and node["role"]["value"] in CONTROLS
        and not node.get("name", {}).get("value", "").strip()
    ]


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
async def test_everything_has_a_name(open_talk: OpenTalk, locale: str) -> None:
    """Every control, region, picture and dialog of every view has an accessible name."""
    async with open_talk(locale=locale) as talk:
        await talk.page.goto(talk.url)
        await expect(talk.page.locator(".card").first).to_be_visible()
        assert await _nameless(talk.page) == []
        await talk.choose()
        await talk.answered("Tell me a story")
        await talk.page.locator("#frames-toggle").click()
        assert await _nameless(talk.page) == []
        await talk.replies().last.locator(".prompt-of").click()
        await expect(talk.page.locator(".messages")).to_be_visible()
        assert await _nameless(talk.page) == []


@pytest.mark.parametrize("locale", ["en-US", "ko-KR"])
async def test_everything_of_several_has_a_name(open_talk: OpenTalk, locale: str) -> None:
    """So does everything of a scene, of the invitation and of the Director panel."""
    async with open_talk(locale=locale) as talk:
        await talk.page.goto(talk.url)
        await talk.page.locator('[data-scene="tavern"]').click()
        await expect(talk.replies().first).to_have_attribute("data-status", "done")
        parts = ["happen", "castTitle", "settingTitle", "factsTitle", "savesTitle"]
        await talk.direct(*parts)
        assert await _nameless(talk.page) == []
        await talk.page.locator("#invite").click()
        assert await _nameless(talk.page) == []
        await talk.page.keyboard.press("Escape")
        await talk.answered("Marta, good evening")
        await talk.replies().nth(1).locator(".prompt-of").click()
        await talk.page.locator(".try > summary").click()
        assert await _nameless(talk.page) == []


async def test_landmarks(talk: Talk) -> None:
    """The page has a banner, a navigation, a main part and named regions."""
    await talk.choose()
    for role in ("banner", "main", "navigation"):
        await expect(talk.page.get_by_role(role)).to_have_count(1)
    for name in ("Character", "Conversation", "What was said"):
        await expect(talk.page.get_by_role("region", name=name, exact=True)).to_have_count(1)
    await expect(talk.page.get_by_role("heading", level=1)).to_have_count(1)


async def test_whole_sentences_are_announced(talk: Talk) -> None:
    """A screen reader hears each sentence once, politely, instead of every word."""
    await talk.choose()
    await talk.answered("Tell me a story")
    turn = talk.events("reply.done")[-1]["turn"]
    sentences = [event["text"] for event in talk.events("reply.sentence", turn=turn)]
    live = talk.page.locator("#live")
    await expect(live).to_have_attribute("aria-live", "polite")
    said = await live.locator("p").all_inner_texts()
    assert len(sentences) >= 3
    assert said[-len(sentences) :] == [" ".join(text.split()) for text in sentences]


async def test_the_keyboard_is_enough(talk: Talk) -> None:
    """Choosing, talking, reading the prompt and leaving all work from the keyboard alone."""
    page = talk.page
    await page.goto(talk.url)
    await expect(page.locator(".card").first).to_be_visible()
    await _tab_to(page, '[data-npc="bram"]')
    await page.keyboard.press("Enter")
    await expect(page.locator("#field")).to_be_focused()
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    await page.keyboard.type("Hello")
    await page.keyboard.press("Enter")
    await expect(talk.replies().nth(1)).to_have_attribute("data-status", "done")
    await _tab_to(page, ".prompt-of")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.keyboard.press("Escape")
    await _tab_to(page, "#frames-toggle")
    await page.keyboard.press("Enter")
    await expect(page.locator("#frames-toggle")).to_have_attribute("aria-expanded", "true")
    await _tab_to(page, "#frames-list summary")
    await page.keyboard.press("Enter")
    await expect(page.locator("#frames-list pre").first).to_be_visible()
    await _tab_to(page, "#people")
    await page.keyboard.press("Enter")
    await expect(page.locator("#chooser-title")).to_be_focused()


async def _tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus; each one on the way shows that it has it."""
    for _ in range(120):
        await page.keyboard.press("Tab")
        if await page.evaluate("document.activeElement === document.body"):
            continue
        name, style, width = await page.evaluate(FOCUSED)
        assert style != "none", name
        assert width >= 2, name
        if await page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


async def test_the_skip_link_leads_to_the_field(talk: Talk) -> None:
    """The first stop of a keyboard user leads straight to the text field."""
    await talk.choose()
    await talk.page.reload()
    await expect(talk.page.locator("#field")).to_be_focused()
    await talk.page.locator("#skip").focus()
    await expect(talk.page.locator("#skip")).to_be_in_viewport()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_contrast(open_talk: OpenTalk, scheme: str) -> None:
    """Text stands out from every ground that it is on by at least 4.5 to 1."""
    async with open_talk(color_scheme=scheme) as talk:
        await talk.page.goto(talk.url)
        for text, ground in PAIRS:
            ratio = _contrast(await _colour(talk.page, text), await _colour(talk.page, ground))
            assert ratio >= 4.5, (text, ground, ratio)
        for mark in ("--queue", "--prefill", "--generate", "--edge"):
            for ground in ("--page", "--raised"):
                ratio = _contrast(await _colour(talk.page, mark), await _colour(talk.page, ground))
                assert ratio >= 3, (mark, ground, ratio)


async def _colour(page: Page, name: str) -> list[int]:
    """The red, green and blue that a colour of the page's style comes to, from 0 to 255."""
    found: list[int] = await page.evaluate(
        """(name) => {
          const node = document.body.appendChild(document.createElement("span"));
          node.style.color = `var(${name})`;
          const colour = getComputedStyle(node).color;
          node.remove();
          return colour.match(/\\d+/g).map(Number);
        }""",
        name,
    )
    assert len(found) == 3
    return found


def _contrast(one: list[int], other: list[int]) -> float:
    """The contrast ratio of WCAG 2.2: of the relative luminances, each plus 0.05."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: list[int]) -> float:
    """The relative luminance of WCAG 2.2."""
    channels = [value / 255 for value in colour]
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


POSES = """async () => {
  const head = document.querySelector("#portrait g:last-child");
  const poses = new Set();
  for (let frame = 0; frame < 30; frame += 1) {
    await new Promise(requestAnimationFrame);
    poses.add(head.getAttribute("transform"));
  }
  return poses.size;
}"""


async def test_the_portrait_lives(open_talk: OpenTalk) -> None:
    """The portrait breathes between expressions."""
    async with open_talk(reduced_motion="no-preference") as talk:
        await talk.choose()
        assert await talk.page.evaluate(POSES) > 10


async def test_less_motion_is_respected(open_talk: OpenTalk) -> None:
    """For people who ask for less motion the portrait stands still between expressions."""
    async with open_talk(reduced_motion="reduce") as talk:
        await talk.choose()
        assert await talk.page.evaluate(POSES) == 1
