from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path
from typing import Literal

import pytest
from browser import OpenTalk, Talk
from playwright.async_api import expect

pytestmark = pytest.mark.asyncio(loop_scope="session")

IMAGES = Path(__file__).parents[3] / "docs/images"
PICTURE = IMAGES / "playground.png"
DIRECTOR_PICTURE = IMAGES / "playground-director.png"
LONGEST_BYTES = 300_000


def _rows(png: bytes) -> tuple[int, int, int]:
    """The width and height of a picture, and how many different rows of pixels it has."""
    width, height = struct.unpack(">II", png[16:24])
    place, data = 8, b""
    while place < len(png):
        (size,) = struct.unpack(">I", png[place : place + 4])
        if png[place + 4 : place + 8] == b"IDAT":
            data += png[place + 8 : place + 8 + size]
        place += 12 + size
    pixels = zlib.decompress(data)
    row = len(pixels) // height
    return width, height, len({pixels[at : at + row] for at in range(0, len(pixels), row)})


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_sideways_scrolling(open_talk: OpenTalk, scheme: Literal["light", "dark"]) -> None:
    """On every width and in both themes the page is drawn, and nothing sticks out at the side."""
    async with open_talk(color_scheme=scheme) as talk:
        await talk.page.goto(talk.url)
        await expect(talk.page.locator(".card").first).to_be_visible()
        await _fits(talk)
        await talk.choose()
        await talk.answered("Tell me a story " + "x" * 300)
        await _fits(talk)
        await talk.page.locator("#frames-toggle").click()
        await _fits(talk)
        page = await talk.page.evaluate("getComputedStyle(document.body).backgroundColor")
        bright = sum(int(part) for part in re.findall(r"\d+", page)) > 3 * 128
        assert bright == (scheme == "light")


async def _fits(talk: Talk) -> None:
    inner = "s => s.offsetParent === null || s.scrollWidth <= s.clientWidth + 1"
    for width in (360, 768, 1280):
        await talk.page.set_viewport_size({"width": width, "height": 740})
        assert await talk.page.evaluate("document.documentElement.scrollWidth") <= width
        for part in ("#scroller", "#chooser", "#frames"):
            assert await talk.page.locator(part).evaluate(inner), part
        drawn_width, _, rows = _rows(await talk.page.screenshot())
        assert drawn_width == width
        assert rows > 100


async def test_the_field_is_in_reach_on_a_phone(open_talk: OpenTalk) -> None:
    """On a small screen the text field, the button and the newest words are in view together."""
    async with open_talk(viewport={"width": 360, "height": 640}, has_touch=True) as talk:
        await talk.choose()
        await talk.answered("Tell me a story")
        for part in ("#field", "#send", "#portrait svg", ".turn:last-child .words"):
            await expect(talk.page.locator(part)).to_be_in_viewport()


async def test_the_theme_can_be_chosen(talk: Talk) -> None:
    """The button goes from the system's theme to light, to dark and back; a reload keeps it."""
    await talk.page.goto(talk.url)
    root, button = talk.page.locator("html"), talk.page.locator("#theme")
    for theme in ("light", "dark", "auto", "light", "dark"):
        await button.click()
        await expect(root).to_have_attribute("data-theme", theme)
    await expect(button).to_have_attribute("aria-label", "Theme: dark")
    await talk.page.reload()
    await expect(root).to_have_attribute("data-theme", "dark")


async def test_the_language_can_be_chosen(open_talk: OpenTalk) -> None:
    """The page speaks the browser's language, and on demand another, all over."""
    async with open_talk(locale="ko-KR") as talk:
        await talk.choose()
        await talk.answered("안녕하세요")
        await expect(talk.page.locator("html")).to_have_attribute("lang", "ko")
        await expect(talk.page.locator("#send")).to_have_text("말하기")
        await expect(talk.page.locator(".prompt-of").last).to_have_text("프롬프트")
        await talk.page.get_by_role("button", name="Switch to English").click()
        await expect(talk.page.locator("html")).to_have_attribute("lang", "en")
        await expect(talk.page.locator("#send")).to_have_text("Say")
        await expect(talk.page.locator(".prompt-of").last).to_have_text("Prompt")
        assert talk.commands("hello")[0]["player"]["locale"] == "ko"


async def test_both_languages_say_everything(talk: Talk) -> None:
    """The two dictionaries have the same keys with the same places to fill in."""
    await talk.page.goto(talk.url)
    strings = await talk.page.evaluate("import('/playground/strings.js').then(m => m.STRINGS)")
    assert strings["en"].keys() == strings["ko"].keys()
    for key, text in strings["en"].items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", strings["ko"][key]))


async def test_the_readme_has_its_picture(talk: Talk) -> None:
    """The picture of the README is there, of the right size; NPC_PICTURE=1 takes it anew."""
    if os.environ.get("NPC_PICTURE"):
        await take_readme_picture(talk, PICTURE)
    _is_good(PICTURE)


async def test_the_guide_has_its_picture(talk: Talk) -> None:
    """So is the picture of a scene in the guide, and NPC_PICTURE=1 takes that anew too."""
    if os.environ.get("NPC_PICTURE"):
        await take_scene_picture(talk, DIRECTOR_PICTURE)
    _is_good(DIRECTOR_PICTURE)


def _is_good(picture: Path) -> None:
    png = picture.read_bytes()
    width, height, rows = _rows(png)
    assert (width, height) == (1280, 800)
    assert rows > 200
    assert len(png) < LONGEST_BYTES


async def take_readme_picture(talk: Talk, file: Path) -> None:
    """Have a conversation with Bram and take its picture."""
    await talk.choose()
    await talk.answered("Good morning, Bram. Can you shoe a grey mare before the fair?")
    await talk.page.locator("#pace").select_option("spoken")
    await talk.say("She is. And what do they tell about the well?")
    heard = talk.replies().nth(2).locator(".heard")
    await expect(heard).to_have_text(re.compile(r".{85,}"), timeout=20_000)
    file.parent.mkdir(parents=True, exist_ok=True)
    await talk.page.screenshot(path=file)


async def take_scene_picture(talk: Talk, file: Path) -> None:
    """Whisper with Marta in the tavern, with the Director panel open, and take a picture of it."""
    await talk.page.goto(talk.url)
    await talk.page.locator('[data-scene="tavern"]').click()
    await expect(talk.replies().first).to_have_attribute("data-status", "done")
    await talk.direct("happen", "castTitle")
    await talk.page.locator('#chips [data-member="marta"]').click()
    await talk.page.locator("#whisper").click()
    await talk.answered("And what do they tell about the well?")
    await talk.page.locator("#field").blur()
    await talk.page.screenshot(path=file)
