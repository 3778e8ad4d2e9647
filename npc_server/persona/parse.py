"""From the text of a persona file to a ``Persona``."""

from __future__ import annotations

from npc_server.errors import FileError
from npc_server.persona.files import read
from npc_server.persona.model import Persona


def parse(text: str, file: str) -> Persona:
    """Read one persona.

    Args:
        text: The file's text, YAML.
        file: Its name, for errors.

    Raises:
        FileError: It cannot be used; says line, field and what was expected.
    """
    found = find_problems(text, file)
    if isinstance(found, Persona):
        return found
    raise found[0]


def find_problems(text: str, file: str) -> Persona | list[FileError]:
    """The persona, or everything that is wrong with its file."""
    return read(text, file, Persona)
