"""What counts as a repetition and what does not, in English and Korean."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.persona import Sampling
from npc_server.reply import Gesture, ReplyParser, Sentence, Speech, learn
from npc_server.reply.parts import Mark, atoms_of
from npc_server.reply.repetition import (
    HELD,
    REFRAINS,
    PatientMonitor,
    RepetitionMonitor,
    Verdict,
    loops_in,
    other_settings,
    overlap,
)

MILL = "The mill burned down last winter. Ask the baker, he saw it all from his window."
ROAD = "Aye. The north road is closed. Take the river path and mind the old bridge at night."
GOLD = "Well met, traveller! That blade will cost you forty pieces of good silver, no less."
EARLIER = (MILL, ROAD, GOLD)

BREAD_KO = "어서 오세요, 손님! 오늘은 갓 구운 호밀빵이 아주 맛있게 나왔어요. 하나 드셔 보세요."
ROAD_KO = "네. 북쪽 길은 밤에 무척 위험하니 조심하세요. 다리를 건너면 작은 마을이 하나 나옵니다."
SWORD_KO = "이 검은 우리 아버지께서 직접 만드신 귀한 물건이라네. 은화 마흔 닢은 받아야겠네."
EARLIER_KO = (BREAD_KO, ROAD_KO, SWORD_KO)

PIGS = "He called, “Little pig, little pig, let me come in!” and then he {} the house. "
CROW = "호랑이가 말했어요. “떡 하나 주면 안 잡아먹지, 어서 내놓아라!” 할머니는 {} 고개를 넘었어요. "


def read(text: str, earlier: Sequence[str] = ()) -> tuple[str, Verdict | None]:
    """What is let through of a text, and the verdict."""
    monitor = RepetitionMonitor([*map(learn, earlier)])
    atoms = [atom for char in text for atom in monitor.push(char)] + monitor.end()
    return "".join(atom for atom in atoms if isinstance(atom, str)), monitor.verdict


REPEATS: list[tuple[str, str, Verdict]] = [
    # the whole reply again, a sentence of it, with other marks, case and spaces: two words are free
    (MILL, "The mill", "line"),
    ("the mill burned down last winter", "the mill", "line"),
    ("The MILL burned down -- last winter!! And so on.", "The MILL", "line"),
    # a beginning of eight words
    ("Take the river path and mind the old man who lives there.", "Take the", "line"),
    ("Well met, traveller! That blade will cost you ten.", "Well met", "line"),
    # later in the reply: what came before stays
    ("No idea. The mill burned down last winter. So it goes.", "No idea. ", "line"),
    ("Hm, let me think about it. The north road is closed.", "Hm, let me think about it. ", "line"),
    # short sentences before it are the same too
    ("Aye. The north road is closed. Go home.", "Aye. The", "line"),
    # most of it is known, in other sentences
    (
        "Well, the mill burned down last winter and ask the baker, he saw it all. Go now.",
        "Well, the mill burned down last winter and ask the baker, he saw it all.",
        "ngrams",
    ),
    # inside one reply
    ("I miss the old days here. I miss the old days here.", "I miss the old days here. ", "loop"),
    (
        "I saw a light there. It was green. I saw a light there. It was",
        "I saw a light there. It was green. ",
        "loop",
    ),
    ("I do not know. I do not know. I do not know. I do", "I do not know. I do not know. ", "loop"),
    (
        "Come with me now come with me now come with me now",
        "Come with me now come with me now ",
        "loop",
    ),
    ("Ha" + "ha" * 30, "Ha" + "ha" * 11 + "h", "loop"),
    ("Run" + "!" * 60, "Run" + "!" * 24, "loop"),
    ("Wow, " + "so big " * 12, "Wow, " + "so big " * 5 + "so big", "loop"),
]

REPEATS_KO: list[tuple[str, str, Verdict]] = [
    (BREAD_KO, "어서 오세요", "line"),
    ("북쪽 길은 밤에 무척 위험하니 조심하세요.", "북쪽 길은", "line"),
    ("북쪽 길은  밤에, 무척 위험하니 조심하세요~ 네?", "북쪽 길은", "line"),
    ("네. 북쪽 길은 밤에 무척 위험하니 조심하세요. 정말로요.", "네. 북쪽", "line"),
    ("글쎄요. 다리를 건너면 작은 마을이 하나 나옵니다. 아마도요.", "글쎄요. ", "line"),
    ("글쎄요.다리를 건너면 작은 마을이 하나 나옵니다.", "글쎄요.", "line"),
    ("음, 그건 말이지. 은화 마흔 닢은 받아야겠네.", "음, 그건 말이지. ", "line"),
    ("오늘은 갓 구운 호밀빵이 아주 맛있게 나왔어요!", "오늘은 갓", "line"),
    (
        "그럼요, 오늘은 갓 구운 호밀빵이 아주 맛있게 나왔어요, 하나 드셔 보세요. 그리고 또",
        "그럼요, 오늘은 갓 구운 호밀빵이 아주 맛있게 나왔어요, 하나 드셔 보세요.",
        "ngrams",
    ),
    (
        "허허, 이 검은 우리 아버지께서 직접 만드신 귀한 물건이라네, 그러니 알겠나. 자,",
        "허허, 이 검은 우리 아버지께서 직접 만드신 귀한 물건이라네, 그러니 알겠나.",
        "ngrams",
    ),
    (
        "저는 아무것도 모릅니다 정말이에요. 저는 아무것도 모릅니다 정말이에요.",
        "저는 아무것도 모릅니다 정말이에요. ",
        "loop",
    ),
    (
        "밤하늘에 별이 참 많구나 그래. 춥다. 밤하늘에 별이 참 많구나 그래. 춥다.",
        "밤하늘에 별이 참 많구나 그래. 춥다. ",
        "loop",
    ),
    ("나는 널 믿어 나는 널 믿어 나는 널 믿어", "나는 널 믿어 나는 널 믿어 ", "loop"),
    ("안녕하세요 반갑습니다 " * 3, "안녕하세요 반갑습니다 " * 2, "loop"),
    ("ㅋ" * 40, "ㅋ" * 24, "loop"),
    ("좋아" + "하" * 40, "좋아" + "하" * 24, "loop"),
    ("정말요" + "~" * 50, "정말요" + "~" * 24, "loop"),
    ("ㅋㅎ" * 30, "ㅋㅎ" * 12, "loop"),
]

FRESH = [
    "Aye.",
    "Aye. What of it?",
    "The north road is closed, but only for carts.",
    "The mill burned, they say.",
    "The mills burned down last winter in the south.",
    "Ask the baker. I was not there.",
    "Well met, traveller! Sit down and rest.",
    "Burned? The mill? Last winter, yes, and nobody knows who did it or why.",
    "No, no, no! Never, never, never.",
    "Ha ha ha ha! Hahahaha! That was a good one, a very, very good one.",
    "Row, row, row your boat, gently down the stream.",
    "“The mill burned down last winter.” That is what you said.",
    "You said “the mill burned down last winter”, did you not?",
    "You ask: ‘Is the north road closed?’ It is, and it will be, as I told you this morning.",
    "I know what you did. I know who you are. I know where you went.",
    "It costs ten. No, wait. It costs twelve. No, wait. It costs nine.",
    "".join(PIGS.format(what) for what in ("burned", "shook", "left")),
    "Wait... let me think.... Hmm...... no.",
    "The number is 1000000000000000000, or 3.14159265358979.",
    "“Who has been eating my porridge?” said one. “Who has been eating my porridge?” said two.",
    "Take the river path, and then",
]

FRESH_KO = [
    "네.",
    "네. 네. 네, 알겠습니다.",
    "어서 오세요, 손님!",
    "어서 오세요, 손님! 무엇을 찾으세요?",
    "북쪽 길은 낮에 괜찮습니다.",
    "북쪽 길은 밤에 무척 아름답습니다.",
    "하나 드셔 보세요. 따뜻할 때가 제일 맛있답니다.",
    "오늘은 갓 구운 보리빵이 있어요. 호밀빵은 다 팔렸답니다.",
    "다리를 건너지 마세요. 마을에는 아무도 없습니다.",
    "ㅋㅋㅋㅋㅋㅋ 그건 좀 웃기네요 ㅋㅋㅋㅋ",
    "하하하하하! 정말 재미있는 농담이군.",
    "안 돼, 안 돼, 안 돼!",
    "빨리빨리 가자, 빨리빨리!",
    "“북쪽 길은 밤에 무척 위험하니 조심하세요.”라고 제가 그랬죠?",
    "정말 좋아요. 정말 좋아요!",
    "".join(CROW.format(which) for which in ("첫째", "둘째", "셋째")),
    "이 검은 팔지 않네. 아버지의 유품이라네.",
    "은화 서른 닢이면 되겠네. 아니, 스무 닢만 주게.",
    "음... 글쎄요... 잘 모르겠네요...",
    "제가 아는 건 그게 전부예요. 제가 본 건 아니에요. 제가 들은 거예요.",
]


@pytest.mark.parametrize(("text", "given_", "verdict"), REPEATS)
def test_repetitions(text: str, given_: str, verdict: Verdict) -> None:
    """English replies that repeat: the verdict, and what had been let through before it."""
    assert read(text, EARLIER) == (given_, verdict)


@pytest.mark.parametrize(("text", "given_", "verdict"), REPEATS_KO)
def test_repetitions_in_korean(text: str, given_: str, verdict: Verdict) -> None:
    """Korean replies that repeat: the verdict, and what had been let through before it."""
    assert read(text, EARLIER_KO) == (given_, verdict)


@pytest.mark.parametrize("text", FRESH + FRESH_KO)
def test_what_is_no_repetition_is_let_through_whole(text: str) -> None:
    """Short formulas, laughter, quotations, refrains and likenesses pass to the character."""
    assert read(text, EARLIER + EARLIER_KO) == (text, None)


def test_a_refrain_in_quotation_marks_comes_three_times() -> None:
    """A fourth time it is a loop, also where other words stand between."""
    tale = "".join(f"“Little pig, little pig, let me come in!” That was {n}. " for n in range(9))
    text, verdict = read(tale)
    assert verdict == "loop"
    assert text.count("Little") == REFRAINS + 1


def test_the_first_words_are_given_at_once() -> None:
    """They come letter by letter with the stage direction before them, the next are held back."""
    monitor = RepetitionMonitor([*map(learn, EARLIER)])
    given_ = [
        monitor.push(atom) for atom in (Mark("nods"), " ", "T", "h", "e", " ", *"mill burned")
    ]
    assert given_[:5] == [[], [], [Mark("nods"), " ", "T"], ["h"], ["e"]]
    assert given_[5:11] == [[], [" ", "m"], ["i"], ["l"], ["l"], []]
    assert not any(given_[11:])
    assert not monitor.begun


def test_a_stage_direction_keeps_its_place() -> None:
    """Marks come out between the characters between which they went in, also when held back."""
    monitor = RepetitionMonitor([*map(learn, EARLIER)])
    mark = Mark("nods")
    atoms = [mark, *"The mill", mark, *" burned, then. ", mark, *"Yes."]
    assert [out for atom in atoms for out in monitor.push(atom)] + monitor.end() == atoms


def test_what_differs_is_given_at_its_first_letter() -> None:
    """Held words are let go as soon as the reply goes on otherwise."""
    monitor = RepetitionMonitor([*map(learn, EARLIER)])
    given_ = [len(monitor.push(char)) for char in "The mill b"]
    assert sum(given_) == len("The mill")
    assert "".join(map(str, monitor.push("r"))) == " br"
    assert monitor.begun


WORDS = st.sampled_from(
    [
        *MILL.split(),
        *ROAD_KO.split(),
        "no",
        "no.",
        "“",
        "”",
        "'",
        "ㅋㅋㅋ",
        "\n",
        "I",
        "…",
        "3.5",
        "네.",
    ]
)
TEXT = st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=80)


@given(TEXT, st.lists(TEXT, max_size=3))
def test_what_is_given_is_the_beginning_of_what_came(text: str, earlier: list[str]) -> None:
    """Nothing is changed or put in another order, all of it comes where there is no verdict."""
    out, verdict = read(text, earlier)
    assert text.startswith(out)
    assert (out == text) == (verdict is None) or verdict == "ngrams"


@given(TEXT)
def test_little_is_held_back(text: str) -> None:
    """At no time more than the words of a beginning, and the one that is being read."""
    monitor, out = RepetitionMonitor([learn(text), learn(MILL)]), 0
    for at, char in enumerate(text, 1):
        out += len(monitor.push(char))
        if monitor.verdict:
            break
        assert len(text[out:at].split()) <= 3 * HELD
        assert len(monitor._held) <= HELD + 1


@given(TEXT, st.lists(st.integers(0, 400), max_size=8))
def test_pieces_do_not_matter(text: str, places: list[int]) -> None:
    """The parser gives the same speech and verdict however the text was cut."""
    ends = sorted({min(place, len(text)) for place in places} | {0, len(text)})
    whole, cut = (
        ReplyParser(("Bram",), earlier=[*map(learn, EARLIER + EARLIER_KO)]) for _ in range(2)
    )
    whole.feed(text)
    for begin, end in itertools.pairwise(ends):
        cut.feed(text[begin:end])
    whole.end()
    cut.end()
    assert (whole.text, whole.repetition) == (cut.text, cut.repetition)


def test_what_was_learnt_may_be_shared() -> None:
    """A monitor adds the lines that it hears to its own, not to those of an earlier reply."""
    earlier = [learn(ROAD)]
    for _ in range(2):
        monitor = RepetitionMonitor(earlier)
        for char in MILL:
            monitor.push(char)
        monitor.end()
        assert monitor.verdict is None


def test_the_parser_ends_a_reply_that_repeats() -> None:
    """``finished`` says so at once; what was spoken before stays, whole and as sentences."""
    parser = ReplyParser(("Bram",), earlier=[learn(MILL)])
    parts = parser.feed("*nods* No idea. The mill burned down last winter. And")
    assert (parser.finished, parser.repetition) == ("repetition", "line")
    assert [p for p in parts if isinstance(p, Gesture)] == [Gesture("nod", 0)]
    assert "".join(p.text for p in parts if isinstance(p, Speech)) == parser.text == "No idea."
    assert parser.feed(" so on.") == parser.end() == []


def test_a_repetition_may_show_at_the_end_only() -> None:
    """A line without a mark at its end is one once the model is done."""
    parser = ReplyParser(("Bram",), earlier=[learn(MILL)])
    parser.feed("The mill burned down last winter")
    assert parser.finished is None
    assert parser.end() == []
    assert (parser.text, parser.repetition) == ("The mill", "line")


def test_a_reply_goes_on_from_its_first_words() -> None:
    """What another parser gave of it is not given again, neither words nor what comes with them."""
    earlier = [learn("Aye. The mill burned down last winter.")]
    first = ReplyParser(("Bram",), earlier=earlier)
    parts = first.feed("*nods* Aye. The mill burned down last winter. And so on.")
    assert (first.text, first.repetition, first.resumable) == ("Aye. The", "line", True)
    again = ReplyParser(("Bram",), earlier=earlier, emotion=first.emotion, said=first.text)
    parts += again.feed(" miller left. *laughs*") + again.end()
    assert (again.text, again.finished) == ("Aye. The miller left.", None)
    assert "".join(part.text for part in parts if isinstance(part, Speech)) == again.text
    assert [part for part in parts if isinstance(part, Sentence)] == [
        Sentence(0, "Aye.", 0),
        Sentence(1, "The miller left.", 5),
    ]
    assert [part.name for part in parts if isinstance(part, Gesture)] == ["nod", "laugh"]


@given(st.sampled_from(EARLIER + EARLIER_KO), st.lists(WORDS, max_size=12).map(" ".join))
def test_a_reply_in_two_parsers_is_the_reply_in_one(repeated: str, rest: str) -> None:
    """Words and sentences of both together are those of a parser that gets all of it."""
    first = ReplyParser(("Bram",), earlier=[learn(repeated)])
    parts = first.feed(repeated) + first.end()
    assert first.resumable
    second = ReplyParser(("Bram",), said=first.text)
    parts += second.feed(rest) + second.end()
    whole = ReplyParser(("Bram",))
    expected = whole.feed(first.text + rest) + whole.end()
    for kind in (Speech, Sentence):
        both = [[part for part in all_ if isinstance(part, kind)] for all_ in (parts, expected)]
        assert "".join(p.text for p in both[0]) == "".join(p.text for p in both[1])


def test_what_begins_otherwise_cannot_be_begun_again() -> None:
    """A line that is repeated later on ends the reply where it is."""
    parser = ReplyParser(("Bram",), earlier=[learn(MILL)])
    parser.feed("No. The mill burned down last winter. Aye.")
    assert (parser.text, parser.repetition, parser.resumable) == ("No.", "line", False)


def test_long_replies_take_linear_time() -> None:
    """Ten times the text takes about ten times the calls, though much of it is held back."""

    def calls(text: str) -> int:
        count = 0

        def note(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(note)
        try:
            assert read(text, (MILL, ROAD))[1] is None
        finally:
            sys.setprofile(None)
        return count

    few, many = ("".join(f"The mill burned {n}, {n}. " for n in range(m)) for m in (20, 200))
    assert calls(many) < 20 * calls(few)


@pytest.mark.parametrize(
    ("text", "others", "share"),
    [
        (MILL, [MILL], 1.0),
        (MILL, [ROAD, GOLD], 0.0),
        (BREAD_KO, [ROAD_KO, BREAD_KO], 1.0),
        ("one two three four five", ["zero one two three four"], 0.5),
        ("", [MILL], 0.0),
    ],
)
def test_overlap(text: str, others: list[str], share: float) -> None:
    """The share of runs of four words, or of eight syllables, that others hold as well."""
    assert overlap(text, *others) == share


def test_overlap_of_korean_does_not_stumble_over_endings() -> None:
    """With another particle and ending, most of a Korean line is still the same."""
    assert overlap("북쪽 길이 밤에 무척 위험하니 조심하게.", ROAD_KO) >= 0.3


def test_loops_in() -> None:
    """A measure for texts that are there already."""
    assert loops_in("I do not know. " * 3)
    assert not loops_in(MILL)


def test_other_settings_grow_bolder_within_bounds() -> None:
    """The first attempt is as asked for; each further one is bolder, and what is bold stays."""
    asked = Sampling(temperature=0.0, repetition_penalty=1.1)
    assert other_settings(asked, 0) == asked
    tries = [other_settings(asked, n) for n in range(12)]
    for value in ("temperature", "repetition_penalty"):
        values = [getattr(t, value) for t in tries]
        assert values == sorted(values)
    assert tries[1].temperature == pytest.approx(0.6)
    assert (tries[-1].temperature, tries[-1].repetition_penalty) == (1.2, 1.4)
    bold = Sampling(temperature=1.9, repetition_penalty=1.8)
    assert other_settings(bold, 3) == bold


WHEEL = "The mill wheel turns and turns, and nobody ever comes to oil it."


@pytest.mark.parametrize(
    ("reply", "let_through"),
    [
        (WHEEL, ""),
        (f"Well, {WHEEL}", ""),
        (f"Bram! {WHEEL}", ""),
        ("Aye.", ""),
        ("On and on and on and on and on and on and on and on and on and on we go.", ""),
        ("물레방아가 밤새도록 돌고 또 도는데 기름이 없네.", ""),
        ("Aye, and the miller is away.", "Aye, and the miller is away."),
        (f"I saw the miller by the ford. {WHEEL}", "I saw the miller by the ford. "),
        ("오늘은 강가에서 방앗간 주인을 봤어.물레방아가 밤새도록 돌고 또 도는데 기름이 없네.",
         "오늘은 강가에서 방앗간 주인을 봤어."),
    ],
)  # fmt: skip
def test_patience_leaves_no_beginning_behind(reply: str, let_through: str) -> None:
    """Where nobody waits a sentence comes whole or not at all, and a short reply only once."""
    earlier = [WHEEL, "Aye.", "물레방아가 밤새도록 돌고 또 도는데 기름이 없네."]
    monitor = PatientMonitor([learn(each) for each in earlier])
    out = [part for atom in atoms_of(reply) for part in monitor.push(atom)]
    out += monitor.end()
    assert "".join(str(atom) for atom in out) == let_through
    assert monitor.begun == bool(let_through and let_through != reply)
    assert (monitor.verdict is None) == (let_through == reply)
