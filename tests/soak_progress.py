"""The progress of long checks, noted in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path


class Progress:
    """Which of a check's numbered parts have passed.

    Args:
        file: Where that is noted.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._done: set[int] = set(json.loads(file.read_text())) if file.exists() else set()

    def left(self, count: int) -> Iterator[int]:
        """The parts from 0 that have not passed; one has when the next one is asked for."""
        for part in range(count):
            if part not in self._done:
                yield part
                self._done.add(part)
                self._file.parent.mkdir(exist_ok=True)
                self._file.write_text(json.dumps(sorted(self._done)))
        self._file.unlink(missing_ok=True)
