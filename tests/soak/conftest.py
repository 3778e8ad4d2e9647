"""Long checks that go on where they stopped: what has passed is noted in ``.soak/``.

When all of a check has passed, its note is deleted, and the next run begins anew.
"""

from __future__ import annotations

import pytest
from processes import ROOT
from soak_progress import Progress


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Progress:
    """The progress of this check."""
    return Progress(ROOT / ".soak" / f"{request.node.name}.json")
