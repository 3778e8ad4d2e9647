"""Lays a prompt out within its budget.

Three zones: the system message, which stays the same from turn to turn; example dialogue and the
history, which only grow at their end; and, folded into the last user message behind the player's
words, what holds just now. A model that keeps what it has read reads little anew.

Where there is no room, these go, in this order: example dialogue (half, then all of it); the
history from its oldest turn, in blocks of ``BLOCK`` turns, so that most turns find the same
beginning, then turn by turn; sections in the order of falling rank, as far as they are too big for
what the more important ones leave; the end of the newest turn.
The name, the rules and a word of the newest turn always stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from npc_server.prompt.history import example_lines, history_lines, messages_of
from npc_server.prompt.messages import Message
from npc_server.prompt.model import Dropped, Line, Placed, Prompt, PromptInput, Section
from npc_server.prompt.persona_text import fixed_sections, tail_sections
from npc_server.prompt.phrases import phrases_for
from npc_server.protocol.text import cut

BLOCK = 8
"""The history is shortened by so many turns at a time."""

JOIN = 1
"""Tokens allowed for the line break between two texts of one message."""

OVERHEAD = 8
"""Tokens allowed for what a chat template puts around one message."""

TAIL_SHARE = 4
"""What holds just now takes at most one part in so many of the budget."""

ELLIPSIS = "…"
"""Stands where the newest turn was cut for want of room."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a prompt is laid out from; see ``gather``."""

    fixed: tuple[Section, ...]
    examples: tuple[Line, ...]
    history: tuple[Line, ...]
    tail: tuple[Section, ...]
    arrives: Line
    earlier: Line


def gather(given: PromptInput) -> Material:
    """The sections and lines of which a prompt may be made."""
    say = phrases_for(given.persona.languages[0])
    players = [
        m.name
        for m in given.cast
        if m.kind == "player" and (given.here is None or m.id in given.here)
    ]
    arrives = say.arrives.format(name=", ".join(players) or say.someone)
    history = history_lines(given)
    if not history or history[-1].own:
        cue = say.your_turn if history else arrives
        history = (*history, Line("cue", cue, own=False, index=len(given.turns)))
    return Material(
        fixed=fixed_sections(given),
        examples=example_lines(given),
        history=history,
        tail=tail_sections(given),
        arrives=Line("cue", arrives, own=False, index=-1),
        earlier=Line("cue", say.earlier, own=False, index=-1),
    )


def texts_to_count(material: Material) -> tuple[str, ...]:
    """Every text whose tokens ``lay_out`` needs to know, each once."""
    parts: tuple[Section | Line, ...] = (
        *material.fixed,
        *material.examples,
        *material.history,
        *material.tail,
        material.arrives,
        material.earlier,
    )
    return tuple(dict.fromkeys(part.text for part in parts))


