"""What of a model's text is spoken."""

from __future__ import annotations

import pytest

from npc_server.reply import Gesture, ReplyParser, Speech
from npc_server.reply.gate import Gate, labels_of
from npc_server.reply.parts import Mark


def spoken(text: str, **given: object) -> ReplyParser:
    parser = ReplyParser(("Bram", "Old Bram"), others=("Mira", "Anna", "민지", "Old Man"), **given)  # type: ignore[arg-type]
    parts = parser.feed(text) + parser.end()
    assert "".join(p.text for p in parts if isinstance(p, Speech)) == parser.text
    return parser


def gestures(text: str, own: tuple[str, ...] = ()) -> list[tuple[str, int]]:
    parser = ReplyParser(("Bram",), gestures=own)
    parts = parser.feed(text) + parser.end()
    return [(part.name, part.at_char) for part in parts if isinstance(part, Gesture)]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("*smiles* Hello.", "Hello."),
        ("Hello *smiles*, friend.", "Hello, friend."),
        ("Hello.*she wipes the anvil*", "Hello."),
        ("Hello*smiles*there", "Hello there"),
        ("* smiles * Hello.", "Hello."),
        ("Well ** nods ** yes.", "Well yes."),
        ("***laughs*** Yes.", "Yes."),
        ("_nods slowly_ Yes.", "Yes."),
        ("**smiles** Yes.", "Yes."),
        ("**She turns to the fire.** Yes.", "Yes."),
        ("Yes. *turns to the", "Yes."),
        ("Yes. *turns to the\nNo.", "Yes.\nNo."),
        ("Yes. (laughs) No.", "Yes. No."),
        ("Yes. (She puts down the hammer.) No.", "Yes. No."),
        ("Yes (smiling) no.", "Yes no."),
        ("Yes. (whispering to her", "Yes."),
        ("Yes [sighs] no.", "Yes no."),
        ("Yes. [He looks", "Yes."),
        ("Yes <nods> no.", "Yes no."),
        ("Yes.<br>No.", "Yes. No."),
        ("（미소）안녕하세요.", "안녕하세요."),
        ("*웃으며* 안녕하세요.", "안녕하세요."),
        ("안녕*고개를 끄덕인다* 하세요", "안녕 하세요"),
        ("(고개를 끄덕이며) 그래.", "그래."),
        ("【한숨】 그래.", "그래."),
        ("그래. (창밖을 본다", "그래."),
        ("*softly* Come in.", "Come in."),
        ("Well *I look away* yes.", "Well yes."),
        ("Well *so, nodding* yes.", "Well yes."),
        ("*I have a plan.* Yes.", "Yes."),
        ("Well *long silence* yes.", "Well yes."),
        ("He said “no.” (He turns.) Yes.", "He said “no.” Yes."),
        ("(pause) Come in.", "Come in."),
        ("<think>The player is rude.\nHmm.</think>Come in.", "Come in."),
        ("Fine.<think>never closed", "Fine."),
    ],
)
def test_a_stage_direction_is_not_spoken(raw: str, text: str) -> None:
    """No direction is speech, however it is bracketed, closed or not."""
    assert spoken(raw).text == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("I am *really* glad.", "I am really glad."),
        ("*정말* 좋아요.", "정말 좋아요."),
        ("Please *stop* that.", "Please stop that."),
        ("Say: I *have been* here.", "Say: I have been here."),
        ("He said *no* and *I mean it*.", "He said no and I mean it."),
        ("I like 'The Tale' (a book).", "I like 'The Tale' (a book)."),
        ("**Never do that** again.", "Never do that again."),
        ("**Never do that\nagain.", "Never do that\nagain."),
        ("It is Mira (the innkeeper), I think.", "It is Mira (the innkeeper), I think."),
        ("그건 사과(빨간 것)예요.", "그건 사과(빨간 것)예요."),
        ("Good. (I told you so.)", "Good. (I told you so.)"),
        ("좋아요. (제가 말했죠)", "좋아요. (제가 말했죠)"),
        ("Take (one (or two)) of them.", "Take (one (or two)) of them."),
        ("2*3 is 6, 2 * 4 is 8.", "2×3 is 6, 2 × 4 is 8."),
        ("I have a * here.", "I have a here."),
        ("snake_case stays", "snake_case stays"),
        ("I ____ to school.", "I ____ to school."),
        ("I <3 you, 3 < 4.", "I <3 you, 3 < 4."),
        ("So :( sad", "So :( sad"),
        ("It is -5 degrees #1", "It is -5 degrees #1"),
        ("-5 degrees", "-5 degrees"),
        (
            "He came (the one of whom the whole village has been talking since spring ended",
            "He came (the one of whom the whole village has been talking since spring ended",
        ),
    ],
)
def test_what_only_looks_like_a_direction_is_spoken(raw: str, text: str) -> None:
    """Emphasis, asides inside a sentence, sums and smileys stay, without their asterisks."""
    assert spoken(raw).text == text


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("# Iron\nBuy it.", "Iron\nBuy it."),
        ("## Iron", "Iron"),
        ("- one\n- two\n• three\n> four", "one\ntwo\nthree\nfour"),
        ("* one\n* two", "one\ntwo"),
        ("one\n---\ntwo\n***\nthree", "one\ntwo\nthree"),
        ("```\nHello.\n```", "Hello."),
        ("```text\nHello.\n```", "Hello."),
        ("```Hello there.```", "Hello there."),
        ("Say `please`.", "Say please."),
        ('"Hello there."', "Hello there."),
        ('"Hello." *nods* "Come in."', "Hello. Come in."),
        ("“Hello.”", "Hello."),
        ("「안녕하세요.」", "안녕하세요."),
        ('He said "no" twice.', 'He said "no" twice.'),
        ("  \n\n Hello.  \n\n\n Good   day. \n ", "Hello.\nGood day."),
        ("Hel\u200blo\r\nyou\x07", "Hello\nyou"),
        ("see (https://example.org) there", "see there"),
        ("```py", "py"),
    ],
)
def test_markup_is_taken_out(raw: str, text: str) -> None:
    """Headings, lists, rules, code, links, surrounding quotes and blank lines go, words stay."""
    assert spoken(raw).text == text


