from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import STORY, OpenTalk, Talk, write_script
from playwright.async_api import WebSocketRoute, expect
from processes import Servers

from npc_server.server.keys import KeyFile

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_reload_goes_on(talk: Talk) -> None:
    """The address names the conversation: after a reload it is all there, and goes on."""
    await talk.choose()
    await talk.answered("Good morning")
    before = await talk.transcript()
    await talk.page.reload()
    await expect(talk.page.locator("#npc-name")).to_have_text("Bram")
    await expect(talk.page.locator(".turn")).to_have_count(len(before))
    assert await talk.transcript() == before
    await talk.answered("And good night")
    assert (await talk.transcript())[: len(before)] == before


async def test_a_reload_in_the_middle_of_a_reply(talk: Talk) -> None:
    """A page that comes back shows what was said of the reply in flight, and how it ended."""
    await talk.choose()
    await talk.say("Tell me a story")
    await talk.until(lambda: len(talk.events("reply.started")) > 1)
    turn = talk.events("reply.started")[-1]["turn"]
    await talk.until(lambda: len(talk.events("reply.delta", turn=turn)) > 8)
    await talk.page.reload()
    await expect(talk.replies().nth(1)).to_have_attribute("data-status", "done")
    text = await talk.replies().nth(1).locator(".words").inner_text()
    assert text
    assert STORY.startswith(text)
    await talk.answered("Good morning")


async def test_back_leads_to_the_cards(talk: Talk) -> None:
    """The browser's back button leaves the conversation, forward returns to it."""
    await talk.choose()
    before = await talk.transcript()
    await talk.page.go_back()
    await expect(talk.page.locator(".card").first).to_be_visible()
    await talk.until(lambda: talk.events("conversation.closed"))
    await talk.page.go_forward()
    await expect(talk.page.locator(".turn")).to_have_count(len(before))
    await talk.answered("Here I am again")


async def test_an_address_that_is_not_known(talk: Talk) -> None:
    """An unknown conversation leads to the cards, and the page says why."""
    await talk.page.goto(talk.url + "#c=nobody-has-this")
    await expect(talk.page.locator("#notice")).to_contain_text("not here any more")
    await expect(talk.page.locator(".card").first).to_be_visible()


async def test_a_lost_connection_comes_back(talk: Talk) -> None:
    """After a restart the page reconnects by itself; what was not acknowledged is said once."""
    sockets: list[WebSocketRoute] = []

    def route(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        server = socket.connect_to_server()
        first = len(sockets) == 1

        async def cut_before_the_answer() -> None:
            await asyncio.sleep(0)
            await server.close()
            await socket.close(code=1012, reason="restart")

        def outwards(message: str | bytes) -> None:
            talk.sent.append(json.loads(message))
            server.send(message)

        def inwards(message: str | bytes) -> None:
            event = json.loads(message)
            if first and event["type"] == "ack":
                tasks.append(asyncio.create_task(cut_before_the_answer()))
            elif not tasks or not first:
                talk.received.append(event)
                socket.send(message)

        socket.on_message(outwards)
        server.on_message(inwards)

    tasks: list[asyncio.Task[None]] = []
    await talk.page.route_web_socket("**/*", route)
    await talk.choose()
    await talk.say("Good morning")
    await talk.until(lambda: len(sockets) > 1)
    await expect(talk.page.locator("#status")).to_have_attribute("data-state", "online")
    await expect(talk.replies()).to_have_count(2)
    await expect(talk.replies().last).to_have_attribute("data-status", "done")
    assert len({frame["id"] for frame in talk.commands("say")}) == 1
    assert (await talk.transcript())[1:2] == ["Good morning"]
    assert talk.commands("conversation.open")[-1]["since"] >= 1
    await talk.answered("Good night")
    await expect(talk.page.locator(".turn.mine")).to_have_count(2)


async def test_what_is_said_while_away_waits(talk: Talk) -> None:
    """Words said while the connection is away stay on the page and are said when it is back."""
    sockets: list[WebSocketRoute] = []

    def route(socket: WebSocketRoute) -> None:
        sockets.append(socket)
        server = socket.connect_to_server()
        server.on_message(socket.send)
        socket.on_message(server.send)

    await talk.page.route_web_socket("**/*", route)
    await talk.choose()
    await sockets[0].close(code=1012, reason="restart")
    await expect(talk.page.locator("#status")).to_have_attribute("data-state", "waiting")
    await expect(talk.page.locator("#status-text")).to_contain_text("Connection lost")
    await talk.say("Are you there?")
    await expect(talk.page.locator(".turn.mine .note")).to_have_text("On its way")
    await talk.page.locator("#retry").click()
    await expect(talk.replies()).to_have_count(2)
    await expect(talk.page.locator(".turn.mine")).to_have_attribute("data-status", "done")


async def test_two_pages_share_a_conversation(talk: Talk) -> None:
    """A second tab with the same address shows what is said in the first."""
    await talk.choose()
    other = await talk.page.context.new_page()
    await other.goto(talk.page.url)
    await expect(other.locator(".turn")).to_have_count(1)
    await talk.answered("Tell me a story")
    await expect(other.locator(".turn.mine .words")).to_have_text("Tell me a story")
    await expect(other.locator(".turn.reply .words").last).to_have_text(STORY)


async def test_an_api_key_is_asked_for(
    open_talk: OpenTalk, servers: Servers, tmp_path: Path
) -> None:
    """With API keys the page asks for one, says when it is wrong, and never shows it in frames."""
    _, key = KeyFile(tmp_path / "data" / "keys.json").add("tests", "host", 0)
    script = str(write_script(tmp_path))
    url = servers.start("--engine", "scripted", "--auth", "keys", NPC_SCRIPT=script).page
    async with open_talk(url=url) as talk:
        await talk.page.goto(url)
        dialog = talk.page.get_by_role("dialog", name="This server asks for an API key")
        await dialog.get_by_label("API key").fill("wrong")
        await dialog.get_by_role("button", name="Connect").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("not known")
        await dialog.get_by_label("API key").fill(key)
        await dialog.get_by_role("button", name="Connect").click()
        await expect(talk.page.locator("#status")).to_have_attribute("data-state", "online")
        await talk.choose()
        await talk.answered("Hello")
        await talk.replies().last.locator(".prompt-of").click()
        await expect(talk.page.locator("#prompt-body")).to_contain_text("Bram")
        await talk.page.keyboard.press("Escape")
        await talk.page.locator("#frames-toggle").click()
        await talk.page.locator('#frames-list [data-type="hello"] summary').last.click()
        shown = await talk.page.locator("#frames-list").inner_text()
        assert talk.commands("hello")[-1]["token"] == key
        assert key not in shown
        stored = await talk.page.evaluate("JSON.stringify(localStorage)")
        assert key not in stored


async def test_only_the_server_itself_may_be_asked(talk: Talk) -> None:
    """The page's policy forbids scripts in the page and everything from other hosts."""
    answer = await talk.page.request.get(talk.url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert urlsplit(talk.url).hostname == "127.0.0.1"
    markup = await answer.text()
    assert "http:" not in markup
    assert "https:" not in markup
    assert " style=" not in markup
