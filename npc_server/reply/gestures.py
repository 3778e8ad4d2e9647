"""Which gesture a stage direction asks for, in English and Korean.

A direction names a gesture if one of the gesture's verbs is among its words, in any inflection,
followed within five words by the noun that the table asks for, if any; or if one of its Korean
stems is in it. The persona's own gestures come first: one of those is meant where all of the words
of its name appear in the direction, in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import regex

VERBS: dict[str, tuple[str, ...]] = {
    "shake_head": ("shake head",),
    "shake_fist": ("shake fist",),
    "raise_eyebrow": ("raise eyebrow", "arch eyebrow", "raise brow", "cock eyebrow"),
    "cross_arms": ("cross arms", "fold arms"),
    "scratch_head": ("scratch head",),
    "roll_eyes": ("roll eyes",),
    "tilt_head": ("tilt head", "cock head"),
    "lean_in": ("lean in", "lean forward", "lean closer"),
    "laugh": ("laugh", "chuckle", "giggle", "guffaw", "cackle", "snicker"),
    "smile": ("smile", "grin", "beam", "smirk"),
    "nod": ("nod",),
    "sigh": ("sigh", "exhale"),
    "shrug": ("shrug",),
    "wave": ("wave",),
    "bow": ("bow", "curtsy"),
    "frown": ("frown", "scowl", "glower"),
    "glare": ("glare",),
    "gasp": ("gasp",),
    "cry": ("cry", "sob", "weep", "sniffle"),
    "wink": ("wink",),
    "blush": ("blush",),
    "clap": ("clap", "applaud"),
    "point": ("point", "gesture"),
    "think": ("think", "ponder", "muse"),
    "yawn": ("yawn",),
    "cough": ("cough",),
    "salute": ("salute",),
    "hug": ("hug", "embrace"),
    "kneel": ("kneel",),
    "jump": ("jump", "leap"),
    "dance": ("dance", "twirl"),
    "whisper": ("whisper", "murmur"),
    "look_away": ("look away", "glance away", "look down", "avert eyes", "avert gaze"),
    "look_around": ("look around", "glance around"),
    "step_back": ("step back", "back away"),
    "tremble": ("tremble", "shiver", "shudder"),
    "thumbs_up": ("give thumbs",),
}
"""Canonical gesture -> verbs, each with the noun or particle that must follow, if any. The order
matters: the first that fits is taken."""

KOREAN: dict[str, tuple[str, ...]] = {
    "shake_head": ("고개를 젓", "고개를 저", "고개를 흔", "고개를 가로", "도리도리"),
    "nod": ("끄덕",),
    "tilt_head": ("갸웃", "고개를 기울"),
    "bow": ("고개를 숙", "허리를 숙", "절을 하", "절하", "꾸벅", "인사하", "인사를"),
    "laugh": ("웃음을 터", "크게 웃", "깔깔", "껄껄", "하하", "킥킥", "킬킬", "낄낄", "폭소"),
    "smile": ("미소", "웃", "빙그레", "방긋", "싱긋", "생긋"),
    "sigh": ("한숨",),
    "shrug": ("어깨를 으쓱", "으쓱"),
    "wave": ("손을 흔", "손짓하며 인사"),
    "frown": ("찡그", "찌푸", "인상을 쓰"),
    "glare": ("노려보", "째려보", "쏘아보"),
    "gasp": ("헉", "숨을 들이", "숨을 삼"),
    "cry": ("울먹", "눈물", "흐느", "울음", "훌쩍"),
    "wink": ("윙크",),
    "blush": ("얼굴을 붉", "얼굴이 빨개", "얼굴이 붉", "볼을 붉"),
    "clap": ("박수", "손뼉"),
    "point": ("가리키", "가리킨", "가리켜"),
    "cross_arms": ("팔짱",),
    "scratch_head": ("머리를 긁", "뒷머리를"),
    "think": ("생각에 잠", "곰곰", "생각하며", "턱을 괴", "턱을 만"),
    "yawn": ("하품",),
    "cough": ("기침", "콜록"),
    "salute": ("경례",),
    "hug": ("껴안", "끌어안", "포옹", "안아"),
    "kneel": ("무릎을 꿇",),
    "jump": ("뛰어오르", "펄쩍", "폴짝"),
    "dance": ("춤",),
    "whisper": ("속삭", "귓속말"),
    "raise_eyebrow": ("눈썹을",),
    "lean_in": ("몸을 기울", "몸을 숙"),
    "look_away": ("시선을 피", "눈을 피", "고개를 돌", "외면"),
    "look_around": ("둘러보", "두리번"),
    "step_back": ("뒷걸음", "물러서", "물러나"),
    "tremble": ("몸을 떨", "덜덜", "부들부들"),
    "thumbs_up": ("엄지",),
}
"""Canonical gesture -> Korean beginnings of words, found anywhere in a direction."""

_REACH = 5
_WORD = regex.compile(r"[a-z]+(?:['’][a-z]+)?")
_IRREGULAR = {
    "shook": "shake",
    "shaken": "shake",
    "wept": "weep",
    "knelt": "kneel",
    "leapt": "leap",
    "thought": "think",
    "gave": "give",
    "leant": "lean",
}
_DOUBLED = regex.compile(r"([bdgmnprt])\1$")


def stems(text: str) -> list[frozenset[str]]:
    """For each English word its possible base forms, the word itself among them."""
    return [_bases(word) for word in _WORD.findall(text.casefold())]


def find_gesture(direction: str, own: Sequence[str] = ()) -> str | None:
    """The gesture that a direction asks for.

    Args:
        direction: What stood between the asterisks or brackets.
        own: The gestures that the NPC can make; empty for any.

    Returns:
        The name as it stands in ``own``, else the canonical name; ``None`` where the direction
        names none or one that the NPC cannot make.
    """
    words = stems(direction)
    for name in own:
        if _is_named(name, direction, words):
            return name
    spelled = {_slug(name): name for name in own}
    for gesture in _canonical(direction, words):
        if not own:
            return gesture
        if gesture in spelled:
            return spelled[gesture]
    return None


def canonical_gesture(direction: str) -> str | None:
    """The canonical gesture that a direction names, whoever can make it."""
    return next(_canonical(direction, stems(direction)), None)


def _canonical(direction: str, words: Sequence[frozenset[str]]) -> Iterator[str]:
    for gesture, phrases in VERBS.items():
        if any(_says(phrase.split(), words) for phrase in phrases):
            yield gesture
    for gesture, korean in KOREAN.items():
        if any(stem in direction for stem in korean):
            yield gesture


def _says(phrase: Sequence[str], words: Sequence[frozenset[str]]) -> bool:
    verb, *noun = phrase
    return any(
        not noun or any(noun[0] in later for later in words[at + 1 : at + 1 + _REACH])
        for at, word in enumerate(words)
        if verb in word
    )


def _is_named(name: str, direction: str, words: Sequence[frozenset[str]]) -> bool:
    wanted = stems(name.replace("_", " ").replace("-", " "))
    if not wanted:
        return _tight(name) in _tight(direction)
    found = iter(words)
    return all(any(want & word for word in found) for want in wanted)


def _tight(text: str) -> str:
    return "".join(text.replace("_", " ").split())


def _slug(name: str) -> str:
    return "_".join(name.casefold().replace("-", " ").replace("_", " ").split())


def _bases(word: str) -> frozenset[str]:
    forms = {word, _IRREGULAR.get(word, word)}
    forms.update(_without(word, "s", ("",)))
    forms.update(_without(word, "es", ("",)))
    forms.update(_without(word, "ies", ("y",)))
    forms.update(_without(word, "ied", ("y",)))
    for ending in ("ing", "ed"):
        forms.update(_without(word, ending, ("", "e")))
    forms.update(_DOUBLED.sub(r"\1", form) for form in tuple(forms))
    return frozenset(forms)


def _without(word: str, ending: str, instead: Iterable[str]) -> list[str]:
    if not word.endswith(ending) or len(word) <= len(ending) + 1:
        return []
    return [word[: -len(ending)] + new for new in instead]
