"""The command line: each command is a few lines over the rest."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import signal
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from npc_server import __version__, app, client, doctor, export, terminal
from npc_server.clock import Clock
from npc_server.config import Settings, load
from npc_server.engines import convert as gguf_convert
from npc_server.engines import models
from npc_server.errors import FileError, NpcError
from npc_server.library import (
    builtin_personas,
    builtin_scenes,
    check_personas,
    check_scenes,
    new_persona,
    new_scene,
    open_library,
)
from npc_server.observability import configure_logging
from npc_server.persona.reference import scene_schema, schema
from npc_server.server.keys import KeyFile, Role
from npc_server.store import redact

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

cli = typer.Typer(
    help="The open server that makes game and VR characters talk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
models_cli = typer.Typer(help="Language models: list, fetch, look at, convert.")
persona_cli = typer.Typer(help="Personas: check, show, begin a new one, print their schema.")
scene_cli = typer.Typer(help="Scenes: check, show, begin a new one, print their schema.")
export_cli = typer.Typer(help="Training data from the conversations whose players consent to it.")
keys_cli = typer.Typer(help="API keys: make, list, revoke.")
for name, group in (
    ("models", models_cli),
    ("persona", persona_cli),
    ("scene", scene_cli),
    ("export", export_cli),
    ("keys", keys_cli),
):
    group.info.no_args_is_help = True
    cli.add_typer(group, name=name)

Config = Annotated[Path | None, typer.Option("--config", help="The settings file (TOML).")]
Host = Annotated[str | None, typer.Option(help="The address to listen on.")]
Port = Annotated[int | None, typer.Option(help="The port; 0 takes a free one.")]
RedisUrl = Annotated[str | None, typer.Option(help="redis://, unix://, redis+cluster:// ...")]
DataDir = Annotated[Path | None, typer.Option(help="The folder for models, keys and data.")]
Personas = Annotated[list[Path] | None, typer.Option(help="A folder of personas; repeatable.")]
Scenes = Annotated[list[Path] | None, typer.Option(help="A folder of scenes; repeatable.")]
EngineName = Annotated[str | None, typer.Option("--engine", help="What runs the model.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Name, file, URL or hub name.")]
Auth = Annotated[str | None, typer.Option(help="none or keys.")]
World = Annotated[str, typer.Option(help="The playthrough.")]
Npcs = Annotated[list[str] | None, typer.Option("--npc", help="A persona's id; repeatable.")]
OutFile = Annotated[Path | None, typer.Option("--out", help="The file; by default the output.")]
MinTurns = Annotated[int, typer.Option(min=1, help="Leave out conversations with fewer replies.")]
Split = Annotated[
    float,
    typer.Option(min=0, max=0.9, help="The share of conversations to put into FILE.heldout."),
]
KeepNames = Annotated[bool, typer.Option("--keep-names", help="Leave the players their names.")]


def main() -> None:
    """Run the command line; an error of ours is printed as one text, without a traceback."""
    try:
        cli()
    except NpcError as error:
        err.print(Text(error.message, style="red"))
        sys.exit(1)


@cli.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        out.print(f"npc-server {__version__}")
        raise typer.Exit


@cli.command()
def serve(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    personas: Personas = None,
    scenes: Scenes = None,
    engine: EngineName = None,
    model: ModelName = None,
    auth: Auth = None,
    gpu_layers: Annotated[int | None, typer.Option(help="Layers on the GPU.")] = None,
) -> None:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM).

    A model that is not here yet is fetched first.
    """
    settings = _settings(config, **_given(locals()))
    _fetch_model(settings)
    asyncio.run(_serve(settings))


@cli.command()
def demo(
    config: Config = None,
    port: Port = None,
    data_dir: DataDir = None,
    model: ModelName = None,
    npc: Annotated[str, typer.Option(help="The persona's id.")] = "bram",
) -> None:
    """Start a server, have a conversation of three turns with it, then let you go on."""
    settings = _settings(config, **_given(locals(), leave_out={"npc"}), log_level="warning")
    _fetch_model(settings)
    asyncio.run(_demo(settings, npc))


