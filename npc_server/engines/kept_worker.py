"""Keeps a worker running: starts it again when it has ended, at growing intervals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from npc_server.engines.placement import fewer
from npc_server.engines.worker_process import Json, WorkerDied, WorkerProcess
from npc_server.errors import ConfigError, EngineUnavailable, ModelFileError, NpcError
from npc_server.observability import get_logger

PATIENCE_SECONDS = 5.0

log = get_logger(__name__)


class Worker(Protocol):
    """A process at work."""

    @property
    def pid(self) -> int:
        """The number of the process."""
        ...

    @property
    def ended(self) -> asyncio.Event:
        """Is set when the process has ended."""
        ...

    async def stop(self, *, patience: float = ...) -> None:
        """End the process. May be called twice."""
        ...


W = TypeVar("W", bound=Worker)


async def load_worker(
    module: str | Sequence[str], first: Json, *, model: str, library: str, seconds: float
) -> WorkerProcess:
    """Start a worker process and wait until it has loaded a model.

    Args:
        module: The Python module to run, or a whole command line.
        first: The first command: what to load.
        model: The model file's name, for messages.
        library: What loads it, for messages.
        seconds: How long it may take.

    Raises:
        ModelFileError: The model cannot be read or run, or crashed the worker.
        ConfigError: The worker does not know what was asked for.
        EngineUnavailable: The worker cannot be started, or not in time.
    """
    try:
        worker = await WorkerProcess.launch(module, first, seconds=seconds)
    except WorkerDied as error:
        raise ModelFileError(
            f"The worker ended while it loaded {model}: {error}. The file is damaged, of a kind "
            f"that {library} does not know, or too large for the memory."
        ) from error
    except TimeoutError:
        raise EngineUnavailable(
            f"{model} was not loaded within {seconds:.0f} seconds. "
            "Raise NPC_TIMEOUTS__START, or take a smaller model."
        ) from None
    except OSError as error:
        raise EngineUnavailable(f"Cannot start the worker: {error.strerror}.") from error
    facts = worker.facts
    if facts["event"] == "failed":
        await worker.stop()
        kind = ConfigError if facts["kind"] == "ConfigError" else ModelFileError
        said = worker.complaints if facts.get("unexplained") else ()
        raise kind(" ".join([facts["message"], *said[:1]]))
    return worker


async def with_layers_that_fit(load: Callable[[int], Awaitable[W]], layers: int) -> tuple[W, int]:
    """Load a model, with half as many layers on the GPU as long as they cannot be loaded.

    Args:
        load: Loads it with so many layers.
        layers: How many to begin with.

    Returns:
        The worker, and how many layers it has there.

    Raises:
        ModelFileError: It cannot be loaded even without a GPU.
    """
    while True:
        try:
            return await load(layers), layers
        except ModelFileError as error:
            if layers == 0:
                raise
            tried, layers = layers, fewer(layers)
            log.warning("gpu_layers_reduced", tried=tried, layers=layers, reason=error.message)


class KeptWorker(Generic[W]):
    """One worker, and its successors.

    Args:
        launch: Starts a worker; raises an ``NpcError`` where it cannot.
        backoff_first: Seconds before a crashed worker is started again; doubled each time.
        backoff_most: The longest such wait, in seconds.

    Attributes:
        worker: The one that runs; ``None`` while there is none.
        failures: How often it crashed since it last did something to the end.
    """

    def __init__(
        self, launch: Callable[[], Awaitable[W]], *, backoff_first: float, backoff_most: float
    ) -> None:
        self._launch = launch
        self._backoff_first = backoff_first
        self._backoff_most = backoff_most
        self._next: asyncio.Future[W] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._start_at = 0.0
        self._closed = False
        self.worker: W | None = None
        self.failures = 0

    @property
    def pid(self) -> int | None:
        """The number of the worker's process; ``None`` while there is none."""
        return self.worker.pid if self.worker else None

    async def start(self) -> None:
        """Start the first worker.

        Raises:
            EngineUnavailable: Everything is closed already.
            NpcError: As ``launch`` does.
        """
        if self._closed:
            raise EngineUnavailable("The engine is closed.")
        self.worker = await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the worker for good. May be called twice."""
        self._closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        self._answer_waiting(EngineUnavailable("The engine is closed."))
        worker, self.worker = self.worker, None
        if worker is not None:
            await worker.stop()

    async def current(self) -> W:
        """The worker; waits for one that is being started.

        Raises:
            EngineUnavailable: There is none, and none will be there soon.
        """
        if self.worker is not None and not self.worker.ended.is_set():
            return self.worker
        if self._closed or self._keeper is None:
            raise EngineUnavailable("The engine is closed or was never started.")
        wait = self._start_at - asyncio.get_running_loop().time()
        if wait > PATIENCE_SECONDS:
            raise EngineUnavailable(
                "The model's worker crashed several times; it is started again later.",
                retry_after_ms=int(wait * 1000),
            )
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self._next)

    async def replace(self) -> W | None:
        """Start another worker and put it in the place of the one that runs, which is returned.

        Raises:
            NpcError: As ``launch`` does; the one that runs stays.
        """
        worker = await self._launch()
        if self._closed or self._keeper is None:
            await worker.stop()
            raise EngineUnavailable("The engine is closed.")
        # Nothing is awaited from here on: who is cancelled now would lose a worker.
        self._keeper.cancel()
        old, self.worker = self.worker, worker
        self._keeper = asyncio.create_task(self._keep())
        self._answer_waiting(worker)
        return old

    async def _keep(self) -> None:
        """Start the worker again whenever it has ended."""
        while True:
            worker = self.worker
            if worker is not None:
                await worker.ended.wait()
                log.error("worker_ended", pid=worker.pid, failures=self.failures)
            delay = self._backoff()
            self.failures += 1
            # Set before anything is awaited: who asks now is to know how long it takes.
            self._start_at = asyncio.get_running_loop().time() + delay
            self.worker = None
            if worker is not None:
                await worker.stop(patience=0)
            await asyncio.sleep(delay)
            await self._try_again()

    def _backoff(self) -> float:
        return min(self._backoff_most, self._backoff_first * 2.0 ** min(self.failures, 30))

    async def _try_again(self) -> None:
        try:
            worker = await self._launch()
        except NpcError as error:
            log.warning("worker_not_started", reason=error.message)
            self._answer_waiting(error)
        else:
            self.worker = worker
            self._answer_waiting(worker)

    def _answer_waiting(self, outcome: W | NpcError) -> None:
        waiting, self._next = self._next, None
        if waiting is None or waiting.done():
            return
        if isinstance(outcome, NpcError):
            waiting.set_exception(outcome)
            # Whoever waited may have gone.
            waiting.exception()
        else:
            waiting.set_result(outcome)
