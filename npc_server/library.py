"""The personas at hand: read from folders, live as soon as a file is saved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from watchfiles import awatch

from npc_server.errors import ConfigError, NotFound, PersonaError
from npc_server.observability import get_logger
from npc_server.persona import Persona
from npc_server.persona.parse import find_problems
from npc_server.persona.reference import example, schema

log = get_logger(__name__)

SUFFIXES = {".yaml", ".yml"}


def builtin_personas() -> Path:
    """The folder of the personas that come with the server."""
    package = Path(__file__).parent
    installed = package / "personas"
    return installed if installed.is_dir() else package.parent / "personas"


class Library:
    """Personas by id. ``get`` and ``all`` only look at memory.

    Args:
        folders: Where the files are; of two personas of one id, that of the later folder counts.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._good: dict[Path, Persona] = {}
        self._bad: dict[Path, list[PersonaError]] = {}
        self._by_id: dict[str, Persona] = {}

    def load(self) -> None:
        """Read every folder; what is wrong is in ``problems``.

        Raises:
            ConfigError: A folder is not there.
        """
        for folder in self._folders:
            if not folder.is_dir():
                raise ConfigError(f"There is no folder of personas {folder}. Check NPC_PERSONAS.")
        self._reread([file for folder in self._folders for file in _files(folder)])

    def get(self, persona: str) -> Persona:
        """The persona of an id, as saved last.

        Raises:
            NotFound: There is none; the message names near ones.
        """
        found = self._by_id.get(persona)
        if found is None:
            near = get_close_matches(persona, self._by_id, n=3) or sorted(self._by_id)[:12]
            raise NotFound(f"There is no persona '{persona[:64]}'. There is: {', '.join(near)}.")
        return found

    def scene(self, scene: str) -> Any:  # STUB
        raise NotFound(scene)

    def all(self) -> list[Persona]:
        """All personas, by id."""
        return [self._by_id[name] for name in sorted(self._by_id)]

    def problems(self) -> list[PersonaError]:
        """What is wrong with files as they are saved now."""
        return [problem for file in sorted(self._bad) for problem in self._bad[file]]

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of persona files."""
        return schema()

    async def watch(self, stop: asyncio.Event) -> None:
        """Follow the folders until told to stop: a saved file counts from the next turn on."""
        # Every step wakes the interpreter, also when nothing was saved.
        async for changes in awatch(*self._folders, stop_event=stop, debounce=1_000, step=250):
            files = sorted({Path(name) for _, name in changes})
            await asyncio.to_thread(self._reread, [f for f in files if f.suffix in SUFFIXES])

    def _reread(self, files: Iterable[Path]) -> None:
        for file in files:
            before = self._good.get(file)
            if not file.exists():
                self._good.pop(file, None)
                self._bad.pop(file, None)
                continue
            read = read_persona(file)
            if isinstance(read, Persona):
                self._bad.pop(file, None)
                self._good[file] = read
                if before is not None and before != read:
                    log.info("persona_changed", persona=read.id)
            else:
                self._bad[file] = read
                for problem in read:
                    log.warning("persona_broken", reason=problem.message, kept=before is not None)
        order = {folder: place for place, folder in enumerate(self._folders)}
        ranked = sorted(self._good, key=lambda file: order.get(file.parent, -1))
        self._by_id = {self._good[file].id: self._good[file] for file in ranked}


def read_persona(file: Path) -> Persona | list[PersonaError]:
    """The persona of a file, or everything that is wrong with it."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return [PersonaError("is not UTF-8. Save it as UTF-8", file=file.name)]
    except OSError as error:
        return [PersonaError(f"cannot be read: {error.strerror}", file=file.name)]
    read = find_problems(text, file.name)
    if isinstance(read, Persona) and read.id != file.stem:
        expected = f"must be '{file.stem}', as the file is called (got '{read.id}')"
        return [PersonaError(expected, file=file.name, field="id")]
    return read


def check_personas(paths: Sequence[Path]) -> list[PersonaError]:
    """What is wrong with some files, or with all those of some folders."""
    problems: list[PersonaError] = []
    for path in paths:
        if not path.exists():
            problems.append(PersonaError("is not there", file=str(path)))
        for file in _files(path) if path.is_dir() else [path] if path.exists() else []:
            read = read_persona(file)
            if not isinstance(read, Persona):
                problems.extend(read)
    return problems


def new_persona(persona: str, folder: Path, name: str | None) -> Path:
    """Write an explained example for a new persona; never over a file that is there.

    Raises:
        ConfigError: The id is not one, or the file exists or cannot be written.
    """
    file = folder / f"{persona}.yaml"
    text = example(persona, name or persona.replace("-", " ").replace("_", " ").title())
    problems = find_problems(text, file.name)
    if not isinstance(problems, Persona):
        raise ConfigError(problems[0].message)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise ConfigError(f"{file} is there already. Choose another id.") from None
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}.") from error
    return file


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
