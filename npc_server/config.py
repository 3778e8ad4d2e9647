"""The settings: read once, frozen, from flags, the environment, a TOML file and defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from npc_server.errors import ConfigError

TOML_FILE = "npc-server.toml"
PREFIX = "NPC_"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def _paths(value: Any) -> Any:
    return value.split(os.pathsep) if isinstance(value, str) else value


def _words(value: Any) -> Any:
    return value.replace(",", " ").split() if isinstance(value, str) else value


def default_data_dir() -> Path:
    """Where data goes unless told otherwise: ``$XDG_DATA_HOME/npc-server`` or its usual place."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "npc-server"


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Group):
    """What one client may ask for."""

    frame_bytes: int = Field(65_536, ge=1_024, description="The largest frame from a client.")
    text_chars: int = Field(4_000, ge=1, description="The longest text, in code points.")
    json_depth: int = Field(32, ge=4, description="How deeply a frame may be nested.")
    messages_per_second: float = Field(20, gt=0, description="Acknowledged commands a second.")
    message_burst: int = Field(40, ge=1, description="How many of them at once.")
    signals_per_second: float = Field(60, gt=0, description="Unacknowledged commands a second.")
    conversations: int = Field(32, ge=1, description="Open conversations of a session.")
    members: int = Field(16, ge=2, description="Members of a conversation.")
    connections_per_address: int = Field(64, ge=1, description="Connections of one address.")
    outbox_messages: int = Field(256, ge=8, description="Messages that may wait for a client.")
    outbox_bytes: int = Field(1_048_576, ge=65_536, description="Bytes that may wait for it.")


class Quota(_Group):
    """What one player, or one API key with all of its players, may use up."""

    tokens_per_minute: int = Field(20_000, ge=1, description="Tokens of prompts and replies.")
    replies_at_once: int = Field(8, ge=1, description="Replies that are being made.")
    conversations_per_hour: int = Field(240, ge=1, description="New conversations.")


class Timeouts(_Group):
    """How long things may take, in seconds."""

    handshake: float = Field(5, gt=0, description="From connection to `hello`.")
    heartbeat: float = Field(20, gt=0, description="Between WebSocket pings.")
    idle: float = Field(1_800, gt=0, description="Without a command.")
    write: float = Field(10, gt=0, description="A write to a client that does not read.")
    first_token: float = Field(60, gt=0, description="From the request to the first piece.")
    stall: float = Field(30, gt=0, description="Between two pieces of a reply.")
    reply: float = Field(180, gt=0, description="A whole reply.")
    start: float = Field(180, gt=0, description="Loading a model.")
    resume: float = Field(300, gt=0, description="From a lost connection to `hello.resume`.")
    drain: float = Field(10, gt=0, description="Finishing replies before the server stops.")
    redis: float = Field(5, gt=0, description="One command to Redis.")
    decision: float = Field(10, gt=0, description="What an NPC does, before it speaks.")
    director: float = Field(2, gt=0, description="Finding out who answers, if nobody is named.")
    confirm: float = Field(5, gt=0, description="The game's `action.result`; then it is refused.")


