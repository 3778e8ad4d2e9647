"""Servers as processes of their own, with the real model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import ROOT, Servers

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
    """The demo's model, fetched once and kept in the working copy's data folder."""
    folder = Path(os.environ.get("NPC_DATA_DIR", ROOT / "data")) / "models"
    found = models.find("smollm2", folder)
    return found if found is not None else models.pull("smollm2", folder)
