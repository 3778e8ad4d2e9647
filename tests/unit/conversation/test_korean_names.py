"""What Korean writes onto names."""

from __future__ import annotations

import pytest

from npc_server.conversation.korean_names import (
    calling_stem,
    honorific_in,
    is_vocative,
    particle_in,
)


@pytest.mark.parametrize(
    ("rest", "stem", "particle"),
    [
        ("", "브람", ""),
        ("아", "브람", "아"),
        ("야", "브람", "야"),
        ("이", "브람", "이"),
        ("이가", "브람", "가"),
        ("이랑", "브람", "랑"),
        ("이도", "브람", "도"),
        ("이한테는", "브람", "한테"),
        ("은", "브람", "은"),
        ("는", "브람", None),
        ("가", "미라", "가"),
        ("이", "미라", None),
        ("클", "미라", None),
        ("를", "Bram", "를"),
        ("을", "Bram", "을"),
        ("s", "Bram", None),
    ],
)
def test_a_particle_fits_its_name(rest: str, stem: str, particle: str | None) -> None:
    """The form follows the last sound; what is no particle belongs to another word."""
    assert particle_in(rest, stem) == particle


def test_a_copula_is_no_call() -> None:
    """브람이야 and 미라예요 say that it is somebody."""
    for rest, stem in (("이야", "브람"), ("이에요", "브람"), ("예요", "미라"), ("였어", "미라")):
        particle = particle_in(rest, stem)
        assert particle
        assert not is_vocative(particle)


def test_titles_are_taken_whole() -> None:
    """The longest title is found, and what is written onto it is left."""
    assert honorific_in("선생님께") == ("선생님", "께")
    assert honorific_in("씨") == ("씨", "")
    assert honorific_in("아저씨야") == ("아저씨", "야")
    assert honorific_in("클") == ("", "클")


def test_who_ends_in_i_is_called_without_it() -> None:
    """곰돌이 is called 곰돌아; a name that ends in another vowel before 이 keeps it."""
    assert calling_stem("곰돌이") == "곰돌"
    assert calling_stem("아이") is None
    assert calling_stem("미라") is None
    assert calling_stem("이") is None
