"""A persona file is read whole, or its mistake is found to the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.errors import FileError
from npc_server.persona import Persona
from npc_server.persona.parse import find_problems, parse
from npc_server.persona.reference import example, reference_markdown, schema

GOOD = example("ana", "Ana")


def test_the_example_is_a_persona() -> None:
    """What `persona new` writes is valid as it stands."""
    ana = parse(GOOD, "ana.yaml")
    assert (ana.id, ana.name, ana.languages) == ("ana", "Ana", ("en",))
    assert ana.examples[0].player == "How deep is it here?"


@pytest.mark.parametrize(
    ("old", "new", "field", "says"),
    [
        ("summary:", "sumary:", "sumary", "Did you mean 'summary'"),
        ("  - player: How", "  - plyer: How", "examples.0.plyer", "Did you mean 'player'"),
        ("languages: [en]", "languages: [English!]", "languages.0", "pattern"),
        ("languages: [en]", "languages: []", "languages", "at least 1"),
        ("keys: [bridge, flood]", "keys: bridge", "knowledge.0.keys", "tuple"),
        ("gestures: [nod", "portrait: {skin: red}\ngestures: [nod", "portrait.skin", "pattern"),
        ("name: Ana", "name: Ana\nzzz: 1", "zzz", "is not a field"),
        ("name: Ana", "name: Ana\nname: Eva", "name", "there twice"),
    ],
)
def test_mistakes_are_found_to_the_line(old: str, new: str, field: str, says: str) -> None:
    """File, line and field of each mistake are named, with what was expected."""
    text = GOOD.replace(old, new, 1)
    problems = find_problems(text, "ana.yaml")
    assert isinstance(problems, list)
    problem = next(p for p in problems if p.field == field)
    assert says in problem.reason
    last = field.rsplit(".", 1)[-1]
    line = text.splitlines()[(problem.line or 0) - 1]
    assert last in line or last.isdigit()
    assert problem.message.startswith(f"ana.yaml, line {problem.line}: {field}: ")


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("quest.done and", "expected a value, found the end (at character 15)"),
        ("quest = 1", "cannot read =: compare with '==' (at character 7)"),
        ("true", "must be text, such as 'player.gold >= 5'"),
        ('"' + "a or " * 50 + 'a"', "is longer than 200 characters (at character 201)"),
    ],
)
@pytest.mark.parametrize("part", ["knowledge", "secrets"])
def test_a_condition_is_read_with_the_file(part: str, when: str, says: str) -> None:
    """A mistake inside a condition is found to its line, field and character."""
    text = f"{GOOD}\n".replace(f"{part}:\n", f"{part}:\n  - text: More.\n    when: {when}\n")
    with pytest.raises(FileError) as caught:
        parse(text, "ana.yaml")
    assert caught.value.field == f"{part}.0.when"
    assert caught.value.reason.startswith(says)
    assert "when:" in text.splitlines()[(caught.value.line or 0) - 1]


def test_a_condition_is_written_as_it_was_read() -> None:
    """A persona with conditions can be compared, dumped and read again; the schema says text."""
    text = f"{GOOD}\n".replace("secrets:\n", "secrets:\n  - {text: More., when: not quest.done}\n")
    ana = parse(text, "ana.yaml")
    assert ana == parse(text, "ana.yaml") == Persona.model_validate_json(ana.model_dump_json())
    assert ana.model_dump()["secrets"][0]["when"] == "not quest.done"
    assert ana != parse(text.replace("quest.done", "quest.over"), "ana.yaml")
    assert schema()["$defs"]["Secret"]["properties"]["when"]["anyOf"][0]["type"] == "string"


def test_all_mistakes_are_told_at_once() -> None:
    """Two mistakes are two problems; parse raises the first."""
    text = GOOD.replace("name: Ana", "").replace("languages: [en]", "languages: 5")
    problems = find_problems(text, "ana.yaml")
    assert isinstance(problems, list)
    assert {p.field for p in problems} == {"name", "languages"}
    with pytest.raises(FileError):
        parse(text, "ana.yaml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("- a", "mapping"),
        ("a: b: c", "not valid YAML"),
        ("\tname: x", "not valid YAML"),
        ("a: [", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("? [a]\n: b", "plain text"),
        ("name: !!python/object:os.system x", "cannot be read"),
        ("when: 2024-99-99", "cannot be read"),
        ("x" * 262_145, "longer"),
        ("a: " + "[" * 30 + "]" * 30, "nested"),
        ("a: &a [1, 2]\nb: &b [*a, *a]\nc: [" + ", ".join(["*b"] * 3_000) + "]", "too much"),
    ],
)
def test_what_is_no_persona_file(text: str, says: str) -> None:
    """Broken, hostile and oversized files end in one clear error."""
    with pytest.raises(FileError, match=says):
        parse(text, "x.yaml")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actions", "[{name: a, description: b, arguments: {type: array}}]"),
        ("actions", "[{name: a, description: b}, {name: a, description: c}]"),
        ("relations", "[{npc: a, text: b}, {npc: a, text: c}]"),
    ],
)
def test_what_the_model_forbids(field: str, value: str) -> None:
    """Arguments are objects; an action and a relation are declared once."""
    with pytest.raises(FileError, match=r"type: object|once only"):
        parse(f"{GOOD}\n{field}: {value}", "ana.yaml")


@pytest.mark.parametrize(
    ("property_", "field", "says"),
    [
        ("{type: strin}", "type", "no JSON Schema"),
        ("{pattern: '('}", "pattern", "regex"),
        ("{$ref: 'https://example.org/a'}", "$ref", "write the whole schema here"),
        ("{default: {$ref: 'https://example.org/a'}}", "default.$ref", "point elsewhere"),
        ("{const: 2024-01-01}", "const", "put it in quotes"),
        ("{const: .nan}", "const", "put it in quotes"),
        ("{enum: [" + "1, " * 400 + "1]}", "enum.395", "too large"),
    ],
)
def test_arguments_are_a_schema(property_: str, field: str, says: str) -> None:
    """What is wrong inside the schema of an action is found to its line and place."""
    text = (
        f"{GOOD}\nactions:\n  - name: a\n    description: b\n    arguments:\n"
        f"      type: object\n      properties:\n        x: {property_}\n"
    )
    problems = find_problems(text, "ana.yaml")
    assert isinstance(problems, list)
    (problem,) = problems
    assert problem.field == f"actions.0.arguments.properties.x.{field}"
    assert says in problem.reason
    assert problem.line == len(text.splitlines())


def test_deep_arguments_are_refused() -> None:
    """A schema nested deeper than grammars should be asked for is an error."""
    deep = "{type: object, properties: {a: " * 7 + "{}" + "}}" * 7
    with pytest.raises(FileError, match="12 deep"):
        parse(f"{GOOD}\nactions: [{{name: a, description: b, arguments: {deep}}}]", "ana.yaml")


@given(
    st.recursive(
        st.text(max_size=12) | st.integers() | st.none() | st.sampled_from(["name", "id", "&a"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
        max_leaves=8,
    ),
    st.text(alphabet="ab: -[]{}&*!|>\n\t\"'#%@`?,", max_size=60),
)
def test_nothing_but_our_error_comes_out(value: object, noise: str) -> None:
    """Whatever the text, reading it gives a persona or problems."""
    for text in (f"name: {value!r}\n{noise}", noise, GOOD + noise):
        found = find_problems(text, "x.yaml")
        assert isinstance(found, Persona) or all(isinstance(p, FileError) for p in found)


def test_the_schema_knows_every_field() -> None:
    """Schema and reference page have a place for each field of the model."""
    page = reference_markdown()
    for name in Persona.model_fields:
        assert name in schema()["properties"]
        assert f"| `{name}` |" in page
