"""What Korean writes onto a name: titles, particles, the vocative. No dictionary is needed.

A particle has two forms, one after a final consonant and one after a vowel (브람이, 미라가). Names
that end in a consonant often take 이 before it (브람이가, 브람이랑). The vocative is 아 or 야, and
either is taken for the other, for they are often mistaken.
"""

from __future__ import annotations

import regex

SURNAMES = frozenset(
    "김이박최정강조윤장임한오서신권황안송류유전홍고문양손배백허남심노하곽성차주구민"
)
"""The common ones; who is called 김민수 is called 민수 as well."""

_WITH_NIM = (
    *("선생", "사장", "대장", "장군", "기사", "공주", "왕자", "여왕", "임금", "교수", "박사"),
    *("선배", "원장", "회장", "과장", "부장", "팀장", "반장", "촌장", "이장", "선장", "스승"),
    *("의원", "신부", "수녀", "주인", "형", "누", "마", "도련", "따", "아드", "부인", "사모"),
    *("어머", "아버", "마법사", "사제", "영주", "성주", "대감", "영감", "작가", "감독"),
)
HONORIFICS = frozenset(
    (
        *("씨", "님", "군", "양", "선생", "선배", "형", "누나", "언니", "오빠", "할머니"),
        *("할아버지", "할멈", "할아범", "아저씨", "아줌마", "아주머니", "이모", "고모", "삼촌"),
        *("사장", "대장", "장군", "기사", "공주", "왕자", "여왕", "박사", "교수", "반장", "촌장"),
        *("이장", "회장", "선장", "아가씨", "나리", "어르신", "영감", "여사", "총각", "학생"),
        *("양반", "스님", "주인장", "부인", "낭자", "도령", "대감", "전하", "폐하", "어머니"),
        *("아버지", "엄마", "아빠", "이모님", "고모님", "여사님", "어르신네", "할머님", "할아버님"),
        *(f"{title}님" for title in _WITH_NIM),
    )
)
"""What one says after a name, or in its place, to somebody who deserves respect."""

_HONORIFIC = regex.compile("|".join(sorted(HONORIFICS, key=len, reverse=True)))
_VOCATIVE = regex.compile(r"아+|야+아*|이?여|이?시여")

ANDS = frozenset(("랑", "하고", "와", "과"))
TOPICS = frozenset(("은", "는", "도"))
SUBJECTS = frozenset(("이", "가", "께서"))
OBJECTS = frozenset(("을", "를"))
DATIVES = frozenset(("에게", "한테", "께", "더러", "보고"))
WITHOUT = frozenset(("말고", "빼고"))

_EITHER = (
    *("께서", "도", "만", "마저", "조차", "까지", "부터", "밖에", "에게", "한테", "께", "더러"),
    *("보고", "에게서", "한테서", "의", "네", "하고", "처럼", "같이", "만큼", "보다", "대로"),
    *("치고", "말고", "빼고", "쪽", "한텐", "에겐", "껜", "네가", "네는", "네를", "네도"),
    *("네의", "쪽이"),
)
_AFTER_VOWEL = (
    "가",
    "는",
    "를",
    "와",
    "로",
    "랑",
    "나",
    "라도",
    "란",
    "든",
    "야말로",
    "다",
    "지",
    "죠",
)
_AFTER_CONSONANT = ("이", "은", "을", "과", "으로")
_MORE = r"(?:은|는|도|만|가|이|을|를)?"
_COPULA = (
    r"(?:예요|에요|입니|였|인[가데지]|라[고는며면서]|잖|래|일까|구나|이[야지네니다었]|"
    r"이(?:에요|예요|라[고는며면서]|잖|래|구나)).*"
)
_VOWEL = regex.compile(rf"((?:{'|'.join(_EITHER + _AFTER_VOWEL)}){_MORE}|{_COPULA})")
_CONSONANT = regex.compile(
    rf"이((?:{'|'.join(_EITHER + _AFTER_VOWEL)}){_MORE})"
    rf"|((?:{'|'.join(_EITHER + _AFTER_CONSONANT)}){_MORE}|{_COPULA})"
)
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = ("", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ")
_STACKED = regex.compile(r"(?<=한테|에게|께|하고|랑|까지|부터)(?:은|는|도|만)$")


def is_hangul(word: str) -> bool:
    """Whether a word ends in Hangul."""
    return "가" <= word[-1:] <= "힣"


def vowel_and_final(word: str) -> tuple[str, str]:
    """The vowel and the final consonant of a word's last syllable, empty where there is none.

    The syllables stand in Unicode in the order of their beginnings, vowels and finals.
    """
    if not is_hangul(word):
        return "", ""
    vowel, final = divmod((ord(word[-1]) - ord("가")) % (21 * 28), 28)
    return _VOWELS[vowel], _FINALS[final]


def calling_stem(word: str) -> str | None:
    """The stem by which somebody is called whose name ends in 이: 곰돌 of 곰돌이, in 곰돌아."""
    return word[:-1] if word[-1] == "이" and vowel_and_final(word[:-1])[1] else None


def honorific_in(text: str) -> tuple[str, str]:
    """The title with which a text begins, and the rest; an empty title where there is none."""
    found = _HONORIFIC.match(text)
    return (found.group(), text[found.end() :]) if found else ("", text)


def is_honorific(word: str) -> bool:
    """Whether a word is a title as it stands."""
    return word in HONORIFICS


def is_vocative(particle: str) -> bool:
    """Whether a particle calls somebody."""
    return bool(_VOCATIVE.fullmatch(particle))


def particle_in(rest: str, stem: str) -> str | None:
    """The particle that follows a name, without the 이 that is only there for the sound.

    Args:
        rest: What is written onto the name.
        stem: The name, or the title behind it.

    Returns:
        The particle, empty for a bare name; ``None`` where it is none, so that the word is another.
    """
    if not rest or is_vocative(rest):
        return rest
    patterns = [_CONSONANT if vowel_and_final(stem)[1] else _VOWEL]
    if not is_hangul(stem):  # nobody can tell how it is said
        patterns = [_CONSONANT, _VOWEL]
    for pattern in patterns:
        if found := pattern.fullmatch(rest):
            return _STACKED.sub("", next(filter(None, found.groups())))
    return None