@pytest.mark.parametrize(
    ("raw", "text", "why"),
    [
        ("Hello.\nAnna: Hi.", "Hello.", "speaker"),
        ("Hello.\n\n  mira : Hi.", "Hello.", "speaker"),
        ("Hello. User: Hi.", "Hello.", "speaker"),
        ("Hello.\n**Mira:** Hi.", "Hello.", "speaker"),
        ("Hello.\n- [Anna]: Hi.", "Hello.", "speaker"),
        ('Hello.\n"Anna": Hi.', "Hello.", "speaker"),
        ("Hello.\nAnna (smiling): Hi.", "Hello.", "speaker"),
        ("Hello.\nOld  Man: Hi.", "Hello.", "speaker"),
        ("안녕.\n민지： 안녕.", "안녕.", "speaker"),
        ("안녕.\n사용자: 안녕.", "안녕.", "speaker"),
        ("Hello. *nods* Anna: Hi.", "Hello.", "speaker"),
        ("Hello.\nAn`na: Hi.", "Hello.", "speaker"),
        ("Hello.\nAnna*nods*: Hi.", "Hello.", "speaker"),
        ("Hello.\nAn\u200bna: Hi.", "Hello.", "speaker"),
        ("Hello.\nAssistant: Hi.", "Hello.", "speaker"),
        ("Human: Hi.", "", "speaker"),
        ("Hello.<|im_end|>\n", "Hello.", "template"),
        ("Hello.<｜end｜>", "Hello.", "template"),
        ("Hello.</s><s>", "Hello.", "template"),
        ("Hello. [/INST] more", "Hello.", "template"),
        ("Hello. <</SYS>> more", "Hello.", "template"),
        ("Hello.<end_of_turn>", "Hello.", "template"),
        ("Hello.\n### Instruction: x", "Hello.", "template"),
        ("### Response: x", "", "template"),
        ("안녕.\n### 질문: x", "안녕.", "template"),
        ("Hello.<`|im_end|>", "Hello.", "template"),
    ],
)
def test_a_reply_ends_where_somebody_else_or_the_template_begins(
    raw: str, text: str, why: str
) -> None:
    """Nothing after another's label or a template token is spoken, nor is that itself."""
    parser = spoken(raw)
    assert (parser.text, parser.finished) == (text, why)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Bram: Hello.", "Hello."),
        ("**Bram:** Hello.", "Hello."),
        ("**Bram**: Hello.", "Hello."),
        ('"Bram: Hello."', "Hello."),
        ("Old Bram (gruffly): Hello.", "Hello."),
        ("*smiles* Bram: Hello.", "Hello."),
        ("Bram: Hello.\nBram: Come in.", "Hello.\nCome in."),
        ("Assistant: Hello.", "Hello."),
        ("B`ram: Hello.\nB`ram: Come in.", "Hello.\nCome in."),
        ("Bram is my name: remember it.", "Bram is my name: remember it."),
        ("Mira says so. Annabel: a fine name.", "Mira says so. Annabel: a fine name."),
        ("Ask Mira: she knows.", "Ask Mira: she knows."),
        ("Who did it?\nMira", "Who did it?\nMira"),
        ("Hello.\nAnna*nods*", "Hello.\nAnna"),
    ],
)
def test_the_own_label_goes_and_names_in_speech_stay(raw: str, text: str) -> None:
    """The NPC's own label is taken out; a name is no label without colon or in mid-sentence."""
    parser = spoken(raw)
    assert (parser.text, parser.finished) == (text, None)


