"""Servers as processes of their own, with the real model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import Servers

from npc_server.config import Settings
from npc_server.engines import models


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers on this test's data folder."""
    (tmp_path / "data").mkdir()
    found = Servers(tmp_path / "data")
    yield found
    found.end()


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The demo's model, fetched once and kept where the demo keeps it."""
    folder = Settings().models_dir
    found = models.find("smollm2", folder)
    return found if found is not None else models.pull("smollm2", folder)
