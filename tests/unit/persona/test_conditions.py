"""Conditions say what they mean, and nothing that is typed can do harm."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from npc_server.persona.conditions import MAX_CHARACTERS, MAX_DEPTH, ConditionError, parse

FACTS: dict[str, Any] = {
    "quest.dragon_dead": True,
    "player.class": "mage",
    "player.gold": 12,
    "half": 0.5,
    "empty": "",
    "zero": 0,
    "no": False,
    "nothing": None,
    "list": [1],
    "호랑이.배고픔": 3,
    "mill-door": "open",
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("quest.dragon_dead", True),
        ("not quest.dragon_dead", False),
        ("player.class == 'mage' and player.gold >= 12", True),
        ('player.class in ["thief", "mage"]', True),
        ("player.class in ['thief']", False),
        ("player.gold in [1, 12]", True),
        ("player.gold < 12 or player.gold > 12", False),
        ("player.gold != 12.0", False),
        ("half == 5e-1 and half <= .5", None),
        ("half == 5e-1", True),
        ("-1 < half", True),
        ("호랑이.배고픔 > 2", True),
        ("mill-door == 'open'", True),
        ("'apple' < 'pear'", True),
        ("empty or zero or no or nothing", False),
        ("list", True),
        ("true and not false", True),
        ("(player.gold > 5) == true", True),
        (" player.gold\n  > 5 ", True),
    ],
)
def test_what_a_condition_says(text: str, holds: bool | None) -> None:
    """Each part of the language; ``None`` is no condition."""
    if holds is None:
        with pytest.raises(ConditionError):
            parse(text)
    else:
        assert parse(text).holds(FACTS) is holds


@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">="])
@pytest.mark.parametrize("name", ["missing", "nothing"])
def test_a_missing_fact_is_false(name: str, sign: str) -> None:
    """So is every comparison with one, also that it differs; ``not`` makes true of it."""
    for text in (f"{name} {sign} 1", f"'a' {sign} {name}", f"{name} {sign} {name}"):
        assert not parse(text).holds(FACTS)
        assert parse(f"not ({text})").holds(FACTS)
    assert not parse(f"{name} in [1, 'a', false]").holds(FACTS)
    assert not parse(name).holds(FACTS)
    assert parse(f"not {name}").holds(FACTS)


def test_kinds_are_not_mixed() -> None:
    """What JSON tells apart is never equal, and has no order."""
    for text in ("quest.dragon_dead == 1", "zero == false", "player.gold == '12'", "empty == no"):
        assert not parse(text).holds(FACTS)
        assert parse(text.replace("==", "!=")).holds(FACTS)
    for text in ("player.class > 1", "player.class < 1", "quest.dragon_dead > no", "list >= 1"):
        assert not parse(text).holds(FACTS)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a or b and c", "a or (b and c)"),
        ("not a and b", "(not a) and b"),
        ("not a == b", "not (a == b)"),
        ("a and b or c and d", "(a and b) or (c and d)"),
        ("not not a", "a"),
    ],
)
@given(values=st.lists(st.sampled_from([True, False, 1, 0, "x"]), min_size=4, max_size=4))
def test_what_binds_tighter(text: str, same: str, values: list[Any]) -> None:
    """``or`` is the loosest, then ``and``, then ``not``, then comparisons."""
    facts = dict(zip("abcd", values, strict=True))
    assert parse(text).holds(facts) == parse(same).holds(facts)


def test_the_facts_that_it_reads() -> None:
    """Names of facts are told, words of the language and quoted text are not."""
    condition = parse("not a.b and (c in ['d', true] or e == 'f') and a.b")
    assert condition.names == {"a.b", "c", "e"}
    assert str(condition) == condition.text
    assert condition == parse(condition.text)


def test_composed_and_decomposed_letters_are_the_same_fact() -> None:
    """An author's editor may write letters apart that clients send as one."""
    assert parse("caf\u0065\u0301").names == {"caf\u00e9"}


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 1, "expected a value, found the end"),
        ("a b", 3, "expected 'and', 'or' or the end, found b"),
        ("a == ", 6, "expected a value, found the end"),
        ("a = 1", 3, "compare with '=='"),
        ("a && b", 3, "write 'and'"),
        ("!a", 1, "write 'not'"),
        ("a == True", 6, "write 'true'"),
        ("a == null", 6, "write 'not'"),
        ("호랑이 == 'a", 8, "the quote is not closed"),
        ("a < b < c", 7, "one comparison"),
        ("a not in [1]", 3, "'not' stands in front"),
        ("a in b", 6, "expected '[', found b"),
        ("a in []", 7, "expected a value, found ]"),
        ("a in [b]", 7, "expected a value, found b"),
        ("a in [1 2]", 9, "expected ']', found 2"),
        ("(a", 3, "expected ')', found the end"),
        ("5gold", 1, "cannot read 5"),
        ("a + 1", 3, "cannot read +"),
        ("open('x')", 5, "found ("),
        ("a.__class__[0]", 12, "found ["),
        ("a" * (MAX_CHARACTERS + 1), MAX_CHARACTERS + 1, "longer than 200"),
        ("not " * (MAX_DEPTH + 1) + "a", 4 * (MAX_DEPTH + 1) + 1, "nested too deeply"),
        ("(" * (MAX_DEPTH + 1) + "a", MAX_DEPTH + 2, "nested too deeply"),
    ],
)
def test_mistakes_are_found_to_the_character(text: str, position: int, says: str) -> None:
    """What is wrong is told with its place, counted in characters from 1."""
    with pytest.raises(ConditionError) as caught:
        parse(text)
    assert caught.value.position == position
    assert says in str(caught.value)
    assert str(caught.value).endswith(f"(at character {position})")


