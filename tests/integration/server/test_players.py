"""Players who are in one conversation: how they come in, and what they hear of one another."""

from __future__ import annotations

from support import of, until

from npc_server.app import App
from npc_server.client import session


async def test_who_has_said_it_types_no_more(app: App) -> None:
    """The others learn that a player types, and with its words that it does so no more."""
    async with (
        session(app.address, player="anna", role="player") as anna,
        session(app.address, player="yuna", role="player") as yuna,
    ):
        first = await anna.ask("conversation.open", npcs=["bram"], greet="never")
        conversation = first["conversation"]
        await yuna.ask("conversation.open", conversation=conversation, invite=first["invite"])
        await anna.send("input", conversation=conversation, state="typing")
        await until(yuna, "player.presence", member="anna", input="typing")
        await anna.send("say", conversation=conversation, text="Good morning")
        await until(yuna, "player.presence", member="anna", input="idle")


async def test_a_whisper_to_another_player(app: App) -> None:
    """A player may whisper to another one, and no NPC that stands by hears it or answers."""
    async with (
        session(app.address, player="anna", role="player") as anna,
        session(app.address, player="yuna", role="player") as yuna,
    ):
        first = await anna.ask("conversation.open", npcs=["bram", "marta"], greet="never")
        conversation = first["conversation"]
        await yuna.ask("conversation.open", conversation=conversation, invite=first["invite"])
        await anna.send(
            "say", conversation=conversation, text="Let us go", to=["yuna"], whisper=True
        )
        heard = await until(yuna, "turn", speaker="anna")
        assert (heard["to"], sorted(heard["hearers"])) == (["yuna"], ["anna", "yuna"])
        assert of([event async for event in yuna.until_idle()], "reply.started") == []


async def test_a_host_brings_a_player_in(app: App) -> None:
    """A host brings a player into the cast, who then needs no invite to open the conversation."""
    async with (
        session(app.address, player="game") as host,
        session(app.address, player="yuna", role="player") as yuna,
    ):
        first = await host.ask("conversation.open", npcs=["bram"], greet="never")
        conversation = first["conversation"]
        await host.ask("conversation.join", conversation=conversation, player="yuna", name="Yuna")
        opened = await yuna.ask("conversation.open", conversation=conversation)
        assert [m["name"] for m in opened["cast"] if m["kind"] == "player"] == ["game", "Yuna"]
