"""What people say while they listen, without wanting to speak."""

from __future__ import annotations

import regex

SOUNDS = frozenset(
    (
        *("mhm", "mm", "mmm", "mmhm", "mm-hm", "uh-huh", "uh huh", "uhuh", "hm", "hmm", "huh"),
        *("yeah", "yep", "yes", "yup", "ok", "okay", "right", "i see", "sure", "oh", "ah", "aha"),
        *("wow", "really", "go on", "haha", "hehe", "cool", "nice", "oh really", "oh wow"),
        *(
            "음",
            "으음",
            "응",
            "응응",
            "어",
            "어어",
            "네",
            "네네",
            "예",
            "아",
            "아아",
            "오",
            "우와",
            "와",
        ),
        *(
            "아하",
            "그래",
            "그래요",
            "그렇구나",
            "그렇군요",
            "진짜",
            "진짜요",
            "정말",
            "정말요",
            "맞아",
        ),
        *(
            "맞아요",
            "그쵸",
            "그죠",
            "헐",
            "ㅎㅎ",
            "ㅋㅋ",
            "하하",
            "오오",
            "아 네",
            "아 진짜",
            "좋아",
        ),
    )
)
"""English after Yngve's and Ward's lists of common backchannels, Korean after the particles 음, 응,
네 and their kin; lower case, without punctuation."""

_NOISE = regex.compile(r"[^\p{L}\p{N}\s-]+")
_REPEATED = regex.compile(r"(\p{L})\1{2,}")


def is_backchannel(text: str) -> bool:
    """Whether the words only tell that somebody listens; by the words alone."""
    if "?" in text and len(text) > 12:
        return False
    words = " ".join(_NOISE.sub(" ", text).casefold().split())
    return words in SOUNDS or _REPEATED.sub(r"\1\1", words) in SOUNDS