class EngineSettings(BaseModel):
    """What one engine needs to know. The server's own settings are the default engine's."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    engine: Literal["auto", "llamacpp", "ctransformers", "openai", "scripted"] = Field(
        "auto",
        description="What runs the model: `auto` is `openai` where a base URL is given, else "
        "`llamacpp` for files that it reads, else `ctransformers`.",
    )
    model: str = Field(
        "smollm2",
        description="A name of the catalogue, a file, a URL or a hub name; for `openai` the "
        "endpoint's name of the model.",
    )
    template: str | None = Field(
        None, description="The prompt template; by default guessed from the model."
    )
    context: int = Field(2048, ge=256, le=131_072, description="Tokens of prompt and reply.")
    seats: int = Field(4, ge=1, le=64, description="Replies that are generated at once.")
    threads: int | None = Field(None, ge=1, le=256, description="Threads; by default the cores.")
    device: Literal["auto", "cpu", "cuda", "rocm", "vulkan", "metal"] = Field(
        "auto", description="What computes; `auto` takes a GPU that the engine can use."
    )
    gpu_layers: Annotated[int, Field(ge=0, le=1_000)] | Literal["auto"] = Field(
        "auto", description="Layers of the model on the GPU; `auto` is as many as fit."
    )
    kv_cache: Literal["f16", "q8_0", "q4_0"] = Field(
        "f16", description="How llama.cpp stores what it has read; `q8_0` halves the memory."
    )
    flash_attention: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Flash attention of llama.cpp. `auto` uses it on a GPU, and where a quantised "
        "cache needs it; elsewhere it makes replies slower.",
    )
    prompt_cache_mib: int = Field(
        512,
        ge=0,
        le=1_048_576,
        description="Memory for prompts of NPCs without a seat (llama.cpp).",
    )
    openai_base_url: str | None = Field(
        None, description="An OpenAI-compatible endpoint, such as `http://127.0.0.1:11434/v1`."
    )
    openai_api_key: SecretStr | None = Field(None, description="The endpoint's key; never logged.")
    script: Path | None = Field(None, description="What the scripted engine says (YAML).")

    @property
    def remote(self) -> bool:
        """Whether an endpoint is asked, so that no model file is needed."""
        return self.engine == "openai" or (
            self.engine == "auto" and self.openai_base_url is not None
        )


EngineName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
DEFAULT_ENGINE = "default"


class Settings(EngineSettings, BaseSettings):
    """Every setting of the server. Names in the environment are ``NPC_`` and the name."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        validate_default=True,
    )

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8765, ge=0, le=65_535, description="The port; 0 takes a free one.")
    redis_url: str | None = Field(
        None,
        description="`redis://`, `rediss://`, `unix://`, `redis+cluster://` or "
        "`redis+sentinel://`; without it one of our own runs.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir, description="Models, keys and our own Redis' files."
    )
    personas: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = Field(
        (), description="More folders of personas; the last one wins."
    )
    scenes: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_paths)] = Field(
        (), description="More folders of scenes; the last one wins."
    )
    engines: dict[EngineName, dict[str, Any]] = Field(
        {},
        description="More engines by name, for personas that ask for one, for `background` and "
        "for `fallback`: `[engines.small]`. What one leaves out is as above.",
    )
    background: EngineName | None = Field(
        None, description="The engine for work in the background; by default the NPC's own."
    )
    fallback: Annotated[tuple[EngineName, ...], NoDecode, BeforeValidator(_words)] = Field(
        (), description="Engines to ask in turn where an NPC's own cannot answer."
    )
    auth: Literal["none", "keys"] = Field(
        "none", description="`none` works on loopback only; `keys` asks for an API key."
    )
    origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = Field(
        (), description="Web origins that may connect besides the server's own; `*` is any."
    )
    prompt_view: bool | None = Field(
        None, description="Whether `/prompts` shows prompts; by default on loopback only."
    )
    retention_days: float | None = Field(
        90, gt=0, description="How long an unused conversation is kept."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is logged."
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`auto` is for people in a terminal, JSON elsewhere."
    )
    log_text: bool = Field(False, description="Whether what players say may be logged.")
    limits: Limits = Field(Limits(), description="What one client may ask for.")
    player_quota: Quota = Field(Quota(), description="What one player may use up.")
    key_quota: Quota = Field(
        Quota(tokens_per_minute=2_000_000, replies_at_once=512, conversations_per_hour=24_000),
        description="What one API key may use up with all of its players.",
    )
    queue: int = Field(64, ge=0, description="Requests of each class that may wait for a seat.")
    deadline_ms: int | None = Field(
        4_000,
        ge=100,
        le=600_000,
        description="By when a reply has begun, unless the client says otherwise.",
    )
    timeouts: Timeouts = Field(Timeouts(), description="How long things may take, in seconds.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what is given: ``load`` has read every source and laid them over each other."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)

    @model_validator(mode="after")
    def _engines_can_be_made(self) -> Settings:
        if DEFAULT_ENGINE in self.engines:
            raise ValueError(f"'{DEFAULT_ENGINE}' names the server's own engine; choose another")
        for name in self.engines:
            self.engine_settings(name)
        for name in (*self.fallback, *filter(None, (self.background,))):
            if name not in self.engine_names:
                raise ValueError(f"there is no engine {name!r} in 'engines'")
        return self

    @property
    def engine_names(self) -> tuple[str, ...]:
        """The names of all engines, the default one first."""
        return (DEFAULT_ENGINE, *self.engines)

    def engine_settings(self, name: str = DEFAULT_ENGINE) -> EngineSettings:
        """The settings of one engine.

        Raises:
            KeyError: There is none of that name.
            ValidationError: One of its settings is unknown or wrong.
        """
        own = {field: getattr(self, field) for field in EngineSettings.model_fields}
        if name == DEFAULT_ENGINE:
            return EngineSettings(**own)
        named = self.engines[name]
        if "openai_base_url" in named:
            # A key is for one address, and must not go to another one.
            own["openai_api_key"] = None
        return EngineSettings(**{**own, **named})

    @property
    def loopback(self) -> bool:
        """Whether only programs on this machine can connect."""
        return self.host in LOOPBACK

    @property
    def shows_prompts(self) -> bool:
        """Whether prompts may be looked at."""
        return self.loopback if self.prompt_view is None else self.prompt_view

    @property
    def models_dir(self) -> Path:
        """Where models are kept."""
        return self.data_dir / "models"