@cli.command()
def chat(
    npc: Annotated[str, typer.Argument(help="The persona's id.")] = "bram",
    scene: Annotated[str | None, typer.Option(help="A scene's id, in place of an NPC.")] = None,
    url: Annotated[str, typer.Option(help="The server.")] = "ws://127.0.0.1:8765",
    player: Annotated[str | None, typer.Option(help="Your id; by default your login.")] = None,
    key: Annotated[str | None, typer.Option(envvar="NPC_KEY", help="An API key.")] = None,
) -> None:
    """Talk with an NPC of a running server, or with those of a scene."""

    async def run() -> None:
        me = player or getpass.getuser()
        async with client.session(url, player=me, token=key) as session:
            await terminal.chat(session, out, _read_line, npc=None if scene else npc, scene=scene)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())


@cli.command("doctor")
def doctor_(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    personas: Personas = None,
    scenes: Scenes = None,
    engine: EngineName = None,
    model: ModelName = None,
) -> None:
    """Check everything that the server needs."""
    findings = asyncio.run(doctor.examine(_settings(config, **_given(locals()))))
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        mark = Text("OK", style="green") if finding.ok else Text("!!", style="bold red")
        table.add_row(mark, finding.name, Text(finding.text, overflow="fold"))
    out.print(table)
    raise typer.Exit(0 if all(finding.ok for finding in findings) else 1)


@cli.command("config")
def config_(
    config: Config = None,
    host: Host = None,
    port: Port = None,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    personas: Personas = None,
    scenes: Scenes = None,
    engine: EngineName = None,
    model: ModelName = None,
    auth: Auth = None,
) -> None:
    """Print the effective settings, and where each came from."""
    settings, sources = load(_given(locals()), toml_file=config)
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            for field, inner in value.items():
                table.add_row(f"{name}.{field}", _shown(_without_keys(inner)), sources[name])
        else:
            table.add_row(name, _shown(_without_password(name, value)), sources[name])
    out.print(table)


@models_cli.command("list")
def models_list(data_dir: DataDir = None, config: Config = None) -> None:
    """Show the catalogue, and the models that are here."""
    settings = _settings(config, data_dir=data_dir)
    table = Table("name", "here", "size", "about", box=None, pad_edge=False)
    for entry in models.list_models(settings.models_dir):
        here = "yes" if entry.path else ""
        table.add_row(entry.name, here, f"{entry.size / 1e6:.0f} MB", entry.about)
    out.print(table)


