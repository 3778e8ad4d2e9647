"""Folders of personas are followed while the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support import eventually

from npc_server.errors import ConfigError, NotFound
from npc_server.library import Library, builtin_personas, check_personas, new_persona
from npc_server.persona.reference import example


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    """A library that follows a folder with Ana in it."""
    (tmp_path / "ana.yaml").write_text(example("ana", "Ana"))
    library = Library([tmp_path])
    library.load()
    stop = asyncio.Event()
    watching = asyncio.create_task(library.watch(stop))
    await asyncio.sleep(0.2)
    yield library
    stop.set()
    await watching


async def test_a_saved_file_is_live(library: Library, tmp_path: Path) -> None:
    """A change of a file, also by rename, is there for the next look; so is a new file."""
    (tmp_path / "ana.yaml").write_text(example("ana", "Anna"))

    async def renamed() -> bool:
        return library.get("ana").name == "Anna"

    await eventually(renamed)
    fresh = tmp_path / "swap.tmp"
    fresh.write_text(example("ana", "Annabel"))
    fresh.rename(tmp_path / "ana.yaml")

    async def swapped() -> bool:
        return library.get("ana").name == "Annabel"

    await eventually(swapped)
    (tmp_path / "eva.yaml").write_text(example("eva", "Eva"))

    async def added() -> bool:
        return [p.id for p in library.all()] == ["ana", "eva"]

    await eventually(added)


async def test_a_broken_file_keeps_the_last_good_version(library: Library, tmp_path: Path) -> None:
    """While a file is broken its persona stays as it was, and the problem is told."""
    (tmp_path / "ana.yaml").write_text("name: [")

    async def told() -> bool:
        return bool(library.problems())

    await eventually(told)
    assert library.get("ana").name == "Ana"
    assert "ana.yaml, line" in library.problems()[0].message
    (tmp_path / "ana.yaml").write_text(example("ana", "Mended"))

    async def mended() -> bool:
        return not library.problems() and library.get("ana").name == "Mended"

    await eventually(mended)


async def test_a_deleted_file_is_gone(library: Library, tmp_path: Path) -> None:
    """A persona whose file is deleted is not found any more."""
    (tmp_path / "ana.yaml").unlink()

    async def gone() -> bool:
        return library.all() == []

    await eventually(gone)
    with pytest.raises(NotFound):
        library.get("ana")


def test_later_folders_win(tmp_path: Path) -> None:
    """A user's persona takes the place of one that came with the server."""
    mine = tmp_path / "mine"
    new_persona("bram", mine, "My own Bram")
    library = Library([builtin_personas(), mine])
    library.load()
    assert library.get("bram").name == "My own Bram"
    with pytest.raises(NotFound, match="bram"):
        library.get("brm")


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    """Each file stands for itself; its name has to be its id; bad bytes are told."""
    (tmp_path / "ana.yaml").write_text(example("ana", "Ana"))
    (tmp_path / "eva.yaml").write_text(example("other", "Eva"))
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    library = Library([tmp_path])
    library.load()
    assert [p.id for p in library.all()] == ["ana"]
    reasons = [problem.message for problem in library.problems()]
    assert any("UTF-8" in reason for reason in reasons)
    assert any("must be 'eva'" in reason for reason in reasons)
    assert len(check_personas([tmp_path, tmp_path / "none"])) == 3


def test_a_new_persona_never_overwrites(tmp_path: Path) -> None:
    """A file that is there is left alone; a bad id is refused."""
    new_persona("ana", tmp_path, None)
    with pytest.raises(ConfigError, match="already"):
        new_persona("ana", tmp_path, None)
    with pytest.raises(ConfigError, match="id"):
        new_persona("Ana!", tmp_path, None)
    with pytest.raises(ConfigError, match="no folder"):
        Library([tmp_path / "none"]).load()
