"""The file of a save: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import zlib
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.conversation.model import (
    Act,
    Ambient,
    Branch,
    Conversation,
    Gesture,
    Member,
    NpcState,
    Surroundings,
    Turn,
)
from npc_server.errors import BadMessage, Conflict, TooLarge
from npc_server.store import checkpoints
from npc_server.store.checkpoints import MAGIC, Saved, decode, encode

STATE = Conversation(
    id="river",
    world="default",
    members=(
        Member("minsu", "player", "Minsu", ":minsu"),
        Member("bram", "npc", "Bram", "bram", since=2),
    ),
    created_ms=5,
    next=3,
    npcs={"bram": NpcState("happy", 0.25, "well fed", ("give_item",))},
    invite="secret",
    around=Surroundings(
        place="by the river",
        groups={"bank": ("minsu", "bram")},
        distances={"bram|minsu": 2.5},
        talkativeness={"bram": 0.9},
        ambient=Ambient(on=True, after_s=7.0),
    ),
    facts={"gold": 3, "open": True, "weather": "비가 온다", "share": 0.5},
    branch="b2",
    inherited=((0, 1),),
    first=2,
    branches=(Branch("main", (), 0, 1, {"bram": NpcState()}, {"gold": 1}, 9),),
    seed=77,
    unasked=(3, 4),
)
TURNS = (
    Turn("t0", 0, "say", "minsu", ("bram",), ("minsu", "bram"), "안녕!", 5, private=True),
    Turn(
        "t1",
        1,
        "reply",
        "bram",
        ("minsu",),
        ("minsu", "bram"),
        "Hello \N{WAVING HAND SIGN}",
        6,
        finish="interrupted",
        heard={"minsu": 3},
        answers="t0",
        gestures=(Gesture(2, "nod"),),
        actions=(Act("c", "give_item", {"item": "knife", "count": [1, {"a": None}]}, True, 9),),
        emotion="happy",
    ),
    Turn("t2", 2, "event", "", ("bram",), ("minsu", "bram"), "The bell rings.", 7),
)
SAVED = Saved(STATE, TURNS)


def test_a_save_comes_back_as_it_was() -> None:
    """Everything of a conversation is in the file, which is the same each time."""
    file = encode([SAVED])
    assert decode(file) == (SAVED,)
    assert encode(decode(file)) == file
    assert decode(encode([])) == ()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_flipped_byte_goes_unnoticed(at: int, flip: int) -> None:
    """A byte that changed anywhere in a file is told, as damage and nothing else."""
    file = bytearray(encode([SAVED]))
    file[at % len(file)] ^= flip
    with pytest.raises(BadMessage):
        decode(bytes(file))


@given(st.integers(0, 10_000))
def test_no_end_may_be_missing(length: int) -> None:
    """A file that was cut off is told, wherever that was."""
    file = encode([SAVED])
    with pytest.raises(BadMessage):
        decode(file[: length % len(file)])


@given(st.binary(max_size=200))
def test_noise_is_no_save(noise: bytes) -> None:
    """Whatever stands behind the first words of a save, the error is one for people."""
    for file in (noise, MAGIC + noise, MAGIC + zlib.compress(noise)):
        with pytest.raises(BadMessage):
            decode(file)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(_json, st.sampled_from(["conversations", "state", "turns"]))
def test_other_json_is_no_save(value: object, where: str) -> None:
    """JSON that is not what it should be is refused, or is an empty world."""
    body = {"v": 1, "conversations": value}
    if where != "conversations":
        state, turns = orjson.dumps(value).decode(), [orjson.dumps(value).decode()]
        body["conversations"] = [{"state": state, "turns": turns if where == "turns" else []}]
    try:
        assert decode(MAGIC + zlib.compress(orjson.dumps(body))) == ()
    except BadMessage:
        assert value not in ([], {}) or where != "conversations"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("index", "first"),
        ("kind", "song"),
        ("hearers", [1, 2]),
        ("heard", {"minsu": "all"}),
        ("actions", [{"call": 1}]),
        ("unknown", 1),
    ],
)
def test_a_wrong_field_is_damage(name: str, value: object) -> None:
    """A field of a turn that is not of its type would break prompts later: it is refused now."""
    body = orjson.loads(zlib.decompress(encode([SAVED])[len(MAGIC) :]))
    turn = orjson.loads(body["conversations"][0]["turns"][1])
    body["conversations"][0]["turns"][1] = orjson.dumps({**turn, name: value}).decode()
    with pytest.raises(BadMessage, match="damaged"):
        decode(MAGIC + zlib.compress(orjson.dumps(body)))


@pytest.mark.parametrize("what", ["save", "state", "turns"])
def test_what_a_newer_release_wrote_is_refused(what: str) -> None:
    """A newer file, or a newer record in it, says which release is needed."""
    body = orjson.loads(zlib.decompress(encode([SAVED])[len(MAGIC) :]))
    inside = body["conversations"][0]
    if what == "save":
        body["v"] = 99
    elif what == "state":
        inside["state"] = orjson.dumps({**orjson.loads(inside["state"]), "v": 99}).decode()
    else:
        inside["turns"][0] = orjson.dumps({**orjson.loads(inside["turns"][0]), "v": 99}).decode()
    with pytest.raises(Conflict, match="newer release"):
        decode(MAGIC + zlib.compress(orjson.dumps(body)))


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that would be large is refused before it is; one at the limit is not."""
    file = encode([SAVED])
    size = len(zlib.decompress(file[len(MAGIC) :]))
    monkeypatch.setattr(checkpoints, "LARGEST_OPEN", size)
    assert decode(file) == (SAVED,)
    monkeypatch.setattr(checkpoints, "LARGEST_OPEN", size - 1)
    with pytest.raises(TooLarge, match=str(size - 1)):
        decode(file)
    with pytest.raises(TooLarge):
        encode([SAVED])


def test_a_thousand_turns_take_as_much_as_is_written() -> None:
    """The size that the documentation states: a thousand turns of different words."""
    words = [f"word{n * 7919 % 1_009}" for n in range(20_000)]
    turns = tuple(
        replace(TURNS[0], id=f"{n * 2_654_435_761:032x}", index=n, text=" ".join(words[n : n + 15]))
        for n in range(1_000)
    )
    assert len(encode([Saved(replace(STATE, next=1_000), turns)])) < 100 * 1024
