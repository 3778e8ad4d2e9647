"""What is stored can be read for ever, and nothing of it is lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from npc_server.conversation.model import (
    Act,
    Ambient,
    Ask,
    Branch,
    Conversation,
    Gesture,
    Member,
    NpcState,
    Reply,
    Surroundings,
    Turn,
)
from npc_server.store import records
from npc_server.store.keys import (
    ConversationKeys,
    player_consent,
    player_index,
    saved_session,
    states_of,
    world_index,
)

GOLDEN = Path(__file__).parent / "golden"
ACT = Act(
    call="01890000-0000-7000-8000-00000000000a",
    name="give_item",
    args={"item": "knife", "count": 1},
    confirm=True,
    until_ms=1_700_000_005_000,
    ok=False,
    reason="no room",
    unseen=("yuna",),
)
TURN = Turn(
    id="01890000-0000-7000-8000-000000000001",
    index=3,
    kind="reply",
    speaker="bram",
    to=("minsu",),
    hearers=("minsu", "bram"),
    text="Hot iron. 뜨거워!",
    at_ms=1_700_000_000_000,
    finish="interrupted",
    heard={"minsu": 9},
    answers="01890000-0000-7000-8000-000000000000",
    degraded="short",
    gestures=(Gesture(4, "nod"),),
    replaced_by="01890000-0000-7000-8000-000000000002",
    actions=(ACT,),
    private=True,
    emotion="angry",
    redacted=True,
)
REPLY = Reply(
    turn="r",
    attempt=1,
    speaker="bram",
    to=("minsu",),
    hearers=("minsu", "bram"),
    answers="t",
    ambient=True,
    instructions="Be scared.",
    replaces="q",
    actions=(replace(ACT, ok=None, reason=None),),
    root="t",
    player="key:minsu",
    chain=1,
    line="Well met.",
    private=True,
    cut_by={"minsu": 3},
    number=4,
    left={"yuna": 3},
)
STATE = Conversation(
    id="smithy",
    world="default",
    members=(
        Member("minsu", "player", "민수", "key:minsu", "away", 2),
        Member("bram", "npc", "Bram", "bram"),
    ),
    created_ms=1_700_000_000_000,
    reply=REPLY,
    npcs={"bram": NpcState("happy", 0.25, "tired", ("give_item",))},
    locale="ko",
    next=7,
    asks=(Ask("bram", "t", "t", "key:minsu", 1, True, "Be brief.", True, "Aye."),),
    closed=True,
    invite="come-in",
    around=Surroundings(
        "tavern",
        "A low room.",
        {"bar": ("minsu", "bram")},
        {"bram|minsu": 1.5},
        8.0,
        {"clock": "It stands still."},
        {"bram": "He waits."},
        {"bram": 0.75},
        Ambient(True, 9.0, 3, 1),
    ),
    facts={"quest.done": True, "gold": 3, "weather": "rain"},
    hold=True,
    instructions="Hurry.",
    branch="b2",
    inherited=((0, 3),),
    first=5,
    branches=(Branch("main", (), 0, 4, {"bram": NpcState()}, {"gold": 1}, 1_700_000_000_000),),
    seed=99,
    unasked=(1_700_000_000_000,),
)
PARTIAL = records.Partial("r", 1, "Well, ")
CONSENT = records.Consent(1_700_000_000_000)
_V2_ACT = replace(ACT, unseen=())
_V2_TURN = replace(TURN, actions=(_V2_ACT,), private=False, emotion=None, redacted=False)
_V2_STATE = Conversation(
    id=STATE.id,
    world=STATE.world,
    members=tuple(replace(m, presence="here", since=0) for m in STATE.members),
    created_ms=STATE.created_ms,
    reply=replace(
        REPLY,
        actions=(replace(_V2_ACT, ok=None, reason=None),),
        root=None,
        player="",
        chain=0,
        line=None,
        private=False,
        cut_by={},
        number=0,
        left={},
    ),
    npcs={"bram": NpcState("happy", 0.25)},
    locale="ko",
)
SESSION = records.SavedSession("default", "key", "minsu", "player", ("smithy", "다리"), "s")
LACKING = {
    "v1": (
        replace(_V2_TURN, degraded=None, gestures=(), replaced_by=None, actions=()),
        replace(_V2_STATE, reply=Reply("r", 1, "bram", ("minsu",), ("minsu", "bram"), "t")),
    ),
    "v2": (_V2_TURN, _V2_STATE),
}
"""What a turn and a conversation of an older version are read as: what it did not know is empty."""


@pytest.mark.parametrize("version", sorted(p.name for p in GOLDEN.iterdir()))
def test_every_version_that_ever_was_can_be_read(version: str) -> None:
    """The golden files of each version decode to today's values, as far as it knew them."""
    folder = GOLDEN / version
    turn, state = LACKING.get(version, (TURN, STATE))
    assert records.decode_turn((folder / "turn.json").read_bytes()) == turn
    assert records.decode_partial((folder / "partial.json").read_bytes()) == PARTIAL
    raw = (folder / "conversation.json").read_bytes()
    assert records.decode_conversation(raw, revision=0, seq=0, turns=()) == state


