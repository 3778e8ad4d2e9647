"""From a transcript to training data: what may go in, and what becomes of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_server.conversation.audience import heard_by
from npc_server.conversation.model import Conversation, Gesture, Member, Turn
from npc_server.errors import ConfigError
from npc_server.export import (
    Example,
    conversation_rows,
    flaw,
    held_out,
    held_out_file,
    hiding,
    placeholders,
    preference_pairs,
    refusal,
    spoken,
    writing,
)
from npc_server.persona import Persona
from npc_server.persona.model import Example as Dialogue
from npc_server.prompt import PromptInput
from npc_server.store import Consent

BRAM = Persona(
    id="bram",
    name="Bram",
    summary="A smith.",
    description="The smith.",
    personality="Gruff.",
    speech="Short.",
    examples=(Dialogue(player="Who are you?", npc="The smith."),),
    refusals=("Not now.",),
    gestures=("wipe_hands",),
)
ANA = Member("ana", "player", "Ana", "key:ana")
BO = Member("bo", "player", "Bo Ram", "key:bo")
NPC = Member("bram", "npc", "Bram", "bram")
ALL = ("ana", "bram")
WIDE = 100_000


def turn(index: int, text: str, **options: object) -> Turn:
    """Ana speaks at even indexes, Bram at odd ones."""
    own = index % 2 == 1
    chosen: dict[str, object] = {
        "id": f"t{index}",
        "index": index,
        "kind": "reply" if own else "say",
        "speaker": "bram" if own else "ana",
        "to": ("ana",) if own else ("bram",),
        "hearers": ALL,
        "text": text,
        "at_ms": 100 + index,
        "finish": "stop" if own else None,
        "answers": f"t{index - 1}" if own else None,
        **options,
    }
    return Turn(**chosen)  # type: ignore[arg-type]


def talk(*turns: Turn, members: tuple[Member, ...] = (ANA, NPC)) -> Conversation:
    return Conversation("c", "w", members, created_ms=90, turns=turns)


def heard(*turns: Turn) -> PromptInput:
    return PromptInput(BRAM, NPC, (ANA, NPC), heard_by(turns, "bram"))


def lines(*turns: Turn, room: int = WIDE) -> tuple[list[list[tuple[str, str]]], Counter[str]]:
    skipped: Counter[str] = Counter()
    found = conversation_rows(heard(*turns), room, skipped)
    return [[(m.role, m.text) for m in line] for line in found], skipped


HELLO = (turn(0, "Hello"), turn(1, "Good day."))


def test_every_player_has_to_consent_since_before_the_first_word() -> None:
    """One without, one since later, one who left, an empty talk: refused with the reason."""
    state = talk(*HELLO)
    yes = Consent(100)
    assert refusal(state, {"key:ana": yes}) is None
    for consents, members, reason in (
        ({}, (ANA, NPC), "no consent"),
        ({"key:ana": None}, (ANA, NPC), "no consent"),
        ({"key:ana": yes}, (ANA, BO, NPC), "no consent"),
        ({"key:bo": yes}, (BO, NPC), "no consent"),
        ({}, (NPC,), "no consent"),
        ({"key:ana": Consent(101)}, (ANA, NPC), "begun without"),
        ({"key:ana": yes, "key:bo": Consent(102)}, (ANA, BO, NPC), "begun without"),
    ):
        assert reason in str(refusal(replace(state, members=members), consents))
    assert "nothing was said" in str(refusal(talk(), {"key:ana": yes}))


def test_the_first_turns_of_a_long_talk_count_though_they_are_gone() -> None:
    """Where the oldest turns were dropped, consent has to be older than the conversation."""
    rest = talk(turn(2, "And?"), turn(3, "So."))
    assert refusal(rest, {"key:ana": Consent(90)}) is None
    assert "begun without" in str(refusal(rest, {"key:ana": Consent(91)}))


@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["key:ana", "key:bo"]), st.integers(0, 50)),
)
def test_no_turn_from_before_a_consent_is_exported(
    moments: list[int], since: dict[str, int]
) -> None:
    """Whatever the times, what passes was said when every player had allowed it for long."""
    turns = [turn(n, "x", at_ms=moment) for n, moment in enumerate(moments)]
    state = talk(*turns, members=(ANA, BO, NPC))
    allowed = refusal(state, {ref: Consent(ms) for ref, ms in since.items()}) is None
    assert allowed == (len(since) == 2 and min(moments) >= max(since.values()))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, None),
        ({"finish": "interrupted"}, "cut off"),
        ({"heard": {"ana": 3}}, "cut off"),
        ({"finish": "length"}, "ended by length"),
        ({"finish": "cancelled"}, "ended by cancelled"),
        ({"degraded": "canned"}, "written line"),
        ({"text": "Not now."}, "written line"),
        ({"text": "…"}, "written line"),
    ],
)
def test_only_whole_replies_of_the_model_teach(
    options: dict[str, object], reason: str | None
) -> None:
    """A cut, an early end and an authored stand-in are flaws, in old records too."""
    found = flaw(turn(1, **{"text": "Good day.", **options}), BRAM)  # type: ignore[arg-type]
    assert (found is None) if reason is None else (reason in str(found))


def test_a_talk_becomes_one_line() -> None:
    """System, user, assistant in turn; the persona's examples are not learnt by heart."""
    (line,), skipped = lines(*HELLO, turn(2, "Busy?"), turn(3, "Always."))
    assert line[0][0] == "system"
    assert line[1:] == [
        ("user", "Hello"),
        ("assistant", "Good day."),
        ("user", "Busy?"),
        ("assistant", "Always."),
    ]
    assert not skipped


