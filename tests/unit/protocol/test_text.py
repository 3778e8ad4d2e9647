"""Text from clients is made clean, and cut at characters as people see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.protocol.text import clean, cut, one_line

FAMILY = "👨‍👩‍👧"


def test_text_comes_out_in_nfc() -> None:
    """Hangul that came as jamo is one syllable afterwards."""
    assert clean("한") == "한"


def test_controls_go_and_layout_stays() -> None:
    """Newline and tab are kept, other control characters are not."""
    assert clean("a\x00b\x1b[31m\tc\r\nd\x7f\u0085") == "ab[31m\tc\nd"


def test_half_a_surrogate_pair_is_refused() -> None:
    """What is no character is an error, not a question mark."""
    with pytest.raises(ValueError, match="surrogate"):
        clean("a\ud83d")


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "a\u2028b"])
def test_names_are_one_line(name: str) -> None:
    """A name that is blank or has a line break is refused."""
    with pytest.raises(ValueError, match=r"empty|one line"):
        one_line(name)


def test_names_are_stripped() -> None:
    """Space around a name is not part of it."""
    assert one_line("  할머니 ") == "할머니"


@pytest.mark.parametrize(
    ("text", "length", "kept"),
    [
        ("hello", 3, "hel"),
        ("hello", 9, "hello"),
        ("hello", 0, ""),
        (f"a{FAMILY}b", 1, "a"),
        (f"a{FAMILY}b", 3, "a"),
        (f"a{FAMILY}b", 6, f"a{FAMILY}"),
        ("e\u0301x", 1, ""),
        ("한글", 1, "한"),
        ("🇰🇷!", 1, ""),
    ],
)
def test_a_cut_never_splits_a_character(text: str, length: int, kept: str) -> None:
    """A cut inside an emoji, a flag or an accent goes back before it."""
    assert cut(text, length) == kept


@given(st.text(), st.integers(0, 100))
def test_a_cut_is_a_prefix_of_at_most_that_length(text: str, length: int) -> None:
    """Cutting never adds, never reorders and never keeps too much."""
    kept = cut(text, length)
    assert text.startswith(kept)
    assert len(kept) <= length
