"""The composition root: from settings to a running server. The only place that wires."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from npc_server.attendance import Attendance
from npc_server.brains import Brain, Brains
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.dialogue import Dialogue
from npc_server.director import Director
from npc_server.engines import create_engine
from npc_server.engines.base import Engine
from npc_server.errors import NpcError, StoreUnavailable
from npc_server.library import Library, open_library
from npc_server.observability import Metrics, get_logger
from npc_server.players import Players
from npc_server.quota import Quotas
from npc_server.replicas import following
from npc_server.replies import Replies
from npc_server.rooms import Rooms
from npc_server.saves import Saves
from npc_server.scheduler import Scheduler
from npc_server.server.gateway import Gateway
from npc_server.server.http import Routes
from npc_server.server.keys import KeyFile
from npc_server.server.session import Services
from npc_server.speaking import Speaker
from npc_server.stage import Stage
from npc_server.store import EmbeddedRedis, Store, open_store

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class App:
    """A running server.

    Attributes:
        address: The WebSocket address.
        engine: The default engine.
        brains: Every engine.
        store: Where everything is kept.
        library: The personas and scenes at hand.
        dialogue: Carries out commands.
        loading: Ends when the default engine can answer; fails with the reason why it cannot.
    """

    address: str
    engine: Engine
    brains: Brains
    store: Store
    library: Library
    dialogue: Dialogue
    loading: asyncio.Task[None]


@asynccontextmanager
async def running(settings: Settings, clock: Clock | None = None) -> AsyncIterator[App]:
    """Run a server until the context ends; then end replies, workers and our own Redis.

    The server listens at once; ``App.loading`` tells when the model can answer.

    Raises:
        SetupError: Port, data folder or settings cannot be used.
        StoreUnavailable: Redis does not answer.
    """
    clock = clock or Clock()
    ids = Ids(clock)
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as stack:
        store = await _start_store(settings, ids, stack)
        library = open_library(settings)
        stop = asyncio.Event()
        watching = asyncio.create_task(library.watch(stop))
        stack.push_async_callback(_finish, watching, stop)
        brains = _brains(settings, metrics, stack)
        loading, *_ = [_loading(brain, stack) for brain in brains.all()]
        speaker = Speaker(brains, library, settings, metrics, clock)
        quotas = Quotas(settings, clock.monotonic)
        rooms = Rooms(store, metrics, clock)
        director = Director(brains, library, settings, clock)
        replies = Replies(store, rooms, speaker, director, quotas, settings, metrics, clock, ids)
        dialogue = Dialogue(rooms, replies, quotas, settings, clock, ids)
        players = Players(store, rooms, speaker, clock)
        attendance = Attendance(
            store, rooms, replies, players, library, quotas, settings, clock, ids
        )
        await stack.enter_async_context(following(store, rooms, replies))
        keys = KeyFile(settings.data_dir / "keys.json")
        stage = Stage(store, rooms, replies, library, settings, clock, ids)
        saves = Saves(store, rooms, speaker, clock)
        services = Services(
            settings, keys, attendance, dialogue, stage, saves, players, store, metrics, clock, ids
        )

        async def ready() -> str | None:
            return await _what_is_missing(loading, store)

        routes = Routes(settings, keys, library, dialogue, metrics, ready)
        address = await stack.enter_async_context(Gateway(services, routes).listen())
        yield App(address, brains.default.engine, brains, store, library, dialogue, loading)


async def _start_store(settings: Settings, ids: Ids, stack: contextlib.AsyncExitStack) -> Store:
    if settings.redis_url is not None:
        opening = open_store(settings.redis_url, settings, owner=ids.new())
    else:
        embedded = EmbeddedRedis(settings.data_dir)
        stack.push_async_callback(embedded.stop)
        url = await embedded.start()
        opening = open_store(url, settings, owner=embedded.owner, own=True)
    return await stack.enter_async_context(opening)


def _brains(settings: Settings, metrics: Metrics, stack: contextlib.AsyncExitStack) -> Brains:
    brains = {}
    for name in settings.engine_names:
        wanted = settings.engine_settings(name)
        engine = create_engine(
            wanted, models_dir=settings.models_dir, start_timeout=settings.timeouts.start
        )
        stack.push_async_callback(engine.close)
        scheduler = Scheduler(wanted.seats, settings.queue, metrics, name=name)
        brains[name] = Brain(name, engine, scheduler)
    return Brains(brains, fallback=settings.fallback, background=settings.background)


def _loading(brain: Brain, stack: contextlib.AsyncExitStack) -> asyncio.Task[None]:
    task = asyncio.create_task(_load(brain))
    stack.push_async_callback(_cancel, task)
    return task


async def _load(brain: Brain) -> None:
    try:
        await brain.engine.start()
        brain.scheduler.resize(brain.engine.capabilities.seats)
    except NpcError as error:
        log.error("model_not_loaded", engine=brain.name, reason=error.message)
        raise


async def _what_is_missing(loading: asyncio.Task[None], store: Store) -> str | None:
    if not loading.done():
        return "The model is being loaded."
    if loading.cancelled() or loading.exception() is not None:
        return "The model cannot be used; the server's log says why."
    try:
        await store.ping()
    except StoreUnavailable:
        return "Redis does not answer."
    return None


async def _finish(task: asyncio.Task[None], stop: asyncio.Event) -> None:
    stop.set()
    await asyncio.gather(task, return_exceptions=True)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
