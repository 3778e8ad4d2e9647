"""The command line as a person uses it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from processes import COMMAND, ROOT, Servers

from npc_server.protocol.text import clean


def run(
    *arguments: str, cwd: Path, status: int = 0, say: str | None = None, **environment: str
) -> str:
    """Run a command to its end; what it printed."""
    ran = subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=None if say is not None else subprocess.DEVNULL,
        input=say,
        text=True,
        cwd=cwd,
        timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NPC_DATA_DIR": str(cwd), **environment},
    )
    assert ran.returncode == status, ran.stdout
    assert "Traceback" not in ran.stdout
    return clean(ran.stdout)


def test_the_demo_has_three_turns(smollm2: Path, tmp_path: Path) -> None:
    """Without a terminal the demo prints three exchanges and what answered, and ends with 0.

    How fast the machine is decides whether it says how many tokens a second there were, or that a
    filler was needed.
    """
    out = run("demo", "--port", "0", "--model", str(smollm2), cwd=tmp_path)
    assert len(re.findall(r"^You: ", out, re.MULTILINE)) == 3
    assert len(re.findall(r"^Bram: ", out, re.MULTILINE)) >= 3
    for word in ("llamacpp", "SmolLM2", "cpu"):
        assert word.lower() in out.lower()
    paces = r"^turn \d +(first token|a filler) after \d+ ms, "
    assert len(re.findall(paces, out, re.MULTILINE)) == 3


def test_a_chat_streams_and_ends(servers: Servers, tmp_path: Path) -> None:
    """Chat reads lines until the input ends, and prints the NPC's answers."""
    served = servers.start("--engine", "scripted")
    out = run("chat", "bram", "--url", served.address, cwd=tmp_path, say="Good morning\n")
    assert out.count("Bram: ") == 2


def test_chat_without_a_server_says_so(tmp_path: Path) -> None:
    """The error names the address and the command that starts a server."""
    out = run("chat", "--url", "ws://127.0.0.1:1", cwd=tmp_path, status=1)
    assert "npc-server serve" in out


def test_doctor_says_what_is_missing(tmp_path: Path, smollm2: Path) -> None:
    """Every check has a line; a missing model fails with the command that fetches it."""
    out = run("doctor", cwd=tmp_path, status=1)
    assert "models pull smollm2" in " ".join(out.split())
    out = run("doctor", "--model", str(smollm2), "--port", "0", cwd=tmp_path)
    assert "!!" not in out
    for check in ("python", "redis", "port", "personas", "gpu", "model"):
        assert check in out


def test_config_tells_sources(tmp_path: Path) -> None:
    """Each setting is printed with where it came from, passwords left out."""
    out = run(
        "config",
        "--port",
        "9",
        cwd=tmp_path,
        NPC_REDIS_URL="redis://:hush@127.0.0.1:6379",
        NPC_SEATS="3",
        COLUMNS="200",
    )
    assert re.search(r"port\s+9\s+flag", out)
    assert re.search(r"seats\s+3\s+environment", out)
    assert re.search(r"engine\s+auto\s+default", out)
    assert "hush" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("serve", "--port", "99999"), "port"),
        (("serve", "--host", "0.0.0.0"), "npc-server keys add"),
        (("models", "info", "nope.gguf"), "nope.gguf"),
        (("serve", "--model", "nope.gguf"), "There is no model file nope.gguf"),
        (("persona", "show", "brm"), "bram"),
        (("scene", "show", "tavrn"), "tavern"),
        (("scene", "check", "--personas", "nope"), "no folder of personas"),
        (("keys", "revoke", "x"), "keys list"),
        (("config", "--config", "nope.toml"), "nope.toml"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], says: str, tmp_path: Path) -> None:
    """A wrong argument ends in one line that says what to do, and status 1."""
    assert says in run(*arguments, cwd=tmp_path, status=1)


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    """A key is printed once, listed without its secret, and gone after revoke."""
    made = run("keys", "add", "my game", "--role", "host", cwd=tmp_path)
    secret = next(word for word in made.split() if word.startswith("npck_"))
    listed = run("keys", "list", cwd=tmp_path)
    assert "my game" in listed
    assert secret not in listed
    key = re.search(r"Key (\w+) ", made)
    assert key
    assert "Revoked" in run("keys", "revoke", key[1], cwd=tmp_path)
    assert "my game" not in run("keys", "list", cwd=tmp_path)


def test_a_new_persona_is_valid(tmp_path: Path) -> None:
    """Persona new writes a file that persona check accepts; a broken one is told with its line."""
    run("persona", "new", "ana", "--name", "Ana", "--folder", "mine", cwd=tmp_path)
    assert "OK" in run("persona", "check", "mine", cwd=tmp_path)
    file = tmp_path / "mine" / "ana.yaml"
    file.write_text(file.read_text() + "\ncolour: red\n")
    out = run("persona", "check", "mine", cwd=tmp_path, status=1)
    assert "ana.yaml, line" in out
    assert "colour" in out


def test_a_new_scene_is_valid(tmp_path: Path) -> None:
    """Scene new writes a file that scene check accepts; a wrong name is told with its line."""
    run("scene", "new", "ferry", "--folder", "mine", cwd=tmp_path)
    assert "OK" in run("scene", "check", "mine", cwd=tmp_path)
    assert "OK" in run("scene", "check", cwd=tmp_path)
    assert '"npc": "marta"' in run("scene", "show", "ferry", "--scenes", "mine", cwd=tmp_path)
    file = tmp_path / "mine" / "ferry.yaml"
    file.write_text(file.read_text().replace("- npc: marta", "- npc: martha"))
    out = run("scene", "check", "mine", cwd=tmp_path, status=1)
    assert "ferry.yaml, line 15: cast.1.npc" in out
    assert "marta" in out


def test_models_are_listed_and_looked_at(tmp_path: Path, smollm2: Path) -> None:
    """The catalogue names smollm2; info reads its header without loading it."""
    assert "smollm2" in run("models", "list", cwd=tmp_path)
    out = run("models", "info", str(smollm2), cwd=tmp_path)
    assert "llama" in out
    assert "Q4_1" in out


def test_a_broken_model_leaves_a_living_server(servers: Servers, tmp_path: Path) -> None:
    """Serve with an unreadable model lives, says why once, and is not ready."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--model", str(broken)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NPC_DATA_DIR": str(tmp_path / "d")},
    )
    assert process.stderr is not None
    line = next(line for line in process.stderr if "model_not_loaded" in line)
    assert "broken.gguf" in line
    assert process.poll() is None
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "ready ws" not in out
    assert "Traceback" not in err
