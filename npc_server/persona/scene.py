"""STUB: replaced by the merge."""

from typing import Any

Scene = Any
