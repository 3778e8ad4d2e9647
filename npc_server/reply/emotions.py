"""Emotion by rule: which words and gestures show which feeling, in English and Korean.

A sentence's score for an emotion is the sum over its cues: ``WORD`` for each word or stem of
``WORDS`` and ``STEMS``, ``GESTURE`` for each gesture of ``GESTURES``. A negated cue counts for
nothing, and a negated happy one as sad with half its weight. Exclamation marks raise what was
found, "?!" is a cue for surprise. The emotion with the highest score wins, in the order of the
tables on a tie; its intensity is the score, at most 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import regex

from npc_server.protocol.emotion import Emotion
from npc_server.reply.gestures import canonical_gesture

WORD = 0.5
GESTURE = 0.5
EXCLAMATION = 0.15
INTERROBANG = 0.4

WORDS: dict[Emotion, tuple[str, ...]] = {
    "angry": (
        *("angry", "furious", "rage", "hate", "hateful", "damn", "fool", "idiot", "outrageous"),
        *("disgusting", "disgraceful", "despise", "annoyed", "annoying", "irritated", "fed"),
        *("enraged", "liar", "scoundrel", "nonsense", "insult", "insulting", "enough"),
    ),
    "sad": (
        *("sad", "sorry", "sorrow", "unhappy", "miserable", "lonely", "grief", "mourn", "miss"),
        *("alas", "unfortunately", "heartbroken", "tears", "cry", "died", "lost", "regret"),
        *("disappointed", "gloomy", "hopeless", "ashamed", "hurts"),
    ),
    "surprised": (
        *("surprised", "surprising", "astonished", "astonishing", "amazed", "shocked", "wow"),
        *("whoa", "unbelievable", "incredible", "goodness", "heavens", "unexpected", "suddenly"),
        *("startled", "really?", "what?", "gosh", "blimey"),
    ),
    "happy": (
        *("happy", "glad", "delighted", "wonderful", "great", "lovely", "love", "joy", "excited"),
        *("fantastic", "excellent", "thrilled", "pleased", "welcome", "thanks", "hooray", "yay"),
        *("haha", "hahaha", "congratulations", "cheers", "delicious", "beautiful", "fun", "proud"),
        *("splendid", "marvellous", "awesome", "enjoy", "laugh"),
    ),
    "relaxed": (
        *("calm", "relaxed", "peaceful", "cozy", "cosy", "comfortable", "gentle", "rest"),
        *("quiet", "serene", "relax", "easy", "soothing", "content", "breathe"),
    ),
}
"""English words, whole."""

STEMS: dict[Emotion, tuple[str, ...]] = {
    "angry": (
        *("화가 나", "화가 났", "화나", "화났", "짜증", "열받", "미워", "미운", "싫어", "분노"),
        *("괘씸", "멍청", "바보 같", "닥쳐", "못된", "지긋지긋"),
    ),
    "sad": (
        *("슬프", "슬퍼", "슬픈", "슬펐", "눈물", "외로", "외롭", "우울", "미안", "죄송", "속상"),
        *(
            "그립",
            "그리워",
            "서운",
            "안타깝",
            "안타까",
            "괴로",
            "괴롭",
            "쓸쓸",
            "아쉽",
            "아쉬",
            "ㅠㅠ",
            "ㅜㅜ",
        ),
    ),
    "surprised": (
        *("놀라", "놀랐", "놀랍", "깜짝", "세상에", "어머", "헉", "믿을 수 없", "설마", "맙소사"),
        *("어이쿠", "아이고", "아이구"),
    ),
    "happy": (
        *("기쁘", "기뻐", "기쁜", "기뻤", "행복", "좋아", "좋았", "좋네", "반가", "반갑", "신나"),
        *("신난", "즐거", "즐겁", "고마", "고맙", "감사", "사랑", "최고", "축하", "멋지", "멋져"),
        *("재미있", "재밌", "하하", "ㅎㅎ", "ㅋㅋ", "맛있", "환영", "잘했", "잘했어"),
    ),
    "relaxed": (
        "편안",
        "편하게",
        "느긋",
        "차분",
        "평화",
        "포근",
        "아늑",
        "천천히",
        "괜찮아",
        "안심",
    ),
}
"""Beginnings of Korean words."""

GESTURES: dict[Emotion, tuple[str, ...]] = {
    "angry": ("glare", "frown", "shake_fist", "cross_arms"),
    "sad": ("cry", "sigh", "look_away"),
    "surprised": ("gasp", "raise_eyebrow", "jump", "step_back"),
    "happy": ("smile", "laugh", "clap", "dance", "wave", "wink", "hug", "thumbs_up"),
    "relaxed": ("yawn", "lean_in"),
}
"""Gestures that show a feeling."""

FALLBACKS: dict[Emotion, tuple[Emotion, ...]] = {
    "angry": ("sad",),
    "sad": ("neutral",),
    "surprised": ("happy",),
    "happy": ("relaxed",),
    "relaxed": ("happy",),
    "neutral": ("relaxed",),
}
"""What comes nearest where the model cannot show an emotion; then neutral, then what there is."""

_NEGATORS = frozenset(
    (
        *("not", "no", "never", "don't", "dont", "didn't", "isn't", "wasn't", "aren't", "can't"),
        *("cannot", "won't", "hardly", "without", "doesn't", "couldn't", "wouldn't", "nothing"),
    )
)
_REACH = 3
_TOKEN = regex.compile(r"[a-z]+(?:'[a-z]+)?\??")
_BEFORE_KO = regex.compile(r"(?:^|\s)(?:안|못|별로|하나도|전혀)\s*$")
_AFTER_KO = regex.compile(
    r"^\S{0,3}지(?:는|도)?\s*(?:않|못|마|말)|^\S{0,3}\s?(?:게|건)\s*아니|^\S{0,3}\s*없"
)

_EMOTION_OF_WORD = {word: emotion for emotion, words in WORDS.items() for word in words}
_EMOTION_OF_STEM = {stem: emotion for emotion, stems in STEMS.items() for stem in stems}
_EMOTION_OF_GESTURE = {name: emotion for emotion, names in GESTURES.items() for name in names}
_STEMS = regex.compile(
    r"(?<![가-힣])(?:" + "|".join(sorted(_EMOTION_OF_STEM, key=len, reverse=True)) + ")"
)


def rate(sentence: str, directions: Iterable[str] = ()) -> tuple[Emotion, float] | None:
    """What a sentence and the stage directions around it show.

    Returns:
        The emotion and its intensity from 0 to 1; ``None`` where nothing shows any.
    """
    scores: dict[Emotion, float] = dict.fromkeys(WORDS, 0.0)
    for emotion, weight in _cues(sentence):
        scores[emotion] += weight
    for direction in directions:
        gesture = canonical_gesture(direction)
        if gesture in _EMOTION_OF_GESTURE:
            scores[_EMOTION_OF_GESTURE[gesture]] += GESTURE
        for emotion, weight in _cues(direction):
            scores[emotion] += weight if gesture is None else 0.0
    if "?!" in sentence or "!?" in sentence:
        scores["surprised"] += INTERROBANG
    best = max(scores, key=lambda emotion: scores[emotion])
    if scores[best] <= 0:
        return None
    raised = scores[best] + EXCLAMATION * min(sentence.count("!"), 2)
    return best, round(min(raised, 1.0), 2)


def shown(emotion: Emotion, intensity: float, can: Sequence[Emotion]) -> tuple[Emotion, float]:
    """The nearest expression that a model can show, and how strongly.

    A substitute is shown with 0.7 of the intensity; neutral has none.
    """
    if emotion in can:
        return emotion, 0.0 if emotion == "neutral" else intensity
    for nearest in (*FALLBACKS[emotion], "neutral", *can):
        if nearest in can:
            return nearest, 0.0 if nearest == "neutral" else round(intensity * 0.7, 2)
    return "neutral", 0.0


def _cues(text: str) -> list[tuple[Emotion, float]]:
    return _english(text.casefold().replace("’", "'")) + _korean(text)


def _english(text: str) -> list[tuple[Emotion, float]]:
    words = _TOKEN.findall(text)
    found = []
    for at, word in enumerate(words):
        emotion = _EMOTION_OF_WORD.get(word) or _EMOTION_OF_WORD.get(word.rstrip("?"))
        if emotion:
            found.append((emotion, not _NEGATORS.isdisjoint(words[max(0, at - _REACH) : at])))
    return [cue for emotion, negated in found for cue in _weigh(emotion, negated=negated)]


def _korean(text: str) -> list[tuple[Emotion, float]]:
    cues: list[tuple[Emotion, float]] = []
    for match in _STEMS.finditer(text):
        before, after = text[max(0, match.start() - 8) : match.start()], text[match.end() :][:12]
        negated = bool(_BEFORE_KO.search(before) or _AFTER_KO.search(after))
        cues += _weigh(_EMOTION_OF_STEM[match.group()], negated=negated)
    return cues


def _weigh(emotion: Emotion, *, negated: bool) -> list[tuple[Emotion, float]]:
    if not negated:
        return [(emotion, WORD)]
    return [("sad", WORD / 2)] if emotion == "happy" else []
