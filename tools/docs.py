"""Write every generated page: run by ``make docs``; a test holds the files equal to this."""

from __future__ import annotations

from pathlib import Path

import orjson

from npc_server.cli import reference_markdown as cli_markdown
from npc_server.persona import reference as persona
from npc_server.protocol import reference as protocol

ROOT = Path(__file__).parent.parent


def pages() -> dict[str, str]:
    """The generated files by their path in the repository."""
    schema = orjson.dumps(persona.schema(), option=orjson.OPT_INDENT_2).decode() + "\n"
    return {
        "docs/reference/protocol.md": protocol.markdown(),
        "docs/reference/persona.md": persona.reference_markdown(),
        "docs/reference/persona.schema.json": schema,
        "docs/reference/cli.md": cli_markdown(),
        "docs/reference/settings.md": "",
    }


if __name__ == "__main__":
    for name, text in pages().items():
        (ROOT / name).write_text(text)
