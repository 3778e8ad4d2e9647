"""One server and one browser for all tests of the page; each test has a profile of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from browser import CHROMIUM, FLAGS, OpenTalk, Talk, write_script
from playwright.async_api import Browser, async_playwright
from processes import Servers
from support import acting_smith


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the scripted engine."""
    folder = tmp_path_factory.mktemp("playground")
    (folder / "data").mkdir()
    servers = Servers(folder / "data")
    try:
        script = str(write_script(folder))
        personas = str(acting_smith(folder / "personas"))
        yield servers.start("--engine", "scripted", "--personas", personas, NPC_SCRIPT=script).page
    finally:
        servers.end()


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
        chosen = {
            "viewport": {"width": 1280, "height": 800},
            "locale": "en-US",
            "reduced_motion": "reduce",
            **options,
        }
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
