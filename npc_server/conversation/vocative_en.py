"""English: who is called, and who is only talked about.

A call stands apart: between pauses, behind a greeting, before what can only be said to somebody
("Bram what do you want"), or behind a sentence that needs no more words ("come here Bram").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import regex

from npc_server.conversation.names import Group, Mention, Role, grouped
from npc_server.conversation.utterance import Sentence

GREETINGS = frozenset(
    (
        *(
            "hey",
            "hi",
            "hello",
            "hiya",
            "yo",
            "oi",
            "ahoy",
            "hail",
            "greetings",
            "welcome",
            "howdy",
        ),
        *("goodbye", "bye", "farewell", "thanks", "thank you", "many thanks", "cheers", "sorry"),
        *("good morning", "good day", "good afternoon", "good evening", "good night", "goodnight"),
        *("morning", "evening", "excuse me", "pardon me", "forgive me", "hello there", "hi there"),
        *("hey there", "hey you", "well done", "good job", "nice work", "bravo", "congratulations"),
        *(
            "happy birthday",
            "welcome back",
            "welcome home",
            "see you",
            "later",
            "thank you so much",
        ),
        *(
            "thanks again",
            "thank you very much",
            "thanks a lot",
            "come on",
            "never mind",
            "cheer up",
        ),
        *("you there", "shut up", "calm down", "of course", "look here", "please"),
    )
)
"""Before a name they make it a call."""

INTERJECTIONS = frozenset(
    (
        *(
            "so",
            "well",
            "oh",
            "ah",
            "um",
            "uh",
            "hm",
            "hmm",
            "okay",
            "ok",
            "alright",
            "right",
            "now",
        ),
        *("yes", "yeah", "yep", "aye", "no", "nope", "nah", "look", "listen", "wait", "please"),
        *("then", "wow", "whoa", "ugh", "damn", "god", "psst", "ow", "ouch", "sure"),
        *("why", "ha", "hah", "hehe", "really", "anyway"),
    )
)
"""They may stand before anything."""

_LAUGH = regex.compile(r"(?:a?ha){2,}h?|(?:he){2,}|l(?:ol)+")
_LINKS = frozenset(("and", "but", "or", "so"))
"""Interjections, but inside a sentence they join words."""

_WH = frozenset(("what", "whats", "why", "where", "when", "who", "whose", "how", "hows", "which"))
_ASKS = frozenset(("what's", "why's", "where's", "when's", "who's", "how's", "wheres", "whos"))
_YOU = frozenset(("you", "u", "i", "we", "ya"))
_SPEAKS = frozenset(
    (
        *(
            "you",
            "you're",
            "you've",
            "you'll",
            "you'd",
            "your",
            "ur",
            "u",
            "i",
            "i'm",
            "im",
            "i've",
        ),
        *("i'll", "i'd", "we", "we're", "we've", "we'll", "we'd", "let's", "it's", "that's"),
        *("there's", "this", "these", "please", "thanks", "thank", "sorry", "hello", "hi", "hey"),
        *("youre", "ive", "ill", "lets", "its", "thats", "theres", "my", "there", "nice", "good"),
        *("he's", "she's", "they're", "he", "she", "they", "if", "someone", "somebody"),
        *("a", "an"),
    )
)
"""With these begins what is said to somebody; after the subject of a sentence they cannot stand."""

_AUXILIARIES = frozenset(
    (
        *("can", "could", "will", "would", "shall", "should", "may", "might", "must", "do", "does"),
        *("did", "are", "were", "have", "had", "am", "can't", "couldn't", "won't", "wouldn't"),
        *("shouldn't", "don't", "didn't", "aren't", "weren't", "haven't", "hadn't"),
    )
)
_FINITE = frozenset(
    (
        *("is", "was", "isn't", "wasn't", "has", "hasn't", "had", "hadn't", "does", "doesn't"),
        *("did", "didn't", "will", "won't", "would", "wouldn't", "can", "can't", "could"),
        *("couldn't", "should", "may", "might", "must", "never", "always", "said", "told", "went"),
        *("came", "took", "stole", "knew", "saw", "made", "got", "gave", "left", "lost", "found"),
        *("and", "or", "are", "were"),
    )
)
"""After a name they make it the subject, unless "you" or "I" comes next."""

_ORDERS = frozenset(
    (
        *("come", "go", "look", "wait", "stop", "tell", "give", "help", "listen", "open", "close"),
        *("take", "get", "show", "run", "follow", "stay", "sit", "stand", "hurry", "bring", "be"),
        *(
            "don't",
            "dont",
            "do",
            "hold",
            "watch",
            "keep",
            "talk",
            "speak",
            "answer",
            "hand",
            "hear",
            "try",
        ),
        *(
            "move",
            "leave",
            "drop",
            "fetch",
            "buy",
            "sell",
            "wake",
            "calm",
            "relax",
            "guard",
            "fight",
        ),
        *("forget", "remember", "trust", "forgive", "excuse", "shut", "step", "turn", "call"),
        *("out", "down", "up", "back", "inside", "over", "quiet", "silence", "ready", "enough"),
        *(
            "lower",
            "throw",
            "pass",
            "send",
            "ask",
            "meet",
            "join",
            "pick",
            "grab",
            "attack",
            "cover",
        ),
    )
)
"""The bare verb after a single person's name can only be an order."""

