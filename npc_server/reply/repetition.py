"""Where a reply repeats what the NPC said before, or itself.

Words are compared as the guard compares them: without case and punctuation; in Korean a word is an
eojeol. A text *counts* from ``LINE_WORDS`` words, or ``LINE_SYLLABLES`` Korean syllables in three
words; shorter ones, such as "Aye." and "네.", may be said as often as anybody likes. Verdicts:

``line``
    A sentence that counts is one of an earlier reply's, or begins with the same ``HELD`` words; or
    the whole reply is, or begins so. What may become that is held back, so that none of it has been
    given, but for the first ``FREE`` words of a reply: the model can go on from them otherwise.
``loop``
    A sentence that counts comes twice in the reply (from the beginning to ``HELD`` words); three or
    more words come three times in a row; one character, or a group of up to ``GROUP``, goes on for
    more than ``LONGEST_RUN`` characters.
``ngrams``
    At the end of a sentence, at least ``MOST`` of the reply's runs of four words, or of eight
    Korean syllables, stand in earlier replies. Too short a reply is not judged.

What stands in quotation marks is a quotation or a refrain: it is not compared with earlier lines,
and a sentence that holds one may come ``REFRAINS`` times in a reply.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from npc_server.persona import Sampling
from npc_server.reply.guard import words_of
from npc_server.reply.parts import Atom, Mark, atoms_of

Verdict = Literal["line", "ngrams", "loop"]

HELD = 8
"""So many words, the same from the beginning, are a repetition; more are never held back."""

FREE = 2
"""So many words with which a reply begins are given at once: many replies begin alike, and a player
waits for the first word."""

LINE_WORDS = 5
LINE_SYLLABLES = 10
REFRAINS = 3
GROUP = 3
LONGEST_RUN = 24
FEW = LONGEST_RUN // 2
"""So many letters are few beside a run that is too long."""

FEW_WORDS_RUN = 10
"""One or two words in a row may be repeated over so many words: "no, no, no"."""

GRAM_WORDS, LEAST_WORDS = 4, 12
GRAM_SYLLABLES, LEAST_SYLLABLES = 8, 24
MOST = 0.5

_APOSTROPHES = "'’"
_STOPS = frozenset(".!?…~。！？")
_HANGUL = re.compile("[가-힣]")
_QUOTES = {'"': '"', "“": "”", "「": "」", "『": "』", "‘": "’", "'": "'"}


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is known of an earlier reply. It never changes, so monitors may share it.

    Attributes:
        lines: Its sentences that count and hold no quotation.
        whole: All of it, if it counts.
        words: All of its words.
        word_grams: Its runs of ``GRAM_WORDS`` words.
        syllable_grams: Its runs of ``GRAM_SYLLABLES`` Korean syllables.
    """

    lines: _Node
    whole: _Node
    words: tuple[str, ...]
    word_grams: frozenset[tuple[str, ...]]
    syllable_grams: frozenset[tuple[str, ...]]


def learn(reply: str) -> Learnt:
    """Read an earlier reply as it was spoken, so that others can be held against it."""
    lines, whole = _Node("line"), _Node("line")
    everything: list[str] = []
    for words, quoted in _sentences(reply):
        everything += words
        if _counts(words) and not quoted:
            lines.add(words)
    if _counts(everything):
        whole.add(everything)
    words_ = words_of(reply)
    return Learnt(
        lines,
        whole,
        tuple(words_),
        _grams(words_, GRAM_WORDS),
        _grams(_HANGUL.findall("".join(words_)), GRAM_SYLLABLES),
    )


