"""The language models, and the files that they are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from npc_server.config import EngineSettings
    from npc_server.engines.base import Engine

__all__ = ["create_engine"]


def create_engine(settings: EngineSettings, *, models_dir: Path, start_timeout: float) -> Engine:
    """The engine that the settings ask for, not started yet. See ``engines.create``."""
    # Workers import this package, and must not load HTTP clients before they can begin.
    from npc_server.engines import create  # noqa: PLC0415

    return create.create_engine(settings, models_dir=models_dir, start_timeout=start_timeout)
