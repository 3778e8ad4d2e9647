"""Write every generated page: run by ``make docs``; a test holds the files equal to this."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import typer
from pydantic import BaseModel

from npc_server.cli import cli
from npc_server.config import PREFIX, Settings
from npc_server.persona import reference as authored
from npc_server.protocol import reference as protocol

ROOT = Path(__file__).parent.parent


def pages() -> dict[str, str]:
    """The generated files by their path in the repository."""
    return {
        "docs/reference/protocol.md": protocol.markdown(),
        "docs/reference/persona.md": authored.reference_markdown(),
        "docs/reference/persona.schema.json": _json(authored.schema()),
        "docs/reference/scene.md": authored.scene_markdown(),
        "docs/reference/scene.schema.json": _json(authored.scene_schema()),
        "docs/reference/cli.md": "\n".join(_command_line()) + "\n",
        "docs/reference/settings.md": "\n".join(_settings()) + "\n",
    }


def _json(schema: dict[str, Any]) -> str:
    return orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode() + "\n"


def _settings() -> Iterator[str]:
    yield from (
        "# Settings",
        "",
        "Made from `npc_server/config.py` by `make docs`. Flags beat the environment, which beats",
        "`npc-server.toml` in the working folder, which beats the defaults; `npc-server config`",
        "prints the effective ones and where each came from. A field of a group is",
        "`NPC_GROUP__FIELD` in the environment and `[group]` in the file.",
        "",
        "| setting | environment | default | meaning |",
        "|---|---|---|---|",
    )
    groups: dict[str, type[BaseModel]] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, BaseModel):
            groups[name] = type(field.default)
            continue
        default = "the user's data folder" if field.default_factory else _shown(field.default)
        yield f"| `{name}` | `{PREFIX}{name.upper()}` | {default} | {field.description} |"
    for name in groups:
        group = Settings.model_fields[name].default
        about = Settings.model_fields[name].description
        yield from ("", f"## `{name}`", "", str(about), "")
        yield from ("| field | default | meaning |", "|---|---|---|")
        for inner, field in type(group).model_fields.items():
            yield f"| `{inner}` | {_shown(getattr(group, inner))} | {field.description} |"


def _shown(value: object) -> str:
    return "" if value is None or value == () else f"`{value}`"


def _command_line() -> Iterator[str]:
    yield from ("# The command line", "", "Made by `make docs`.")
    yield from _command(typer.main.get_command(cli), ("npc-server",))


def _command(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    yield from ("", f"## `{' '.join(path)}`", "", (command.help or "").strip())
    options = [p for p in command.params if p.name != "help"]
    if options:
        yield from ("", "| argument or option | default | meaning |", "|---|---|---|")
    for parameter in options:
        name = (
            ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name
        )
        default = parameter.default
        shown = "" if default in (None, False) or callable(default) else f"`{default}`"
        yield f"| `{name}` | {shown} | {getattr(parameter, 'help', '') or ''} |"
    for name, inner in getattr(command, "commands", {}).items():
        yield from _command(inner, (*path, name))


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / name).write_text(text)
