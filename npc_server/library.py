"""The personas and scenes at hand: read from folders, live as soon as a file is saved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from watchfiles import awatch

from npc_server.config import Settings
from npc_server.errors import ConfigError, FileError, NotFound
from npc_server.observability import get_logger
from npc_server.persona import Persona, Scene
from npc_server.persona import parse as personas
from npc_server.persona import scene as scenes
from npc_server.persona.files import near
from npc_server.persona.reference import example, scene_example

log = get_logger(__name__)

SUFFIXES = {".yaml", ".yml"}

Item = TypeVar("Item", Persona, Scene)


def builtin_personas() -> Path:
    """The folder of the personas that come with the server."""
    return _builtin("personas")


def builtin_scenes() -> Path:
    """The folder of the scenes that come with the server."""
    return _builtin("scenes")


class Library:
    """Personas and scenes by id. Whoever asks for one looks at memory only.

    Args:
        personas: Folders of personas; of two of one id, that of the later folder counts.
        scenes: Folders of scenes, likewise.
    """

    def __init__(self, personas: Iterable[Path], scenes: Iterable[Path] = ()) -> None:
        self._personas = _Shelf[Persona]("persona", personas, read_persona)
        self._scenes = _Shelf[Scene]("scene", scenes, self._read_scene)

    def load(self) -> None:
        """Read every folder; what is wrong is in ``problems``.

        Raises:
            ConfigError: A folder is not there.
        """
        self._personas.load()
        self._scenes.load()

    def get(self, persona: str) -> Persona:
        """The persona of an id, as saved last.

        Raises:
            NotFound: There is none; the message names near ones.
        """
        return _found("persona", persona, self._personas.by_id)

    def all(self) -> list[Persona]:
        """All personas, by id."""
        return [self._personas.by_id[name] for name in sorted(self._personas.by_id)]

    def names(self) -> dict[str, str]:
        """The names of all personas by their ids."""
        return {persona.id: persona.name for persona in self._personas.by_id.values()}

    def scene(self, scene: str) -> Scene:
        """The scene of an id, as saved last.

        Raises:
            NotFound: There is none whose personas are all there; the message names near ones.
        """
        return _found("scene", scene, {each.id: each for each in self.scenes()})

    def scenes(self) -> list[Scene]:
        """All scenes whose personas are there, by id."""
        there = self._personas.by_id
        found = [self._scenes.by_id[name] for name in sorted(self._scenes.by_id)]
        return [scene for scene in found if all(part.npc in there for part in scene.cast)]

    def problems(self) -> list[FileError]:
        """What is wrong with files as they are saved now."""
        return [*self._personas.problems(), *self._scenes.problems()]

    async def watch(self, stop: asyncio.Event) -> None:
        """Follow the folders until told to stop: a saved file counts from the next turn on."""
        folders = {*self._personas.folders, *self._scenes.folders}
        # Every step wakes the interpreter, also when nothing was saved.
        async for changes in awatch(
            *folders, stop_event=stop, debounce=1_000, step=250, recursive=False
        ):
            files = sorted({Path(name) for _, name in changes})
            await asyncio.to_thread(self._reread, [f for f in files if f.suffix in SUFFIXES])

    def _reread(self, files: Sequence[Path]) -> None:
        before = self.names()
        self._personas.reread(files)
        self._scenes.reread(files if self.names() == before else self._scenes.known())

    def _read_scene(self, file: Path) -> Scene | list[FileError]:
        return read_scene(file, self.names())


class _Shelf(Generic[Item]):
    """What the files of some folders say now, and what they said when they were last good.

    Args:
        kind: What they are of, for people.
        folders: Where they are.
        read: Reads one of them.
    """

    def __init__(
        self,
        kind: str,
        folders: Iterable[Path],
        read: Callable[[Path], Item | list[FileError]],
    ) -> None:
        # Changes are told by absolute paths.
        self.folders = tuple(folder.resolve() for folder in folders)
        self.by_id: Mapping[str, Item] = {}
        self._kind = kind
        self._read: Callable[[Path], Item | list[FileError]] = read
        self._good: dict[Path, Item] = {}
        self._bad: dict[Path, list[FileError]] = {}

    def load(self) -> None:
        for folder in self.folders:
            if not folder.is_dir():
                raise ConfigError(
                    f"There is no folder of {self._kind}s {folder}. "
                    f"Check NPC_{self._kind.upper()}S."
                )
        self.reread([file for folder in self.folders for file in _files(folder)])

    def known(self) -> list[Path]:
        """Every file that was read."""
        return sorted({*self._good, *self._bad})

    def problems(self) -> list[FileError]:
        return [problem for file in sorted(self._bad) for problem in self._bad[file]]

    def reread(self, files: Iterable[Path]) -> None:
        """Read those of the files again that stand in a folder of this shelf."""
        for file in files:
            if file.parent not in self.folders:
                continue
            if file.exists():
                self._take(file, self._read(file))
            else:
                self._good.pop(file, None)
                self._bad.pop(file, None)
        ranked = sorted(self._good, key=lambda file: self.folders.index(file.parent))
        self.by_id = {self._good[file].id: self._good[file] for file in ranked}

    def _take(self, file: Path, read: Item | list[FileError]) -> None:
        before = self._good.get(file)
        if not isinstance(read, list):
            self._bad.pop(file, None)
            self._good[file] = read
            if before is not None and before != read:
                log.info(f"{self._kind}_changed", **{self._kind: read.id})
            return
        told = {problem.message for problem in self._bad.get(file, [])}
        self._bad[file] = read
        for problem in read:
            if problem.message not in told:
                kept = before is not None
                log.warning(f"{self._kind}_broken", reason=problem.message, kept=kept)


def open_library(settings: Settings) -> Library:
    """The personas and scenes that come with the server and those of the settings, read once.

    Raises:
        ConfigError: A folder is not there.
    """
    library = Library(
        [builtin_personas(), *settings.personas], [builtin_scenes(), *settings.scenes]
    )
    library.load()
    return library


def read_persona(file: Path) -> Persona | list[FileError]:
    """The persona of a file, or everything that is wrong with it."""
    return _read(file, personas.find_problems)


def read_scene(file: Path, there: Mapping[str, str]) -> Scene | list[FileError]:
    """The scene of a file, or everything that is wrong with it.

    Args:
        file: Where it is.
        there: The names of all personas at hand by their ids.
    """
    return _read(file, lambda text, name: scenes.find_problems(text, name, there))


def check_personas(paths: Sequence[Path]) -> list[FileError]:
    """What is wrong with some files of personas, or with all those of some folders."""
    return _check(paths, read_persona)


def check_scenes(paths: Sequence[Path], library: Library) -> list[FileError]:
    """What is wrong with some files of scenes, or with all those of some folders.

    Args:
        paths: Which.
        library: The personas that they may name.
    """
    there = library.names()
    return _check(paths, lambda file: read_scene(file, there))


def new_persona(persona: str, folder: Path, name: str | None) -> Path:
    """Write an explained example for a new persona; never over a file that is there.

    Raises:
        ConfigError: The id is not one, or the file exists or cannot be written.
    """
    file = folder / f"{persona}.yaml"
    text = example(persona, name or _title(persona))
    return _write(file, text, personas.find_problems(text, file.name))


def new_scene(scene: str, folder: Path, title: str | None) -> Path:
    """Write an explained example for a new scene; never over a file that is there.

    Raises:
        ConfigError: The id is not one, or the file exists or cannot be written.
    """
    file = folder / f"{scene}.yaml"
    text = scene_example(scene, title or _title(scene))
    shipped = Library([builtin_personas()])
    shipped.load()
    return _write(file, text, scenes.find_problems(text, file.name, shipped.names()))


def _builtin(what: str) -> Path:
    package = Path(__file__).parent
    installed = package / what
    return installed if installed.is_dir() else package.parent / what


def _found(kind: str, name: str, there: Mapping[str, Item]) -> Item:
    found = there.get(name)
    if found is None:
        known = near(name, there) or "none"
        raise NotFound(f"There is no {kind} '{name[:64]}'. There is: {known}.")
    return found


def _read(
    file: Path, find_problems: Callable[[str, str], Item | list[FileError]]
) -> Item | list[FileError]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return [FileError("is not UTF-8. Save it as UTF-8", file=file.name)]
    except OSError as error:
        return [FileError(f"cannot be read: {error.strerror}", file=file.name)]
    read = find_problems(text, file.name)
    if not isinstance(read, list) and read.id != file.stem:
        expected = f"must be '{file.stem}', as the file is called (got '{read.id}')"
        return [FileError(expected, file=file.name, field="id")]
    return read


def _check(
    paths: Sequence[Path], read: Callable[[Path], Item | list[FileError]]
) -> list[FileError]:
    problems: list[FileError] = []
    for path in paths:
        if not path.exists():
            problems.append(FileError("is not there", file=str(path)))
        for file in _files(path) if path.is_dir() else [path] if path.exists() else []:
            found = read(file)
            if isinstance(found, list):
                problems.extend(found)
    return problems


def _write(file: Path, text: str, checked: object) -> Path:
    if isinstance(checked, list):
        raise ConfigError(checked[0].message)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} is there already. Choose another id.") from None
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}.") from error
    return file


def _title(name: str) -> str:
    return name.replace("-", " ").replace("_", " ").title()


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
