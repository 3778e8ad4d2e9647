"""What the tests in a real browser share."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import yaml
from playwright.async_api import ConsoleMessage, Page, Request, WebSocket, expect

Json = dict[str, Any]

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

STORY = (
    "The well behind the mill was dug by three brothers. The eldest carried the stones, the "
    "second laid them, and the youngest sang so that nobody counted the hours. They say that "
    "he is singing still, and on a windless night you can hear him, if you stand close."
)
MARE = (
    "*nods* Grey mare? I know her. Bring her before noon and keep the boy away from her heels. "
    "Four shoes, two coppers, and I'll not argue if she's as gentle as you say!"
)
WELL = (
    "*smiles* That it sings, and lovely too! Three brothers dug it, and the youngest sang so that "
    "nobody counted the hours. I have stood there at midnight. All I heard was the innkeeper's cat."
)
TALE = "옛날 옛적에 호랑이 한 마리가 살았단다. 그 호랑이는 곶감을 제일 무서워했지. 왜 그랬을까?"
ANSWERS = [
    "Tall trees fall hard, that is what my father used to tell me when the wind came up.",
    "Small fish swim deep, and whoever wants to catch one gets up long before the sun does.",
]
WORDS = ["ash", "birch", "crow", "dew", "elm", "fern", "gate", "hill", "iron", "jay", "mill", "oak"]
# What an NPC has said, or says twice in a reply, would be cut.
LONG = [
    "".join(f"{' '.join(Random(12 * n + m).sample(WORDS, 8)).capitalize()}. " for m in range(12))
    for n in range(8)
]
GIVES: Json = {
    "emotion": "happy",
    "intensity": 2,
    "gesture": "nod",
    "action": "give_item",
    "args": {"item": "knife", "count": 1},
}
SERVES: Json = {**GIVES, "gesture": "none", "action": "serve", "args": {"dish": "stew"}}
SCRIPT: Json = {
    "rules": [
        {"match": "sell me a knife", "json": GIVES},
        {"match": "some supper", "json": SERVES},
        {"match": "refused: No room", "reply": "Then make room first, and come back."},
        {"match": "You did this", "reply": "There you are. Mind the edge."},
        {"match": "both of you", "reply": ANSWERS, "piece_ms": 20},
        {"match": "mare", "reply": MARE, "first_ms": 210, "piece_ms": 30},
        {"match": "the well", "reply": WELL, "first_ms": 180, "piece_ms": 30},
        {"match": "story", "reply": STORY, "first_ms": 60, "piece_ms": 40},
        {"match": "옛날", "reply": TALE, "piece_ms": 15},
        {"match": "everything", "reply": LONG, "piece": "char"},
        {"match": r"break\s*$", "reply": "Mind the bellows, they are old.", "fail_after": 3},
        {"reply": "All right. I will think about that."},
    ]
}


@dataclass
class Talk:
    """A page, and everything that went over its socket.

    Attributes:
        page: The browser's page.
        url: The server's address for the browser.
        sent: Frames of the page, oldest first.
        received: Frames of the server.
        problems: Errors on the console, uncaught exceptions, requests to other hosts.
    """

    page: Page
    url: str
    sent: list[Json] = field(default_factory=list)
    received: list[Json] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Begin to note frames and problems."""
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("websocket", self._on_socket)

    def events(self, type_: str, **fields: Any) -> list[Json]:
        """The server's frames of a type with these fields."""
        return [e for e in self.received if e["type"] == type_ and fields.items() <= e.items()]

    def commands(self, type_: str) -> list[Json]:
        """The page's frames of a type."""
        return [frame for frame in self.sent if frame["type"] == type_]

    async def choose(self, npc: str = "bram", *, greeting: bool = True) -> None:
        """Choose a persona, and wait until it has greeted."""
        await self.page.goto(self.url)
        await self.page.locator(f'[data-npc="{npc}"]').click()
        if greeting:
            await expect(self.replies().first).to_have_attribute("data-status", "done")
            await expect(self.page.locator("#interrupt")).to_be_hidden()

    async def gather(self, *npcs: str) -> None:
        """Choose several personas, and wait until the first of them has greeted."""
        await self.page.goto(self.url)
        await self.page.locator("#several").click()
        for npc in npcs:
            await self.page.locator(f'[data-npc="{npc}"]').click()
        await self.page.locator("#begin").click()
        await expect(self.replies().first).to_have_attribute("data-status", "done")

    async def invite(self, name: str) -> str:
        """The link that leads one more player into the conversation."""
        await self.page.locator("#invite").click()
        await self.page.locator("#invitation-name").fill(name)
        link = await self.page.locator("#invitation-link").input_value()
        await self.page.locator("#invitation").get_by_role("button", name="Close").click()
        return link

    async def direct(self, *parts: str) -> None:
        """Open the Director panel, and of it only these parts."""
        await self.page.locator("#director-toggle").click()
        await expect(self.page.locator("#director-body")).not_to_have_attribute("inert", "")
        for part in await self.page.locator(".part").all():
            wanted = await part.get_attribute("data-part") in parts
            if wanted != (await part.get_attribute("open") is not None):
                await part.locator(":scope > summary").click()

    def person(self, member: str) -> Any:
        """A member's head in the picture of the conversation."""
        return self.page.locator(f'.person[data-member="{member}"]')

    async def say(self, text: str) -> None:
        """Type and press Enter."""
        await self.page.locator("#field").fill(text)
        await self.page.locator("#field").press("Enter")

    async def answered(self, text: str) -> None:
        """Say something, and wait until it was answered in full."""
        before = await self.replies().count()
        await self.say(text)
        await expect(self.replies().nth(before)).to_have_attribute("data-status", "done")
        await expect(self.page.locator("#interrupt")).to_be_hidden()

    def replies(self) -> Any:
        """What the NPC has said."""
        return self.page.locator(".turn.reply")

    async def transcript(self) -> list[str]:
        """The words of every turn."""
        return await self.page.locator(".turn .words").all_inner_texts()

    async def until(self, check: Callable[[], object]) -> None:
        """Wait until something holds that frames decide.

        Raises:
            TimeoutError: It did not within ten seconds.
        """
        async with asyncio.timeout(10):
            while not check():
                await asyncio.sleep(0.01)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.problems.append(f"console: {message.text}")

    def _on_request(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.problems.append(f"request: {request.url}")

    def _on_socket(self, socket: WebSocket) -> None:
        if urlsplit(socket.url).netloc != urlsplit(self.url).netloc:
            self.problems.append(f"socket: {socket.url}")
        socket.on("framesent", lambda frame: self.sent.append(json.loads(frame)))
        socket.on("framereceived", lambda frame: self.received.append(json.loads(frame)))


OpenTalk = Callable[..., AbstractAsyncContextManager[Talk]]


def write_script(folder: Path) -> Path:
    """Write down what the scripted engine says."""
    file = folder / "script.yaml"
    file.write_text(yaml.safe_dump(SCRIPT, allow_unicode=True), encoding="utf-8")
    return file
