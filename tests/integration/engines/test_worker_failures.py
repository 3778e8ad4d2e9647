"""What the engine does when its worker misbehaves; the worker is a script of the test's."""

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

from npc_server.engines.ctransformers import CtransformersEngine, CtransformersSettings
from npc_server.engines.placement import Gpu, Machine
from npc_server.errors import EngineUnavailable, ModelFileError

PREAMBLE = """
import json, os, sys, time
from pathlib import Path

def send(**event):
    print(json.dumps(event), flush=True)

def starts():
    counter = Path(sys.argv[1])
    number = int(counter.read_text() or 0) + 1 if counter.exists() else 1
    counter.write_text(str(number))
    return number

def ready():
    send(event="ready", context=512, seats=2, device="cpu", template="plain",
         template_guessed=True, split="gpt-2", split_known=False)

def commands():
    for line in sys.stdin:
        yield json.loads(line)

stream = commands()
load = next(stream)
"""
Make = Callable[..., CtransformersEngine]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An engine whose worker runs a given program."""

    def build(program: str, **settings: Any) -> CtransformersEngine:
        file = tmp_path / "worker.py"
        file.write_text(PREAMBLE + textwrap.dedent(program))
        command = (sys.executable, str(file), str(tmp_path / "starts"))
        chosen = {"backoff_first": 0.01, "start_timeout": 20.0, **settings}
        return CtransformersEngine(
            CtransformersSettings(tmp_path / "model.gguf", command=command, **chosen)
        )

    return build


async def test_a_reply_is_gone_on_with_once(make: Make) -> None:
    """The second worker gets what was said as the prefix, and the tokens that are left."""
    engine = make("""
        first = starts() == 1
        ready()
        for command in stream:
            if command["op"] != "generate":
                continue
            if first:
                send(id=command["id"], text="One two", made=2)
                os._exit(139)
            assert (command["prefix"], command["max_tokens"]) == ("One two", 22), command
            send(id=command["id"], text=" three.", made=2)
            send(id=command["id"], text="", finish="stop", usage=[10, 0, 2])
    """)
    await engine.start()
    answered = await pieces(engine, request())
    assert "".join(piece.text for piece in answered) == "One two three."
    assert answered[-1].usage is not None
    assert answered[-1].usage.completion == 4
    await engine.close()


async def test_a_reply_that_crashes_twice_fails(make: Make) -> None:
    """The second crash ends the reply with an error that says how the worker ended."""
    engine = make("""
        ready()
        for command in stream:
            print("native trouble", file=sys.stderr, flush=True)
            os.kill(os.getpid(), 11)
    """)
    await engine.start()
    with pytest.raises(EngineUnavailable, match=r"SIGSEGV.*native trouble"):
        await pieces(engine, request())
    await engine.close()


async def test_counting_survives_a_crash_and_fails_after_two(make: Make) -> None:
    """A count is asked again once."""
    engine = make("""
        number = starts()
        ready()
        for command in stream:
            if number in (1, 3, 4):
                os._exit(1)
            send(id=command["id"], counts=[5])
            if number == 2:
                os._exit(1)
    """)
    await engine.start()
    assert await engine.count_tokens(["x"]) == [5]
    with pytest.raises(EngineUnavailable, match="asked for counts"):
        await engine.count_tokens(["x"])
    await engine.close()


async def test_a_worker_that_keeps_crashing_is_waited_for_longer(make: Make) -> None:
    """The wait doubles; when it is long, requests are refused at once and told when to return."""
    engine = make(
        """
        if starts() > 1:
            sys.exit(3)
        ready()
        next(stream)
        sys.exit(3)
        """,
        backoff_first=4.0,
        backoff_most=8.0,
    )
    await engine.start()
    engine._kept.failures = 1
    with pytest.raises(EngineUnavailable) as caught:
        await answer(engine, request())
    assert caught.value.retry_after_ms is not None
    assert 5_000 < caught.value.retry_after_ms <= 8_000
    await engine.warm(request().messages, "w/c/bram")
    await engine.forget("w/")
    await engine.close()


async def test_a_failed_restart_fails_who_waits_and_is_tried_again(make: Make) -> None:
    """The waiting request gets the reason; a later start works."""
    engine = make("""
        number = starts()
        if number == 2:
            send(event="failed", kind="ModelFileError", message="The file is gone.")
            sys.exit(0)
        ready()
        for command in stream:
            if number == 1:
                os._exit(1)
            send(id=command["id"], text="Yes.", finish="stop", usage=[1, 0, 1])
    """)
    await engine.start()
    with pytest.raises(ModelFileError, match="gone"):
        await answer(engine, request())
    assert await answer(engine, request()) == "Yes."
    await engine.close()


async def test_a_worker_that_speaks_nonsense_is_ended(make: Make) -> None:
    """What is no event ends the worker; the reply is asked for again of the next one."""
    engine = make("""
        number = starts()
        ready()
        for command in stream:
            if number == 1:
                print("nonsense", flush=True)
                time.sleep(60)
            send(id=command["id"], text="Yes.", finish="stop", usage=[1, 0, 1])
    """)
    await engine.start()
    assert await answer(engine, request()) == "Yes."
    await engine.close()


async def test_a_worker_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    """No such program: an error that says so."""
    settings = CtransformersSettings(tmp_path / "m.gguf", command=(str(tmp_path / "none"),))
    engine = CtransformersEngine(settings)
    with pytest.raises(EngineUnavailable, match="Cannot start the worker"):
        await engine.start()
    await engine.close()


@pytest.mark.parametrize(
    ("program", "error", "told"),
    [
        ("os.kill(os.getpid(), 11)", ModelFileError, "SIGSEGV"),
        ("sys.exit('boom')", ModelFileError, "boom"),
        ("sys.stdout.write('{\"event'); sys.exit(4)", ModelFileError, "code 4"),
        ("time.sleep(60)", EngineUnavailable, "within 1 seconds"),
    ],
)
async def test_a_start_that_fails_is_told(
    make: Make, program: str, error: type[EngineUnavailable], told: str
) -> None:
    """Crash, exit, half a line, silence: one error, and nothing is left running."""
    engine = make(program, start_timeout=1.0 if "sleep" in program else 20.0)
    with pytest.raises(error, match=told):
        await engine.start()
    assert engine.pid is None
    with pytest.raises(EngineUnavailable, match="never started"):
        await engine.count_tokens(["x"])
    await engine.close()


async def test_a_cancelled_start_leaves_no_process(make: Make, tmp_path: Path) -> None:
    """Whoever gives up waiting for a slow model ends its worker."""
    engine = make("""
        Path(sys.argv[1]).write_text(str(os.getpid()))
        time.sleep(60)
    """)
    starting = asyncio.create_task(engine.start())
    counter = tmp_path / "starts"
    async with asyncio.timeout(10):
        while not (counter.exists() and counter.read_text()):
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert ended(int(counter.read_text()))
    await engine.close()


async def test_a_worker_that_does_not_listen_is_killed(make: Make) -> None:
    """Closing waits a little for a worker that ignores the end of its input, then kills it."""
    engine = make("""
        ready()
        while True:
            time.sleep(60)
    """)
    await engine.start()
    pid = engine.pid
    assert pid is not None
    await engine.close()
    assert ended(pid)


async def test_leaving_a_reply_cancels_it_in_the_worker(make: Make) -> None:
    """The worker hears `cancel` with the reply's id; answers that come too late are dropped."""
    engine = make("""
        ready()
        for command in stream:
            if command["op"] == "generate":
                asked = command["id"]
                send(id=asked, text="One", made=1)
            elif command["op"] == "cancel":
                send(id=asked, text=" two", made=2)
                cancelled = command["id"]
            else:
                send(id=command["id"], counts=[int(cancelled == asked)])
    """)
    await engine.start()
    async with engine.generate(request()) as stream:
        assert (await anext(stream)).text == "One"
    assert await engine.count_tokens(["x"]) == [1]
    await engine.close()