def test_as_deep_as_allowed() -> None:
    """The deepest and the widest conditions still work."""
    assert parse("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH).holds({"a": 1})
    assert parse("a" + " or a" * 39).holds({"a": 1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
PIECES = st.sampled_from(
    [*("and", "or", "not", "in", "true", "false", "a", "a.b", "b-1", "가", "_c", "'x'", '"'),
     *("(", ")", "[", "]", ",", "==", "!=", "<", ">=", "=", "1", "-2.5", "1e9", "9" * 60, "\0")]
)  # fmt: skip


@given(
    st.lists(PIECES, max_size=24).map(" ".join) | st.text(max_size=40),
    st.dictionaries(st.sampled_from(["a", "a.b", "b-1", "가", "_c"]), JSON),
)
def test_nothing_but_our_error_comes_out(text: str, facts: dict[str, Any]) -> None:
    """Whatever is typed, it is a condition that has an answer, or a mistake inside of the text."""
    position = position_of_mistake(text)
    if position is None:
        assert parse(text).holds(facts) in (True, False)
    else:
        assert 1 <= position <= len(unicodedata.normalize("NFC", text)) + 1


def position_of_mistake(text: str) -> int | None:
    try:
        parse(text)
    except ConditionError as error:
        return error.position
    return None


def written(tree: Any) -> str:
    """A tree of tuples in words, every part in parentheses."""
    match tree:
        case str(name):
            return name
        case ("not", inner):
            return f"not ({written(inner)})"
        case (left, word, right):
            return f"({written(left)}) {word} ({written(right)})"
    raise AssertionError(tree)


def truth(tree: Any, facts: dict[str, bool]) -> bool:
    """What Python makes of the same tree."""
    match tree:
        case str(name):
            return facts.get(name, False)
        case ("not", inner):
            return not truth(inner, facts)
        case (left, "and", right):
            return truth(left, facts) and truth(right, facts)
        case (left, _, right):
            return truth(left, facts) or truth(right, facts)
    raise AssertionError(tree)


TREES = st.recursive(
    st.sampled_from(["p", "q.r", "s"]),
    lambda inner: (
        st.tuples(st.just("not"), inner) | st.tuples(inner, st.sampled_from(["and", "or"]), inner)
    ),
    max_leaves=6,
)


@given(TREES, st.dictionaries(st.sampled_from(["p", "q.r", "s"]), st.booleans()))
def test_words_mean_what_they_mean_in_logic(tree: Any, facts: dict[str, bool]) -> None:
    """Any nesting of ``and``, ``or`` and ``not`` has the value that logic gives it."""
    text = written(tree)
    assume(text.count("(") + text.count("not") <= MAX_DEPTH and len(text) <= MAX_CHARACTERS)
    assert parse(text).holds(facts) == truth(tree, facts)
