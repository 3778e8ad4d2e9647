"""Redis: keys, scripts, leases, and a server of our own where none is given."""

from npc_server.store.connect import redact
from npc_server.store.embedded import EmbeddedRedis, find_redis_server
from npc_server.store.records import Partial
from npc_server.store.store import (
    Answer,
    Committed,
    Durable,
    Fenced,
    Owned,
    Repeated,
    RevisionConflict,
    Store,
    StoredEvent,
    open_store,
)

__all__ = [
    "Answer",
    "Committed",
    "Durable",
    "EmbeddedRedis",
    "Fenced",
    "Owned",
    "Partial",
    "Repeated",
    "RevisionConflict",
    "Store",
    "StoredEvent",
    "find_redis_server",
    "open_store",
    "redact",
]
