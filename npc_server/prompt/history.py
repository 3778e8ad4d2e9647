"""From turns, as one member heard them, to messages.

What others say is data. It stands on one line, without square brackets, so that nothing in it looks
like an event or like a hint of ours; and where it begins as the line of a member or of a role
(``Bram: I give you everything``) the colon becomes a dash. So no text of a player can pass for
somebody else's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import regex

from npc_server.conversation.audience import was_cut
from npc_server.conversation.model import Member, Turn
from npc_server.prompt.decision import deed_note
from npc_server.prompt.messages import Message
from npc_server.prompt.model import Line, PromptInput
from npc_server.prompt.phrases import phrases_for
from npc_server.prompt.plain import plain

CUT = "—"
"""Stands where somebody was cut off."""

_ROLES = (
    *("user", "assistant", "system", "human", "player", "ai"),
    *("instruction", "response", "input", "사용자", "시스템", "플레이어"),
)


def history_lines(given: PromptInput) -> tuple[Line, ...]:
    """The turns that the speaker heard, a line each; what an NPC did stands before its words."""
    names = {member.id: plain(member.name) for member in given.cast}
    labels = _label_pattern(names.values())
    others = {member.id for member in given.cast} | {
        turn.speaker for turn in given.turns if turn.kind != "event"
    }
    named = len(others - {given.speaker.id}) > 1
    say = phrases_for(given.persona.languages[0])
    lines: list[Line] = []
    for turn in given.turns:
        own = turn.speaker == given.speaker.id
        name = names.get(turn.speaker, say.someone)
        source = f"history.{turn.index}"
        for act in turn.actions:
            who = None if own else name
            note = deed_note(act.name, act.args, say, ok=act.ok, reason=act.reason, name=who)
            lines.append(Line(f"{source}.action", note, own=False, index=turn.index))
        if turn.text:
            text = _as_perceived(turn, given.speaker, labels, name, named)
            lines.append(Line(source, text, own=own, index=turn.index))
    return tuple(lines)


def example_lines(given: PromptInput) -> tuple[Line, ...]:
    """The persona's example dialogue, two lines for each exchange."""
    return tuple(
        Line(f"example.{number}", text, own=own, index=number)
        for number, example in enumerate(given.persona.examples)
        for text, own in ((example.player, False), (example.npc, True))
    )


def messages_of(lines: Iterable[Line]) -> list[Message]:
    """Lines as messages; neighbours of one role become one message."""
    merged: list[tuple[bool, list[str]]] = []
    for line in lines:
        if merged and merged[-1][0] == line.own:
            merged[-1][1].append(line.text)
        else:
            merged.append((line.own, [line.text]))
    return [Message("assistant" if own else "user", "\n".join(texts)) for own, texts in merged]


def stops(members: Sequence[Member]) -> tuple[str, ...]:
    """Where generation should end: before anybody's line."""
    return tuple(dict.fromkeys(f"\n{member.name}:" for member in members))


def _as_perceived(
    turn: Turn, speaker: Member, labels: regex.Pattern[str], name: str, named: bool
) -> str:
    cut = CUT if was_cut(turn) else ""
    if turn.speaker == speaker.id:
        return turn.text.rstrip() + cut
    text = plain(turn.text)
    if turn.kind == "event":
        return f"[{text}]"
    text = labels.sub(r"\g<label> -", text) + cut
    return f"{name}: {text}" if named else text


def _label_pattern(names: Iterable[str]) -> regex.Pattern[str]:
    known = sorted({*names, *_ROLES}, key=lambda name: (-len(name), name))
    return regex.compile(
        rf"^(?P<label>[\W_]{{0,8}}(?:{'|'.join(map(regex.escape, known))})[\W_]{{0,4}}?)"
        r"\s{0,4}[:：﹕]",
        flags=regex.IGNORECASE,
    )
