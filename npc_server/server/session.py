"""One client's session: from ``hello`` to the close, a frame at a time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from npc_server import __version__
from npc_server.attendance import Attendance
from npc_server.clock import Clock, Ids
from npc_server.config import Settings
from npc_server.dialogue import Dialogue
from npc_server.errors import (
    BadMessage,
    Forbidden,
    NpcError,
    ProtocolVersion,
    RateLimited,
    StoreUnavailable,
    Unauthorized,
)
from npc_server.observability import Metrics, bind, get_logger
from npc_server.players import Players
from npc_server.protocol import VERSION, commands, events
from npc_server.protocol.events import error_event
from npc_server.protocol.parse import command_id, parse
from npc_server.quota import TokenBucket
from npc_server.rooms import Caller
from npc_server.saves import Saves
from npc_server.server.auth import Identity, authenticate
from npc_server.server.keys import KeyFile, Role
from npc_server.server.outbox import Outbox, Slow
from npc_server.stage import Stage
from npc_server.store import SavedSession, Store

log = get_logger(__name__)

KEEP_SECONDS = 60.0
"""What a session goes on with is kept anew when it changes, and at most so often otherwise."""
LAST_WORDS_SECONDS = 2.0
REPLACE_SECONDS = 10.0
"""So long a newer connection waits for the command that the older one is carrying out."""

REPLACED = "a newer connection goes on with this session"


_OPENING = (commands.ConversationOpen, commands.ConversationClose, commands.ConversationLeave)
"""After these a session may have other conversations open."""


class Closing(Exception):
    """The connection is to be closed.

    Args:
        code: The WebSocket close code.
        reason: Why, in a few words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Services:
    """What sessions stand on."""

    settings: Settings
    keys: KeyFile
    attendance: Attendance
    dialogue: Dialogue
    stage: Stage
    saves: Saves
    players: Players
    store: Store
    metrics: Metrics
    clock: Clock
    ids: Ids
    sessions: dict[str, Session] = field(default_factory=dict)


async def serve_session(connection: ServerConnection, outbox: Outbox, services: Services) -> None:
    """Serve one connection until it ends, and close it with the code that says why."""
    try:
        async with asyncio.TaskGroup() as tasks:
            writer = tasks.create_task(outbox.write_to(lambda b: connection.send(b, text=True)))
            tasks.create_task(_read(connection, outbox, writer, services))
    except* Closing as group:
        await _close(connection, _first(group), services)
    except* Slow as group:
        await _close(connection, Closing(4429, str(_first(group))), services)
    except* ConnectionClosed:
        pass


async def _read(
    connection: ServerConnection, outbox: Outbox, writer: asyncio.Task[None], services: Services
) -> None:
    session: Session | None = None
    try:
        session = await _shake_hands(connection, outbox, services)
        await session.run()
    except Closing:
        # The client is to read why before it is closed.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await outbox.drained()
        raise
    finally:
        writer.cancel()
        outbox.close()
        if session is not None:
            await session.leave()


async def _shake_hands(connection: ServerConnection, outbox: Outbox, services: Services) -> Session:
    """Read ``hello`` and authenticate it: what comes back is a session in full right.

    Raises:
        Closing: It did not come in time, or was refused; the client was told why.
    """
    timeouts, limits = services.settings.timeouts, services.settings.limits
    frame = b""
    try:
        async with asyncio.timeout(timeouts.handshake):
            frame = _text_frame(await connection.recv())
        hello = parse(frame, limits)
        if not isinstance(hello, commands.Hello):
            raise BadMessage("The first frame must be 'hello'.")
        if hello.protocol != VERSION:
            raise ProtocolVersion(f"This server speaks protocol {VERSION}, not {hello.protocol}.")
        request = connection.request
        header = request.headers.get("Authorization") if request else None
        identity = await asyncio.to_thread(
            authenticate, services.settings.auth, services.keys, header, hello.token
        )
        resumed = await _earlier(services, hello, identity)
        session = Session(connection, outbox, services, hello, identity, resumed)
        try:
            await session.begin(hello, identity)
        except BaseException:
            await session.leave()
            raise
    except TimeoutError:
        raise Closing(4408, "no hello came in time") from None
    except NpcError as error:
        outbox.put(error_event(error, command_id(frame)))
        codes = {Unauthorized: 4401, Forbidden: 4403, StoreUnavailable: 4503}
        raise Closing(codes.get(type(error), 4400), error.code) from None
    return session