@models_cli.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="A name of the catalogue, a URL or a hub name.")],
    sha256: Annotated[str | None, typer.Option(help="What the file must hash to.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Fetch a model; a broken download goes on where it ended."""
    settings = _settings(config, data_dir=data_dir)
    with _progress(name) as update:
        path = models.pull(name, settings.models_dir, progress=update, sha256=sha256)
    out.print(str(path), soft_wrap=True)


@models_cli.command("info")
def models_info(
    name: Annotated[str, typer.Argument(help="A model that is here, or a file.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Read a model file's header without loading it."""
    settings = _settings(config, data_dir=data_dir)
    info = models.info(models.resolve(name, settings.models_dir))
    table = Table(show_header=False, box=None, pad_edge=False)
    for field, value in info.rows():
        table.add_row(field, value)
    out.print(table)


@models_cli.command("convert")
def models_convert(
    source: Annotated[Path, typer.Argument(help="A modern GGUF file of the llama family.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
) -> None:
    """Rewrite a modern GGUF file so that ctransformers can read it."""
    with _progress(source.name) as update:
        gguf_convert.convert(source, target, progress=update)
    out.print(str(target), soft_wrap=True)


@persona_cli.command("check")
def persona_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders.")] = None,
) -> None:
    """Check persona files; says file, line, field and what was expected."""
    _tell(check_personas(paths or [builtin_personas()]))


@persona_cli.command("show")
def persona_show(
    persona: Annotated[str, typer.Argument(help="The persona's id.")],
    personas: Personas = None,
    config: Config = None,
) -> None:
    """Print a persona as the server understands it."""
    library = open_library(_settings(config, personas=personas))
    out.print_json(library.get(persona).model_dump_json(exclude_defaults=True))


@persona_cli.command("new")
def persona_new(
    persona: Annotated[str, typer.Argument(help="The id: lower case, digits, - and _.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path("personas"),
    name: Annotated[str | None, typer.Option(help="The NPC's name.")] = None,
) -> None:
    """Begin a new persona from an explained example."""
    out.print(str(new_persona(persona, folder, name)), soft_wrap=True)


@persona_cli.command("schema")
def persona_schema() -> None:
    """Print the JSON Schema of persona files."""
    sys.stdout.buffer.write(orjson.dumps(schema(), option=orjson.OPT_INDENT_2) + b"\n")


@scene_cli.command("check")
def scene_check(
    paths: Annotated[list[Path] | None, typer.Argument(help="Files or folders.")] = None,
    personas: Personas = None,
    config: Config = None,
) -> None:
    """Check scene files, and that there are the personas that they name."""
    library = open_library(_settings(config, personas=personas))
    _tell(check_scenes(paths or [builtin_scenes()], library))


@scene_cli.command("show")
def scene_show(
    scene: Annotated[str, typer.Argument(help="The scene's id.")],
    personas: Personas = None,
    scenes: Scenes = None,
    config: Config = None,
) -> None:
    """Print a scene as the server understands it."""
    settings = _settings(config, personas=personas, scenes=scenes)
    out.print_json(open_library(settings).scene(scene).model_dump_json(exclude_defaults=True))


@scene_cli.command("new")
def scene_new(
    scene: Annotated[str, typer.Argument(help="The id: lower case, digits, - and _.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path("scenes"),
    title: Annotated[str | None, typer.Option(help="The name that players see.")] = None,
) -> None:
    """Begin a new scene from an explained example."""
    out.print(str(new_scene(scene, folder, title)), soft_wrap=True)


@scene_cli.command("schema")
def scene_schema_() -> None:
    """Print the JSON Schema of scene files."""
    sys.stdout.buffer.write(orjson.dumps(scene_schema(), option=orjson.OPT_INDENT_2) + b"\n")


@export_cli.command("sft")
def export_sft(
    npc: Npcs = None,
    world: World = "default",
    out_file: OutFile = None,
    min_turns: MinTurns = 1,
    split: Split = 0.0,
    keep_names: KeepNames = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    personas: Personas = None,
    config: Config = None,
) -> None:
    """Write conversations to learn from, one a line: {"messages": [...]}.

    Works beside a running server, and without one.
    """
    settings = _settings(
        config, **_given({"redis_url": redis_url, "data_dir": data_dir, "personas": personas})
    )
    names = frozenset(npc or ())
    choice = export.Choice("sft", world, names, min_turns, split, keep_names, settings.context)
    _export(settings, choice, out_file)


@export_cli.command("preferences")
def export_preferences(
    npc: Npcs = None,
    world: World = "default",
    out_file: OutFile = None,
    min_turns: MinTurns = 1,
    split: Split = 0.0,
    keep_names: KeepNames = False,
    redis_url: RedisUrl = None,
    data_dir: DataDir = None,
    personas: Personas = None,
    config: Config = None,
) -> None:
    """Write pairs of replies, a pair a line: {"prompt": [...], "chosen": [...], "rejected": [...]}.

    A pair is a reply that was said anew and the one that was kept. Works beside a running server,
    and without one.
    """
    settings = _settings(
        config, **_given({"redis_url": redis_url, "data_dir": data_dir, "personas": personas})
    )
    names = frozenset(npc or ())
    choice = export.Choice(
        "preferences", world, names, min_turns, split, keep_names, settings.context
    )
    _export(settings, choice, out_file)


@keys_cli.command("add")
def keys_add(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    role: Annotated[str, typer.Option(help="player or host.")] = "player",
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Make a key. It is shown once and kept as a hash only."""
    if role not in {"player", "host"}:
        raise typer.BadParameter("must be 'player' or 'host'", param_hint="--role")
    chosen: Role = "host" if role == "host" else "player"
    key, secret = _key_file(data_dir, config).add(name, chosen, Clock().wall_ms())
    out.print(secret)
    err.print(f"Key {key.id} for '{key.name}' ({key.role}). Keep it: it is not shown again.")


@keys_cli.command("list")
def keys_list(data_dir: DataDir = None, config: Config = None) -> None:
    """Show the keys, without their secrets."""
    table = Table("id", "name", "role", box=None, pad_edge=False)
    for key in _key_file(data_dir, config).all():
        table.add_row(key.id, key.name, key.role)
    out.print(table)


@keys_cli.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The key's id.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Delete a key; nobody can connect with it from now on."""
    gone = _key_file(data_dir, config).revoke(key)
    out.print(f"Revoked {gone.id} ({gone.name}).")


async def _serve(settings: Settings) -> None:
    configure_logging(settings.log_level, settings.log_format)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with app.running(settings) as running:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({running.loading, stopped}, return_when="FIRST_COMPLETED")
        if running.loading.done() and running.loading.exception() is None:
            print(f"ready {running.address}", flush=True)  # noqa: T201 - programs read this line
        await stopped


async def _demo(settings: Settings, npc: str) -> None:
    configure_logging(settings.log_level, settings.log_format)
    async with app.running(settings) as running:
        with err.status("Loading the model"):
            await running.loading
        async with client.session(running.address, player="you") as session:
            ends = await terminal.three_turns(session, npc, out)
            out.print(terminal.summary(ends, running.engine.capabilities))
        if sys.stdin.isatty():
            page = running.address.replace("ws://", "http://")
            out.print(f"\nThe playground is at {page}/ ; an empty line ends the chat here.\n")
            async with client.session(running.address, player=uuid.uuid4().hex) as session:
                await terminal.chat(session, out, _read_line, npc=npc)


def _export(settings: Settings, choice: export.Choice, out_file: Path | None) -> None:
    configure_logging("error", settings.log_format)
    if choice.held_out and out_file is None:
        raise typer.BadParameter("needs --out, for it makes two files", param_hint="--split")
    library = open_library(settings)
    for persona in choice.npcs:
        library.get(persona)
    report = export.Report()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    apart = choice.held_out > 0
    with Progress(*columns, console=err) as bar, export.writing(out_file, apart=apart) as write:
        task = bar.add_task("conversations", total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        asyncio.run(export.run(settings, library, choice, write, report, update))
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in export.summary(report):
        table.add_row(name, value)
    err.print(table)


def _fetch_model(settings: Settings) -> None:
    if settings.engine == "scripted" or settings.remote:
        return
    if not models.find(settings.model, settings.models_dir):
        with _progress(settings.model) as update:
            models.pull(settings.model, settings.models_dir, progress=update)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[models.Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, TransferSpeedColumn(), console=err) as bar:
        task = bar.add_task(name, total=None, visible=False)

        def update(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        yield update


def _settings(config: Path | None, **flags: Any) -> Settings:
    return load(flags, toml_file=config)[0]


def _given(names: dict[str, Any], *, leave_out: frozenset[str] | set[str] = frozenset()) -> Any:
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in names.items()
        if name != "config" and name not in leave_out
    }


def _tell(problems: list[FileError]) -> None:
    for problem in problems:
        out.print(Text(problem.message, style="red"), soft_wrap=True)
    if not problems:
        out.print("OK")
    raise typer.Exit(1 if problems else 0)


def _key_file(data_dir: Path | None, config: Path | None) -> KeyFile:
    return KeyFile(_settings(config, data_dir=data_dir).data_dir / "keys.json")


def _read_line() -> str:
    return input("You: ")


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _without_password(name: str, value: Any) -> Any:
    return redact(value) if name == "redis_url" and value else value


def _without_keys(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: "***" if name.endswith("api_key") else inner for name, inner in value.items()}


if __name__ == "__main__":
    main()
