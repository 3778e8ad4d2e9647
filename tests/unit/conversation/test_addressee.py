"""To whom a player speaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from addressees import Case, cases, in_words
from hypothesis import given
from hypothesis import strategies as st

from npc_server.conversation.addressee import Addressees, Candidate, Exchange, addressees

CASES = cases()
ENOUGH = 0.95

BRAM = Candidate("bram", ("Bram", "브람", "the smith"))
MIRA = Candidate("mira", ("Old Mira", "미라"))
PIP = Candidate("pip", ("Pip",))
ALL = (BRAM, MIRA, PIP)


def said(
    text: str,
    candidates: Sequence[Candidate] = ALL,
    *,
    to: Sequence[str] = (),
    gaze: str | None = None,
    recent: Sequence[Exchange] = (),
    absent: Sequence[str] = (),
) -> str:
    """The reason and the members, as the table writes them."""
    found = addressees(
        text, speaker="you", candidates=candidates, to=to, gaze=gaze, recent=recent, absent=absent
    )
    return in_words(found)


def talked(*members: str) -> list[Exchange]:
    """The player spoke to each, one after another."""
    return [Exchange("you", (member,)) for member in members]


@pytest.mark.parametrize(
    "counts",
    [
        lambda case: True,
        lambda case: case.language == "en",
        lambda case: case.language == "ko",
        lambda case: case.held_out and case.language == "en",
        lambda case: case.held_out and case.language == "ko",
    ],
    ids=["all", "English", "Korean", "English held out", "Korean held out"],
)
def test_nearly_all_written_cases_are_right(counts: Callable[[Case], bool]) -> None:
    """At least 95 of 100 cases come out as they were written down, in each language."""
    of_these = [case for case in CASES if counts(case)]
    wrong = [f"{case.text!r}: {case.given()}" for case in of_these if case.given() != case.answer]
    assert len(wrong) <= (1 - ENOUGH) * len(of_these), wrong


def test_the_table_is_as_large_as_it_says() -> None:
    """Both languages have as good as half of the cases, and each answer names who is there."""
    korean = sum(case.language == "ko" for case in CASES)
    assert len(CASES) >= 240
    assert 0.45 < korean / len(CASES) < 0.55
    assert sum(case.held_out for case in CASES) >= 60
    for case in CASES:
        members = {candidate.member for candidate in case.known["candidates"]}
        assert members.issuperset(case.answer.split()[1:]), case.text


@pytest.mark.parametrize(
    ("text", "known", "answer"),
    [
        ("Bram! Come, all of you!", {"to": ["pip"], "gaze": "mira"}, "to pip"),
        ("Bram! Come, all of you!", {"gaze": "mira", "recent": talked("pip")}, "named bram"),
        ("Come, all of you!", {"gaze": "mira"}, "everyone bram mira pip"),
        ("Everyone! Have you seen Cora?", {"absent": ["Cora"]}, "everyone bram mira pip"),
        ("Cora? I meant Pip.", {"absent": ["Cora"]}, "absent"),
        ("I meant Pip.", {"gaze": "mira"}, "named pip"),
        ("And then?", {"gaze": "mira", "recent": talked("pip")}, "to mira"),
        ("And then?", {"recent": talked("bram", "pip")}, "follow_up pip"),
        ("And then?", {}, "open"),
    ],
)
def test_what_says_more_goes_first(text: str, known: dict[str, list[str]], answer: str) -> None:
    """The client's word, a call, a crowd, somebody absent, a name, a look, the last partner."""
    assert said(text, **known) == answer  # type: ignore[arg-type]


def test_who_is_not_there_is_not_answering() -> None:
    """Members that are no candidates are left out, and so is the speaker."""
    assert said("Hello.", to=["guest", "pip"]) == "to pip"
    assert said("Hello.", to=["guest"]) == "to"
    assert said("Hello.", gaze="guest", recent=talked("guest")) == "open"
    assert said("Why?", recent=talked("pip", "guest")) == "follow_up pip"
    assert said("Pip!", ()) == "open"
    own = addressees("Pip, Mira!", speaker="pip", candidates=ALL)
    assert own == Addressees(("mira",), "named")


def test_who_is_talked_about_is_not_talked_to() -> None:
    """Neither a look nor the last exchange makes somebody answer who is only talked about."""
    assert said("Bram is lying.", gaze="bram", recent=talked("mira")) == "follow_up mira"
    assert said("Bram is lying.", recent=talked("mira", "bram")) == "follow_up mira"
    assert said("브람이 거짓말을 해", recent=talked("bram")) == "open"


def test_of_namesakes_the_likeliest_is_meant() -> None:
    """Of several called alike the one looked at, else the last partner, else all of them."""
    guards = [Candidate(f"guard-{n}", ("Guard",)) for n in (1, 2, 3)]
    assert said("Guard, open!", guards) == "named guard-1 guard-2 guard-3"
    assert said("Guard, open!", guards, gaze="guard-2", recent=talked("guard-3")) == "named guard-2"
    assert said("Guard, open!", guards, recent=talked("guard-3")) == "named guard-3"
    assert said("Where is the guard?", guards, recent=talked("guard-3")) == "follow_up guard-3"


def test_a_whole_name_goes_before_a_part() -> None:
    """Whose whole name is said is meant, not another of whose name it is a part."""
    cast = [Candidate("old", ("Old Mira",)), Candidate("young", ("Mira",))]
    assert said("Mira, come!", cast) == "named young"
    assert said("Old Mira, come!", cast) == "named old"