class Session:
    """A client that has said ``hello``."""

    def __init__(
        self,
        connection: ServerConnection,
        outbox: Outbox,
        services: Services,
        hello: commands.Hello,
        identity: Identity,
        resumed: SavedSession | None,
    ) -> None:
        limits = services.settings.limits
        self.id = resumed.session if resumed else services.ids.new()
        self._resumed = resumed
        self._token = secrets.token_urlsafe(24)
        self._kept: tuple[str, ...] = resumed.conversations if resumed else ()
        self._kept_at = 0.0
        self._replaced = asyncio.Event()
        self._reading: asyncio.Timeout | None = None
        self._working: asyncio.Task[None] | None = None
        self._connection = connection
        self._outbox = outbox
        self._services = services
        self._strikes = 0
        self._commands = TokenBucket(
            limits.messages_per_second, limits.message_burst, services.clock.monotonic
        )
        self._signals = TokenBucket(
            limits.signals_per_second, limits.signals_per_second, services.clock.monotonic
        )
        self.caller = Caller(
            session=self.id,
            host=_role(identity, hello) == "host",
            namespace=identity.namespace,
            world=hello.world,
            player=hello.player.id,
            name=hello.player.name or hello.player.id,
            locale=hello.player.locale,
            send=outbox.put,
        )
        bind(session=self.id)

    async def begin(self, hello: commands.Hello, identity: Identity) -> None:
        """Note what the player allows, welcome it, and go on with what it had open.

        Raises:
            StoreUnavailable: Something could not be noted or read.
        """
        await self._services.players.allow(self.caller, hello.player, anew=True)
        older = self._services.sessions.get(self.id)
        self._services.sessions[self.id] = self
        if older is not None:
            await older.replace()
        await self._keep(anew=True)
        log.info("session_started", role=identity.role, client=hello.client and hello.client.name)
        self._outbox.put(self._welcome(hello))
        for conversation in self._earlier(hello):
            last = hello.last.get(conversation, 0)
            await self._services.attendance.resume(self.caller, conversation, last)
            await self._outbox.drained()
        self._kept = self._services.attendance.open_to(self.caller)

    def _earlier(self, hello: commands.Hello) -> list[str]:
        """The conversations that were open: as they were kept, and as the client knows them.

        What the client opened just before its connection broke may not have been kept yet.
        """
        if self._resumed is None:
            return []
        known = dict.fromkeys((*self._resumed.conversations, *hello.last))
        return list(known)[: self._services.settings.limits.conversations]

    async def replace(self) -> None:
        """A newer connection goes on with this session: carry out no more, and close this one."""
        self._replaced.set()
        if self._reading is not None:
            self._reading.reschedule(0)
        if self._working is not None:
            await asyncio.wait({self._working}, timeout=REPLACE_SECONDS)

    async def _keep(self, *, anew: bool = False, leaving: bool = False) -> None:
        """Keep what a newer connection goes on with, at this server or at another one.

        Raises:
            StoreUnavailable: It could not be kept.
        """
        timeouts = self._services.settings.timeouts
        record = SavedSession(
            world=self.caller.world,
            namespace=self.caller.namespace,
            player=self.caller.player,
            role="host" if self.caller.host else "player",
            conversations=self._kept,
            session=self.id,
        )
        seconds = timeouts.resume + (0 if leaving else timeouts.idle)
        kept = await self._services.store.keep_session(
            self._token, record, round(seconds * 1_000), anew=anew
        )
        self._kept_at = self._services.clock.monotonic()
        if not kept:
            # A newer connection at another server goes on with this session.
            self._replaced.set()

    async def _keep_if_due(self, command: Any) -> None:
        """``_keep`` what has changed, or what was kept long ago."""
        changed = False
        if isinstance(command, _OPENING):
            open_to = self._services.attendance.open_to(self.caller)
            changed, self._kept = open_to != self._kept, open_to
        if changed or self._services.clock.monotonic() - self._kept_at >= KEEP_SECONDS:
            try:
                await self._keep()
            except StoreUnavailable as error:
                # The command itself was carried out. The next one is a reason to try again.
                self._kept_at = -KEEP_SECONDS
                log.warning("session_not_kept", reason=str(error))

    async def run(self) -> None:
        """Carry out commands, one after another, until the client leaves.

        Raises:
            Closing: The client was silent for too long or asks for too much.
        """
        while not self._replaced.is_set():
            try:
                async with asyncio.timeout(self._services.settings.timeouts.idle) as limit:
                    self._reading = limit
                    message = await self._connection.recv()
            except TimeoutError:
                if not self._replaced.is_set():
                    raise Closing(4408, "nothing came for too long") from None
                break
            finally:
                self._reading = None
            await self._frame(message)
        raise Closing(4409, REPLACED)

    async def leave(self) -> None:
        """The connection is gone."""
        if self._services.sessions.get(self.id) is self:
            del self._services.sessions[self.id]
        self._services.attendance.leave(self.caller)
        log.info("session_ended")
        with contextlib.suppress(NpcError):
            await self._keep(leaving=True)

    async def _frame(self, message: str | bytes) -> None:
        """Carry a command out, to its end also where the connection breaks meanwhile.

        Else its effect could be committed and nobody be told.
        """
        self._working = asyncio.create_task(self._carry_out(message))
        try:
            await asyncio.shield(self._working)
        except asyncio.CancelledError:
            self._outbox.close()
            await asyncio.wait({self._working})
            raise

    async def _carry_out(self, message: str | bytes) -> None:
        frame = b""
        try:
            frame = _text_frame(message)
            command = parse(frame, self._services.settings.limits)
            if isinstance(command, commands.Ping | commands.Input | commands.Playback):
                self._signals.take("signals")
            else:
                self._commands.take("commands")
            self._strikes = 0
            self._services.metrics.commands.labels(command.type).inc()
            await self._dispatch(command)
            await self._keep_if_due(command)
        except NpcError as error:
            self._refuse(error, command_id(frame))
        except Exception:
            log.exception("command_failed")
            self._refuse(NpcError(NpcError.wire_message), command_id(frame))

    def _refuse(self, error: NpcError, re: str | None) -> None:
        self._services.metrics.errors.labels(error.code).inc()
        self._outbox.put(error_event(error, re))
        if isinstance(error, RateLimited):
            self._strikes += 1
            if self._strikes > self._services.settings.limits.message_burst:
                raise Closing(4429, "too many commands")

    async def _dispatch(self, command: Any) -> None:
        services, caller = self._services, self.caller
        attendance, dialogue, stage = services.attendance, services.dialogue, services.stage
        saves, players = services.saves, services.players
        match command:
            case commands.Ping():
                self._outbox.put(
                    events.Pong(re=command.id, t=command.t, server_time=services.clock.wall_ms())
                )
            case commands.Hello():
                raise BadMessage("'hello' was said already. Open a new connection to begin anew.")
            case commands.ConversationOpen():
                await attendance.open(caller, command)
            case commands.ConversationClose():
                await attendance.close(caller, command)
            case commands.Say():
                await dialogue.say(caller, command)
            case commands.Event():
                await dialogue.event(caller, command)
            case commands.ConversationJoin():
                await stage.join(caller, command)
            case commands.ConversationLeave():
                await stage.leave(caller, command)
            case commands.ConversationSet():
                await stage.set(caller, command)
            case commands.ContextSet():
                await stage.context(caller, command)
            case commands.SceneSet():
                await stage.scene(caller, command)
            case commands.NpcSet():
                await stage.npc(caller, command)
            case commands.Rewind():
                await stage.rewind(caller, command)
            case commands.TurnRedact():
                await stage.redact(caller, command)
            case commands.CheckpointSave():
                await self._once(command.id, saves.save(caller, command))
            case commands.CheckpointLoad():
                await self._once(command.id, saves.load(caller, command))
            case commands.CheckpointFork():
                await self._once(command.id, saves.fork(caller, command))
            case commands.CheckpointDelete():
                await self._once(command.id, saves.delete(caller, command))
            case commands.CheckpointList():
                self._outbox.put(await saves.listed(caller, command))
            case commands.CheckpointExport():
                await self._send_all(await saves.export(caller, command))
            case commands.CheckpointImport():
                await self._once(command.id, saves.take(caller, command))
            case commands.PromptRun():
                self._outbox.put(await dialogue.run_prompt(caller, command))
            case commands.ActionResult():
                await dialogue.action_result(caller, command)
            case commands.Input():
                await dialogue.input(caller, command)
            case commands.Playback():
                await dialogue.playback(caller, command)
            case commands.Interrupt():
                await dialogue.interrupt(caller, command)
            case commands.Regenerate():
                await dialogue.regenerate(caller, command)
            case commands.HistoryGet():
                self._outbox.put(await players.history(caller, command))
            case commands.PlayerForget():
                await self._once(command.id, players.forget(caller, command))
            case commands.PlayerExport():
                await self._send_all(await players.export(caller, command))

    async def _once(self, command: str, work: Coroutine[Any, Any, events.Event]) -> None:
        """Carry out what concerns no single conversation, once: then its first answer comes again.

        Args:
            command: The command's id.
            work: Carries it out.
        """
        store = self._services.store
        with contextlib.closing(work):
            known = await store.session_answer(self.id, command)
            if known is None:
                answer = await work
                await store.keep_session_answer(self.id, command, answer.encode())
            else:
                answer = events.EVENTS.validate_json(known)
        self._outbox.put(answer)

    async def _send_all(self, pages: Iterable[events.Event]) -> None:
        """Send much, no faster than the client reads."""
        for page in pages:
            self._outbox.put(page)
            await self._outbox.drained()

    def _welcome(self, hello: commands.Hello) -> events.Welcome:
        limits = self._services.settings.limits
        return events.Welcome(
            re=hello.id,
            session=self.id,
            resume=self._token,
            resumed=self._resumed is not None,
            role="host" if self.caller.host else "player",
            heartbeat_s=self._services.settings.timeouts.heartbeat,
            limits=events.Limits(
                frame_bytes=limits.frame_bytes,
                text_chars=limits.text_chars,
                messages_per_second=limits.messages_per_second,
                message_burst=limits.message_burst,
                conversations=limits.conversations,
                members=limits.members,
                json_depth=limits.json_depth,
            ),
            features=[],
            server=events.ServerInfo(name="npc-server", version=__version__),
        )


def _role(identity: Identity, hello: commands.Hello) -> Role:
    """What a session may do: what its credential allows, unless it gives that up."""
    return "player" if hello.role == "player" else identity.role


async def _earlier(
    services: Services, hello: commands.Hello, identity: Identity
) -> SavedSession | None:
    """The session that a client goes on with; ``None`` where there is none that is its own."""
    if hello.resume is None:
        return None
    found = await services.store.take_session(hello.resume)
    mine = (hello.world, identity.namespace, hello.player.id, _role(identity, hello))
    if found is None or (found.world, found.namespace, found.player, found.role) != mine:
        return None
    return found


def _text_frame(message: str | bytes) -> bytes:
    if isinstance(message, bytes):
        raise BadMessage("Binary frames are for audio, which is not in use. Send text frames.")
    return message.encode()


def _first(group: BaseExceptionGroup[Any]) -> Any:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


async def _close(connection: ServerConnection, closing: Closing, services: Services) -> None:
    services.metrics.closes.labels(str(closing.code)).inc()
    log.info("connection_closed", code=closing.code, reason=closing.reason)
    await connection.close(closing.code, closing.reason)
