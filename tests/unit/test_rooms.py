"""What ends a reply in flight, and what of it stays."""

from npc_server.clock import Clock
from npc_server.conversation import rules
from npc_server.conversation.model import Ask, Member
from npc_server.protocol import events
from npc_server.rooms import Asking, Caller, Live, Room
from npc_server.speech import Speech

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
BRAM = Member("bram", "npc", "Bram", "bram")


def test_a_reply_that_is_complete_is_still_cut() -> None:
    """A cut that comes when all was sent, but not committed yet, keeps only what was heard."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=5)
    ask = Ask("bram", None, None, MINSU.ref, line="Mind the sparks.")
    state = rules.begun(state, ask, turn="r", queue_position=0, now_ms=5).state
    assert state.reply is not None
    speech = Speech("c", state.reply, Clock(), lambda event: None)
    speech.text = "Mind the sparks."
    outcome = speech.outcome("stop", {})
    room = Room(state, lambda: 5, live=Live(speech, Asking(), MINSU.ref, outcome=outcome))
    change = room.settled(state, "interrupted", MINSU, 4)
    assert [item.event.model_dump().get("heard") for item in change.events] == [None, 4, None]
    assert change.state.turns[-1].text == "Mind"


def listener(session: str, ref: str, *, host: bool = False) -> tuple[Caller, list[events.Event]]:
    got: list[events.Event] = []
    namespace, player = ref.split(":")
    return Caller(session, host, namespace, "w", player, player, None, got.append), got


async def test_one_listener_does_what_an_npc_does() -> None:
    """A host goes before the addressed player, who goes before whoever only hears it."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=5)
    room = Room(state, lambda: 5)
    heard, minsu = ("key:yuna", "key:minsu"), ("key:minsu",)
    action = events.ReplyAction(
        conversation="c",
        turn="r",
        call="x",
        name="give",
        args={},
        confirm=True,
        timeout_ms=50,
        execute=False,
    )
    bystander, seen = listener("s0", "key:yuna")
    room.listeners["s0"] = bystander
    assert room.propose(action, heard, minsu).executor is None
    player, told = listener("s1", "key:minsu")
    room.listeners["s1"] = player
    assert room.propose(action, heard, minsu).executor == "s1"
    host, commanded = listener("s2", "key:game", host=True)
    room.listeners["s2"] = host
    assert room.propose(action, heard, minsu).executor == "s2"
    executes = [[e.execute for e in got] for got in (seen, told, commanded)]  # type: ignore[attr-defined]
    assert executes == [[False, False, False], [True, False], [True]]