_BARE_ORDERS = frozenset(
    (
        *("come", "wait", "listen", "look", "hurry", "run", "stop", "sit", "stay", "relax", "go"),
        *("help", "speak", "answer", "jump", "duck"),
    )
)
"""Orders that need no more words."""

_CLAUSE_ENDS = frozenset(
    (
        *("here", "there", "now", "then", "today", "tonight", "tomorrow", "yesterday", "again"),
        *("please", "me", "you", "us", "it", "up", "down", "off", "new", "going", "doing", "say"),
        *("think", "mean", "wrong", "right", "alright", "coming", "home", "much", "well", "back"),
        *("ready", "together", "happening", "happened", "matter", "time", "fine", "ok", "okay"),
        *("away", "too", "yet", "mine", "yours", "everything", "nothing", "anything", "something"),
        *("that", "this", "way", "out", "sure", "quickly", "quick", "welcome", "later", "first"),
    )
)
"""A sentence may be over with these, so that a name behind them is a call."""

_TO_BE = frozenset(("is", "are", "was", "were", "it's", "that's", "you're", "isn't", "aren't"))
_SOMEBODY = frozenset(("you", "it", "that", "this", "he", "she", "they"))
_DETERMINERS = frozenset(("the", "a", "an", "my", "your", "his", "her", "our", "their", "this"))
_DEMONSTRATIVES = frozenset(("that", "those", "these", "some", "any"))
_PREPOSITIONS = frozenset(
    ("to", "for", "of", "from", "with", "about", "at", "by", "on", "in", "like")
)
_ASIDES = frozenset(("i think", "i guess", "i believe", "i suppose", "i fear", "it seems"))
_FRIENDS = frozenset(
    (
        *("friend", "brother", "sister", "husband", "wife", "son", "daughter", "father", "mother"),
        *("cousin", "neighbour", "neighbor", "apprentice", "captain", "partner", "companion"),
        *("man", "woman", "boy", "girl", "smith", "baker", "miller", "guard", "dog", "cat", "one"),
        *("great", "famous", "name", "named", "called", "thief", "witch", "healer", "doctor"),
    )
)
"""Words for people: a name behind one belongs to it."""

_INTRODUCES = frozenset(("this is", "that is", "that's", "here is", "here's", "meet"))
_MEANS = regex.compile(
    r"(?:\bi (?:mean|meant|said)|\bi(?:'m| am| was) (?:talking to|speaking to|asking)"
    r"|^(?:(?:i have |here's )?(?:a|my|one|another) )?question (?:is )?for)$"
)
"""What says in so many words to whom something is said."""

_TURNS = regex.compile(
    r"^to$|\b(?:turn|look|glance|gaze|stare|glare|smile|nod|wave|bow|point|speak|talk|whisper|say"
    r"|call|shout|walk|step|lean)(?:s|es|ing)?(?: (?:back|up|over|down|around))*"
    r" (?:to|at|towards?)$"
    r"|\b(?:fac|address)(?:es|ing)$|\bi (?:ask|tell|answer|warn)$"
)
"""What a stage direction has before the name of whom one turns to."""

_STATES = frozenset(
    ("alright", "right", "ok", "okay", "ready", "fine", "safe", "hurt", "well", "here", "awake")
)
"""What everyone is asked about: "is everyone ready?"."""