def lay_out(
    material: Material, budget: int, counts: Mapping[str, int], *, overhead: int = OVERHEAD
) -> Prompt:
    """The prompt that fits.

    Args:
        material: What it is made from.
        budget: How many tokens the prompt may take: the model's context less the reply.
        counts: Tokens of each of ``texts_to_count(material)``.
        overhead: Tokens that the template puts around each message.

    Returns:
        A prompt whose ``tokens`` are within the budget, as long as the name, the rules and a cut
        newest turn are. The sum of counts is near the truth, not the truth: count the rendered
        prompt once and lay out again with the budget that ``shrink`` gives.
    """
    newest = material.history[-1]
    ruler = _Ruler(counts, overhead)
    tail = _within_share(material.tail, budget // TAIL_SHARE, ruler)
    fits = _fit(material.fixed, tail, budget - ruler.line(newest), ruler)
    fixed = tuple(s for s in material.fixed if s in fits)
    tail = tuple(s for s in tail if s in fits)
    room = budget - ruler.sections(fits)
    start = _first_turn(material, room, ruler)
    history = _opened(material, material.history[start:], dropped=start > 0)
    examples = () if start else _examples(material, room - ruler.dialogue(history), ruler)
    newest, cut_chars = _cut_newest(newest, room, ruler) if len(history) == 1 else (newest, 0)
    lines = (*examples, *history[:-1], newest)
    dropped = Dropped(
        examples=(len(material.examples) - len(examples)) // 2,
        turns=len({line.index for line in material.history[:start]}),
        sections=tuple(s.source for s in (*material.fixed, *material.tail) if s not in fits),
        cut_chars=cut_chars,
    )
    return _assemble(fixed, lines, tail, dropped, ruler)


def shrink(counted: int, total: int, allowed: int) -> int:
    """The budget with which to lay out again a prompt that was counted too low.

    Args:
        counted: The prompt's ``tokens``.
        total: What the whole rendered prompt really takes; more than ``allowed``.
        allowed: What it may take.

    Returns:
        A smaller budget, by half more than what was over; at least 0.
    """
    over = max(total - allowed, 1)
    return max(0, counted - over - over // 2 - 1)


class _Ruler:
    """Counts tokens of texts that were counted before."""

    def __init__(self, counts: Mapping[str, int], overhead: int) -> None:
        self.counts = counts
        self.overhead = overhead

    def line(self, line: Line) -> int:
        return self.counts[line.text] + JOIN

    def sections(self, sections: Sequence[Section]) -> int:
        """The sections' tokens, with what the system message and the last one take besides."""
        return 2 * self.overhead + sum(self.counts[s.text] + JOIN for s in sections)

    def dialogue(self, lines: Sequence[Line]) -> int:
        """The lines' tokens, and what the template puts around all messages but the last."""
        borders = sum(a.own != b.own for a, b in pairwise(lines))
        return borders * self.overhead + sum(self.line(line) for line in lines)


def _within_share(tail: Sequence[Section], room: int, ruler: _Ruler) -> tuple[Section, ...]:
    kept: list[Section] = []
    for section in sorted(tail, key=_rank):
        cost = ruler.counts[section.text] + JOIN
        if cost <= room:
            kept.append(section)
            room -= cost
    return tuple(s for s in tail if s in kept)


def _fit(
    fixed: Sequence[Section], tail: Sequence[Section], room: int, ruler: _Ruler
) -> tuple[Section, ...]:
    """The sections that fit, the lowest ranks first; rank 0 in any case."""
    kept = [s for s in fixed if s.rank == 0]
    for section in sorted((*fixed, *tail), key=_rank):
        if section.rank and ruler.sections((*kept, section)) <= room:
            kept.append(section)
    return tuple(s for s in (*fixed, *tail) if s in kept)


def _first_turn(material: Material, room: int, ruler: _Ruler) -> int:
    """The position of the oldest turn that stays."""
    history = material.history
    last = len(history) - 1
    turns = [at for at in range(1, last + 1) if history[at].index != history[at - 1].index]
    blocks = [at for at in turns if history[at].index % BLOCK == 0]
    newest_block = blocks[-1] if blocks else 0
    starts: list[int] = [0, *blocks, *(at for at in turns if newest_block < at < last)]
    costs = _costs_from(history, ruler)
    for start in starts:
        opening = _opened(material, history[start : start + 1], dropped=start > 0)[:-1]
        extra = sum(ruler.line(line) + ruler.overhead for line in opening)
        if costs[start] + extra <= room:
            return start
    return last


def _costs_from(history: Sequence[Line], ruler: _Ruler) -> list[int]:
    """For each line, what ``_Ruler.dialogue`` makes of it and all that follow."""
    costs = [0] * len(history)
    for at in reversed(range(len(history))):
        costs[at] = ruler.line(history[at])
        if at + 1 < len(history):
            border = history[at].own != history[at + 1].own
            costs[at] += costs[at + 1] + border * ruler.overhead
    return costs


def _opened(material: Material, lines: Sequence[Line], *, dropped: bool) -> tuple[Line, ...]:
    """The lines, begun by somebody else's: templates want it so."""
    if not lines[0].own:
        return tuple(lines)
    return (material.earlier if dropped else material.arrives, *lines)


def _examples(material: Material, room: int, ruler: _Ruler) -> tuple[Line, ...]:
    examples = material.examples
    half = len(examples) // 4 * 2
    for kept in (examples, examples[:half]):
        if kept and ruler.dialogue(kept) + ruler.overhead <= room:
            return kept
    return ()


def _cut_newest(line: Line, room: int, ruler: _Ruler) -> tuple[Line, int]:
    """The newest line, cut so that it takes about ``room`` tokens; at least one code point."""
    count = ruler.counts[line.text]
    if count + JOIN <= room:
        return line, 0
    length = len(line.text) * max(0, room - JOIN - 1) // max(count, 1)
    kept = cut(line.text, length) or line.text[:1]
    if len(kept) >= len(line.text):
        return line, 0
    text = kept.rstrip() + ELLIPSIS
    return Line(line.source, text, line.own, line.index), len(line.text) - len(kept)


def _assemble(
    fixed: Sequence[Section],
    lines: Sequence[Line],
    tail: Sequence[Section],
    dropped: Dropped,
    ruler: _Ruler,
) -> Prompt:
    spoken = messages_of(lines)
    last = "\n".join((spoken[-1].text, *(s.text for s in tail)))
    messages = (
        Message("system", "\n".join(s.text for s in fixed)),
        *spoken[:-1],
        Message("user", last),
    )
    parts: tuple[Section | Line, ...] = (*fixed, *lines, *tail)
    placed = tuple(_placed(part, ruler) for part in parts)
    guard = "\n".join(s.text for s in (*fixed, *tail) if s.guarded)
    tokens = sum(p.tokens + JOIN for p in placed) + ruler.overhead * len(messages)
    return Prompt(messages, dropped, placed, guard, tokens)


def _rank(section: Section) -> int:
    return section.rank


def _placed(part: Section | Line, ruler: _Ruler) -> Placed:
    return Placed(part.source, part.text, ruler.counts.get(part.text, 0))
