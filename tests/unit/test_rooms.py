"""What ends a reply in flight, and what of it stays."""

from npc_server.clock import Clock
from npc_server.conversation import rules
from npc_server.conversation.model import Member
from npc_server.rooms import Caller, Live, Room
from npc_server.speech import Speech

MINSU = Member("minsu", "player", "Minsu", "key:minsu")
BRAM = Member("bram", "npc", "Bram", "bram")


def test_a_reply_that_is_complete_is_still_cut() -> None:
    """A cut that comes when all was sent, but not committed yet, keeps only what was heard."""
    state = rules.begin("c", "w", MINSU, [BRAM], locale=None, now_ms=5)
    state = rules.reply_started(
        state, turn="r", speaker="bram", answers=None, queue_position=0
    ).state
    assert state.reply is not None
    speech = Speech("c", state.reply, Clock(), lambda event: None)
    speech.text = "Mind the sparks."
    caller = Caller("s", False, "key", "w", "minsu", "Minsu", None, lambda event: None)
    outcome = speech.outcome("stop", {})
    room = Room(state, live=Live(speech, caller, "c1", MINSU.ref, outcome=outcome))
    change = room.settled(state, "interrupted", MINSU, 4)
    assert [item.event.model_dump().get("heard") for item in change.events] == [None, 4, None]
    assert change.state.turns[-1].text == "Mind"