_CROWDS = (
    *("everyone", "everybody", "ladies and gentlemen", "gentlemen", "ladies", "guys", "folks"),
    *("my friends", "friends", "people", "lads", "boys", "girls", "kids", "children", "comrades"),
    *("team", "all", "everyone here", "everybody here"),
)
_PLURAL_YOU = (
    *("all of you", "each of you", "any of you", "none of you", "one of you", "some of you"),
    *("you all", "y'all", "yall", "you guys", "you people", "you lot", "you folks", "you three"),
    *("every one of you", "which of you", "who of you", "three of you", "you four"),
)
_TWO = ("you two", "you both", "both of you", "two of you", "either of you", "neither of you")
_PHRASES = sorted(
    (tuple(phrase.split()) for phrase in _CROWDS + _PLURAL_YOU + _TWO), key=len, reverse=True
)
_SAYS_YOU = frozenset(tuple(phrase.split()) for phrase in _PLURAL_YOU + _TWO)
_MEANS_TWO = frozenset(tuple(phrase.split()) for phrase in _TWO)
_EXCEPT = (
    ("but",),
    ("except",),
    ("except", "for"),
    ("excepting",),
    ("besides",),
    ("apart", "from"),
)
_AFTER_YOU_ALL = frozenset(("about", "the", "that", "this", "i", "my", "day", "night", "along"))


def crowds(sentence: Sentence) -> Iterator[Mention]:
    """Words for all who are here: "everyone", "all of you", "you two"."""
    said = [token.folded for token in sentence.tokens]
    at = 0
    while at < len(said):
        phrase = next((p for p in _PHRASES if tuple(said[at : at + len(p)]) == p), None)
        if phrase is None:
            at += 1
            continue
        end = at + len(phrase)
        if not (phrase == ("you", "all") and set(said[end : end + 1]) & _AFTER_YOU_ALL):
            crowd: Literal["all", "two"] = "two" if phrase in _MEANS_TWO else "all"
            yield Mention(at, end, a_word=phrase == ("all",), crowd=crowd)
        at = end


def joined(sentence: Sentence, mentions: Sequence[Mention]) -> Iterator[Group]:
    """Mentions that "and", "or", "but" make one, and the others alone."""
    joins = [False] * (len(mentions) + 1)
    for at in range(len(mentions) - 1, 0, -1):
        between = _between(sentence, mentions[at - 1], mentions[at])
        # "Bram, Pip and Mira": the comma joins where an "and" follows.
        listed = between == [""] and joins[at + 1]
        joins[at] = listed or _joins(mentions[at - 1], between, mentions[at])
    return grouped(mentions, joins)


def role(sentence: Sentence, group: Group) -> Role:
    """What a group of names has to do with what is said."""
    left, right = sentence.before(group.start), sentence.after(group.end)
    if sentence.is_behind(group.start, "@"):
        return Role.CALLED
    if group.mentions[-1].particle:
        return Role.ABOUT
    if group.mentions[0].crowd and _says_you(sentence, group.mentions[0]):
        return Role.CALLED
    if group.mentions[0].crowd and left[-1:] == ["is"] and right and right[-1] in _STATES:
        return Role.CALLED
    if _is_refused(sentence, group.start, left):
        return Role.REFUSED
    if not right and _MEANS.search(" ".join(left)):
        return Role.ADDRESSED
    lead = _without_interjections(left, sentence.begins(group.start - len(left)))
    if any(mention.a_word for mention in group.mentions):
        called = not right and (not left or _is_greeting(lead)) and not _is_apposed(sentence, group)
        return Role.CALLED if called else Role.NOTHING
    return Role.CALLED if _is_called(sentence, group, lead, right) else Role.ABOUT


def turned_to(sentence: Sentence, mention: Mention) -> bool:
    """Whether a stage direction says that the speaker turns to somebody."""
    return bool(_TURNS.search(" ".join(sentence.before(mention.start))))


def _is_called(sentence: Sentence, group: Group, lead: list[str], right: list[str]) -> bool:
    greeted = _is_greeting(lead)
    if lead and not greeted:
        return not right and _is_complete(lead)
    if right:
        return _may_follow(right) or (greeted and not _is_finite(right[0]))
    return not _is_apposed(sentence, group)


