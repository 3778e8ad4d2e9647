"""The scripted engine does what its script says."""

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from npc_server.engines.base import Adapter, GenerateRequest, Piece, ScoreRequest
from npc_server.engines.scripted import Script, ScriptedEngine, load_script
from npc_server.errors import ConfigError, EngineUnavailable, TooLarge
from npc_server.persona import Sampling
from npc_server.prompt.messages import Message


def request(text: str = "Hello", **more: Any) -> GenerateRequest:
    sampling = Sampling(max_tokens=more.pop("max_tokens", 120))
    messages = (Message("system", "You are Bram."), Message("user", text))
    return GenerateRequest(messages, sampling, **{"affinity": "w/c/n", **more})


def engine(*rules: dict[str, Any], **settings: Any) -> ScriptedEngine:
    return ScriptedEngine(Script.model_validate({"rules": rules, **settings}))


async def pieces(engine: ScriptedEngine, request: GenerateRequest) -> list[Piece]:
    async with engine.generate(request) as stream:
        return [piece async for piece in stream]


async def said(engine: ScriptedEngine, request: GenerateRequest) -> str:
    return "".join(piece.text for piece in await pieces(engine, request))


async def test_the_first_rule_that_applies_answers() -> None:
    """Rules are tried in order, `times` wears one out, and lists of replies go round."""
    scripted = engine(
        {"match": "SMITH", "reply": "I am the smith.", "times": 1},
        {"reply": ["One.", "Two."]},
    )
    answers = [await said(scripted, request("Where is the smith?")) for _ in range(4)]
    assert answers == ["I am the smith.", "One.", "Two.", "One."]


async def test_without_a_script_answers_are_plausible_and_repeatable() -> None:
    """The same words and seed give the same answer; Hangul is answered in Korean."""
    one, other = ScriptedEngine(), ScriptedEngine()
    korean = request("옛날 이야기 해 주세요", seed=3)
    assert await said(one, korean) == await said(other, korean)
    assert "옛날" in await said(one, korean)
    assert "forge" in await said(one, request("How hot is your forge?"))
    answers = {await said(one, request("Hello", seed=seed)) for seed in range(20)}
    assert len(answers) > 1


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("word", ["Go", " on,", " then."]),
        ("char", list("Go on, then.")),
        (5, ["Go on", ", the", "n."]),
    ],
)
async def test_a_reply_comes_in_the_pieces_asked_for(piece: object, expected: list[str]) -> None:
    """Words, characters or so many characters; the last piece carries finish and usage alone."""
    scripted = engine({"reply": "Go on, then.", "piece": piece})
    *texts, last = await pieces(scripted, request())
    assert [text.text for text in texts] == expected
    assert (last.text, last.finish) == ("", "stop")
    assert last.usage is not None
    assert last.usage.completion == 3


async def test_stop_strings_and_limits_end_a_reply() -> None:
    """A stop string is not said; `max_tokens` cuts at four bytes a token, between characters."""
    scripted = engine({"reply": "Yes.\nMinsu: no"})
    assert await said(scripted, request(stop=("\nMinsu:",))) == "Yes."
    long = engine({"reply": "가" * 30})
    cut = await pieces(long, request(max_tokens=8))
    assert "".join(piece.text for piece in cut) == "가" * 10
    assert cut[-1].finish == "length"


async def test_a_prefix_is_gone_on_from() -> None:
    """What was already said is not said again."""
    scripted = engine({"reply": "One two three."})
    assert await said(scripted, request(prefix="One two")) == " three."


async def test_usage_tells_what_was_cached() -> None:
    """The longest common beginning with the affinity's last prompt counts, until forgotten."""
    scripted = engine({"reply": "Yes."})

    async def cached() -> int:
        usage = (await pieces(scripted, request()))[-1].usage
        assert usage is not None
        assert usage.prompt == await scripted.count_prompt(request().messages)
        return usage.cached

    assert await cached() == 0
    assert await cached() > 5
    await scripted.forget("w/c/")
    assert await cached() == 0
    await scripted.forget("w/")
    await scripted.warm(request().messages, "w/c/n")
    assert await cached() > 5


async def test_tokens_are_four_bytes() -> None:
    """Counting follows the documented rule."""
    assert await ScriptedEngine().count_tokens(["", "abcd", "abcde", "한국"]) == [0, 1, 2, 2]


async def test_failures_come_where_the_script_says() -> None:
    """`unavailable` fails before the first piece, `fail_after` behind so many."""
    scripted = engine(
        {"reply": "No.", "fail": "unavailable", "times": 1},
        {"reply": "One two three.", "fail_after": 2},
    )
    with pytest.raises(EngineUnavailable):
        await pieces(scripted, request())
    async with scripted.generate(request()) as stream:
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["One", " two"]
        with pytest.raises(EngineUnavailable):
            await anext(stream)


SCHEMA = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}


async def test_a_schema_is_kept_to() -> None:
    """A rule's `json` answers requests with a schema; without one the simplest fitting value."""
    scripted = engine({"match": "why", "json": {"a": "y"}}, {"reply": "Aye."})
    assert scripted.capabilities.schema
    assert await said(scripted, request("Why?", schema=SCHEMA)) == '{"a":"y"}'
    assert await said(scripted, request("How?", schema=SCHEMA)) == '{"a":"x"}'
    assert await said(scripted, request("Why?")) == "Aye."
    assert scripted.requests[0].schema == SCHEMA


