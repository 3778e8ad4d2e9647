"""A prompt always fits, and what goes first is what matters least."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from npc_server.conversation.model import Member, Turn
from npc_server.persona.model import Example, Knowledge, Persona, Secret
from npc_server.prompt import Message, Prompt, PromptInput, gather, lay_out, shrink, texts_to_count
from npc_server.prompt.layout import BLOCK, ELLIPSIS, OVERHEAD

BRAM = Member("bram", "npc", "Bram", "bram")
ANNA = Member("anna", "player", "Anna", "key/anna")
OPTIONAL = {
    *("persona.description", "persona.personality", "persona.speech", "persona.scenario"),
    *("persona.knowledge", "persona.secrets", "cast.player", "tail.facts", "tail.knowledge"),
}

Counter = Callable[[str], int]


def words(text: str) -> int:
    return len(text.split())


def persona(size: int = 5, examples: int = 2) -> Persona:
    prose = "word " * size
    return Persona(
        id="bram",
        name="Bram",
        summary="s",
        description=prose,
        personality=prose,
        speech=prose,
        scenario=prose,
        knowledge=(Knowledge(text="a fact " * 5), Knowledge(text="key fact", keys=("turn",))),
        secrets=(Secret(text="a secret"),),
        examples=(Example(player="Hi there", npc="Aye, hello"),) * examples,
    )


def history(count: int, size: int = 3, newest: int = 3) -> tuple[Turn, ...]:
    """Turns of a player and Bram in turn, the newest by the player."""
    return tuple(
        Turn(
            id=str(index),
            index=index,
            kind="say" if (count - index) % 2 else "reply",
            speaker="anna" if (count - index) % 2 else "bram",
            to=(),
            hearers=(),
            text=("turn " * (newest if index == count - 1 else size)).strip(),
            at_ms=0,
        )
        for index in range(count)
    )


def asked(
    who: Persona, turns: tuple[Turn, ...], facts: dict[str, str] | None = None
) -> PromptInput:
    return PromptInput(who, BRAM, (BRAM, ANNA), turns, None, facts or {})


def laid_out(made: PromptInput, budget: int, count: Counter = words) -> Prompt:
    material = gather(made)
    return lay_out(material, budget, {text: count(text) for text in texts_to_count(material)})


def floor(made: PromptInput) -> int:
    return laid_out(made, 0).tokens


@given(
    size=st.integers(1, 300),
    examples=st.integers(0, 6),
    turns=st.integers(0, 40),
    newest=st.integers(1, 400),
    budget=st.integers(0, 2000),
    facts=st.dictionaries(st.text("ab", min_size=1), st.text("cd "), max_size=3),
)
def test_a_prompt_fits(
    size: int, examples: int, turns: int, newest: int, budget: int, facts: dict[str, str]
) -> None:
    """Over all sizes the counted tokens are within the budget, or nothing more could go."""
    made = asked(persona(size, examples), history(turns, newest=newest), facts)
    prompt = laid_out(made, budget)
    assert prompt.tokens <= max(budget, floor(made))
    assert prompt.messages[0].role == "system"
    assert prompt.messages[-1].role == "user"
    assert all(message.text for message in prompt.messages)
    roles = [message.role for message in prompt.messages[1:]]
    assert roles == [("user", "assistant")[at % 2] for at in range(len(roles))]
    gone = prompt.dropped
    if gone.turns:
        assert gone.examples == examples
    if gone.cut_chars:
        assert gone.turns == max(0, turns - 1)
        assert OPTIONAL.intersection(gone.sections)


def rendered(messages: Sequence[Message], count: Counter, overhead: int) -> int:
    return sum(count(message.text) + overhead for message in messages)


@given(
    size=st.integers(1, 300),
    turns=st.integers(0, 30),
    newest=st.integers(1, 400),
    allowed=st.integers(400, 2000),
    overhead=st.integers(0, 40),
    weights=st.lists(st.integers(0, 4), min_size=7, max_size=7).filter(any),
)
def test_counting_again_ends(
    size: int, turns: int, newest: int, allowed: int, overhead: int, weights: list[int]
) -> None:
    """Whatever a tokenizer and a template do, laying out again ends within twelve attempts."""

    def odd(text: str) -> int:
        return sum(weights[ord(char) % 7] for char in text) // 4

    made = asked(persona(size), history(turns, newest=newest))
    least = rendered(laid_out(made, 0, odd).messages, odd, overhead)
    allowed = max(allowed, least)
    budget = allowed
    for _ in range(12):
        prompt = laid_out(made, budget, odd)
        total = rendered(prompt.messages, odd, overhead)
        if total <= allowed:
            break
        smaller = shrink(prompt.tokens, total, allowed)
        assert 0 <= smaller < max(budget, prompt.tokens)
        budget = smaller
    assert total <= allowed


def test_nothing_goes_while_there_is_room() -> None:
    """With room for everything nothing is dropped."""
    prompt = laid_out(asked(persona(), history(30)), 5000)
    assert prompt.dropped.as_dict() == {"examples": 0, "turns": 0, "sections": [], "cut_chars": 0}


def test_examples_go_by_halves_and_before_history() -> None:
    """Shrinking the budget drops half of the examples, then all, then turns of the history."""
    made = asked(persona(examples=4), history(20))
    whole = laid_out(made, 5000).tokens
    seen = [laid_out(made, budget).dropped for budget in range(whole, whole // 2, -1)]
    assert list(dict.fromkeys(gone.examples for gone in seen)) == [0, 2, 4]
    assert all(gone.examples == 4 for gone in seen if gone.turns)
    assert any(gone.turns for gone in seen)


def test_history_goes_in_blocks() -> None:
    """As a conversation grows, its oldest kept turn moves in whole blocks."""
    starts = [laid_out(asked(persona(), history(n)), 300).dropped.turns for n in range(1, 60)]
    assert starts == sorted(starts)
    assert all(start % BLOCK == 0 for start in starts)
    assert len(set(starts)) < len(starts) / 4


def test_a_tight_budget_breaks_the_last_block() -> None:
    """Where not even one block fits, single turns of it go."""
    made = asked(persona(1, 0), history(8, size=20))
    tokens = laid_out(made, 5000).tokens
    assert 0 < laid_out(made, tokens - 1).dropped.turns < BLOCK


def test_dropped_talk_is_hinted_at() -> None:
    """Where the kept history would begin with the NPC's own words, a cue stands before them."""
    prompt = laid_out(asked(persona(1, 0), history(9)), 180)
    assert prompt.dropped.turns == BLOCK
    wanting = laid_out(asked(persona(1, 0), history(10)), 200)
    assert wanting.dropped.turns == BLOCK
    assert wanting.messages[1].text == "[You have been talking for a while.]"