class RepetitionMonitor:
    """Lets a reply through as long as it does not repeat; a stage of the parser.

    Args:
        earlier: The NPC's last replies.

    Attributes:
        verdict: What it repeats, once it does; nothing is let through any more.
        begun: Whether more was let through than words with which an earlier reply begins, and those
            are no more than ``FREE``.
    """

    def __init__(self, earlier: Sequence[Learnt] = ()) -> None:
        self.verdict: Verdict | None = None
        self.begun = False
        self._reader = _Reader()
        self._own = _Node("loop")
        self._lines = [*(reply.lines for reply in earlier), self._own]
        self._line = self._lines
        self._reply = [reply.whole for reply in earlier]
        self._shares = [share for share in _shares(earlier) if share.known]
        self._loop = _Periods(HELD)
        self._tail = ""
        self._refrains: Counter[tuple[str, ...]] = Counter()
        self._held: list[list[Atom]] = []
        self._opening: list[Atom] = []
        self._expected: list[str] = []
        self._word = ""
        self._broken = False
        self._spoken = not earlier
        self._spaced = True

    def push(self, atom: Atom) -> list[Atom]:
        """Take one atom; give what is certain to be no repetition."""
        if self.verdict is not None:
            return []
        if isinstance(atom, Mark):
            return self._gap(atom)
        known = atom[0] in self._tail[-GROUP:]
        if (known or len(atom) > FEW) and self._goes_on(atom):
            if len(atom) > 1:
                return [given for char in atom for given in self.push(char)]
            return self._stop("loop", self._release(0))
        if not atom.isspace():
            self._tail = (self._tail + atom)[-LONGEST_RUN:]
        out: list[Atom] = []
        for event in self._reader.push(atom):
            out += self._word_closed() if event == "word" else self._sentence_closed()
            if self._is_over():
                return out
        given = self._letters(atom) if self._reader.word else self._gap(atom)
        return out + given if out else given

    def end(self) -> list[Atom]:
        """The stream is over: give what was held back, unless it is a repetition."""
        if self.verdict is not None:
            return []
        out = self._word_closed() if "word" in self._reader.end() else []
        if self._is_over():
            return out
        for node in (*self._reply, *self._line):
            if node.ends:
                return self._stop(node.kind, out)
        return out + self._release(0) + self._opening

    def _is_over(self) -> bool:
        return self.verdict is not None

    def _goes_on(self, atom: str) -> bool:
        """Whether one character, or a group, has gone on for too long with this one.

        Of letters: whether it may with one of them. If they are no more than ``FEW``, half of what
        is too many stands before them then.
        """
        if len(atom) > 1:
            return len(atom) > FEW or len(set(self._tail[-FEW:])) <= GROUP
        tail = self._tail + atom
        repeats = any(tail[period:] == tail[:-period] for period in range(1, GROUP + 1))
        return repeats and len(tail) > LONGEST_RUN

    def _letters(self, letters: str) -> list[Atom]:
        """Letters or digits, or an apostrophe inside a word."""
        if self._broken:
            return [letters]
        if not self._word:
            self._held.append(self._opening)
            self._opening = []
            if self._reader.quoting:
                self._line = self._reply = []
            doubtful = self._line or self._reply or self._loop.repeats
            self._expected = self._next_words() if doubtful else []
        self._spoken, self._spaced = True, False
        self._word = self._reader.word
        self._held[-1].append(letters)
        if self._expected:
            self._expected = [word for word in self._expected if word.startswith(self._word)]
        if self._expected:
            return [] if self.begun or len(self._held) > FREE else self._give()
        self._broken = True
        self._line = self._reply = []
        return self._release(0)

    def _gap(self, atom: Atom) -> list[Atom]:
        """Anything between words: it goes with the word before, opening marks with the next."""
        space = isinstance(atom, str) and atom.isspace()
        opens = self._spaced and not space and isinstance(atom, str)
        self._spaced = space or opens or (self._spaced and isinstance(atom, Mark))
        if self._held:
            self._held[-1].append(atom)
            return []
        if opens or not self._spoken:
            self._opening.append(atom)
            return []
        opening, self._opening = self._opening, []
        return [*opening, atom]

    def _word_closed(self) -> list[Atom]:
        word = self._reader.closed
        self._word, self._broken = "", False
        self._loop.push(word)
        for share in self._shares:
            share.push(word)
        if self._line or self._reply:
            self._line, self._reply = _go_on(self._line, word), _go_on(self._reply, word)
            for node in (*self._reply, *self._line):
                if node.depth == HELD:
                    return self._stop(node.kind, [])
        if self._loop.repeats and self._loops():
            kept = max(1, self._loop_words())
            return self._stop("loop", self._release(kept))
        return self._release(self._kept()) if self._held else []

    def _sentence_closed(self) -> list[Atom]:
        words, quoted = self._reader.sentence
        for node in self._line:
            if node.ends:
                return self._stop(node.kind, [])
        if _counts(words) and not quoted:
            self._own.add(words)
        elif quoted:
            self._refrains[words] += 1
            if self._refrains[words] > REFRAINS:
                return self._stop("loop", self._release(0))
        self._line = self._lines
        if any(share.is_large for share in self._shares):
            return self._stop("ngrams", self._release(0))
        return self._release(self._kept())

    def _stop(self, verdict: Verdict, out: list[Atom]) -> list[Atom]:
        self.verdict = verdict
        self._held, self._opening = [], []
        return out

    def _next_words(self) -> list[str]:
        """With which words what is held back would go on."""
        words: list[str] = []
        for node in (*self._reply, *self._line):
            words += node.next
        period = self._loop.period(1)
        if period and self._is_loop(period):
            words.append(self._loop.ago(period))
        return words

    def _kept(self) -> int:
        """How many of the last words may be the beginning of a repetition."""
        depths = [nodes[0].depth for nodes in (self._reply, self._line) if nodes]
        return max(self._loop_words(), *depths, 0)

    def _loop_words(self) -> int:
        """How many words of a third time there are."""
        period = self._loop.period(1)
        return self._loop.runs[period] - period if period and self._is_loop(period) else 0

    def _loops(self) -> bool:
        period = self._loop.period(2)
        if not period:
            return False
        return self._is_loop(period) or self._loop.runs[period] >= FEW_WORDS_RUN

    def _is_loop(self, period: int) -> bool:
        """Whether so many words are enough to be one that comes three times."""
        if period >= 3:
            return True
        return sum(map(_hangul, map(self._loop.ago, range(1, period + 1)))) >= GRAM_SYLLABLES

    def _give(self) -> list[Atom]:
        """Give what is held back, and still take it for what may be a repetition."""
        out = [atom for word in self._held for atom in word]
        self._held = [[] for _ in self._held]
        return out

    def _release(self, kept: int) -> list[Atom]:
        gone = max(0, len(self._held) - kept)
        self.begun = self.begun or gone > 0
        out: list[Atom] = []
        for word in self._held[:gone]:
            out += word
        self._held = self._held[gone:]
        return out