Source = Literal["flag", "environment", "file", "default"]


def load(
    flags: Mapping[str, Any], *, toml_file: Path | None = None
) -> tuple[Settings, dict[str, Source]]:
    """Read the settings: flags over environment over TOML file over defaults.

    Args:
        flags: Settings given on the command line, by name; ``None`` is not given.
        toml_file: The file; by default ``npc-server.toml`` in the working folder, if there.

    Returns:
        The settings, and where each of them came from.

    Raises:
        ConfigError: A setting is unknown or wrong; the message names it and its source.
    """
    if toml_file is not None and not toml_file.is_file():
        raise ConfigError(f"There is no settings file {toml_file}. Check the path after --config.")
    file = toml_file or Path(TOML_FILE)
    try:
        in_file = TomlConfigSettingsSource(Settings, file)()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from error
    layers: list[tuple[Source, dict[str, Any]]] = [
        ("file", in_file),
        ("environment", EnvSettingsSource(Settings)()),
        ("flag", InitSettingsSource(Settings, {k: v for k, v in flags.items() if v is not None})()),
    ]
    merged: dict[str, Any] = {}
    sources: dict[str, Source] = dict.fromkeys(Settings.model_fields, "default")
    for source, values in layers:
        for name, value in values.items():
            group = merged.get(name, {})
            both = isinstance(group, dict) and isinstance(value, dict)
            merged[name] = {**group, **value} if both else value
            sources[name] = source
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, sources, file)) from error
    if settings.auth == "none" and not settings.loopback:
        raise ConfigError(
            f"Without authentication the server listens on loopback only, not on {settings.host}. "
            "Make a key with `npc-server keys add` and set NPC_AUTH=keys, or use 127.0.0.1."
        )
    return settings, sources


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Variables that begin with ``NPC_`` and mean nothing, each with the nearest that does."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    findings = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name.split("__")[0] not in known:
            near = get_close_matches(name, known, n=1)
            findings.append(name + (f" (did you mean {near[0]}?)" if near else ""))
    return findings


def _explain(error: ValidationError, sources: Mapping[str, Source], file: Path) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        if not problem["loc"]:
            # A rule over several settings. What was given is all of them, the secrets too.
            lines.append(problem["msg"].removeprefix("Value error, ") + ".")
            continue
        name = str(problem["loc"][0])
        where = {
            "flag": f"--{name.replace('_', '-')}",
            "environment": PREFIX + name.upper(),
            "file": f"{name} in {file}",
            "default": name,
        }[sources.get(name, "file")]
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = get_close_matches(name, Settings.model_fields, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            lines.append(f"'{field}' ({where}) is not a setting.{hint}")
        else:
            got = "a secret" if field.endswith("api_key") else repr(problem["input"])
            lines.append(f"{where}: {field}: {problem['msg']} (got {got}).")
    return "\n".join(lines)
