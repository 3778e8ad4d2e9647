"""The published schema and page say what the models say."""

import orjson
import pytest
from jsonschema import Draft202012Validator

from npc_server.protocol import events, reference
from npc_server.protocol.commands import COMMANDS

VALIDATOR = Draft202012Validator(reference.json_schema())


def test_the_schema_is_a_schema() -> None:
    """The document is valid JSON Schema of the draft that it names."""
    Draft202012Validator.check_schema(reference.json_schema())


@pytest.mark.parametrize(
    "command",
    [
        {"type": "hello", "id": "1", "protocol": 1, "player": {"id": "p"}},
        {"type": "conversation.open", "id": "1", "npcs": ["bram", {"npc": "mina"}]},
        {"type": "say", "id": "1", "conversation": "c", "text": "안녕"},
        {"type": "ping"},
    ],
)
def test_commands_that_parse_also_validate(command: dict[str, object]) -> None:
    """The schema accepts what the server accepts."""
    COMMANDS.validate_json(orjson.dumps(command))
    VALIDATOR.validate(command)


def test_events_validate_as_sent() -> None:
    """What goes over the wire, without its empty fields, fits the schema."""
    event = events.ReplyDone(conversation="c", seq=4, turn="t", text="Hm.", finish="stop")
    VALIDATOR.validate(orjson.loads(event.encode()))


def test_a_wrong_event_does_not_validate() -> None:
    """The schema refuses an event with a field of the wrong kind."""
    assert not VALIDATOR.is_valid({"type": "reply.delta", "conversation": "c", "turn": 5})


def test_every_type_is_on_the_page() -> None:
    """Each command, event, error and close code has its place in the reference."""
    page = reference.markdown()
    for model in (*reference.commands(), *reference.events()):
        assert f"### `{reference.tag(model)}`" in page
    for code in (*reference.CLOSE_CODES, "store_unavailable", "engine_unavailable"):
        assert f"`{code}`" in page or f"| {code} |" in page