class PatientMonitor(RepetitionMonitor):
    """For what nobody waits for: gives a sentence only when all of it is no repetition.

    A short one, such as a name that is called, waits for the next. So a reply that says what an
    earlier one said leaves no beginning of it behind; and one that is the same as an earlier one is
    a repetition, as short as it may be.
    """

    def __init__(self, earlier: Sequence[Learnt] = ()) -> None:
        super().__init__(earlier)
        self._earlier = frozenset(reply.words for reply in earlier)
        self._waiting: list[Atom] = []
        self._unsaid: list[str] = []
        self._given = False
        self._closed = False

    def push(self, atom: Atom) -> list[Atom]:
        """Take one atom; give the sentences that are over."""
        out = super().push(atom)
        self.begun = self._given
        if self.verdict is not None:
            return []
        if not (self._closed and _counts(self._unsaid)):
            self._waiting += out
            return []
        self._closed, self._unsaid = False, []
        # Korean needs no space between sentences: the next may have begun with this atom.
        fresh = [atom] if self._reader.word and out[-1:] == [atom] else []
        ready = [*self._waiting, *out[: len(out) - len(fresh)]]
        self._waiting = fresh
        self._given = self.begun = True
        return ready

    def end(self) -> list[Atom]:
        """The stream is over: give the last sentence, unless it is a repetition."""
        out = super().end()
        self.begun = self._given
        if self.verdict is None and any(share.is_large for share in self._shares):
            self.verdict = "ngrams"
        if self.verdict is None and not self._given and self._reader.sentence[0] in self._earlier:
            self.verdict = "line"
        return [] if self.verdict is not None else [*self._waiting, *out]

    def _sentence_closed(self) -> list[Atom]:
        self._closed = True
        self._unsaid += self._reader.sentence[0]
        return super()._sentence_closed()


