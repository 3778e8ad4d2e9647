"""Redis: keys, scripts, leases, and a server of our own where none is given."""

from npc_server.store.checkpoints import LARGEST_SAVE, About, Saved, decode, encode
from npc_server.store.connect import redact
from npc_server.store.embedded import EmbeddedRedis, FolderInUse, find_redis_server
from npc_server.store.opening import open_beside, open_store
from npc_server.store.records import Consent, Partial, SavedSession
from npc_server.store.store import (
    TURNS_KEPT,
    Answer,
    Committed,
    Durable,
    Fenced,
    Owned,
    Repeated,
    RevisionConflict,
    Store,
    StoredEvent,
)
from npc_server.store.wakes import Wake, Wakes

__all__ = [
    "LARGEST_SAVE",
    "TURNS_KEPT",
    "About",
    "Answer",
    "Committed",
    "Consent",
    "Durable",
    "EmbeddedRedis",
    "Fenced",
    "FolderInUse",
    "Owned",
    "Partial",
    "Repeated",
    "RevisionConflict",
    "Saved",
    "SavedSession",
    "Store",
    "StoredEvent",
    "Wake",
    "Wakes",
    "decode",
    "encode",
    "find_redis_server",
    "open_beside",
    "open_store",
    "redact",
]