CARD = Machine((Gpu("cuda", "a card", 8 << 30, 8 << 30),), frozenset({"cuda"}))


@pytest.mark.parametrize("asked", ["auto", 9, 1000])
async def test_fewer_layers_are_tried_where_the_gpu_is_too_small(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], asked: int | str
) -> None:
    """Half as many after each crash or failure, then what worked; the log has both numbers."""
    (tmp_path / "model.gguf").write_bytes(llama(changes={"llama.block_count": 8}))
    engine = make(
        """
        tried = Path(sys.argv[1] + ".layers")
        layers = load["gpu_layers"]
        with tried.open("a") as file:
            file.write(f"{layers} ")
        if layers > 4:
            os.kill(os.getpid(), 11)
        if layers > 2:
            send(event="failed", kind="ModelFileError", message="out of memory")
            sys.exit(0)
        ready()
        for command in stream:
            os._exit(1)
        """,
        gpu_layers=asked,
        machine=CARD,
    )
    await engine.start()
    layers = tmp_path / "starts.layers"
    assert layers.read_text() == "9 4 2 "
    said = capsys.readouterr().out
    assert said.count("gpu_layers_reduced") == 2
    assert "layers=4" in said
    assert "tried=9" in said
    with pytest.raises(EngineUnavailable):
        await answer(engine, request())
    assert set(layers.read_text().split()[3:]) == {"2"}
    await engine.close()


async def test_without_layers_on_the_gpu_a_failure_is_final(make: Make, tmp_path: Path) -> None:
    """A model that cannot be loaded by the processor either is one error, after the last try."""
    (tmp_path / "model.gguf").write_bytes(llama(changes={"llama.block_count": 8}))
    engine = make(
        """
        Path(sys.argv[1]).open("a").write(f"{load['gpu_layers']} ")
        send(event="failed", kind="ModelFileError", message="damaged")
        """,
        gpu_layers=3,
        machine=CARD,
    )
    with pytest.raises(ModelFileError, match="damaged"):
        await engine.start()
    assert (tmp_path / "starts").read_text() == "3 1 0 "
    await engine.close()


async def test_without_a_gpu_the_processor_computes(make: Make, tmp_path: Path) -> None:
    """Layers that were asked for are not asked of the worker where there is no card."""
    (tmp_path / "model.gguf").write_bytes(llama())
    engine = make(
        """
        Path(sys.argv[1]).write_text(str(load["gpu_layers"]))
        ready()
        list(stream)
        """,
        gpu_layers=3,
        machine=Machine(),
    )
    await engine.start()
    assert (tmp_path / "starts").read_text() == "0"
    await engine.close()