def test_someone_here_goes_before_a_namesake_elsewhere() -> None:
    """A name that both somebody here and somebody absent bear means the one who is here."""
    assert said("Pip, come!", absent=["Pip", "Cora"]) == "named pip"


def test_you_two_are_the_two_last_partners() -> None:
    """Of more than two, those with whom the player talked last; all where it talked with fewer."""
    assert said("You two, come!", recent=talked("pip", "bram")) == "everyone bram pip"
    assert said("You two, come!", recent=talked("pip")) == "everyone bram mira pip"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('"Come here," I say to Bram.', "named bram"),
        ('"Mira, where is he?" I ask.', "named mira"),
        ("“미라야, 이리 와.” 나는 조용히 말했다.", "named mira"),
        ("*Bram*, wake up", "named bram"),
        ("*thinks of Mira* Good.", "open"),
        ("*브람 쪽을 돌아보며* 왜?", "named bram"),
        ("I told him 'Bram', and that's that.", "open"),
        ("That's Bram's, isn't it?", "open"),
    ],
)
def test_narration_is_not_taken_for_speech(text: str, answer: str) -> None:
    """What is quoted is speech where it is being said now; stage directions tell to whom."""
    assert said(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Dr. Mira, come in.", "named mira"),
        ("My dear Bram, sit down.", "named bram"),
        ("This is my friend, Bram.", "open"),
        ("My friend, Bram, is ill.", "open"),
        ("Bram, I think, is lying.", "open"),
        ("Give me the red sword Bram", "named bram"),
        ("I met the smith Bram", "open"),
        ("is that you Bram", "named bram"),
        ("are you Bram", "open"),
        ("Bram no", "named bram"),
        ("Everyone ready?", "everyone bram mira pip"),
        ("I like you all the more.", "open"),
        ("all bram ever does is shout", "open"),
        ("브람이라고 불러도 돼?", "open"),
        ("미라 같이 가자", "named mira"),
        ("미라 내 친구야", "open"),
        ("미라 누나 오셨다!", "open"),
        ("브람만 빼고", "open"),
        ("나머지는 브람 빼고 다들 와", "everyone mira pip"),
    ],
)
def test_finer_points(text: str, answer: str) -> None:
    """Titles, appositions, bylines, things, copulas: what looks like a call, or does not."""
    assert said(text) == answer


def test_long_lists_and_open_quotes_are_taken() -> None:
    """A text as long as may be, of nothing but names or marks, is read like any other."""
    assert said("Bram, " * 666) == "named bram"
    assert said("Bram and Pip, " * 280 + "come!") == "named bram pip"
    assert said("'a " * 1300) == "open"
    assert said("my " * 1300) == "open"


PIECES = st.sampled_from(
    (
        *("Bram", "bram's", "Old", "Mira", "Pip", "the smith", "브람", "미라", "아", "야", "이랑"),
        *(
            " 씨",
            "은",
            "이",
            " 말고 ",
            " 빼고 ",
            "everyone",
            "you two",
            "다들",
            "너희",
            "Cora",
            "@",
        ),
        *(", ", " ", ". ", "? ", "! ", " — ", "'", '"', "“", "*", "(", ")", "🙂", "ㅋㅋ", "\n"),
        *("hey", "is", "you", "and", "not", "I meant", "what", "the", "이리 와", "어디", "래"),
    )
)
TEXTS = st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=14).map("".join))
MEMBERS = st.sampled_from(("you", "bram", "mira", "pip", "guest"))
CASTS = st.lists(
    st.builds(Candidate, MEMBERS, st.lists(TEXTS, max_size=3).map(tuple))
    | st.sampled_from((BRAM, MIRA, PIP)),
    max_size=4,
)
EXCHANGES = st.lists(st.builds(Exchange, MEMBERS, st.lists(MEMBERS, max_size=3).map(tuple)))


@given(TEXTS, CASTS, st.lists(MEMBERS, max_size=2), st.none() | MEMBERS, EXCHANGES)
def test_only_who_is_there_is_named(
    text: str,
    cast: list[Candidate],
    to: list[str],
    gaze: str | None,
    recent: list[Exchange],
) -> None:
    """Whatever is said, it is taken, only candidates answer, none twice, and always the same."""
    once, again = (
        addressees(
            text,
            speaker="you",
            candidates=cast,
            to=to,
            gaze=gaze,
            recent=recent,
            absent=["Cora"],
        )
        for _ in range(2)
    )
    assert once == again
    assert {c.member for c in cast} - {"you"} >= set(once.members)
    assert len(set(once.members)) == len(once.members)
    if once.reason in ("absent", "open"):
        assert not once.members
    if once.reason in ("named", "follow_up", "only_one"):
        assert once.members


@given(TEXTS, st.sampled_from(("bram", "mira", "pip")))
def test_a_look_only_decides_what_words_leave_open(text: str, gaze: str) -> None:
    """Where words tell to whom something is said, looking at somebody changes nothing."""
    without = addressees(text, speaker="you", candidates=ALL)
    looking = addressees(text, speaker="you", candidates=ALL, gaze=gaze)
    if without.reason == "open":
        assert looking in (without, Addressees((gaze,), "to"))
    else:
        assert looking == without
