"""Who may connect, and for whom a credential speaks."""

from pathlib import Path

import pytest

from npc_server.config import Settings
from npc_server.errors import ConfigError, NotFound, Unauthorized
from npc_server.server.auth import Identity, authenticate, host_allowed, origin_allowed
from npc_server.server.keys import KeyFile


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def test_without_authentication_everyone_is_host(keys: KeyFile) -> None:
    """On loopback the only user of the machine may do everything."""
    assert authenticate("none", keys, None, None) == Identity("host", "")


def test_a_key_is_good_in_header_and_hello(keys: KeyFile) -> None:
    """The same key works both ways and brings its role and name space."""
    key, secret = keys.add("my game", "player", 5)
    expected = Identity("player", key.id)
    assert authenticate("keys", keys, f"Bearer {secret}", None) == expected
    assert authenticate("keys", keys, None, secret) == expected


@pytest.mark.parametrize("header", [None, "Bearer ", "Basic abc", "Bearer npck_wrong"])
def test_a_wrong_or_missing_key_is_refused(keys: KeyFile, header: str | None) -> None:
    """No credential, another scheme and an unknown key are all unauthorized."""
    keys.add("my game", "host", 5)
    with pytest.raises(Unauthorized):
        authenticate("keys", keys, header, None)


def test_secrets_are_not_kept(keys: KeyFile, tmp_path: Path) -> None:
    """The file holds a hash, and only its owner may read it."""
    _, secret = keys.add("my game", "host", 5)
    file = tmp_path / "keys.json"
    assert secret not in file.read_text()
    assert secret[5:] not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_revoked_key_is_gone_for_others_too(keys: KeyFile, tmp_path: Path) -> None:
    """A server that has read the file sees that another process revoked a key."""
    key, secret = keys.add("my game", "host", 5)
    server = KeyFile(tmp_path / "keys.json")
    assert server.find(secret) == key
    assert keys.revoke(key.id) == key
    assert server.find(secret) is None
    with pytest.raises(NotFound, match="keys list"):
        keys.revoke(key.id)


def test_a_broken_key_file_lets_nobody_in(keys: KeyFile, tmp_path: Path) -> None:
    """A file that cannot be read is an error that says what to do, not an open door."""
    (tmp_path / "keys.json").write_text("[{]")
    with pytest.raises(ConfigError, match="keys add"):
        keys.find("x")


def test_a_key_needs_a_name(keys: KeyFile) -> None:
    """A blank name is refused before anything is written."""
    with pytest.raises(ConfigError, match="empty"):
        keys.add("  ", "host", 5)
    assert keys.all() == []


@pytest.mark.parametrize(
    ("origin", "allowed", "expected"),
    [
        (None, (), True),
        ("http://127.0.0.1:8765", (), True),
        ("https://evil.example", (), False),
        ("https://game.example", ("https://game.example",), True),
        ("https://evil.example", ("https://game.example",), False),
        ("null", (), False),
        ("https://any.example", ("*",), True),
    ],
)
def test_origins(origin: str | None, allowed: tuple[str, ...], expected: bool) -> None:
    """The server's own pages, listed ones and programs without an origin may connect."""
    assert origin_allowed(origin, "127.0.0.1:8765", allowed) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8765", True),
        ("localhost", True),
        ("[::1]:8765", True),
        ("evil.example", False),
        (None, False),
    ],
)
def test_names_that_resolve_to_loopback_are_refused(host: str | None, expected: bool) -> None:
    """Where nobody is asked for a key, only loopback's own names are answered."""
    assert host_allowed(host, Settings()) is expected
    assert host_allowed(host, Settings(auth="keys")) is True