def test_the_newest_words_are_cut_last() -> None:
    """A text longer than the budget is cut at its end, and marked; all else has gone before."""
    made = asked(persona(50), history(5, newest=2000))
    prompt = laid_out(made, 600)
    assert prompt.tokens <= 600
    assert set(prompt.dropped.sections) == OPTIONAL - {"tail.facts"}
    assert prompt.dropped.turns == 4
    assert prompt.messages[-1].text.endswith(ELLIPSIS)
    assert prompt.dropped.cut_chars == 2000 * 5 - len(prompt.messages[-1].text)


def test_one_character_cannot_be_cut() -> None:
    """The shortest text stays whole even where nothing fits."""
    turn = Turn("0", 0, "say", "anna", (), (), "?", 0)
    prompt = laid_out(asked(persona(), (turn,)), 0)
    assert (prompt.messages[-1].text, prompt.dropped.cut_chars) == ("?", 0)


def test_what_holds_now_takes_no_more_than_its_share() -> None:
    """Facts beyond a quarter of the budget stay out, so that they cannot push out the rest."""
    made = asked(persona(), history(3), {"story": "long " * 200})
    prompt = laid_out(made, 600)
    assert prompt.dropped.sections == ("tail.facts",)


def test_an_unchanged_beginning_is_kept_from_turn_to_turn() -> None:
    """All messages but the last are the same in the next prompt, so that a cache finds them."""
    turns = history(9)
    before = laid_out(asked(persona(), turns[:7]), 5000).messages
    after = laid_out(asked(persona(), turns), 5000).messages
    assert after[: len(before) - 1] == before[:-1]
    assert after[len(before) - 1].text.split("\n")[0] == before[-1].text.split("\n")[0]


def test_overhead_is_counted_for_each_message() -> None:
    """What a template puts around messages is part of the prompt's tokens."""
    made = asked(persona(), history(5))
    material = gather(made)
    counts = {text: words(text) for text in texts_to_count(material)}
    bare, full = lay_out(material, 5000, counts, overhead=0), lay_out(material, 5000, counts)
    assert full.tokens - bare.tokens == OVERHEAD * len(full.messages)
