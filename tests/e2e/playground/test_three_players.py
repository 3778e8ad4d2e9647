"""Three players and four NPCs with a real model: each page shows just what its player heard."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from browser import OpenTalk, Talk
from playwright.async_api import expect
from processes import Served, Servers
from support import Json

from npc_server.client import Client, session

pytestmark = pytest.mark.asyncio(loop_scope="session")

PATIENCE = 120_000
KINDS = ("say", "reply", "event")
PLAYERS = ("ana", "ben", "cho")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Served]:
    """A server with SmolLM2, whose replies are short."""
    folder = tmp_path_factory.mktemp("three")
    (folder / "data").mkdir()
    servers = Servers(folder / "data")
    try:
        yield servers.start("--model", str(smollm2), NPC_DEADLINE_MS="60000")
    finally:
        servers.end()


async def test_each_page_shows_what_its_player_heard(open_talk: OpenTalk, served: Served) -> None:
    """They stand in two groups of the tavern, speak aloud, whisper, and one moves and cuts in.

    A host hears everything; from its events follows what each of the three may show.
    """
    async with (
        AsyncExitStack() as stack,
        session(served.address, player="game") as host,
    ):
        pages: dict[str, Talk] = {}
        ana = pages["ana"] = await stack.enter_async_context(open_talk(url=served.page))
        await ana.page.goto(f"{served.page}?player=ana&name=Ana")
        await ana.page.locator("#scenes button").filter(has_text="Two Herons").first.click()
        await ana.until(lambda: ana.events("conversation.opened"))
        opened = ana.events("conversation.opened")[0]
        conversation = opened["conversation"]
        for who in PLAYERS[1:]:
            guest = pages[who] = await stack.enter_async_context(open_talk(url=served.page))
            link = f"?player={who}&name={who.title()}&conversation={conversation}"
            await guest.page.goto(f"{served.page}{link}&invite={opened['invite']}")
            await guest.until(partial(guest.events, "conversation.opened"))
        game = Game(host, conversation)
        await game.begin()
        await game.stand("cho")

        await game.speaks(pages["ana"], "Marta, what is for supper tonight?")
        await game.speaks(pages["cho"], "Bram, is the fire warm enough?")
        await whisper_to(pages["ben"], "Pip")
        await game.speaks(pages["ben"], "Pip, did you hide something in the barn?")
        await whisper_to(pages["ben"], "Pip", on=False)
        await game.stand("cho", "ana")
        await game.speaks(pages["ana"], "Ysolde, who wins your game of draughts?")
        await game.speaks(pages["ben"], "Marta, one more ale for me, please.")
        await game.ends()

        shown = {who: await heard_on(pages[who]) for who in PLAYERS}
        for who in PLAYERS:
            assert shown[who] == game.heard_by(who), who
        said = {text for texts in shown.values() for text in texts}
        assert len(said) > len(shown["cho"]) > 0
        assert not any("hide something" in text for text in (*shown["ana"], *shown["cho"]))
        assert any("hide something" in text for text in shown["ben"])


class Game:
    """A host that moves players, and notes all that is said and who hears it."""

    def __init__(self, client: Client, conversation: str) -> None:
        self._client = client
        self._conversation = conversation
        self._histories: dict[str, Json] = {}

    async def begin(self) -> None:
        """Hear everything from here on; NPCs do not begin of themselves."""
        await self._client.ask("conversation.open", conversation=self._conversation, since=0)
        await self._command("conversation.set", ambient="off")

    async def stand(self, *by_the_fire: str) -> None:
        """Have these players stand by the fire, and the others at the bar."""
        at_the_bar = [who for who in PLAYERS if who not in by_the_fire]
        groups = {
            "bar": ["marta", "pip", *at_the_bar],
            "fireplace": ["bram", "ysolde", *by_the_fire],
        }
        await self._command("scene.set", groups=groups)

    async def speaks(self, talk: Talk, text: str) -> None:
        """Have a page say something, and wait until all that came of it is over."""
        await talk.say(text)
        turn = None
        async with asyncio.timeout(PATIENCE / 1000):
            while True:
                event = await self._client.receive()
                if event["type"] == "turn" and event["text"] == text:
                    turn = event["turn"]
                if event["type"] == "scene.idle" and turn is not None and event.get("turn") == turn:
                    return

    async def ends(self) -> None:
        """Ask the store who heard what."""
        for who in PLAYERS:
            page = await self._client.ask(
                "history.get", conversation=self._conversation, player=who, limit=200
            )
            self._histories[who] = page

    def heard_by(self, who: str) -> list[str]:
        """The words that reached a player, in order."""
        return [words(turn["text"]) for turn in self._histories[who]["turns"] if turn["text"]]

    async def _command(self, type_: str, **fields: Any) -> None:
        await self._client.ask(type_, conversation=self._conversation, **fields)


async def whisper_to(talk: Talk, name: str, *, on: bool = True) -> None:
    """Choose whom one whispers to, or take it back."""
    chip = talk.page.locator("#chips button").filter(has_text=name)
    if on:
        await chip.click()
        await talk.page.locator("#whisper").click()
        await expect(talk.page.locator("#whisper")).to_have_attribute("aria-pressed", "true")
        return
    if await talk.page.locator("#whisper").get_attribute("aria-pressed") == "true":
        await talk.page.locator("#whisper").click()
    if await chip.get_attribute("aria-pressed") == "true":
        await chip.click()


async def heard_on(talk: Talk) -> list[str]:
    """What a page shows as said, in order."""
    turns = talk.page.locator(", ".join(f".turn.{kind} .words" for kind in KINDS))
    return [words(text) for text in await turns.all_inner_texts() if text.strip()]


def words(text: str) -> str:
    """A text without what a page may break differently."""
    return " ".join(text.split())
