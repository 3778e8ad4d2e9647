"""What is a stage direction, and what is speech that only looks like one.

========================  =====================================================================
``*smiles*``, ``_nods_``  a direction, unless it is one word that is neither a gesture nor a
                          word of the stage: ``*really*`` is emphasis and is spoken, unless
                          it begins a sentence in lower case, as speech does not; so are
                          several words inside a sentence that begin as no direction does:
                          ``*have been*``
``**never do that**``     emphasis, unless it names a gesture as a direction does, or begins with
                          he, she, they, his, her, their
``[sighs]``, ``<nods>``   always a direction
``(laughs)``              a direction if it names a gesture or begins with a word of the stage;
                          also if it begins where a sentence may begin, unless somebody speaks in
                          it: I, we, you, or a Korean sentence ending as it is said to somebody
========================  =====================================================================
"""

from __future__ import annotations

import regex

from npc_server.reply.gestures import canonical_gesture, stems

STAGE = frozenset(
    (
        *("look", "glance", "gaze", "stare", "peer", "watch", "turn", "walk", "step", "lean"),
        *("sit", "stand", "rise", "pause", "hesitate", "stop", "speak", "say", "reply", "mutter"),
        *("mumble", "grumble", "growl", "groan", "hum", "sing", "shout", "yell", "hiss", "snort"),
        *("huff", "grunt", "wince", "flinch", "squint", "blink", "swallow", "clear", "wipe"),
        *("rub", "tap", "pat", "hold", "hand", "place", "put", "set", "take", "pull", "push"),
        *("pour", "raise", "lower", "lift", "reach", "grab", "offer", "fidget", "stretch"),
        *("pout", "tease", "shuffle", "hammer", "stir", "sniff", "slam", "return", "leave"),
        *("enter", "exit", "approach", "shake", "roll", "cross", "scratch", "tilt", "shift"),
    )
)
"""Verbs with which directions begin in scripts and role play, inflected as there: ``looks``,
``looking``. As it stands here, ``look`` may well be a request."""

ALONE = frozenset(("pause", "beat", "silence", "aside", "ooc", "narrator"))
"""Words that are directions as they stand."""

MANNERS = frozenset(
    (
        *("softly", "quietly", "warmly", "gently", "nervously", "angrily", "sadly", "sternly"),
        *("cheerfully", "shyly", "coldly", "smugly", "sheepishly", "thoughtfully", "awkwardly"),
        *("excitedly", "playfully", "sarcastically"),
    )
)
"""How something is said; a direction when it stands alone in asterisks or begins one."""

PLAIN = frozenset(("think", "point", "jump", "leap", "dance", "cry", "back", "muse", "gesture"))
"""Names of gestures that, uninflected, are as likely a stressed word."""

STRESSED = frozenset(
    (
        *("i", "you", "we", "not", "never", "always", "very", "so", "too", "all", "any", "every"),
        *("have", "had", "been", "be", "are", "were", "will", "would", "can", "could", "should"),
        *("must", "may", "might", "do", "did", "used", "to", "if", "am"),
    )
)
"""Words with which stressed speech begins and directions do not."""

_ARTICLES = frozenset(("a", "an", "the", "or", "and", "no", "of", "for", "in"))
_THIRD = frozenset({"he", "she", "they", "his", "her", "their"})
_SPOKEN = regex.compile(r"(?i)\b(?:i|i'm|i’m|i'll|i’ll|we|we're|you|your|you're|let's|my|our)\b")
_SPOKEN_KO = regex.compile(r"(?:요|죠|지|야|네|습니까|세요|거든|잖아)[.!?~…]*$")
_DIRECTION_KO = regex.compile(
    r"(?:며|면서|는다|린다|인다|한다|본다|준다|쉰다|친다|진다|난다|듯|채)[.…]?$"
)
_LINK = regex.compile(r"(?i)^\s*(?:https?:|www\.)")
_WORDS = regex.compile(r"[\w'’]+")


def starred(words: str, stars: int, *, closed: bool, at_border: bool) -> bool:
    """Whether what stood between ``stars`` asterisks or underscores is a direction.

    Args:
        words: What stood between them.
        stars: How many there were on each side.
        closed: Whether they were closed.
        at_border: Whether they began where a sentence may begin.
    """
    count = len(_WORDS.findall(words))
    if count == 0:
        return True
    if stars == 1 and count == 1 and at_border and words.strip()[:1].islower():
        return True
    if stars > 1 and count > 1:
        return _begins(words) or bool(_first(words) & _THIRD) or _short_gesture(words, count)
    if count == 1 and (closed or stars > 1):
        return _begins(words)
    return True


def stressed(words: str) -> bool:
    """Whether several words in asterisks, inside a sentence, are stressed speech.

    They are if they begin as no direction does, with an auxiliary verb, a negation or one who
    speaks or is spoken to, and hold no verb of the stage and no gesture.
    """
    found = stems(words)
    if not found or not _first(words) & STRESSED or canonical_gesture(words):
        return False
    return not any(bases & STAGE for bases in found)


def parenthesised(words: str, *, at_border: bool) -> bool:
    """Whether what stood in parentheses is a direction.

    Args:
        words: What stood in them.
        at_border: Whether they began where a sentence may begin.
    """
    count = len(_WORDS.findall(words))
    if count == 0 or _LINK.search(words) or _begins(words) or _short_gesture(words, count):
        return True
    return at_border and not (_SPOKEN.search(words) or _SPOKEN_KO.search(words.strip()))


def _begins(words: str) -> bool:
    """Whether the first word is one of the stage, or all of it is a Korean direction."""
    first = next(iter(words.casefold().split()), "").strip(".,!?:;…")
    bases = next(iter(stems(first)), frozenset())
    if first in ALONE or first in MANNERS or (bases & STAGE and first not in STAGE):
        return True
    gesture = canonical_gesture(first) is not None and first not in PLAIN
    return gesture or bool(_DIRECTION_KO.search(words.strip()))


def _short_gesture(words: str, count: int) -> bool:
    if count > 4 or _first(words) & (_ARTICLES | PLAIN) or _SPOKEN.search(words):
        return False
    return canonical_gesture(words) is not None


def _first(words: str) -> frozenset[str]:
    return frozenset(_WORDS.findall(words.casefold())[:1])
