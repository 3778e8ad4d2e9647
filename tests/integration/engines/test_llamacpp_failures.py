"""What the llama.cpp engine does when its worker misbehaves; the worker is a script of ours."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_requests import answer, ended, pieces, request
from model_files import llama

from npc_server.engines.base import ScoreRequest
from npc_server.engines.llamacpp import LlamaCppEngine, LlamaCppSettings
from npc_server.engines.placement import Gpu, Machine
from npc_server.errors import EngineUnavailable, ModelFileError

PREAMBLE = """
import json, os, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

def send(**event):
    print(json.dumps(event), flush=True)

def starts():
    counter = Path(sys.argv[1])
    number = int(counter.read_text() or 0) + 1 if counter.exists() else 1
    counter.write_text(str(number))
    return number

load = json.loads(sys.stdin.readline())
number = starts()

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer(self, body)

    def log_message(self, *_):
        pass

    def begin(self):
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.end_headers()

    def event(self, **fields):
        data = b"data: " + json.dumps(fields).encode() + b"\\n\\n"
        self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(data), data))

    def say(self, text, predicted):
        self.event(content=text, stop=False, tokens_predicted=predicted)

    def finish(self, text, predicted):
        self.event(content=text, stop=True, stop_type="eos", tokens_predicted=predicted,
                   timings={"cache_n": 0})
        self.wfile.write(b"0\\r\\n\\r\\n")

def serve():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    send(event="ready", address=f"http://127.0.0.1:{server.server_port}", key="k", device="cuda",
         places=[], guidance=True)
    sys.stdin.read()
    os._exit(0)
"""
UNEXPLAINED = """
print("cause", file=sys.stderr, flush=True)
send(event="failed", kind="ModelFileError", message="No.", unexplained=True)
"""
CARD = Machine((Gpu("cuda", "a card", 8 << 30, 8 << 30),), frozenset({"cuda"}))
Make = Callable[..., LlamaCppEngine]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An engine whose worker runs a given program."""

    def build(program: str, **settings: Any) -> LlamaCppEngine:
        model, file = tmp_path / "model.gguf", tmp_path / "worker.py"
        if not model.exists():
            model.write_bytes(llama())
        file.write_text(PREAMBLE + textwrap.dedent(program))
        command = (sys.executable, str(file), str(tmp_path / "starts"))
        chosen = {"backoff_first": 0.01, "start_timeout": 20.0, **settings}
        return LlamaCppEngine(LlamaCppSettings(model, command=command, **chosen))

    return build


async def test_a_reply_is_gone_on_with_once(make: Make) -> None:
    """The second worker gets what was said behind the prompt, and the tokens that are left."""
    engine = make("""
        def answer(handler, body):
            handler.begin()
            if number == 1:
                handler.say("One", 1)
                handler.say(" two", 2)
                os._exit(139)
            assert body["n_predict"] == 22, body
            handler.say(" three.", 1)
            handler.finish("", 3)
        serve()
    """)
    await engine.start()
    answered = await pieces(engine, request())
    assert "".join(piece.text for piece in answered) == "One two three."
    assert answered[-1].usage is not None
    assert answered[-1].usage.completion == 4
    await engine.close()


async def test_what_crashes_twice_fails(make: Make) -> None:
    """A reply, a score and a schema's reply that had begun: an error that says so."""
    engine = make("""
        def answer(handler, body):
            handler.begin()
            if "grammar" in body:
                handler.say("{", 1)
            os._exit(139)
        serve()
    """)
    await engine.start()
    with pytest.raises(EngineUnavailable, match="twice"):
        await pieces(engine, request())
    with pytest.raises(EngineUnavailable, match="labels"):
        await engine.score(ScoreRequest(request().messages, ("A", "B"), "w/c/bram"))
    with pytest.raises(EngineUnavailable, match="within an answer"):
        await pieces(engine, request(schema={"type": "object"}))
    await engine.close()


async def test_leaving_a_worker_that_hangs_is_immediate(make: Make, tmp_path: Path) -> None:
    """It says nothing and hears nothing; whoever waits for it can go."""
    engine = make("""
        def answer(handler, body):
            handler.begin()
            Path(sys.argv[1]).with_name("asked").touch()
            time.sleep(600)
        serve()
    """)
    await engine.start()
    asking = asyncio.create_task(answer(engine, request()))
    async with asyncio.timeout(10):
        while not (tmp_path / "asked").exists():
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(2):
            await asking
    pid = engine.pid
    assert pid is not None
    await engine.close()
    assert ended(pid)


async def test_nonsense_is_told(make: Make) -> None:
    """An answer that is none cuts the reply; the worker that lives is asked once more."""
    engine = make("""
        asked = []
        def answer(handler, body):
            asked.append(1)
            handler.begin()
            if len(asked) == 1:
                handler.wfile.write(b"what?\\r\\n")
            else:
                handler.finish("Yes.", 2)
        serve()
    """)
    await engine.start()
    assert await answer(engine, request()) == "Yes."
    await engine.close()


async def test_layers_that_do_not_fit_are_halved(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the worker says so or dies of it; the log tells what was done."""
    (tmp_path / "model.gguf").write_bytes(llama(changes={"llama.block_count": 8}))
    engine = make(
        """
        with Path(sys.argv[1] + ".layers").open("a") as file:
            file.write(f"{load['gpu_layers']} ")
        if load["gpu_layers"] == 9:
            send(event="failed", kind="ModelFileError", message="No memory.")
            sys.exit()
        if load["gpu_layers"] > 2:
            os.kill(os.getpid(), 11)
        serve()
        """,
        device="cuda",
        gpu_layers=20,
        machine=CARD,
    )
    await engine.start()
    assert engine.capabilities.device == "cuda"
    assert (tmp_path / "starts.layers").read_text() == "9 4 2 "
    assert capsys.readouterr().out.count("gpu_layers_reduced") == 2
    await engine.close()


@pytest.mark.parametrize(
    ("program", "error", "told"),
    [
        ("os.kill(os.getpid(), 11)", ModelFileError, "SIGSEGV"),
        ("sys.exit('boom')", ModelFileError, "boom"),
        ("time.sleep(60)", EngineUnavailable, "within 1 seconds"),
        (UNEXPLAINED, ModelFileError, "No. cause"),
    ],
)
async def test_a_start_that_fails_is_told(
    make: Make, program: str, error: type[EngineUnavailable], told: str
) -> None:
    """Crash, exit, silence, a reason: one error, and nothing is left running."""
    engine = make(program, start_timeout=1.0 if "sleep" in program else 20.0)
    with pytest.raises(error, match=told):
        await engine.start()
    assert engine.pid is None
    await engine.close()
