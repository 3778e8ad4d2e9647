"""Plain HTTP on the WebSocket's port, and who may see what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from support import Start, of, opened, reply_to
from websockets.exceptions import ConnectionClosed

from npc_server.app import App
from npc_server.client import Client, Refused, session
from npc_server.clock import Clock
from npc_server.protocol.reference import json_schema
from npc_server.server.keys import KeyFile


@pytest.fixture
async def http(app: App) -> AsyncIterator[httpx.AsyncClient]:
    base = app.address.replace("ws://", "http://")
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        yield client


async def test_health_and_readiness(http: httpx.AsyncClient) -> None:
    """A server whose model is loaded and whose Redis answers is healthy and ready."""
    for path in ("/healthz", "/readyz"):
        assert (await http.get(path)).status_code == 200


async def test_the_playground_is_served_with_a_policy(http: httpx.AsyncClient) -> None:
    """The page comes with a content security policy that allows nothing from elsewhere."""
    page = await http.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/nope", "/playground/../../cli.py", "/playground/%2e%2e/session.py", "/healthz/x",
             "/metrics/x", "/schema/x", "/personas/x", "/scenes/x", "/prompts/unknown",
             "/playground/.hidden"]
)  # fmt: skip
async def test_nothing_else_is_there(http: httpx.AsyncClient, path: str) -> None:
    """Unknown paths, and ones that try to leave the folder, are 404."""
    assert (await http.get(path)).status_code == 404


async def test_schemas_and_personas(http: httpx.AsyncClient) -> None:
    """The protocol's schema is the models', and the personas at hand are listed."""
    assert (await http.get("/schema/npc.v1.json")).json() == json_schema()
    assert (await http.get("/schema/persona.v1.json")).json()["title"] == "Persona"
    assert "bram" in {persona["id"] for persona in (await http.get("/personas")).json()}


async def test_scenes_are_listed(http: httpx.AsyncClient) -> None:
    """A list of scenes says what they are called and who is in them, and nothing of the story."""
    assert (await http.get("/schema/scene.v1.json")).json()["title"] == "Scene"
    scenes = {scene["id"]: scene for scene in (await http.get("/scenes")).json()}
    tavern = scenes["tavern"]
    assert set(tavern) == {"id", "title", "languages", "summary", "cast"}
    assert {"member": "marta", "npc": "marta", "name": "Marta"} in tavern["cast"]
    assert scenes["haenim-dalnim"]["languages"] == ["ko"]


async def test_metrics_count(http: httpx.AsyncClient, client: Client) -> None:
    """A reply is counted with how it ended."""
    await reply_to(client, await opened(client), "Hello")
    text = (await http.get("/metrics")).text
    assert 'npc_replies_total{finish="stop"} 1.0' in text
    assert "npc_first_token_seconds_count 1.0" in text


async def test_the_prompt_of_a_turn_can_be_seen(http: httpx.AsyncClient, client: Client) -> None:
    """On loopback the effective prompt of a reply is shown, with what the player said."""
    events = await reply_to(client, await opened(client), "Where is the mill?")
    turn = of(events, "reply.done")[0]["turn"]
    prompt = (await http.get(f"/prompts/{turn}")).json()
    assert prompt["messages"][0]["role"] == "system"
    assert "Where is the mill?" in prompt["messages"][-1]["text"]
    assert prompt["sections"]


async def test_other_hosts_names_are_refused(http: httpx.AsyncClient) -> None:
    """A name that merely resolves to loopback gets nothing, prompts least of all."""
    answer = await http.get("/personas", headers={"Host": "evil.example"})
    assert answer.status_code == 403


async def test_keys_guard_sockets_and_pages(start: Start, tmp_path: Path) -> None:
    """With keys nobody connects without one, and metrics and prompts are for hosts."""
    keys = KeyFile(tmp_path / "data" / "keys.json")
    _, player = keys.add("players", "player", Clock().wall_ms())
    _, host = keys.add("game", "host", Clock().wall_ms())
    async with start(auth="keys") as app:
        with pytest.raises((Refused, ConnectionClosed)):
            async with session(app.address):
                pass
        with pytest.raises(Refused, match="not known"):
            async with session(app.address, token="npck_wrong"):
                pass
        async with session(app.address, player="minsu", token=player) as client:
            conversation = await opened(client)
            await reply_to(client, conversation, "Hello")
            with pytest.raises(Refused, match="Only a host"):
                await client.ask("say", conversation=conversation, player="yuna", text="Hi")
        async with session(app.address, player="minsu", token=host) as other:
            with pytest.raises(Refused, match="no such conversation"):
                await other.ask("conversation.open", conversation=conversation)
        base = app.address.replace("ws://", "http://")
        async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
            assert (await http.get("/healthz")).status_code == 200
            for secret, status in ((None, 401), (player, 401), (host, 200)):
                headers = {"Authorization": f"Bearer {secret}"} if secret else {}
                assert (await http.get("/metrics", headers=headers)).status_code == status