async def test_a_script_can_have_no_schema() -> None:
    """Told so, it answers as if none were asked for."""
    scripted = engine({"reply": "Aye."}, schema=False, scores=False, adapters=False)
    can = scripted.capabilities
    assert (can.schema, can.scores, can.adapters) == (False, False, False)
    assert await said(scripted, request(schema=SCHEMA)) == "Aye."


async def test_choices_follow_the_script() -> None:
    """A label, or weights of labels, are chosen; without a rule all are equal."""
    scripted = engine(
        {"match": "one", "choose": "B"}, {"match": "some", "choose": {"A": 3, "B": 1, "Z": 9}}
    )

    async def chances(text: str) -> list[float]:
        asked = ScoreRequest(request(text).messages, ("A", "B", "C"), "w/c/n")
        return [round(math.exp(log), 3) for log in await scripted.score(asked)]

    assert await chances("one") == [0, 1, 0]
    assert await chances("some") == [0.75, 0.25, 0]
    assert await chances("other") == [0.333, 0.333, 0.333]
    assert len(scripted.choices) == 3
    assert scripted.capabilities.scores


async def test_failures_without_words_are_for_all() -> None:
    """A rule that only fails does so for replies, schemas and choices alike."""
    scripted = engine({"fail": "unavailable"})
    with pytest.raises(EngineUnavailable):
        await pieces(scripted, request())
    with pytest.raises(EngineUnavailable):
        await pieces(scripted, request(schema=SCHEMA))
    with pytest.raises(EngineUnavailable):
        await scripted.score(ScoreRequest(request().messages, ("A",), "w/c/n"))


async def test_adapters_are_noted() -> None:
    """The adapter of a request can be looked at, and makes no difference."""
    scripted = engine({"reply": "Aye."})
    adapter = Adapter(Path("bram.gguf"), 0.5)
    await scripted.warm(request().messages, "w/c/n", adapter)
    assert await said(scripted, request(adapter=adapter)) == "Aye."
    assert scripted.requests[0].adapter == adapter


async def test_a_slow_rule_without_words_says_the_usual() -> None:
    """A rule that only sets the pace leaves the words to the built-in answers."""
    assert await said(engine({"piece": "char"}), request("Hot forge")) == await said(
        ScriptedEngine(), request("Hot forge")
    )


async def test_closing_ends_a_stalled_reply() -> None:
    """A reply that stalls for ever ends with the engine, and leaving its context ends it too."""
    scripted = engine({"reply": "One two", "fail": "stall", "fail_after": 1})
    async with scripted.generate(request()) as stream:
        assert (await anext(stream)).text == "One"
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await scripted.close()
        with pytest.raises(EngineUnavailable):
            await waiting
    await scripted.close()
    await scripted.start()
    async with asyncio.timeout(5), scripted.generate(request()) as stream:
        assert (await anext(stream)).text == "One"


async def test_no_more_replies_at_once_than_seats() -> None:
    """With one seat a second reply begins when the first is left."""
    scripted = engine({"reply": "Yes."}, seats=1)
    async with scripted.generate(request()):
        second = asyncio.ensure_future(pieces(scripted, request()))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not second.done()
    assert (await second)[-1].finish == "stop"
    assert scripted.capabilities.seats == 1


async def test_a_prompt_over_the_context_is_refused() -> None:
    """A prompt that leaves no room for a reply is an error that says both sizes."""
    with pytest.raises(TooLarge, match="64"):
        await pieces(engine(context=64), request("word " * 100))


async def test_the_last_requests_can_be_looked_at() -> None:
    """A test sees what the engine was asked, and the record is bounded."""
    scripted = engine({"reply": "Yes."})
    for number in range(300):
        await pieces(scripted, request(str(number)))
    assert len(scripted.requests) == 256
    assert scripted.requests[-1].messages[-1].text == "299"


def test_scripts_are_read_from_yaml(tmp_path: Path) -> None:
    """A file holds the same fields as the model; an empty one is the built-in script."""
    file = tmp_path / "script.yaml"
    file.write_text(yaml.safe_dump({"seats": 2, "rules": [{"reply": "Yes."}]}))
    assert load_script(file).rules[0].reply == ("Yes.",)
    file.write_text("")
    assert load_script(file) == Script()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"rules: [", "YAML"),
        (b"\xff\xfe\xfd", "YAML"),
        (b"rules: [{replies: x}]", "rules.0.replies"),
        (b"rules: [{match: '('}]", "regular expression"),
        (b"rules: [{piece: 0}]", "'word', 'char'"),
        (b"- 1", "script"),
        (None, "Cannot read"),
    ],
)
def test_bad_scripts_say_where(tmp_path: Path, content: bytes | None, told: str) -> None:
    """Each broken script gives a ConfigError that names the file and the field."""
    file = tmp_path / "script.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"script\.yaml") as caught:
        load_script(file)
    assert told in str(caught.value)


def test_the_documented_script_is_a_script(tmp_path: Path) -> None:
    """The example in the reference can be copied into a file and used."""
    page = Path(__file__).parents[3] / "docs" / "reference" / "models.md"
    example = page.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "script.yaml"
    file.write_text(example, encoding="utf-8")
    assert [rule.match for rule in load_script(file).rules] == [
        *("sword", "hello", "crash", "may I have the knife", "who speaks next")
    ]
