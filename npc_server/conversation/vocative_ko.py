"""Korean: who is called, and who is only talked about.

The particle tells most of it: 브람아 calls, 브람이 does not. A name without one is called where it
stands apart, behind a greeting, or behind the verb, which ends a Korean sentence; at the start only
before what shows that the name is not the verb's subject or object (브람 이리 와, not 브람 봤어?).
A title without a particle calls unless something speaks against it (할머니 이야기해 주세요).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import regex

from npc_server.conversation.korean_names import (
    ANDS,
    DATIVES,
    OBJECTS,
    SUBJECTS,
    TOPICS,
    WITHOUT,
    is_vocative,
    vowel_and_final,
)
from npc_server.conversation.names import Group, Mention, Role, grouped
from npc_server.conversation.utterance import Sentence

HAILS = frozenset(
    ("야", "어이", "이봐", "이보게", "이봐요", "여보게", "저기", "저기요", "여보세요", "hey")
)
"""Before a name they make it a call."""

GREETINGS = frozenset(
    (
        *("안녕", "안녕하세요", "안녕하십니까", "고마워", "고마워요", "고맙습니다", "감사합니다"),
        *("감사해요", "미안", "미안해", "미안해요", "미안합니다", "죄송해요", "죄송합니다"),
        *("반가워", "반가워요", "반갑습니다", "오랜만이야", "오랜만이에요", "축하해", "축하해요"),
        *("사랑해", "부탁해", "부탁해요", "수고했어", "수고하셨습니다", "잠깐", "잠깐만"),
        *("잠시만", "좋은 아침"),
    )
)
"""What is said to somebody, before or behind the name."""

INTERJECTIONS = frozenset(
    (
        *("아", "오", "어", "음", "흠", "에", "아이고", "어머", "와", "자", "저", "그", "있잖아"),
        *("있잖아요", "근데", "그런데", "그럼", "그러면", "그래서", "그리고", "그래", "네", "예"),
        *("응", "아니", "아니요", "아뇨", "글쎄", "혹시", "제발", "잠깐", "잠깐만", "진짜", "정말"),
        *("여기", "거기", "나의", "내", "사랑하는", "친애하는", "ok", "so", "oh"),
    )
)
"""They may stand before anything."""

_AFTER_CALL = frozenset(
    (
        *("나", "난", "나는", "내가", "나도", "내", "나한테", "저", "전", "저는", "제가", "저도"),
        *("제", "너", "넌", "너는", "네가", "니가", "너도", "너의", "네", "당신", "당신은", "자네"),
        *("자네는", "우린", "우리는", "우리가", "이리", "이쪽으로", "이거", "이것", "이것도"),
        *("이건", "그거", "그건", "이게", "저게", "그게", "제발", "들어", "도와줘", "도와주세요"),
        *("일어나", "조심해", "그만", "조용히", "어서", "얼른", "가자", "괜찮아", "괜찮아요"),
        *("힘내", "미안한데", "있잖아", "있잖아요"),
    )
)
"""Where these follow a bare name at the start, it is a call."""

_ANSWERS = frozenset(("와", "알았어", "알았어요", "알겠어", "알겠어요", "알겠습니다", "맞아"))
"""So do these, unless they ask."""

_EPITHET = regex.compile(r"\S[한운런]$")
"""불쌍한 브람."""

_IS_MINE = regex.compile(r"(?:내|제|우리|네)\s.*(?:야|예요|에요|입니다|이다)$")
_TOGETHER = regex.compile(r"같이\s.*(?:자|래|래요|까|까요)$")
_ABOUT_TITLED = regex.compile(
    r"(?:안 )?(?:봤|못 [봤보]|어디|누구|알아|아세요|없|있(?!잖)|계[시세]|왔|말이|말인|때문|덕분"
    r"|대신|같은|거$|것|목소리|데려|데리|불러|찾으러|찾아).*"
    r"|.*(?:더라|더라고|더라고요|대|대요|더군|더군요)$"
)
"""What is said about somebody with a title: 할머니 어디 계세요? 할머니 아프대."""

_OF_TITLED = regex.compile(r"말씀|댁|성함|연세|진지|생신")
"""What only somebody with a title has."""

_HONOURS = regex.compile(r"(?:신다|셨다|셔|셨어)$")
"""Ends a statement about somebody with a title, to somebody without: 선생님 오신다!"""

_GOES_SOMEWHERE = regex.compile(r"어디 가(?:세요|시|니|냐|요|$)")
_WILL = regex.compile(r"(\p{Hangul})래요?$")
_THINKS = regex.compile(r"생각[해하]")

_NAMED = regex.compile("이?라[고는며]")
"""브람이라고 해요: who is called so is not known."""

_SAYS_TO = regex.compile(r"(?:묻|물은|여쭙|여쭤보|말한|말하|하는|한|얘기)\S*")
_SAID_SO = regex.compile(r"(?:하고|라고|라며|하며|하는|라는|하면서|라면서)")
_TURNS = regex.compile(r"보|바라|향|돌아|쳐다|말|속삭|다가|손|고개|미소|웃|묻|외")
_SUBJECT_BEFORE = regex.compile(
    r"\S+(?:은|는|이|가|도|게|건)$|^(?:난|넌|전|게|건|너|나|당신|저|바로)$"
)
"""Behind these 미라야 says that somebody is Mira."""

_NO_SUBJECT = regex.compile(
    r"(?:[아어해래라여]도|[은는던]가|인가|[건런]가|같이|많이|깊이|높이"
    r"|나가|들어가|돌아가|올라가|내려가|지나가|다가가|따라가|가져가|물러가|뛰어가|걸어가|잘가|도망가)$"
)
_NO_VERB = regex.compile(r"^(?:[이그저]거|[이그저]게|누가|[내제네]가|나|저)$|\S가$")
_ENDS = regex.compile(r"[요다까죠니냐네지자라군걸데게마녕나]$")
_ENDING_VOWELS = frozenset("ㅏㅐㅓㅔㅕㅖㅘㅙㅝㅞ")
"""With these ends what is said without formality: 가, 해, 줘."""

_ORDER = regex.compile(
    r"(?:줘|줘요|주세요|주시오|주십시오|봐|봐요|해|해라|하세요|하십시오|세요|와|가|라)$"
)
_PAST = regex.compile(r"(\p{Hangul})(?:어|어요|다|습니다|지|지요|죠|네|네요|니|니까|나요|냐)$")
_TOLD = regex.compile(r"(?:더라|더라고|더라고요|대|대요|더군|더군요)$")

_PLURAL_YOU = regex.compile(r"(?:얘들|애들)아|얘들|여러분\S*|(?:너희|너네|당신들|자네들|그대들)\S*")
_YOURS = (
    *("집", "엄마", "아빠", "아버지", "어머니", "부모", "가족", "나라", "마을", "가게", "동네"),
    *("학교", "형", "누나", "언니", "오빠", "동생", "할머니", "할아버지", "이름", "주인", "대장"),
)
"""너희 before these is one person's: 너희 집."""

