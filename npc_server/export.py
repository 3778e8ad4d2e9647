"""Training data: consented transcripts as the chat JSONL that trainers read.

A conversation is exported only if every player in it allows training now, and has allowed it
without a break since before the first word. What was said earlier would stand in the NPC's answers
too, so a conversation is taken as a whole or not at all.

Prompts are laid out as the server lays them out, from what the NPC heard and from its persona as it
is now. Only replies that were heard whole are examples.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from npc_server.config import Settings
from npc_server.conversation.audience import heard_by, was_cut
from npc_server.conversation.model import Conversation, Member, Turn
from npc_server.errors import ConfigError, NotFound
from npc_server.library import Library
from npc_server.persona import Persona
from npc_server.prompt import Message, Prompt, PromptInput, gather, lay_out, texts_to_count
from npc_server.prompt.layout import OVERHEAD
from npc_server.prompt.persona_text import RECENT
from npc_server.store import Consent, Store, open_beside

PLACEHOLDER = "Player"
BYTES_PER_TOKEN = 4
"""Roughly, over languages and vocabularies: tokens are estimated, for no model is loaded."""
UNBOUNDED = 1 << 40

Row = dict[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """What is exported, and how.

    Attributes:
        kind: Whole conversations to learn from, or pairs of a better and a worse reply.
        world: The playthrough.
        npcs: Ids of personas; empty means all.
        min_turns: Conversations in which the NPC gave fewer replies are left out.
        held_out: The share of conversations kept apart to test with, from 0 to 1.
        keep_names: Whether players keep their names.
        context: Tokens of the model's context.
    """

    kind: Literal["sft", "preferences"]
    world: str = "default"
    npcs: frozenset[str] = frozenset()
    min_turns: int = 1
    held_out: float = 0.0
    keep_names: bool = False
    context: int = 2048


@dataclass(slots=True)
class Report:
    """What became of it.

    Attributes:
        conversations: How many there are in the world.
        exported: How many of them are in the data.
        rows: Lines of the data.
        replies: Replies of NPCs in them that a model learns from.
        tokens: Of the lines, roughly.
        skipped: Why conversations and replies were left out.
    """

    conversations: int = 0
    exported: int = 0
    rows: int = 0
    replies: int = 0
    tokens: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Example:
    """One line of the data.

    Attributes:
        row: The JSON object.
        held_out: Whether it is to be kept apart.
    """

    row: Row
    held_out: bool


async def run(
    settings: Settings,
    library: Library,
    choice: Choice,
    write: Callable[[Example], None],
    report: Report,
    progress: Progress,
) -> None:
    """Export from the store of the settings: beside a running server, or without one.

    Raises:
        SetupError: There are no conversations at the data folder, or it cannot be used.
        StoreUnavailable: Redis does not answer.
    """
    async with open_beside(settings, owner="export") as store:
        async for example in examples(store, library, choice, report, progress):
            write(example)


@contextmanager
def writing(out: Path | None, *, apart: bool) -> Iterator[Callable[[Example], None]]:
    """What takes the lines: to a file, which is there only once it is whole, or to the output.

    Args:
        out: The file; ``None`` is the standard output.
        apart: Whether what is held out goes to a second file, named by ``held_out_file``.

    Raises:
        ConfigError: A file cannot be written.
    """
    if out is None:
        yield lambda example: _write(sys.stdout.buffer, example)
        return
    targets = [out, held_out_file(out)] if apart else [out]
    parts = [target.with_name(f"{target.name}.part") for target in targets]
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(part.open("wb")) for part in parts]
            yield lambda example: _write(files[example.held_out], example)
        for part, target in zip(parts, targets, strict=True):
            part.replace(target)
    except OSError as error:
        raise ConfigError(f"Cannot write {out}: {error.strerror or error}.") from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def held_out_file(out: Path) -> Path:
    """Where the conversations go that are kept apart: beside the others, ``.heldout`` added."""
    return out.with_name(f"{out.stem}.heldout{out.suffix}")


def summary(report: Report) -> list[tuple[str, str]]:
    """The report, line by line."""
    return [
        ("conversations", f"{report.conversations}"),
        ("of them exported", f"{report.exported}"),
        ("examples (lines)", f"{report.rows}"),
        ("replies in them", f"{report.replies}"),
        ("tokens, about", f"{report.tokens}"),
        *((f"left out, {why}", f"{count}") for why, count in sorted(report.skipped.items())),
    ]


async def examples(
    store: Store, library: Library, choice: Choice, report: Report, progress: Progress
) -> AsyncIterator[Example]:
    """The lines of a world's data, one conversation after another in the order of their ids.

    Args:
        store: Where the conversations are; nothing is changed there.
        library: The personas as they are now.
        choice: What is wanted.
        report: Is filled in.
        progress: Is told how many conversations of how many are done.

    Raises:
        NewerRecord: A newer server wrote one of them.
        StoreUnavailable: Redis does not answer.
    """
    ids = await store.conversations(choice.world)
    report.conversations = len(ids)
    names = {persona.id: persona.name for persona in library.all()}
    for done, conversation in enumerate(ids, start=1):
        state = await _consented(store, choice.world, conversation, report)
        if state is not None:
            rows = list(_rows(state, library, names, choice, report))
            apart = held_out(choice.world, conversation, choice.held_out)
            report.exported += bool(rows)
            for row in rows:
                yield Example(row, apart)
        progress(done, len(ids))


def refusal(state: Conversation, consents: Mapping[str, Consent | None]) -> str | None:
    """Why a conversation may not be exported; ``None`` where it may.

    Args:
        state: With every turn that is kept.
        consents: What each of its players allows now, by namespaced id.
    """
    players = {member.id: member for member in state.members if member.kind == "player"}
    given = [consents.get(player.ref) for player in players.values()]
    spoke = {turn.speaker for turn in state.turns if turn.kind == "say"}
    allowed = [consent.training_ms for consent in given if consent is not None]
    if not allowed or len(allowed) < len(given) or not spoke <= players.keys():
        return "conversation: no consent"
    moments = [turn.at_ms for turn in state.turns]
    if not moments:
        return "conversation: nothing was said"
    # Of a long one the first turns are gone; what stands in the rest of them was said since then.
    begun = min(moments) if state.turns[0].index == 0 else state.created_ms
    return "conversation: begun without consent" if begun < max(allowed) else None


def flaw(turn: Turn, persona: Persona) -> str | None:
    """Why a model should not learn from a reply; ``None`` where it may."""
    if was_cut(turn):
        return "reply: cut off"
    if turn.finish != "stop":
        return f"reply: ended by {turn.finish}"
    if turn.degraded or turn.text in {"…", *persona.refusals}:
        return "reply: a written line stood in for it"
    return None


def conversation_rows(given: PromptInput, room: int, skipped: Counter[str]) -> list[list[Message]]:
    """A conversation as the NPC lived it, in lines of at most about ``room`` tokens.

    Trainers learn from every message of the assistant. So a reply with a flaw goes out together
    with what it answers, and so does the persona's example dialogue, which would be learnt by heart
    from every line. The state of things that stood behind a player's words at the time is there.

    Args:
        given: With what the NPC heard, replies that stand only.
        room: Tokens of one line; a conversation that is longer takes several.
        skipped: Counts the replies that are left out.
    """
    bare = replace(given, persona=given.persona.model_copy(update={"examples": ()}))
    system = _laid_out(replace(bare, turns=()), UNBOUNDED).messages[0]
    lines: list[list[Message]] = []
    free = 0
    exchanges = list(_exchanges(bare, skipped))
    if all(reply.answers is None for _, reply in exchanges):
        return []  # A greeting alone was written, not made.
    for asked, reply in exchanges:
        answer = Message("assistant", spoken(reply, given.persona))
        cost = _tokens(asked) + _tokens(answer)
        if not lines or cost > free:
            lines.append([system])
            free = room - _tokens(system)
        lines[-1] += [asked, answer]
        free -= cost
    return lines


def preference_pairs(
    given: PromptInput, turns: Sequence[Turn], room: int, skipped: Counter[str]
) -> Iterator[tuple[Prompt, Turn, Turn]]:
    """The prompt, the reply that was kept and one that it replaced, for each of these.

    Args:
        given: With what the NPC heard, replies that stand only.
        turns: All of the conversation, replaced replies too.
        room: Tokens of the prompt.
        skipped: Counts the pairs that are left out.
    """
    kept = {turn.id: turn for turn in given.turns}
    following = {turn.id: turn.replaced_by for turn in turns}
    for rejected in heard_by(turns, given.speaker.id, replaced=True):
        if rejected.replaced_by is None or rejected.speaker != given.speaker.id:
            continue
        last: str = rejected.id
        while (after := following.get(last)) is not None:
            last = after
        chosen = kept.get(last)
        if chosen is None:
            skipped["pair: nothing was said in its place"] += 1
        elif (why := flaw(chosen, given.persona) or flaw(rejected, given.persona)) is not None:
            skipped[why.replace("reply", "pair")] += 1
        elif chosen.text == rejected.text:
            skipped["pair: twice the same"] += 1
        else:
            before = tuple(turn for turn in given.turns if turn.index < chosen.index)
            yield _laid_out(replace(given, turns=before), room), chosen, rejected


def spoken(turn: Turn, persona: Persona) -> str:
    """A reply as the model wrote it: its gestures stand between asterisks where they were made.

    A gesture without a name in the persona's language is left out.
    """
    native = persona.languages[0].split("-")[0] == "en"
    text = turn.text
    for gesture in sorted(turn.gestures, key=lambda g: g.at_char, reverse=True):
        if native or gesture.name in persona.gestures:
            before, after = text[: gesture.at_char], text[gesture.at_char :]
            words = f"*{gesture.name.replace('_', ' ')}*"
            text = " ".join(part for part in (before.rstrip(), words, after.lstrip()) if part)
    return text.strip()


def placeholders(cast: Iterable[Member], *, keep_names: bool = False) -> dict[str, str]:
    """What stands for the names of players, by member: Player, Player 2 ...

    A player without a name is called by its id, which is never exported.
    """
    players = enumerate((m for m in cast if m.kind == "player"), start=1)
    return {
        m.id: PLACEHOLDER if n == 1 else f"{PLACEHOLDER} {n}"
        for n, m in players
        if not keep_names or m.name == m.id
    }


def hiding(cast: Iterable[Member], stand_ins: Mapping[str, str]) -> Callable[[str], str]:
    """What puts placeholders for the names and ids of players into a text.

    The words of a name count too, where they are long enough to be one. What else players tell of
    themselves nobody can find: look through the data.
    """
    npcs = {member.name.casefold() for member in cast if member.kind == "npc"}
    found: dict[str, str] = {}
    for player in (member for member in cast if member.id in stand_ins):
        words = [player.name] if len(player.name) > 1 else []
        words += [word for word in (player.id, *player.name.split()) if _is_a_name(word)]
        found |= {w.casefold(): stand_ins[player.id] for w in words if w.casefold() not in npcs}
    if not found:
        return lambda text: text
    longest = sorted(found, key=len, reverse=True)
    pattern = re.compile("|".join(map(_whole, longest)), re.IGNORECASE)
    return lambda text: pattern.sub(lambda hit: found.get(hit[0].casefold(), PLACEHOLDER), text)


def held_out(world: str, conversation: str, share: float) -> bool:
    """Whether a conversation is kept apart: by its name alone, so that it always is."""
    digest = hashlib.sha256(f"{world}\0{conversation}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


async def _consented(
    store: Store, world: str, conversation: str, report: Report
) -> Conversation | None:
    state = await store.load(world, conversation)
    if state is None:  # it was forgotten meanwhile
        return None
    turns = await store.turns_before(state, state.next, UNBOUNDED)
    state = replace(state, turns=tuple(turns))
    # Asked for last: what is taken back now still counts.
    players = [member.ref for member in state.members if member.kind == "player"]
    consents = {player: await store.consent(world, player) for player in players}
    why = refusal(state, consents)
    if why is not None:
        report.skipped[why] += 1
    return None if why else state


def _rows(
    state: Conversation,
    library: Library,
    names: Mapping[str, str],
    choice: Choice,
    report: Report,
) -> Iterator[Row]:
    for npc in state.npc_members():
        if choice.npcs and npc.ref not in choice.npcs:
            report.skipped["conversation: another NPC"] += 1
            continue
        try:
            persona = library.get(npc.ref)
        except NotFound:
            report.skipped["conversation: its persona is gone"] += 1
            continue
        turns = heard_by(state.turns, npc.id)
        if sum(t.speaker == npc.id and t.answers is not None for t in turns) < choice.min_turns:
            report.skipped["conversation: too short"] += 1
            continue
        stand_ins = placeholders(state.members, keep_names=choice.keep_names)
        cast = tuple(replace(m, name=stand_ins.get(m.id, m.name)) for m in state.members)
        given = PromptInput(persona, npc, cast, turns, state.locale, names=names)
        hide = hiding(state.members, stand_ins)
        yield from _rows_of(given, state, hide, choice, report)


def _rows_of(
    given: PromptInput,
    state: Conversation,
    hide: Callable[[str], str],
    choice: Choice,
    report: Report,
) -> Iterator[Row]:
    persona = given.persona

    def chat(messages: Iterable[Message]) -> list[dict[str, str]]:
        told = [Message(m.role, m.text if m.role == "system" else hide(m.text)) for m in messages]
        report.tokens += sum(map(_tokens, told))
        return [{"role": message.role, "content": message.text} for message in told]

    if choice.kind == "sft":
        for line in conversation_rows(given, choice.context, report.skipped):
            report.rows += 1
            report.replies += sum(message.role == "assistant" for message in line)
            yield {"messages": chat(line)}
        return
    room = choice.context - min(persona.sampling.max_tokens, choice.context // 3)
    for prompt, *pair in preference_pairs(given, state.turns, room, report.skipped):
        chosen, rejected = (chat([Message("assistant", spoken(t, persona))]) for t in pair)
        report.rows += 1
        report.replies += 2
        yield {"prompt": chat(prompt.messages), "chosen": chosen, "rejected": rejected}


def _exchanges(given: PromptInput, skipped: Counter[str]) -> Iterator[tuple[Message, Turn]]:
    """Each flawless reply, and the message of the user that it answers."""
    following = 0
    for at, turn in enumerate(given.turns):
        if turn.speaker != given.speaker.id:
            continue
        why = flaw(turn, given.persona)
        if why is None:
            recent = given.turns[max(0, following - RECENT) : at]
            yield _laid_out(replace(given, turns=recent), UNBOUNDED).messages[-1], turn
        else:
            skipped[why] += 1
        following = at + 1


def _laid_out(given: PromptInput, room: int) -> Prompt:
    material = gather(given)
    counts = {text: _size(text) for text in texts_to_count(material)}
    return lay_out(material, room, counts)


def _write(file: BinaryIO, example: Example) -> None:
    file.write(orjson.dumps(example.row, option=orjson.OPT_APPEND_NEWLINE))


def _tokens(message: Message) -> int:
    return _size(message.text) + OVERHEAD


def _size(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def _is_a_name(word: str) -> bool:
    return len(word) >= (4 if word.isascii() else 2)


def _whole(name: str) -> str:
    """A pattern of a name as a word; in scripts without spaces something may hang on its end."""
    end = r"(?!\w)" if name[-1].isascii() else ""
    return rf"(?<!\w){re.escape(name)}{end}"