def test_a_half_template_token_at_the_end_is_dropped() -> None:
    """What the length limit cut from a template token is not spoken."""
    assert spoken("Hello. </").text == "Hello."


def test_a_closed_gate_lets_nothing_through() -> None:
    """After its end a gate swallows whatever the earlier stages still had."""
    gate = Gate(labels_of(("Bram",), ("Anna",)))
    assert [atom for char in "Anna:" for atom in gate.push(char)] == []
    assert gate.push("x") == []
    assert gate.push(Mark("nods")) == []


def test_nothing_is_taken_after_the_end() -> None:
    """Pieces after the end of a reply change nothing, and ending twice gives nothing."""
    parser = spoken("Hello.\nAnna: x")
    assert parser.feed(" more") == []
    assert parser.end() == []
    assert parser.text == "Hello."


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ("*smiles* Hello.", [("smile", 0)]),
        ("Hello. *nodding* Yes.", [("nod", 6)]),
        ("*shakes his head* No.", [("shake_head", 0)]),
        ("*waved her hand*", [("wave", 0)]),
        ("*knelt down and wept*", [("cry", 0)]),
        ("(shrugs)", [("shrug", 0)]),
        ("*고개를 저으며* 아니.", [("shake_head", 0)]),
        ("*한숨을 쉰다* 그래.", [("sigh", 0)]),
        ("（미소）", [("smile", 0)]),
        ("*wipes the anvil*", []),
        ("*really*", []),
    ],
)
def test_a_known_direction_is_a_gesture(raw: str, found: list[tuple[str, int]]) -> None:
    """Directions in English and Korean become canonical gestures at their place; others go."""
    assert gestures(raw) == found


@pytest.mark.parametrize(
    ("raw", "own", "found"),
    [
        ("*smiles* Hi", ("nod",), []),
        ("*smiles and nods* Hi", ("nod",), ["nod"]),
        ("*chuckles* Hi", ("laugh",), ["laugh"]),
        ("*shakes his head*", ("Shake Head",), ["Shake Head"]),
        ("*wipes both hands on the apron*", ("wipe_hands",), ["wipe_hands"]),
        ("*찻잔을 내려놓는다*", ("찻잔",), ["찻잔"]),
    ],
)
def test_the_persona_decides_which_gestures_there_are(
    raw: str, own: tuple[str, ...], found: list[str]
) -> None:
    """A persona's gestures win, by their own names, and nothing else is shown."""
    assert [name for name, _ in gestures(raw, own)] == found


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("A new sword. *chuck* I have waited.", "A new sword. I have waited."),
        ("*chuck* Well now.", "Well now."),
        ("*Never* do that.", "Never do that."),
        ("I am *really* glad.", "I am really glad."),
        ("*정말* 좋구나.", "정말 좋구나."),
    ],
)
def test_a_lone_word_that_begins_a_sentence_in_lower_case(text: str, spoken: str) -> None:
    """Between sentences such a word is a direction; elsewhere it is stress."""
    parser = ReplyParser(("Bram",))
    parser.feed(text)
    parser.end()
    assert parser.text == spoken
