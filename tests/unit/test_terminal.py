"""Streamed text is wrapped between words."""

import io
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from npc_server.client import Json
from npc_server.engines.base import Capabilities
from npc_server.terminal import Wrapping, show_replies, summary


def printed(pieces: list[str], width: int) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    out = Wrapping(console)
    for piece in pieces:
        out.write(piece)
    out.flush()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_words_stay_whole() -> None:
    """A word that does not fit goes onto the next line, however it was cut into pieces."""
    assert printed(["one tw", "o thr", "ee"], 8) == "one two \nthree"


def test_wide_letters_take_two_columns() -> None:
    """Hangul takes two columns each."""
    assert printed(["가나 ", "다라"], 8) == "가나 \n다라"


@given(st.lists(st.text(alphabet="ab \n가", max_size=9), max_size=9), st.integers(4, 30))
def test_nothing_is_lost(pieces: list[str], width: int) -> None:
    """Line breaks are all that is added."""
    assert printed(pieces, width).replace("\n", "") == "".join(pieces).replace("\n", "")


class Played:
    """A client to which a reply with an action comes."""

    def __init__(self, *events: Json) -> None:
        self.events = events
        self.answers: list[tuple[str, bool]] = []

    async def until_idle(self) -> AsyncIterator[Json]:
        for event in self.events:
            yield event

    async def answer(self, action: Json, *, ok: bool) -> None:
        self.answers.append((action["call"], ok))


async def test_what_an_npc_does_is_shown_and_accepted() -> None:
    """An action is printed before the words; it is answered where this session is to do it."""
    console = Console(file=io.StringIO(), width=60, color_system=None)
    action = {"type": "reply.action", "name": "give_item", "args": {"item": "knife"}}
    client = Played(
        {"type": "reply.started", "speaker": "bram"},
        {**action, "call": "a", "execute": True},
        {**action, "call": "b", "execute": False, "args": {}},
        {"type": "action.settled", "call": "b", "ok": False, "reason": "no room"},
        {"type": "reply.delta", "text": "There."},
        {"type": "reply.done", "finish": "stop"},
    )
    await show_replies(client, {"bram": "Bram"}, console)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == (
        "Bram: [give item (item: knife)] [give item] [refused: no \nroom] There.\n"
    )
    assert client.answers == [("a", True)]


async def test_each_npc_is_named() -> None:
    """Two NPCs that answer, an event and a silence each stand on a line of their own."""
    console = Console(file=io.StringIO(), width=60, color_system=None)
    client = Played(
        {"type": "turn", "kind": "event", "text": "It thunders."},
        {"type": "reply.started", "speaker": "bram"},
        {"type": "reply.delta", "text": "Hear that?"},
        {"type": "reply.done", "finish": "stop"},
        {"type": "reply.started", "speaker": "mira"},
        {"type": "reply.delta", "text": "I do."},
        {"type": "reply.done", "finish": "stop"},
        {"type": "reply.silent", "speaker": "pip", "reason": "quiet"},
    )
    said = await show_replies(client, {"bram": "Bram", "mira": "Mira"}, console)  # type: ignore[arg-type]
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == (
        "[It thunders.]\nBram: Hear that?\nMira: I do.\npip says nothing.\n"
    )
    assert said.text == "I do."


def test_the_summary_tells_what_is_known() -> None:
    """A reply that was ended early has no count of tokens, and a filler says nothing of pace."""
    console = Console(file=io.StringIO(), width=120, color_system=None)
    timings = {"queue_ms": 1.0, "first_token_ms": 100.0, "total_ms": 600.0}
    usage = {"prompt": 9, "cached": 4, "completion": 10}
    ends: list[Json] = [
        {"timings": timings, "usage": usage},
        {"timings": timings},
        {"timings": timings, "usage": usage, "degraded": "filler"},
        {"timings": timings, "degraded": "canned"},
        {"timings": {"queue_ms": 1.0, "total_ms": 600.0}},
    ]
    console.print(summary(ends, Capabilities("llamacpp", "Tiny", 2048, 4, "cpu")))
    assert isinstance(console.file, io.StringIO)
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]
    assert lines == [
        "engine llamacpp",
        "model Tiny",
        "device cpu",
        "turn 1 first token after 100 ms, 20.0 tokens/s, 4 of 9 prompt tokens were cached",
        "turn 2 first token after 100 ms, done after 600 ms",
        "turn 3 a filler after 100 ms, done after 600 ms, 4 of 9 prompt tokens were cached",
        "turn 4 an authored line after 100 ms, done after 600 ms",
        "turn 5 done after 600 ms",
    ]
