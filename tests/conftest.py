"""What every test stands on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from processes import Servers

from npc_server.config import Settings
from npc_server.engines import models

settings.register_profile("npc", max_examples=30, deadline=None, derandomize=True)
settings.load_profile("npc")


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers, as processes of their own, on this test's data folder."""
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