def test_a_flawed_reply_goes_with_what_it_answers() -> None:
    """Trainers would learn from it wherever it stood; the rest goes on without that exchange."""
    cut = turn(3, "Always, and", finish="interrupted", heard={"ana": 6})
    (line,), skipped = lines(*HELLO, turn(2, "Busy?"), cut, turn(4, "Sorry"), turn(5, "Hm."))
    assert [text for role, text in line if role == "user"] == ["Hello", "Sorry"]
    assert skipped == {"reply: cut off": 1}


def test_a_greeting_answers_somebody_who_comes() -> None:
    """The first message of a user is there though nobody spoke."""
    greeting = replace(turn(1, "What is it?", answers=None), index=0)
    (line,), _ = lines(greeting, turn(2, "A nail"), turn(3, "Here."))
    assert line[1] == ("user", "[Ana comes up to you.]")
    assert lines(greeting) == ([], {})


def test_what_came_to_mind_at_the_time_stands_behind_the_words() -> None:
    """Each message of a user carries the knowledge that its words called up for the model."""
    fact = {"text": "The mill burned down.", "keys": ["mill"]}
    persona = BRAM.model_validate({**BRAM.model_dump(), "knowledge": [fact]})
    given = replace(
        heard(*HELLO, turn(2, "The mill?"), turn(3, "Gone."), turn(4, "Well"), turn(5, "Aye.")),
        persona=persona,
    )
    (line,) = conversation_rows(given, WIDE, Counter())
    asked = [m.text for m in line if m.role == "user"]
    assert asked[1] == "The mill?\n[You remember: The mill burned down.]"
    assert asked[0] == "Hello"