_ALL = frozenset(("다들", "다들도", "모두", "모두들", "전부", "친구들", "everyone", "everybody"))
_TO_ONE = regex.compile(
    r"(?:너|네|네가|니가|널|넌|당신|자네)(?:는|를|만|도|만큼|처럼|보다|한테|에게|의|랑)?"
)
"""Who is spoken to as one: with these, 다들 are others."""

_TWO = frozenset(("둘", "둘이", "둘은", "둘도", "둘이서", "둘다", "두", "둘이서만"))


def crowds(sentence: Sentence) -> Iterator[Mention]:
    """Words for all who are here: 얘들아, 여러분, 다들, 너희 둘."""
    said = [token.folded for token in sentence.tokens]
    for at, word in enumerate(said):
        following = said[at + 1] if at + 1 < len(said) else ""
        if _PLURAL_YOU.fullmatch(word):
            if following in _TWO:
                yield Mention(at, at + 2, crowd="two")
            elif word not in ("너희", "너네") or not following.startswith(_YOURS):
                yield Mention(at, at + 1, crowd="all")
        elif word == "둘" and following == "다":
            yield Mention(at, at + 2, crowd="two")
        elif word in _ALL or (word in ("다", "나머지는", "나머지") and _excepts(said[:at])):
            yield Mention(at, at + 1, crowd="all")


def joined(sentence: Sentence, mentions: Sequence[Mention]) -> Iterator[Group]:
    """Mentions that 와, 하고, 이랑 make one, and the others alone."""
    pairs = pairwise(mentions)
    return grouped(mentions, [False, *(_joins(sentence, one, other) for one, other in pairs)])


def role(sentence: Sentence, group: Group) -> Role:
    """What a group of names has to do with what is said."""
    last = group.mentions[-1]
    left, right = sentence.before(group.start), sentence.after(group.end)
    if last.crowd:
        return _role_of_crowd(sentence, last)
    if (found := _excluded(last, right)) is None:
        if not last.particle:
            found = _role_of_bare(sentence, last, left, right)
        elif is_vocative(last.particle):
            found = _role_of_call(left, right)
        else:
            found = _role_by_particle(last, left, right)
    return Role.NOTHING if last.a_word and found is not Role.CALLED else found


def turned_to(sentence: Sentence, mention: Mention) -> bool:
    """Whether a stage direction says that the speaker turns to somebody."""
    right = sentence.after(mention.end)
    if mention.particle in DATIVES and not right:
        return True
    if not mention.particle and right[:1] in (["쪽을"], ["쪽으로"]):
        return True
    towards = mention.particle in OBJECTS | DATIVES
    return towards and bool(right) and bool(_TURNS.match(right[0]))


def _joins(sentence: Sentence, one: Mention, other: Mention) -> bool:
    words_between = any(token.folded for token in sentence.tokens[one.end : other.start])
    if words_between or other.crowd:
        return False
    again = not one.particle and one.members == other.members and one.end == other.start
    return again or one.particle in ANDS


def _excepts(said: Sequence[str]) -> bool:
    return bool(said) and said[-1] in ("빼고", "빼고는", "제외하고", "빼놓고", "말고")


