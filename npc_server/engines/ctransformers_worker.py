"""The process in which ctransformers runs a model: ``python -m`` this module.

It reads commands from its standard input and writes events to its standard output, a JSON object
on each line. Whatever the native library prints goes to standard error. It ends when its input
ends or its parent dies.

The first command is the model to load; the others have an ``op``: ``generate``, ``score``,
``warm``, ``count_tokens``, ``count_prompt`` and ``cancel`` with an ``id``, ``forget`` with an
``affinity``. The first event is ``ready`` or ``failed``; the others have the ``id`` of their
command and ``text`` and ``made``, ``finish`` and ``usage``, ``scores``, ``counts``, or ``error``,
``kind`` and ``message``.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import BinaryIO

import orjson

from npc_server.engines.bpe import BpeVocabulary
from npc_server.engines.convert import KEPT, prepared
from npc_server.engines.ctransformers_model import (
    NativeInstance,
    NativeVocabulary,
    affordable_adapters,
    affordable_seats,
    device,
    library,
    memory_used,
    seat_bytes,
)
from npc_server.engines.gguf import Header, read_header
from npc_server.engines.lora import Merger, merged
from npc_server.engines.model_info import model_type
from npc_server.engines.templates import guess, named
from npc_server.engines.vocabulary import Vocabulary
from npc_server.engines.worker_loop import Json, Loop, Send, Tokens
from npc_server.engines.worker_side import die_with_parent
from npc_server.errors import NpcError


def main() -> None:
    """Load the model of the first command, then work until the input ends."""
    events = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    lock = threading.Lock()

    def send(event: Json) -> None:
        data = memoryview(orjson.dumps(event) + b"\n")
        with lock:
            while data:
                data = data[os.write(events, data) :]

    commands = sys.stdin.buffer
    wanted = orjson.loads(commands.readline())
    loaded: Future[Loop] = Future()
    threading.Thread(target=_read, args=(commands, loaded), daemon=True).start()
    try:
        loop, facts = _load(wanted, send)
    except NpcError as error:
        send({"event": "failed", "kind": type(error).__name__, "message": error.message})
        # The thread that reads would keep the interpreter from ending in order.
        os._exit(0)
    send({"event": "ready", **facts})
    loaded.set_result(loop)
    loop.run()


def _load(wanted: Json, send: Send) -> tuple[Loop, Json]:
    """Load a model.

    Args:
        wanted: The fields of ``CtransformersSettings``, paths as text.
        send: Takes the events of the loop.

    Returns:
        The loop, and what the server should know of it.

    Raises:
        ModelFileError: The model cannot be read or run.
        ConfigError: There is no such template.
    """
    model = Path(wanted["model"])
    cache = Path(wanted["cache_dir"]) if wanted["cache_dir"] else None
    path = prepared(model, cache)
    header = read_header(path)
    name = wanted["template"] or guess(header.metadata, model.name)
    template = named(name)
    context = _context(header, wanted["context"])
    load = partial(
        NativeInstance,
        kind=wanted["model_type"] or model_type(model, header),
        context=context,
        gpu_layers=_native_layers(header, wanted["gpu_layers"]),
        threads=wanted["threads"] or _threads(),
        library=library(wanted["gpu_layers"]),
    )
    before = memory_used()
    first = load(path)
    context = min(context, first.context)
    vocabulary = _vocabulary(header, first)
    first.read([vocabulary.bos or 0], 0)
    each = seat_bytes(header, context, memory_used() - before)
    seats = affordable_seats(wanted["seats"], each)
    spare = [first]

    def make(adapter: str) -> NativeInstance:
        return spare.pop() if spare and not adapter else load(Path(adapter) if adapter else path)

    loop = Loop(
        Tokens(vocabulary, template),
        make,
        seats=seats,
        context=context,
        send=send,
        merge=Merger(lambda adapter, scale: merged(model, path, adapter, scale, cache)),
        adapters=affordable_adapters(seats, header.size),
    )
    facts = {
        "context": context,
        "seats": seats,
        "adapters": header.format == "GGUF",
        "device": device(wanted["gpu_layers"]),
        "template": name,
        "template_guessed": not wanted["template"],
        "split": getattr(vocabulary, "split", "native"),
        "split_known": getattr(vocabulary, "split_known", True),
    }
    return loop, facts


def _vocabulary(header: Header, instance: NativeInstance) -> Vocabulary:
    if header.text(f"{KEPT}tokenizer.ggml.model") == "gpt2":
        return BpeVocabulary(header)
    return NativeVocabulary(instance, header)


def _context(header: Header, wanted: int) -> int:
    """The context that is asked for, no longer than the one the model was trained with."""
    trained = header.number(f"{header.text('general.architecture')}.context_length")
    return min(wanted, trained) if trained else wanted


def _native_layers(header: Header, layers: int) -> int:
    """Layers as ctransformers counts them: where all are on the GPU, keys and values are two more.

    Args:
        header: The model's header.
        layers: How many, the output counted as one.
    """
    own = header.number(f"{header.text('general.architecture')}.block_count")
    return layers + 2 if own and layers > own else layers


def _threads() -> int:
    """The cores that this process may use; of more than two, one is left to the server."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return cores if cores <= 2 else cores - 1


def _read(commands: BinaryIO, loaded: Future[Loop]) -> None:
    for line in commands:
        loaded.result().put(orjson.loads(line))
    os._exit(0)


if __name__ == "__main__":
    main()
