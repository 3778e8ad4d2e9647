"""Scenes are followed while the server runs, and go with the personas that are there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from support import eventually

from npc_server.config import Settings
from npc_server.errors import ConfigError, NotFound
from npc_server.library import (
    Library,
    builtin_personas,
    builtin_scenes,
    check_scenes,
    new_scene,
    open_library,
)
from npc_server.persona.reference import example, scene_example


@pytest.fixture
async def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    """A library that follows two folders, named from where it was started, with a ferry scene."""
    monkeypatch.chdir(tmp_path)
    for folder in ("people", "places"):
        (tmp_path / folder).mkdir()
    for persona in ("bram", "marta"):
        (tmp_path / f"people/{persona}.yaml").write_text(example(persona, persona.title()))
    (tmp_path / "places/ferry.yaml").write_text(scene_example("ferry", "Ferry"))
    library = Library([Path("people")], [Path("places")])
    library.load()
    stop = asyncio.Event()
    watching = asyncio.create_task(library.watch(stop))
    await asyncio.sleep(0.2)
    yield library
    stop.set()
    await watching


async def until(check: Callable[[], bool]) -> None:
    async def checked() -> bool:
        return check()

    await eventually(checked)


def ids(library: Library) -> list[str]:
    return [scene.id for scene in library.scenes()]


async def test_a_saved_scene_is_live(library: Library, tmp_path: Path) -> None:
    """A changed file is there for the next look, so is a new one, and a deleted one is gone."""
    (tmp_path / "places/ferry.yaml").write_text(scene_example("ferry", "The ferry"))
    await until(lambda: library.scene("ferry").title == "The ferry")
    (tmp_path / "places/quay.yaml").write_text(scene_example("quay", "The quay"))
    await until(lambda: ids(library) == ["ferry", "quay"])
    (tmp_path / "places/ferry.yaml").unlink()
    await until(lambda: ids(library) == ["quay"])


async def test_folders_are_followed_from_where_the_server_started(
    library: Library, tmp_path: Path
) -> None:
    """What is saved in a folder with a relative name is live; folders inside of it are not."""
    (tmp_path / "people/drafts").mkdir()
    (tmp_path / "people/drafts/bram.yaml").write_text(example("bram", "Draft"))
    (tmp_path / "people/bram.yaml").write_text(example("bram", "Old Bram"))
    await until(lambda: library.get("bram").name == "Old Bram")
    assert library.names() == {"bram": "Old Bram", "marta": "Marta"}


async def test_a_broken_scene_keeps_the_last_good_version(library: Library, tmp_path: Path) -> None:
    """While a file is broken its scene stays as it was, and the problem is told."""
    good = scene_example("ferry", "Mended")
    (tmp_path / "places/ferry.yaml").write_text(good.replace("npc: bram", "npc: brm"))
    await until(lambda: bool(library.problems()))
    assert library.scene("ferry").title == "Ferry"
    assert "there is no persona 'brm'. There is: bram" in library.problems()[0].message
    (tmp_path / "places/ferry.yaml").write_text(good)
    await until(lambda: not library.problems() and library.scene("ferry").title == "Mended")


async def test_a_scene_comes_and_goes_with_its_personas(library: Library, tmp_path: Path) -> None:
    """Without one of them it is not there, and the file that names it is told; and back again."""
    (tmp_path / "people/marta.yaml").unlink()
    await until(lambda: ids(library) == [])
    with pytest.raises(NotFound, match="no scene 'ferry'"):
        library.scene("ferry")
    await until(lambda: [problem.field for problem in library.problems()] == ["cast.1.npc"])
    (tmp_path / "people/marta.yaml").write_text(example("marta", "Marta"))
    await until(lambda: ids(library) == ["ferry"] and not library.problems())


def test_later_folders_win(tmp_path: Path) -> None:
    """A user's scene takes the place of one that came with the server; near ids are named."""
    new_scene("tavern", tmp_path, "My own tavern")
    library = open_library(Settings(scenes=(tmp_path,)))
    assert library.scene("tavern").title == "My own tavern"
    assert library.problems() == []
    with pytest.raises(NotFound, match="There is: tavern"):
        library.scene("tavrn")


def test_all_that_comes_with_the_server_is_good() -> None:
    """The folders of the repository are found, and nothing in them is broken."""
    library = open_library(Settings())
    assert library.problems() == []
    assert "tavern" in ids(library)
    assert check_scenes([builtin_scenes()], library) == []


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    """Each file stands for itself; its name has to be its id; bad bytes are told."""
    (tmp_path / "ferry.yaml").write_text(scene_example("ferry", "Ferry"))
    (tmp_path / "quay.yaml").write_text(scene_example("other", "Quay"))
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    library = Library([builtin_personas()], [tmp_path])
    library.load()
    assert ids(library) == ["ferry"]
    reasons = [problem.message for problem in library.problems()]
    assert any("UTF-8" in reason for reason in reasons)
    assert any("must be 'quay'" in reason for reason in reasons)
    assert len(check_scenes([tmp_path, tmp_path / "none"], library)) == 3


def test_a_new_scene_never_overwrites(tmp_path: Path) -> None:
    """A file that is there is left alone; a bad id is refused; a missing folder is told."""
    new_scene("ferry", tmp_path, None)
    with pytest.raises(ConfigError, match="already"):
        new_scene("ferry", tmp_path, None)
    with pytest.raises(ConfigError, match="id"):
        new_scene("Ferry!", tmp_path, None)
    with pytest.raises(ConfigError, match="no folder of scenes"):
        Library([tmp_path], [tmp_path / "none"]).load()
