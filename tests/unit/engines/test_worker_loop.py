"""The worker's loop takes turns, streams, stops and forgets; its model is arithmetic."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_files import llama

from npc_server.engines.bpe import BpeVocabulary
from npc_server.engines.drawing import Logits
from npc_server.engines.gguf import read_header
from npc_server.engines.templates import TEMPLATES, named
from npc_server.engines.worker_loop import Json, Loop, Tokens
from npc_server.errors import EngineUnavailable, ModelFileError

END = 2


class Spelling:
    """Says one text letter by letter: behind a prompt the first, behind a letter the next.

    It checks that tokens are read in order, in chunks that it may be asked for.
    """

    def __init__(self, vocabulary: BpeVocabulary, text: str, reads: list[int]) -> None:
        self._script = [*vocabulary.encode(text), END]
        self._size = vocabulary.size
        self._reads = reads
        self._length = 0
        self._said = 0
        self.broken = False

    def read(self, tokens: Sequence[int], position: int) -> None:
        if self.broken:
            raise EngineUnavailable("broken")
        assert position <= self._length
        self._length = position + len(tokens)
        self._reads.append(len(tokens))
        self._said = self._said + 1 if list(tokens) == self._script[self._said :][:1] else 0

    def logits(self) -> Logits:
        logits = np.zeros(self._size, dtype=np.float32)
        logits[self._script[self._said]] = 100
        return logits


class Bench:
    """A loop with its events, and the instances that it made."""

    def __init__(self, file: Path, text: str, *, seats: int = 2, context: int = 512) -> None:
        self.vocabulary = BpeVocabulary(read_header(file))
        self.reads: list[int] = []
        self.made: list[Spelling] = []
        self.loaded: list[str] = []
        self.events: list[Json] = []
        self._text = text
        tokens = Tokens(self.vocabulary, named("chatml"))
        self.merges: dict[str, Future[str]] = {}
        self.loop = Loop(
            tokens,
            self._make,
            seats=seats,
            context=context,
            send=self.events.append,
            merge=lambda adapter, _scale: self.merges.setdefault(adapter, Future()),
        )

    def _make(self, adapter: str) -> Spelling:
        self.loaded.append(adapter)
        self.made.append(Spelling(self.vocabulary, self._text, self.reads))
        return self.made[-1]

    def put(self, op: str, number: int = 0, user: str = "Hi", **fields: Any) -> None:
        generate = {
            "sampling": {"temperature": 0},
            "max_tokens": 100,
            "stop": [],
            "seed": 1,
            "prefix": "",
        }
        self.loop.put(
            {
                "op": op,
                "id": number,
                "messages": [["system", "You are Bram."], ["user", user]],
                "affinity": f"w/c/{number}",
                **(generate if op == "generate" else {}),
                **fields,
            }
        )

    def run(self, *numbers: int, turns: int = 5000) -> None:
        """Turn until these commands have ended."""
        for _ in range(turns):
            if {
                event["id"] for event in self.events if "text" not in event or "finish" in event
            } >= {*numbers}:
                return
            self.loop.turn()
        raise AssertionError(f"not ended: {self.events}")

    def said(self, number: int) -> str:
        return "".join(event.get("text", "") for event in self.events if event["id"] == number)

    def last(self, number: int) -> Json:
        return [event for event in self.events if event["id"] == number][-1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model file whose vocabulary is used."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(llama())
    return path


def test_a_reply_streams_and_ends(file: Path) -> None:
    """Hangul and emoji come whole, without the space in front; usage is told at the end."""
    bench = Bench(file, " 안녕 😀!")
    bench.put("generate", 1)
    bench.run(1)
    assert bench.said(1) == "안녕 😀!"
    assert all("�" not in event["text"] for event in bench.events)
    prompt, cached, completion = bench.last(1)["usage"]
    assert (cached, completion) == (0, len(bench.vocabulary.encode(" 안녕 😀!")))
    bench.put("count_prompt", 2)
    assert bench.last(2)["counts"] == [prompt]


def test_a_reply_ends_at_its_limit_and_at_stop_strings(file: Path) -> None:
    """`max_tokens` gives length; a stop string gives stop and is not said."""
    bench = Bench(file, "abc def ghi")
    bench.put("generate", 1, max_tokens=4)
    bench.put("generate", 2, stop=["f g"])
    bench.put("generate", 3, max_tokens=0)
    bench.run(1, 2)
    assert (bench.said(1), bench.last(1)["finish"]) == ("abc ", "length")
    assert (bench.said(2), bench.last(2)["finish"]) == ("abc de", "stop")


def test_the_context_bounds_a_reply(file: Path) -> None:
    """A reply ends where the context does; a prompt over it is refused with both sizes."""
    bench = Bench(file, "abcdefghijklmnop" * 10, context=90)
    bench.put("generate", 1)
    bench.put("generate", 2, user="word " * 100)
    bench.run(1, 2)
    prompt, _, completion = bench.last(1)["usage"]
    assert (prompt + completion, bench.last(1)["finish"]) == (90, "length")
    assert bench.last(2)["error"] == "too_large"
    assert "90" in bench.last(2)["message"]


def test_replies_take_turns(file: Path) -> None:
    """Two replies grow together, and prompts are then read in small chunks."""
    bench = Bench(file, "abcdefghijklmnopqrst")
    bench.put("generate", 1, user="x" * 100)
    bench.put("generate", 2, user="x" * 100)
    bench.run(1, 2)
    order = [event["id"] for event in bench.events if event.get("text")]
    assert order[:6] in ([1, 2] * 3, [2, 1] * 3)
    assert max(bench.reads) <= 32
    assert len(bench.made) == 2


def test_a_third_reply_waits_for_a_seat(file: Path) -> None:
    """With two seats the third begins when one of the others has ended."""
    bench = Bench(file, "abc")
    for number in (1, 2, 3):
        bench.put("generate", number)
    bench.run(1, 2, 3)
    ends = [event["id"] for event in bench.events if "finish" in event]
    assert ends[-1] == 3
    assert len(bench.made) == 2


def test_a_prompt_is_cached_for_its_affinity(file: Path) -> None:
    """The second time only what lies behind the last whole block is read, in chunks of 64."""
    bench = Bench(file, "abc")
    for number in (1, 2):
        bench.put("generate", number, user="x" * 140, affinity="same")
        bench.run(number)
    prompt = bench.last(1)["usage"][0]
    assert bench.last(2)["usage"][1] == prompt // 32 * 32
    assert max(bench.reads) == 64
    assert bench.said(1) == bench.said(2) == "abc"
    bench.put("forget", affinity="sa")
    bench.put("generate", 3, user="x" * 140, affinity="same")
    bench.run(3)
    assert bench.last(3)["usage"][1] == 0


def test_a_prompt_can_be_read_ahead(file: Path) -> None:
    """A hint reads whole blocks; the reply that follows finds them."""
    bench = Bench(file, "abc")
    bench.put("warm", 1, user="x" * 140, affinity="same")
    bench.run(1)
    assert sum(bench.reads) % 32 == 0
    bench.put("generate", 2, user="x" * 140, affinity="same")
    bench.run(2)
    assert bench.last(2)["usage"][1] == sum(bench.reads[:3])


def test_a_hint_gives_way(file: Path) -> None:
    """A reply takes the seat of a hint, which then has ended; a hint without a seat ends too."""
    bench = Bench(file, "abc", seats=1)
    bench.put("warm", 1, user="x" * 300)
    bench.loop.turn()
    bench.put("generate", 2)
    bench.put("warm", 3)
    bench.run(1, 2, 3)
    assert bench.said(2) == "abc"


def test_cancelling_frees_the_seat_at_once(file: Path) -> None:
    """A cancelled reply says nothing more; who waited for its seat goes on."""
    bench = Bench(file, "abcdefghijklmnopqrstuvwxyz" * 3, seats=1)
    bench.put("generate", 1)
    bench.put("generate", 2)
    bench.put("generate", 3)
    while not bench.said(1):
        bench.loop.turn()
    bench.put("cancel", 1)
    bench.put("cancel", 3)
    before = bench.said(1)
    bench.run(2)
    assert bench.said(1) == before
    assert bench.said(3) == ""


def test_a_reply_goes_on_from_a_prefix(file: Path) -> None:
    """What was said is a part of the prompt, and a space at the seam is kept."""
    bench = Bench(file, " def")
    bench.put("generate", 1, prefix="abc")
    bench.run(1)
    assert bench.said(1) == " def"


def test_a_failing_instance_fails_its_reply_alone(file: Path) -> None:
    """The error is sent, the seat is clean, and the next reply works."""
    bench = Bench(file, "abc", seats=1)
    bench.put("generate", 1, user="x" * 100, affinity="same")
    bench.run(1)
    bench.made[0].broken = True
    bench.put("generate", 2, user="x" * 100, affinity="same")
    bench.run(2)
    assert bench.last(2)["error"] == "engine_unavailable"
    bench.made[0].broken = False
    bench.put("generate", 3, user="x" * 100, affinity="same")
    bench.run(3)
    assert bench.said(3) == "abc"
    assert bench.last(3)["usage"][1] == 0


def test_counting_is_answered_while_a_reply_is_made(file: Path) -> None:
    """Counts come from the thread that asks, without a turn of the loop."""
    bench = Bench(file, "abc")
    bench.put("generate", 1)
    bench.put("count_tokens", 2, texts=["hello", "", "한"])
    assert bench.last(2)["counts"] == [1, 0, 3]


def test_control_tokens_are_never_drawn(file: Path) -> None:
    """A model that wants to open another turn, or to call a tool, cannot."""
    bench = Bench(file, "abc")
    tokens = Tokens(bench.vocabulary, named("chatml"))
    assert tokens.ends == {0, 2}
    assert tokens.barred.tolist() == [1, 3]


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


def test_a_reply_keeps_to_a_schema(file: Path) -> None:
    """A model that wants to say something else says it inside the JSON; forced tokens are read."""
    bench = Bench(file, "USER: [INST] abc")
    bench.put("generate", 1, schema=SCHEMA, max_tokens=40)
    bench.run(1)
    assert json.loads(bench.said(1)).keys() == {"name"}
    assert bench.last(1)["finish"] == "stop"
    assert bench.last(1)["usage"][2] <= 40
    # The name with its quotes is read in one go.
    assert max(bench.reads[-30:]) > 5


def test_a_schema_goes_on_from_a_prefix(file: Path) -> None:
    """As after a crash: what was said counts, and the whole is valid."""
    bench = Bench(file, "abc")
    prefix = '{"name":"ab'
    bench.put("generate", 1, schema=SCHEMA, prefix=prefix, max_tokens=20)
    bench.run(1)
    assert json.loads(prefix + bench.said(1)).keys() == {"name"}


def test_a_schema_that_cannot_be_met_is_told(file: Path) -> None:
    """An unknown keyword is an error at once; too few tokens give `length`."""
    bench = Bench(file, "abc")
    bench.put("generate", 1, schema={"not": {}})
    assert (bench.last(1)["kind"], bench.last(1)["error"]) == ("BadMessage", "bad_message")
    bench.put("generate", 2, schema=SCHEMA, max_tokens=3)
    bench.run(2)
    assert (bench.said(2), bench.last(2)["finish"]) == ('{"n', "length")


def test_labels_are_scored_in_one_pass(file: Path) -> None:
    """Probabilities add up to one, nothing is said, and the prompt stays cached."""
    bench = Bench(file, "B")
    bench.put("score", 1, user="x" * 140, labels=["A", "B", "C"], affinity="same")
    bench.run(1)
    scores = bench.last(1)["scores"]
    assert sum(map(math.exp, scores)) == pytest.approx(1)
    assert scores[1] == max(scores)
    read = sum(bench.reads)
    bench.put("score", 2, user="x" * 140, labels=["B"], affinity="same")
    bench.run(2)
    bench.put("generate", 3, user="x" * 140, affinity="same", max_tokens=1)
    bench.run(3)
    assert bench.last(2)["scores"] == [0.0]
    assert sum(bench.reads) - read < 64
    assert bench.last(3)["usage"][1] >= read // 32 * 32


@pytest.mark.parametrize("labels", [["A", "A"], ["hello", "hello there"], ["A", ""], []])
def test_labels_that_cannot_be_told_apart_are_refused(file: Path, labels: list[str]) -> None:
    """Equal first tokens, and no token at all, are errors of the caller."""
    bench = Bench(file, "A")
    bench.put("score", 1, labels=labels)
    assert bench.last(1)["kind"] == "ValueError"


@pytest.mark.parametrize("template", sorted(TEMPLATES))
def test_labels_begin_where_replies_begin(file: Path, template: str) -> None:
    """In every template, prompt and label together are the prompt of a reply that is begun."""
    tokens = Tokens(BpeVocabulary(read_header(file)), named(template))
    messages = [["system", "S"], ["user", "U"]]
    for prefix in ("", "I say "):
        prompt, labels = tokens.labelled(messages, prefix, ["A", "B"])
        for label, token in zip("AB", labels, strict=True):
            whole = tokens.prompt(messages, prefix + label)
            assert [*prompt, token] == whole[: len(prompt) + 1]


def test_a_score_and_a_hint_can_be_cancelled(file: Path) -> None:
    """Each frees its seat at once for the reply that waits."""
    for op in ("score", "warm"):
        bench = Bench(file, "abc", seats=1)
        bench.put(op, 1, user="x" * 400, labels=["A"])
        bench.loop.turn()
        bench.put("generate", 2)
        bench.put("cancel", 1)
        bench.loop.turn()
        assert [job.id for job in bench.loop._active] == [2]
        bench.run(2)
        assert not [event for event in bench.events if event["id"] == 1]


def test_a_reply_waits_for_its_adapter(file: Path) -> None:
    """Others go on meanwhile; then it runs on an instance of the merged file."""
    bench = Bench(file, "abc")
    bench.put("generate", 1, adapter=["gruff.gguf", 1.0])
    bench.put("generate", 2)
    bench.run(2)
    assert bench.loaded == [""]
    bench.merges["gruff.gguf"].set_result("merged.gguf")
    bench.run(1)
    assert bench.loaded == ["", "merged.gguf"]
    assert bench.said(1) == "abc"


def test_a_bad_adapter_fails_its_reply_alone(file: Path) -> None:
    """The error of the merge is the reply's; a reply that was cancelled meanwhile is gone."""
    bench = Bench(file, "abc", seats=1)
    for number in (1, 2):
        bench.put("generate", number, adapter=["bad.gguf", 1.0])
    bench.put("generate", 3)
    bench.put("cancel", 2)
    bench.run(3)
    bench.merges["bad.gguf"].set_exception(ModelFileError("no room"))
    bench.run(1)
    assert (bench.last(1)["kind"], bench.last(1)["message"]) == ("ModelFileError", "no room")
    assert not [event for event in bench.events if event["id"] == 2]


def test_an_adapter_s_instance_goes_when_its_seat_does(file: Path) -> None:
    """With one seat, each other adapter loads anew, and one instance at a time is held."""
    bench = Bench(file, "abc", seats=1)
    for number, adapter in enumerate(["x", "y", "x"], 1):
        bench.put("generate", number, adapter=[adapter, 1.0])
        merge = bench.merges[adapter]
        if not merge.done():
            merge.set_result(adapter)
        bench.run(number)
        assert [name for name, _ in bench.loop._instances.values()] == [adapter]
    assert bench.loaded == ["x", "y", "x"]