@given(st.lists(st.text(min_size=1, max_size=80), min_size=2, max_size=20), st.integers(100, 900))
def test_a_long_talk_takes_several_lines(texts: list[str], room: int) -> None:
    """Every whole exchange is in one line and in order; each line has a system message first."""
    turns = [turn(n, text) for n, text in enumerate(texts) if text.strip()]
    found, _ = lines(*turns, room=room)
    replies = [text for line in found for role, text in line if role == "assistant"]
    wanted = [t.text.strip() for t in heard_by(turns, "bram") if t.index % 2 and not flaw(t, BRAM)]
    assert replies == wanted
    for line in found:
        assert [role for role, _ in line] == ["system", *["user", "assistant"] * (len(line) // 2)]


def test_pairs_follow_a_chain_to_the_reply_that_stands() -> None:
    """Of a reply said anew twice, both old ones make a pair with the last; no prompt has them."""
    first = turn(1, "One.", replaced_by="t3")
    second = turn(3, "Two.", replaced_by="t5", answers="t0")
    third = turn(5, "Three.", answers="t0")
    given = heard(turn(0, "Hello"), first, second, third)
    turns = (turn(0, "Hello"), first, second, third)
    skipped: Counter[str] = Counter()
    pairs = list(preference_pairs(given, turns, WIDE, skipped))
    assert [(c.text, r.text) for _, c, r in pairs] == [("Three.", "One."), ("Three.", "Two.")]
    for prompt, *_ in pairs:
        text = "\n".join(message.text for message in prompt.messages)
        assert prompt.messages[-1].text == "Hello"
        assert "Who are you?" in text
        assert not any(word in text for word in ("One.", "Two.", "Three."))
    assert not skipped


def test_flawed_equal_and_unfinished_pairs_stay_out() -> None:
    """A cut reply, twice the same words, and a reply with nothing in its place make no pair."""
    for old, new, reason in (
        (turn(1, "One.", replaced_by="t3"), turn(3, "One."), "twice the same"),
        (turn(1, "One.", replaced_by="t3"), turn(3, "Tw", heard={"ana": 2}), "cut off"),
        (turn(1, "One.", replaced_by="t3", finish="length"), turn(3, "Two."), "length"),
        (turn(1, "One.", replaced_by="gone"), turn(3, "Two."), "nothing was said"),
    ):
        skipped: Counter[str] = Counter()
        turns = (turn(0, "Hello"), old, new)
        assert list(preference_pairs(heard(*turns), turns, WIDE, skipped)) == []
        assert reason in next(iter(skipped))


def test_a_chain_goes_over_a_reply_that_failed() -> None:
    """A reply that said nothing stands between the rejected one and the one that was kept."""
    failed = turn(3, "", replaced_by="t5", answers="t0", finish="error")
    kept = turn(5, "Two.", answers="t0")
    turns = (turn(0, "Hello"), turn(1, "One.", replaced_by="t3"), failed, kept)
    ((_, chosen, rejected),) = preference_pairs(heard(*turns), turns, WIDE, Counter())
    assert (chosen.text, rejected.text) == ("Two.", "One.")


def test_gestures_stand_where_they_were_made() -> None:
    """At the start, between words and at the end; a name in another language is left out."""
    reply = turn(
        1,
        "Well. We shall see.",
        gestures=(Gesture(0, "nod"), Gesture(6, "wipe_hands"), Gesture(19, "shrug")),
    )
    assert spoken(reply, BRAM) == "*nod* Well. *wipe hands* We shall see. *shrug*"
    korean = BRAM.model_copy(update={"languages": ("ko",)})
    assert spoken(reply, korean) == "Well. *wipe hands* We shall see."


def test_players_become_placeholders() -> None:
    """Names, their longer words and ids go, whole words only; a Korean particle may follow."""
    minsu = Member("p-12345", "player", "민수", "key:p-12345")
    cast = (BO, minsu, Member("x", "player", "Anatol Berg", "key:x"), NPC)
    stand_ins = placeholders(cast)
    assert stand_ins == {"bo": "Player", "p-12345": "Player 2", "x": "Player 3"}
    hide = hiding(cast, stand_ins)
    assert hide("bo ram and Bo Ramsay") == "Player and Bo Ramsay"
    assert hide("민수야, p-12345!") == "Player 2야, Player 2!"
    assert hide("ANATOL! Berg, Anatol Berg.") == "Player 3! Player 3, Player 3."
    assert hide("Bram") == "Bram"


def test_names_can_be_kept_but_ids_never() -> None:
    """A player who is called by its id gets a placeholder though names are kept."""
    nameless = Member("u-77", "player", "u-77", "key:u-77")
    stand_ins = placeholders((ANA, nameless, NPC), keep_names=True)
    assert stand_ins == {"u-77": "Player 2"}
    hide = hiding((ANA, nameless, NPC), stand_ins)
    assert hide("Ana and u-77") == "Ana and Player 2"


def test_a_player_called_like_the_npc_takes_no_name_from_it() -> None:
    """The NPC's name stays, for it is not the player's alone."""
    twin = Member("z", "player", "Bram", "key:z")
    assert hiding((twin, NPC), placeholders((twin, NPC)))("Bram!") == "Bram!"


@given(st.lists(st.text(), max_size=40, unique=True))
def test_what_is_held_out_stays_held_out(names: list[str]) -> None:
    """The choice depends on the name alone, and a greater share only adds to it."""
    shares = (0.0, 0.1, 0.5, 1.0)
    picked = [{name for name in names if held_out("w", name, share)} for share in shares]
    assert picked[0] == set()
    assert picked[1] <= picked[2] <= picked[3] == set(names)


def test_files_are_there_only_once_they_are_whole(tmp_path: Path) -> None:
    """What failed in the middle leaves nothing, and what was there before stays."""
    out = tmp_path / "data.jsonl"
    rows = [Example({"messages": []}, False), Example({"messages": [1]}, True)]
    with writing(out, apart=True) as write:
        for row in rows:
            write(row)
    read = [orjson.loads(file.read_bytes()) for file in (out, held_out_file(out))]
    assert read == [row.row for row in rows]

    def fail() -> None:
        with writing(out, apart=True) as write:
            write(rows[1])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["data.heldout.jsonl", "data.jsonl"]
    assert orjson.loads(out.read_bytes()) == rows[0].row


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The error names the file."""
    with (
        pytest.raises(ConfigError, match=r"no/data\.jsonl"),
        writing(tmp_path / "no" / "data.jsonl", apart=False),
    ):
        pass