def _joins(one: Mention, between: Sequence[str], other: Mention) -> bool:
    """Whether the words between two mentions make them one."""
    if not between:
        return one.members == other.members
    if tuple(filter(None, between)) in _EXCEPT:
        return one.crowd is not None
    links = between in (["and"], ["&"], ["or"], ["", "and"], ["", "or"])
    return links and not (one.crowd or other.crowd)


def _between(sentence: Sentence, one: Mention, other: Mention) -> list[str]:
    return [token.folded for token in sentence.tokens[one.end : other.start]]


def _says_you(sentence: Sentence, mention: Mention) -> bool:
    said = tuple(token.folded for token in sentence.tokens[mention.start : mention.end])
    return said in _SAYS_YOU


def _is_refused(sentence: Sentence, start: int, left: Sequence[str]) -> bool:
    if left:
        return left[-1] == "not" or list(left[-2:]) == ["not", "you"]
    # "Not you, Bram": the call belongs to what stands before the comma.
    return sentence.before(start - 1)[-2:] == ["not", "you"]


def _without_interjections(left: Sequence[str], at_start: bool) -> list[str]:
    """What is left of the words before a name; links are interjections at the start only."""
    skipped = INTERJECTIONS | _LINKS if at_start else INTERJECTIONS
    rest = list(left)
    while rest and (rest[0] in skipped or _LAUGH.fullmatch(rest[0])):
        if _is_greeting(rest):
            break
        rest = rest[1:]
    return rest


def _is_greeting(left: Sequence[str]) -> bool:
    return " ".join(left) in GREETINGS


def _is_finite(word: str) -> bool:
    """Whether a word behind a name makes it the subject: a verb of the third person."""
    return word in _FINITE or (word.endswith(("s", "ed")) and word not in _ASKS and len(word) > 3)


def _may_follow(right: Sequence[str]) -> bool:
    """Whether this can only be said to whom the name before it calls."""
    first, second = right[0], next(iter(right[1:]), "")
    if first in _AUXILIARIES and second in _YOU:
        return True
    if len(right) == 1 and first in INTERJECTIONS:
        return True
    return first in _WH | _ASKS | _SPEAKS or (first in _ORDERS and first not in _FINITE)


def _is_complete(left: Sequence[str]) -> bool:
    """Whether a sentence needs no more words, so that a name behind it is a call."""
    if len(left) == 1:
        return left[0] in _BARE_ORDERS
    if left[-1] in _SOMEBODY and left[-2] in _TO_BE:
        return not _WH.isdisjoint(left[:-2])
    if left[-1] in _TO_BE:
        return False
    return left[-1] in _CLAUSE_ENDS or _ends_in_thing(left)


def _ends_in_thing(left: Sequence[str]) -> bool:
    """Whether the last word is a thing's: "give me the sword", but not "I met the smith"."""
    if left[-1] in _FRIENDS | _PREPOSITIONS:
        return False
    if left[-2] in _DETERMINERS:
        return True
    asks = left[0] in _ORDERS | _WH | _AUXILIARIES
    return asks and not (_DETERMINERS | _DEMONSTRATIVES).isdisjoint(left[-3:-1])


def _is_apposed(sentence: Sentence, group: Group) -> bool:
    """Whether a name between pauses is no call: "Bram, the old fool, is lying", a list."""
    following = list(sentence.phrases(group.end))[1:]
    if sentence.question or not following:
        return _is_introduced(sentence, group.start)
    first = following[0]
    behind = following[1] if len(following) > 1 else []
    if not sentence.begins(group.start):
        before = sentence.before(group.start - 1)
        if first[:1] in (["and"], ["or"]) and first[1:2] and first[1] in _DETERMINERS:
            return True
        return bool(before) and before[0] in _DETERMINERS and _is_predicate(first)
    if first[:1] in (["who"], ["whose"], ["which"]):
        return True
    apposed = first[:1] and (first[0] in _DETERMINERS or " ".join(first) in _ASIDES)
    return bool(apposed) and _is_predicate(behind)


def _is_predicate(words: Sequence[str]) -> bool:
    return bool(words) and _is_finite(words[0]) and not set(words[1:2]) & _YOU


def _is_introduced(sentence: Sentence, start: int) -> bool:
    """Whether it ends as in "This is my friend, Bram"."""
    before = sentence.before(start - 1)
    introduces = any(" ".join(before).startswith(phrase) for phrase in _INTRODUCES)
    return introduces and before[-1] in _FRIENDS
