"""What the README says works as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright
from processes import Servers

README = (Path(__file__).parents[2] / "README.md").read_text()
CHROMIUM = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def block(language: str) -> str:
    """The first code block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_the_clients_are_20_lines() -> None:
    """Each client is as short as its heading says."""
    assert len(block("python").splitlines()) <= 24
    assert len(block("js").splitlines()) <= 20


def test_the_python_client(servers: Servers, smollm2: Path, tmp_path: Path) -> None:
    """The Python client, run as printed against the real model, prints a reply."""
    served = servers.start("--model", str(smollm2))
    script = tmp_path / "client.py"
    script.write_text(block("python"))
    ran = subprocess.run(
        [sys.executable, script, served.address],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    assert ran.stdout.strip()


def test_the_javascript_client(servers: Servers, smollm2: Path) -> None:
    """The JavaScript client, run as printed in a browser, logs a reply."""
    served = servers.start("--model", str(smollm2))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=CHROMIUM)
        page = browser.new_page()
        page.goto(served.page + "healthz")
        page.evaluate("url => { globalThis.process = { argv: ['', '', url] }; }", served.address)
        with page.expect_console_message(lambda m: m.type == "log", timeout=60_000) as message:
            page.evaluate("code => new Function(code)()", block("js"))
        assert message.value.text.strip()
        browser.close()