def overlap(text: str, *others: str) -> float:
    """The share of a text's runs of words, or of Korean syllables, that stand in others; 0 to 1.

    The runs are those of the verdict ``ngrams``; of the two shares the larger counts.
    """
    shares = _shares([learn(other) for other in others])
    for word in words_of(text):
        for share in shares:
            share.push(word)
    return max(share.value for share in shares)


def loops_in(text: str) -> bool:
    """Whether a text repeats itself as the verdict ``loop`` says."""
    monitor = RepetitionMonitor()
    for atom in atoms_of(text):
        monitor.push(atom)
    monitor.end()
    return monitor.verdict == "loop"


def other_settings(sampling: Sampling, attempt: int) -> Sampling:
    """How to draw a reply again that repeated: with more chance, and less of what was just said.

    Args:
        sampling: What the persona asks for.
        attempt: 0 for the first reply, which is drawn as asked for; from there on bolder each time,
            up to a temperature of 1.2 and a repetition penalty of 1.4, at which small models begin
            to write nonsense. What is bolder already stays.
    """
    if attempt <= 0:
        return sampling
    hotter = min(1.2, max(sampling.temperature, 0.4) + 0.2 * attempt)
    stricter = min(1.4, sampling.repetition_penalty + 0.08 * attempt)
    return sampling.model_copy(
        update={
            "temperature": max(sampling.temperature, hotter),
            "repetition_penalty": max(sampling.repetition_penalty, stricter),
        }
    )


class _Reader:
    """Finds the words and sentences of a text that comes atom by atom."""

    def __init__(self) -> None:
        self.word = ""
        self.closed = ""
        self.sentence: tuple[tuple[str, ...], bool] = ((), False)
        self._words: list[str] = []
        self._quoted = False
        self._closer = ""
        self._last = " "
        self._stopped = False

    @property
    def quoting(self) -> bool:
        """Whether a quotation mark is open."""
        return bool(self._closer)

    def push(self, char: str) -> list[Literal["word", "sentence"]]:
        """Take a character, or some letters; tell what was complete before.

        A sentence is over at a line break; at white space after a stop; and at a letter of another
        script than Latin right after one, for Korean needs no space there.
        """
        last, self._last = self._last, char
        if char.isalnum():
            over = self._stopped and not self.word and not char[0].isascii()
            events = self._end_sentence() if over else []
            self._stopped = False
            if self._closer:
                self._quoted = True
            self.word += char.casefold()
            return events
        if self.word and char in _APOSTROPHES:
            return []
        events = self._end_word(last)
        if char != " ":
            self._punctuation(char, last)
        if char == "\n" or (self._stopped and char.isspace()):
            events += self._end_sentence()
        return events

    def end(self) -> list[Literal["word", "sentence"]]:
        """The text is over."""
        return [*self._end_word(self._last), *self._end_sentence()]

    def _punctuation(self, char: str, last: str) -> None:
        if char in _STOPS:
            self._stopped = True
        if self._closer:
            self._closer = "" if char in (self._closer, "\n") else self._closer
        elif not last.isalnum():
            self._closer = _QUOTES.get(char, "")

    def _end_word(self, last: str) -> list[Literal["word", "sentence"]]:
        if not self.word:
            return []
        if last == self._closer:
            self._closer = ""
        self.closed, self.word = self.word, ""
        self._words.append(self.closed)
        return ["word"]

    def _end_sentence(self) -> list[Literal["word", "sentence"]]:
        self._stopped = False
        if not self._words:
            return []
        self.sentence = (tuple(self._words), self._quoted)
        self._words, self._quoted = [], False
        return ["sentence"]


