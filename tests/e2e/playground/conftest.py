"""One server and one browser for all tests of the page; each test has a profile of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from browser import CHROMIUM, FLAGS, SCRIPT, OpenTalk, Talk, serving
from playwright.async_api import Browser, async_playwright


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a server with the scripted engine."""
    async with serving(tmp_path_factory.mktemp("playground"), SCRIPT) as url:
        yield url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
def open_talk(chromium: Browser, server: str) -> OpenTalk:
    """Open the page in a new profile; afterwards nothing may have gone wrong on it."""

    @asynccontextmanager
    async def begin(*, url: str = server, **options: Any) -> AsyncIterator[Talk]:
        chosen = {"viewport": {"width": 1280, "height": 800}, "locale": "en-US", **options}
        context = await chromium.new_context(**chosen)
        try:
            talk = Talk(await context.new_page(), url)
            talk.watch()
            yield talk
            assert talk.problems == []
        finally:
            await context.close()

    return begin


@pytest_asyncio.fixture(loop_scope="session")
async def talk(open_talk: OpenTalk) -> AsyncIterator[Talk]:
    """The page in a new profile, in English."""
    async with open_talk() as talk:
        yield talk
