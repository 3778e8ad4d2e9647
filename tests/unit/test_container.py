"""The container files fit the server that they start."""

import re
import tomllib
from pathlib import Path

import yaml

from npc_server.config import unknown_variables

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_every_variable_is_a_setting() -> None:
    """Compose file and Dockerfile set nothing that the server does not know."""
    named = set(re.findall(r"\bNPC_[A-Z_]+", DOCKERFILE))
    for service in COMPOSE["services"].values():
        named |= set(service.get("environment", {}))
    assert named
    assert unknown_variables(dict.fromkeys(named, "")) == []


def test_the_server_beyond_loopback_asks_for_keys() -> None:
    """Each flavour of the server listens for others, with keys, on a Redis that is ready."""
    for name in ("server", "server-gpu"):
        service = COMPOSE["services"][name]
        assert service["environment"]["NPC_HOST"] == "0.0.0.0"
        assert service["environment"]["NPC_AUTH"] == "keys"
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"
        assert any(volume.endswith(":/data") for volume in service["volumes"])
    assert COMPOSE["services"]["server-gpu"]["profiles"] == ["gpu"]


def test_redis_keeps_what_it_is_told() -> None:
    """The Redis beside the server writes an append-only file into a volume, and never evicts."""
    redis = COMPOSE["services"]["redis"]
    command = " ".join(redis["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command
    assert redis["healthcheck"]
    assert redis["volumes"] == ["redis:/data"]


def test_the_image_has_what_the_wheel_takes_along() -> None:
    """The folders that are built into the package are there, and are copied before it is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for folder in project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]:
        assert (ROOT / folder).is_dir()
        assert f"COPY {folder} ./{folder}" in DOCKERFILE


def test_the_image_is_whole_and_not_root() -> None:
    """What the Dockerfile copies is there; the server runs as a user of its own."""
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
    assert re.search(r"^USER npc$", DOCKERFILE, re.MULTILINE)
    assert "HEALTHCHECK" in DOCKERFILE
