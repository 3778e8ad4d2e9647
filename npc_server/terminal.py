"""Talking with an NPC in a terminal: the chat, and the three turns of the demo."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from npc_server.client import Client, Json, Refused
from npc_server.engines.base import Capabilities

DEMO_LINES = (
    "Hello! What are you working on?",
    "Could you make me a sword?",
    "Thank you. Who else lives in this village?",
)
STAND_INS = {"filler": "a filler", "canned": "an authored line"}


@dataclass(frozen=True, slots=True)
class Said:
    """A reply as a terminal saw it: its text, and the event with which it ended."""

    text: str
    done: Json | None


class Wrapping:
    """Prints words as they come, each whole on one line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._column = 0
        self._word = ""

    def write(self, text: str, style: str = "") -> None:
        """Print text; its last word waits until it is known to be whole."""
        *words, self._word = re.split(r"(?<=\s)(?=\S)", self._word + text)
        for word in words:
            self._put(word, style)

    def flush(self, style: str = "") -> None:
        """Print what waits."""
        self._put(self._word, style)
        self._word = ""

    def _put(self, word: str, style: str) -> None:
        width = cell_len(word.rstrip())
        if self._column and self._column + width > self._console.width:
            self._console.print()
            self._column = 0
        self._console.print(Text(word, style=style), end="", soft_wrap=True)
        self._console.file.flush()
        newline = word.rfind("\n")
        self._column = cell_len(word[newline + 1 :]) + (self._column if newline < 0 else 0)


async def show_replies(client: Client, names: Mapping[str, str], console: Console) -> Said:
    """Print what NPCs say as it streams, up to the next idle moment. What they do is accepted.

    Args:
        client: A session.
        names: What the members are called, by their id.
        console: Where to print.

    Returns:
        The last reply.
    """
    text, done, out = "", None, Wrapping(console)
    begun = False
    async for event in client.until_idle():
        match event["type"]:
            case "reply.started":
                text, begun = "", True
                out.write(f"{names.get(event['speaker'], event['speaker'])}: ")
            case "reply.delta":
                if not text:
                    out.flush("bold cyan")
                text += event["text"]
                out.write(event["text"])
            case "reply.emotion" if event.get("gesture"):
                out.flush("" if text else "bold cyan")
                gesture = event["gesture"].replace("_", " ")
                space = " " if text and not text[-1].isspace() else ""
                out.write(f"{space}[{gesture}] ", "dim italic")
                out.flush("dim italic")
            case "reply.action":
                out.flush("" if text else "bold cyan")
                args = ", ".join(f"{name}: {value}" for name, value in event["args"].items())
                deed = event["name"].replace("_", " ") + (f" ({args})" if args else "")
                out.write(f"[{deed}] ", "dim italic")
                out.flush("dim italic")
                if event["execute"]:
                    await client.answer(event, ok=True)
            case "action.settled" if not event["ok"]:
                out.write(f"[refused: {event.get('reason')}] ", "dim italic")
                out.flush("dim italic")
            case "turn" if event["kind"] == "event":
                console.print(Text(f"[{event['text']}]", style="dim italic"))
            case "reply.silent":
                name = names.get(event["speaker"], event["speaker"])
                console.print(Text(f"{name} says nothing.", style="dim"))
            case "reply.done":
                done = event
                out.flush()
                mark = {"stop": "", "length": " …"}.get(event["finish"], f" ({event['finish']})")
                console.print(Text(mark if begun else "", style="dim"))
                begun = False
    return Said(text, done)


async def open_conversation(
    client: Client, console: Console, *, npc: str | None = None, scene: str | None = None
) -> tuple[str, dict[str, str]]:
    """Open a conversation with an NPC or in a scene, and show how it begins.

    Returns:
        The conversation's id, and what its members are called by their id.
    """
    opened = await client.ask("conversation.open", npcs=[npc] if npc else [], scene=scene)
    names = {member["member"]: member["name"] for member in opened["cast"]}
    if scene is not None:
        npcs = [member["name"] for member in opened["cast"] if member["kind"] == "npc"]
        console.print(Text(f"Here are {', '.join(npcs)}.", style="dim"))
    if opened.get("reply"):
        await show_replies(client, names, console)
    return str(opened["conversation"]), names


async def chat(
    client: Client,
    console: Console,
    read: Callable[[], str],
    *,
    npc: str | None = None,
    scene: str | None = None,
) -> None:
    """Talk until the input ends or an empty line comes.

    Args:
        client: A session.
        console: Where to print.
        read: Blocks until the player has written a line; raises ``EOFError`` at the end.
        npc: The persona's id.
        scene: The scene's id, in place of an NPC's.
    """
    conversation, names = await open_conversation(client, console, npc=npc, scene=scene)
    while True:
        try:
            line = await asyncio.to_thread(read)
        except EOFError:
            return
        if not line.strip():
            return
        try:
            await client.send("say", conversation=conversation, text=line)
            await show_replies(client, names, console)
        except Refused as error:
            console.print(Text(error.message, style="red"))


async def three_turns(client: Client, npc: str, console: Console) -> list[Json]:
    """Have a conversation of three turns and print it; returns each turn's ``reply.done``.

    Raises:
        Refused: The server answered with an error.
    """
    conversation, names = await open_conversation(client, console, npc=npc)
    ends = []
    for line in DEMO_LINES:
        console.print(Text("You: ", style="bold green"), Text(line), sep="", end="\n")
        await client.send("say", conversation=conversation, text=line)
        said = await show_replies(client, names, console)
        if said.done is not None:
            ends.append(said.done)
    return ends


def summary(ends: list[Json], capabilities: Capabilities) -> Table:
    """A table of what answered, and how fast."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("engine", capabilities.engine)
    table.add_row("model", capabilities.model)
    table.add_row("device", capabilities.device)
    for number, end in enumerate(ends, start=1):
        table.add_row(f"turn {number}", _pace(end))
    return table


def _pace(end: Json) -> str:
    """How fast a reply came, as far as that is known; a filler's time tells nothing of tokens."""
    timings, usage, stand_in = end["timings"], end.get("usage"), end.get("degraded", "")
    first, total = timings.get("first_token_ms"), timings["total_ms"]
    parts = []
    if first is not None:
        parts.append(f"{STAND_INS.get(stand_in, 'first token')} after {first:.0f} ms")
    if first is None or usage is None or stand_in in STAND_INS:
        parts.append(f"done after {total:.0f} ms")
    else:
        seconds = max(1e-3, (total - first) / 1000)
        parts.append(f"{usage['completion'] / seconds:.1f} tokens/s")
    if usage is not None:
        parts.append(f"{usage['cached']} of {usage['prompt']} prompt tokens were cached")
    return ", ".join(parts)
