"""Ids come from the time and the chance that they are given."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from npc_server.clock import Clock, Ids, uuid7


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_ids_are_uuids_of_version_7(unix_ms: int, bits: int) -> None:
    """Any time and chance give a valid UUIDv7 that carries the time in front."""
    made = uuid.UUID(uuid7(unix_ms, bits))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == unix_ms
    assert (made.int >> 64 & 0xFFF) << 62 | made.int & 2**62 - 1 == bits


def test_ids_sort_by_time() -> None:
    """A later id is greater, whatever the chance."""
    times = iter([1, 2])
    ids = Ids(Clock(wall_ms=lambda: next(times)), bits=lambda n: 2**n - 1)
    assert ids.new() < ids.new()