def test_consent_can_be_read() -> None:
    """Consent came with version 2; its golden file decodes to today's value."""
    assert records.decode_consent((GOLDEN / "v2" / "consent.json").read_bytes()) == CONSENT


def test_a_session_can_be_read() -> None:
    """Sessions came with version 3; their golden file decodes to today's value."""
    assert records.decode_session((GOLDEN / "v3" / "session.json").read_bytes()) == SESSION


def test_today_is_written_as_its_golden_files() -> None:
    """A change of what is stored needs a new version, and golden files for it."""
    folder = GOLDEN / f"v{records.VERSION}"
    for name, made in (
        ("turn", records.encode_turn(TURN)),
        ("conversation", records.encode_conversation(STATE)),
        ("partial", records.encode_partial(PARTIAL)),
        ("consent", records.encode_consent(CONSENT)),
        ("session", records.encode_session(SESSION)),
    ):
        golden = (folder / f"{name}.json").read_bytes()
        assert orjson.loads(made) == orjson.loads(golden)


def test_a_conversation_comes_back_with_its_turns() -> None:
    """Revision, seq and turns are put back beside the state."""
    whole = replace(STATE, revision=4, seq=9, turns=(TURN,))
    raw = records.encode_conversation(whole)
    assert records.decode_conversation(raw, revision=4, seq=9, turns=(TURN,)) == whole
    quiet = replace(STATE, reply=None)
    raw = records.encode_conversation(quiet)
    assert records.decode_conversation(raw, revision=0, seq=0, turns=()) == quiet


def test_a_turn_takes_no_room_for_what_it_does_not_have() -> None:
    """A plain line is stored without its defaults, and comes back with them."""
    line = Turn("t", 0, "say", "minsu", ("bram",), ("minsu", "bram"), "", 7)
    raw = records.encode_turn(line)
    needed = "v id index kind speaker to hearers text at_ms"
    assert orjson.loads(raw).keys() == set(needed.split())
    assert records.decode_turn(raw) == line


def test_newer_records_are_refused() -> None:
    """What a newer server wrote is an error that says to run it, not a guess."""
    raw = orjson.dumps({"v": records.VERSION + 1})
    with pytest.raises(records.NewerRecord, match="newer release"):
        records.read("turn", raw)


def test_older_records_are_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each upcaster makes the next version, until today's is reached."""
    monkeypatch.setitem(records.UPCASTERS["turn"], -1, lambda r: {**r, "a": 1})
    monkeypatch.setitem(records.UPCASTERS["turn"], 0, lambda r: {**r, "b": r["a"] + 1})
    monkeypatch.setattr(records, "VERSION", 1)
    assert records.read("turn", b'{"v":-1}') == {"a": 1, "b": 2}


def test_keys_of_a_conversation_share_their_tag() -> None:
    """Whatever the names, one pair of braces holds world and conversation, escaped."""
    keys = ConversationKeys.of("a/b", "c}{d é")
    names = [*keys.fixed(), keys.answer("k:p", "x y")]
    assert {name[name.index("{") : name.index("}") + 1] for name in names} == {
        "{a%2Fb/c%7D%7Bd%20%C3%A9}"
    }
    assert len(set(names)) == 6
    assert ConversationKeys.of("a", "b/c") != ConversationKeys.of("a/b", "c")
    assert player_index("w", "k:p") == "npc:{w/@k%3Ap}:conversations"
    assert world_index("a/b") == "npc:{a%2Fb}:conversations"
    assert player_consent("w", "k:p") == "npc:{w/@k%3Ap}:consent"
    assert saved_session("secret").startswith("npc:{@")
    assert "secret" not in saved_session("secret")
    begin, end = states_of("a/b")
    assert keys.state == f"{begin}c%7D%7Bd%20%C3%A9{end}"


def test_every_key_is_in_the_table() -> None:
    """The documented kinds of keys are those that there are."""
    page = (Path(__file__).parents[3] / "docs/reference/redis.md").read_text()
    keys = ConversationKeys.of("w", "c")
    kinds = {name.rsplit(":", 1)[1] for name in keys.fixed()} | {
        "answer",
        "checkpoint",
        "checkpoints",
        "conversations",
        "consent",
        "listening",
        "session",
    }
    rows = [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]
    assert {row.split("}:")[1].split(":")[0] for row in rows} == kinds
