"""Settings come from flags, environment, file and defaults, in that order."""

from pathlib import Path

import pytest

from npc_server.config import EngineSettings, load, unknown_variables
from npc_server.errors import ConfigError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NPC_DATA_DIR", raising=False)


def test_each_source_wins_over_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A flag beats the environment, which beats the file, which beats the default."""
    (tmp_path / "npc-server.toml").write_text('port = 1\nhost = "::1"\nseats = 2\n')
    monkeypatch.setenv("NPC_PORT", "2")
    monkeypatch.setenv("NPC_SEATS", "3")
    settings, sources = load({"port": 9, "model": None})
    assert (settings.port, settings.seats, settings.host) == (9, 3, "::1")
    wanted = {"port": "flag", "seats": "environment", "host": "file", "model": "default"}
    assert {name: sources[name] for name in wanted} == wanted


def test_groups_are_merged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One limit in the file and another in the environment both hold."""
    (tmp_path / "npc-server.toml").write_text("[limits]\ntext_chars = 10\n")
    monkeypatch.setenv("NPC_LIMITS__MEMBERS", "3")
    limits = load({})[0].limits
    assert (limits.text_chars, limits.members, limits.json_depth) == (10, 3, 32)


def test_errors_keep_keys_to_themselves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a rule over several settings nor a key of the wrong kind tells what the keys are."""
    monkeypatch.setenv("NPC_OPENAI_API_KEY", "sk-outer")
    file = tmp_path / "npc-server.toml"
    for content, told in (
        ('background = "none"', "there is no engine 'none'"),
        ("[engines.small]\nopenai_api_key = 7734", "openai_api_key"),
        ('[engines.small]\nenginee = "x"\nopenai_api_key = "sk-inner"', "'enginee'"),
    ):
        file.write_text(content)
        with pytest.raises(ConfigError, match=told) as caught:
            load({})
        assert not any(key in str(caught.value) for key in ("sk-outer", "sk-inner", "7734"))


def test_a_key_is_for_its_own_address(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine with another address gets no key of the server; the environment gives it one."""
    (tmp_path / "npc-server.toml").write_text(
        'openai_base_url = "http://127.0.0.1:1/v1"\n[engines.same]\nmodel = "x"\n'
        '[engines.other]\nopenai_base_url = "http://127.0.0.1:2/v1"\n'
    )
    monkeypatch.setenv("NPC_OPENAI_API_KEY", "sk-own")

    def key(engine: str) -> str | None:
        found = load({})[0].engine_settings(engine).openai_api_key
        return None if found is None else found.get_secret_value()

    assert (key("default"), key("same"), key("other")) == ("sk-own", "sk-own", None)
    monkeypatch.setenv("NPC_ENGINES__OTHER__OPENAI_API_KEY", "sk-other")
    assert key("other") == "sk-other"
    assert unknown_variables({"NPC_ENGINES__OTHER__OPENAI_API_KEY": ""}) == []


def test_an_endpoint_needs_no_file() -> None:
    """A base URL makes `auto` ask an endpoint, unless another engine is named."""
    url = "http://127.0.0.1:1/v1"
    assert EngineSettings(openai_base_url=url).remote
    assert EngineSettings(engine="openai").remote
    assert not EngineSettings(engine="ctransformers", openai_base_url=url).remote
    assert not EngineSettings().remote


def test_lists_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders are split like PATH, origins at commas or spaces."""
    monkeypatch.setenv("NPC_PERSONAS", "a:b")
    monkeypatch.setenv("NPC_SCENES", "c")
    monkeypatch.setenv("NPC_ORIGINS", "https://a.example, https://b.example")
    settings = load({})[0]
    assert settings.personas == (Path("a"), Path("b"))
    assert settings.scenes == (Path("c"),)
    assert settings.origins == ("https://a.example", "https://b.example")


def test_a_wrong_value_names_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which variable, what was got and what is allowed."""
    monkeypatch.setenv("NPC_PORT", "many")
    with pytest.raises(ConfigError, match=r"NPC_PORT: port: .*integer.* \(got 'many'\)"):
        load({})


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    """A misspelt name in the file is an error with the nearest name."""
    (tmp_path / "npc-server.toml").write_text("modle = 'x'\n")
    with pytest.raises(ConfigError, match="Did you mean 'model'"):
        load({})


def test_broken_toml_and_missing_file(tmp_path: Path) -> None:
    """A file that is no TOML, or is named and not there, is said plainly."""
    (tmp_path / "npc-server.toml").write_text("port = = 1")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load({})
    with pytest.raises(ConfigError, match="no settings file"):
        load({}, toml_file=tmp_path / "other.toml")


def test_no_auth_beyond_loopback() -> None:
    """Without authentication the server does not listen where others could connect."""
    with pytest.raises(ConfigError, match="npc-server keys add"):
        load({"host": "0.0.0.0"})
    assert load({"host": "0.0.0.0", "auth": "keys"})[0].auth == "keys"


def test_unknown_variables_are_found() -> None:
    """A misspelt variable is named with the nearest that exists."""
    assert unknown_variables({"NPC_MODLE": "x", "NPC_LIMITS__MEMBERS": "3", "PATH": ""}) == [
        "NPC_MODLE (did you mean NPC_MODEL?)"
    ]