def _excluded(mention: Mention, right: Sequence[str]) -> Role | None:
    """The role of somebody who is left out: 브람 말고, 브람만 빼고."""
    if mention.particle in WITHOUT:
        return Role.REFUSED if mention.particle == "말고" else Role.EXCEPTED
    if mention.particle in {"", "만", "은", "는"} | OBJECTS:
        if right[:1] in (["말고"], ["말고는"]):
            return Role.REFUSED
        if _excepts(right[:1]):
            return Role.EXCEPTED
    return None


def _role_of_call(left: Sequence[str], right: Sequence[str]) -> Role:
    if right and _SAID_SO.fullmatch(right[0]):
        return Role.ABOUT
    is_said_of_somebody = (
        not right and left and _SUBJECT_BEFORE.search(left[-1]) and not _NO_SUBJECT.search(left[-1])
    )
    return Role.ABOUT if is_said_of_somebody else Role.CALLED


def _role_of_bare(
    sentence: Sentence, mention: Mention, left: Sequence[str], right: Sequence[str]
) -> Role:
    lead = _without_interjections(left)
    hailed = len(lead) == 1 and lead[0] in HAILS
    if not right:
        if _excepts(lead):
            return Role.ADDRESSED
        if len(lead) == 1 and _EPITHET.search(lead[0]):
            return Role.CALLED
        return Role.CALLED if not lead or hailed or _is_over(lead[-1]) else Role.ABOUT
    if hailed or sentence.is_behind(mention.start, "@"):
        return Role.CALLED
    if lead and " ".join(lead) not in GREETINGS:
        return Role.ABOUT
    if mention.a_word:
        return Role.NOTHING
    said = " ".join(right)
    if mention.titled:
        return _role_of_titled(sentence, said)
    if lead or _TOGETHER.match(said):
        return Role.CALLED
    shows = _AFTER_CALL | GREETINGS if sentence.question else _AFTER_CALL | GREETINGS | _ANSWERS
    return Role.CALLED if right[0] in shows and not _IS_MINE.match(said) else Role.ABOUT


def _role_of_titled(sentence: Sentence, said: str) -> Role:
    """The role of a title without a particle at the start, by what is said behind it."""
    if _OF_TITLED.match(said):
        return Role.NOTHING
    if _HONOURS.search(said) and not sentence.question:
        return Role.ABOUT
    about = _ABOUT_TITLED.fullmatch(said) and not _GOES_SOMEWHERE.match(said)
    return Role.ABOUT if about else Role.CALLED


def _role_by_particle(mention: Mention, left: Sequence[str], right: Sequence[str]) -> Role:
    if _NAMED.match(mention.particle):
        return Role.NOTHING
    if right and _is_addressed(mention.particle, left, right):
        return Role.ADDRESSED
    return Role.NOTHING if mention.titled and mention.particle in TOPICS else Role.ABOUT


def _is_addressed(particle: str, left: Sequence[str], right: Sequence[str]) -> bool:
    if particle in TOPICS:
        return _asks_you(right)
    if particle in DATIVES:  # 미라한테 묻는 거야
        says_to = len(right) == 2 and _SAYS_TO.fullmatch(right[0])
        return bool(says_to) and right[1][0] in "거말건겁"
    # 브람 말고 미라가 대답해 줘
    return particle in SUBJECTS and _excepts(left[-1:]) and bool(_ORDER.search(right[-1]))


def _role_of_crowd(sentence: Sentence, mention: Mention) -> Role:
    if _PLURAL_YOU.fullmatch(sentence.tokens[mention.start].folded):
        return Role.CALLED
    said = [token.folded for token in sentence.tokens if token.folded]
    if any(_TO_ONE.fullmatch(word) for word in said):
        return Role.NOTHING
    if _TOLD.search(said[-1]):
        return Role.NOTHING
    if _is_past(said[-1]) and ("어디" in said or not sentence.question):
        return Role.NOTHING
    return Role.CALLED


def _without_interjections(left: Sequence[str]) -> list[str]:
    rest = list(left)
    while rest and rest[0] in INTERJECTIONS:
        rest = rest[1:]
    return rest


def _is_over(word: str) -> bool:
    """Whether a word may be a Korean sentence's last: its verb, or a greeting."""
    if _NO_VERB.search(word) and not _NO_SUBJECT.search(word):
        return False
    if word in GREETINGS or _ENDS.search(word):
        return True
    vowel, final = vowel_and_final(word)
    return vowel in _ENDING_VOWELS and not final


def _asks_you(right: Sequence[str]) -> bool:
    """Whether this is asked only of whom one speaks to: 드실래요, 어떻게 생각하세요."""
    will = _WILL.search(right[-1])
    willing = will is not None and vowel_and_final(will[1])[1] == "ㄹ"
    return willing or any(_THINKS.match(word) for word in right)


def _is_past(word: str) -> bool:
    """Whether a verb tells of the past: ㅆ ends the syllable before its ending."""
    found = _PAST.search(word)
    return found is not None and found[1] not in "있겠" and vowel_and_final(found[1])[1] == "ㅆ"
