"""Streamed text is wrapped between words."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from npc_server.terminal import Wrapping


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
