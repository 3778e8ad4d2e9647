"""What an NPC is seen to feel."""

from __future__ import annotations

import pytest

from npc_server.protocol.emotion import EMOTIONS, Emotion
from npc_server.reply import Feeling, Gesture, ReplyParser, Speech
from npc_server.reply.emotions import rate, shown


@pytest.mark.parametrize(
    ("sentence", "emotion"),
    [
        ("I am so happy to see you!", "happy"),
        ("I am not happy.", "sad"),
        ("I'm not angry.", None),
        ("I am sorry, I miss her.", "sad"),
        ("You liar, you scoundrel!", "angry"),
        ("Wow, unbelievable!", "surprised"),
        ("You did what?!", "surprised"),
        ("A quiet, peaceful place.", "relaxed"),
        ("The door is blue.", None),
        ("정말 기뻐요!", "happy"),
        ("하나도 행복하지 않아요.", "sad"),
        ("안 좋아요.", "sad"),
        ("화나지 않았어요.", None),
        ("너무 슬퍼요.", "sad"),
        ("짜증 나!", "angry"),
        ("깜짝 놀랐어요.", "surprised"),
        ("여기는 아늑해요.", "relaxed"),
        ("문은 파란색이다.", None),
    ],
)
def test_words_show_a_feeling(sentence: str, emotion: Emotion | None) -> None:
    """Cues of both languages are found, and negated ones are not taken at their word."""
    found = rate(sentence)
    assert (found and found[0]) == emotion
    assert found is None or 0 < found[1] <= 1


def test_exclamation_makes_it_stronger() -> None:
    """The same words with exclamation marks have a higher intensity."""
    calm, loud = rate("I am glad."), rate("I am glad!!")
    assert calm is not None
    assert loud is not None
    assert loud[1] > calm[1]


def test_gestures_and_directions_show_a_feeling() -> None:
    """A gesture counts, and so do a direction's words where it is no gesture."""
    assert rate("Yes.", ["smiles"]) == ("happy", 0.5)
    assert rate("Yes.", ["looks furious"]) == ("angry", 0.5)


@pytest.mark.parametrize(
    ("emotion", "can", "result"),
    [
        ("happy", EMOTIONS, ("happy", 1.0)),
        ("angry", ("neutral", "sad"), ("sad", 0.7)),
        ("angry", ("neutral", "happy"), ("neutral", 0.0)),
        ("sad", ("angry",), ("angry", 0.7)),
        ("neutral", ("neutral",), ("neutral", 0.0)),
        ("happy", (), ("neutral", 0.0)),
    ],
)
def test_the_nearest_expression_is_shown(
    emotion: Emotion, can: tuple[Emotion, ...], result: tuple[Emotion, float]
) -> None:
    """What a model cannot show is replaced by the nearest that it can, more weakly."""
    assert shown(emotion, 1.0, can) == result


def feelings(text: str, emotion: Emotion = "neutral") -> list[tuple[Emotion, int]]:
    parser = ReplyParser(("Bram",), emotion=emotion)
    parts = parser.feed(text) + parser.end()
    return [(part.emotion, part.at_char) for part in parts if isinstance(part, Feeling)]


def test_the_first_feeling_comes_first() -> None:
    """Before the first word the NPC wears what it felt, or what its first gesture shows."""
    parser = ReplyParser(("Bram",), emotion="sad")
    assert parser.feed("W") == [Feeling("sad", 0.4, 0), Speech("W")]
    assert parser.emotion == "sad"
    begun = ReplyParser(("Bram",)).feed("*laughs* W")
    assert begun == [Feeling("happy", 0.5, 0), Gesture("laugh", 0), Speech("W")]


def test_feelings_change_at_sentence_borders() -> None:
    """A changed feeling stands at the beginning of the sentence that shows it."""
    assert feelings("The door is blue. I am so glad! I am glad.") == [("neutral", 0), ("happy", 18)]


def test_calm_sentences_bring_the_npc_back() -> None:
    """After two sentences that show nothing the feeling is neutral again."""
    assert feelings("I am glad! One. Two. Three.") == [
        ("neutral", 0),
        ("happy", 0),
        ("neutral", 16),
    ]