class _Node:
    """A place in a tree of sentences, word by word, down to ``HELD`` words.

    Attributes:
        kind: What it is to repeat one of these sentences.
        depth: How many words lead here.
        ends: Whether a sentence ends here.
        next: Where each further word leads.
    """

    __slots__ = ("depth", "ends", "kind", "next")

    def __init__(self, kind: Verdict, depth: int = 0) -> None:
        self.kind: Verdict = kind
        self.depth = depth
        self.ends = False
        self.next: dict[str, _Node] = {}

    def add(self, words: Sequence[str]) -> None:
        """Put a sentence in."""
        node = self
        for word in words[:HELD]:
            if word not in node.next:
                node.next[word] = _Node(self.kind, node.depth + 1)
            node = node.next[word]
        node.ends = node.ends or len(words) <= HELD


def _go_on(nodes: Iterable[_Node], word: str) -> list[_Node]:
    return [node.next[word] for node in nodes if word in node.next]


class _Periods:
    """For how long a sequence has been repeating itself, for every period up to the longest."""

    def __init__(self, longest: int) -> None:
        self.runs = [0] * (longest + 1)
        self.repeats = False
        self._tail: deque[str] = deque(maxlen=longest)

    def push(self, unit: str) -> None:
        """One more."""
        if unit in self._tail:
            for period in range(1, len(self._tail) + 1):
                same = self._tail[-period] == unit
                self.runs[period] = self.runs[period] + 1 if same else 0
            self.repeats = True
        elif self.repeats:
            self.runs = [0] * len(self.runs)
            self.repeats = False
        self._tail.append(unit)

    def ago(self, period: int) -> str:
        """The one so many before the next."""
        return self._tail[-period]

    def period(self, times: int) -> int:
        """The shortest period that was repeated so often since it came first; 0 for none."""
        if not self.repeats:
            return 0
        found = (p for p in range(1, len(self.runs)) if self.runs[p] >= times * p)
        return next(found, 0)


class _Share:
    """Which share of a text's n-grams is known."""

    def __init__(
        self,
        size: int,
        least: int,
        known: frozenset[tuple[str, ...]],
        *,
        syllables: bool,
    ) -> None:
        self._size = size
        self._least = least
        self._syllables = syllables
        self.known = known
        self._tail: deque[str] = deque(maxlen=size)
        self._units = 0
        self._hits = 0

    def push(self, word: str) -> None:
        """One more word."""
        for unit in _HANGUL.findall(word) if self._syllables else (word,):
            self._units += 1
            self._tail.append(unit)
            self._hits += tuple(self._tail) in self.known

    @property
    def value(self) -> float:
        """From 0 to 1."""
        return self._hits / max(1, self._units - self._size + 1)

    @property
    def is_large(self) -> bool:
        """Whether the text is long enough to be judged, and most of it is known."""
        return self._units >= self._least and self.value >= MOST


def _shares(earlier: Sequence[Learnt]) -> tuple[_Share, _Share]:
    none: frozenset[tuple[str, ...]] = frozenset()
    words = none.union(*(reply.word_grams for reply in earlier))
    syllables = none.union(*(reply.syllable_grams for reply in earlier))
    return (
        _Share(GRAM_WORDS, LEAST_WORDS, words, syllables=False),
        _Share(GRAM_SYLLABLES, LEAST_SYLLABLES, syllables, syllables=True),
    )


def _grams(units: Sequence[str], size: int) -> frozenset[tuple[str, ...]]:
    return frozenset(zip(*(units[at:] for at in range(size)), strict=False))


def _sentences(text: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The words of each sentence, and whether some of them stand in quotation marks."""
    reader = _Reader()
    for atom in atoms_of(f"{text}\n"):
        if "sentence" in reader.push(atom):
            yield reader.sentence


def _counts(words: Sequence[str]) -> bool:
    if len(words) >= LINE_WORDS:
        return True
    return len(words) >= 3 and sum(map(_hangul, words)) >= LINE_SYLLABLES


def _hangul(text: str) -> int:
    """How many Korean syllables a text has."""
    return 0 if text.isascii() else len(_HANGUL.findall(text))
