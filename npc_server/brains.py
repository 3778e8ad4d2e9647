"""The engines of a server by name, each with the scheduler that grants its seats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from npc_server.config import DEFAULT_ENGINE
from npc_server.engines.base import Engine
from npc_server.observability import get_logger
from npc_server.scheduler import Scheduler

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Brain:
    """An engine, its name in the settings, and who may use it when."""

    name: str
    engine: Engine
    scheduler: Scheduler


class Brains:
    """Every engine of a server.

    Args:
        brains: By name; the default engine is among them.
        fallback: Names of those to ask where an NPC's own cannot answer, in turn.
        background: The name of the one for work in the background; ``None`` is the NPC's own.
    """

    def __init__(
        self,
        brains: Mapping[str, Brain],
        *,
        fallback: Sequence[str] = (),
        background: str | None = None,
    ) -> None:
        self._brains = dict(brains)
        self._fallback = tuple(fallback)
        self._background = background
        self._unknown: set[str] = set()

    @property
    def default(self) -> Brain:
        """The server's own engine."""
        return self._brains[DEFAULT_ENGINE]

    def all(self) -> tuple[Brain, ...]:
        """Every one, the default first."""
        return (self.default, *(b for b in self._brains.values() if b is not self.default))

    def of(self, name: str | None) -> Brain:
        """The one that a persona asks for; the default where there is none of that name."""
        if name is not None and name not in self._brains and name not in self._unknown:
            self._unknown.add(name)
            log.warning("engine_unknown", engine=name, used=DEFAULT_ENGINE)
        return self._brains.get(name or DEFAULT_ENGINE, self.default)

    def chain(self, name: str | None) -> tuple[Brain, ...]:
        """The one that a persona asks for, then those to fall back on."""
        first = self.of(name)
        rest = (self._brains[other] for other in self._fallback)
        return tuple(dict.fromkeys((first, *rest)))

    def background(self, name: str | None) -> Brain:
        """The one for work in the background, for a persona that asks for ``name``."""
        return self.of(self._background or name)
