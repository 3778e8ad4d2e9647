"""The process in which llama.cpp runs a model: ``python -m`` this module.

It speaks as ``ctransformers_worker`` does: JSON objects on the lines of its standard input and
output, the library's own log on standard error. It ends when its input ends or its parent dies.

The first command is what to load. The first event is ``ready``, with the address and the key under
which llama.cpp's HTTP server answers on loopback, or ``failed``. The only other command is
``clear``, with an ``id`` and ``places``: empty these places for states that were put away.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
from typing import Any

import orjson
import xllamacpp

from npc_server.engines.worker_side import die_with_parent

Json = dict[str, Any]

PLACES = 128
ERRORS = 1
# More of a prompt at once would keep the other seats, and whoever cancels, waiting; on a processor
# 64 tokens at once are read as fast as 512. A GPU is busy with more of them only, and done sooner.
READ_AT_ONCE = 64
READ_AT_ONCE_ON_A_GPU = 256
KV_TYPES = {
    "f16": xllamacpp.ggml_type.GGML_TYPE_F16,
    "q8_0": xllamacpp.ggml_type.GGML_TYPE_Q8_0,
    "q4_0": xllamacpp.ggml_type.GGML_TYPE_Q4_0,
}
FLASH_ATTENTION = {
    "auto": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def main() -> None:
    """Load the model of the first command, then serve it until the input ends."""
    events = os.dup(1)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    commands = sys.stdin.buffer
    wanted = orjson.loads(commands.readline())
    try:
        server, facts = _load(wanted)
    except RuntimeError as error:
        _send(events, _failure(wanted, error))
        os._exit(0)
    _send(events, {"event": "ready", **facts})
    for line in commands:
        command = orjson.loads(line)
        if command["op"] == "clear":
            for place in command["places"]:
                os.ftruncate(place, 0)
            _send(events, {"id": command["id"], "counts": []})
    del server
    os._exit(0)


def _load(wanted: Json) -> tuple[xllamacpp.Server, Json]:
    """Load a model and serve it.

    Args:
        wanted: See ``llamacpp.LlamaCppEngine``.

    Returns:
        The server, which runs until this process ends, and what the engine should know of it.

    Raises:
        RuntimeError: llama.cpp cannot load it.
    """
    places = _places() if wanted["prompt_cache_mib"] else []
    key = secrets.token_urlsafe(32)
    params = _params(wanted, places)
    params.api_keys = [key]
    server = xllamacpp.Server(params)
    return server, {
        "address": server.listening_address,
        "key": key,
        "device": _device(wanted["gpu_layers"]),
        "places": places,
        "guidance": _guided(),
    }


def _params(wanted: Json, places: list[int]) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = wanted["model"]
    params.n_parallel = wanted["seats"]
    params.n_ctx = wanted["seats"] * wanted["context"]
    on_gpu = _device(wanted["gpu_layers"]) != "cpu"
    at_once = READ_AT_ONCE_ON_A_GPU if on_gpu else READ_AT_ONCE
    params.n_batch = params.n_ubatch = max(at_once, wanted["seats"])
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = wanted["threads"]
    params.n_gpu_layers = wanted["gpu_layers"]
    params.fit_params = False
    params.cache_type_k = params.cache_type_v = KV_TYPES[wanted["kv_cache"]]
    params.flash_attn_type = FLASH_ATTENTION[_flash_attention(wanted, on_gpu=on_gpu)]
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path) for path in wanted["adapters"]]
    params.lora_init_without_apply = True
    # States are put away and fetched by the engine, who knows whose they are and what made them.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.slot_save_path = "/proc/self/fd/" if places else tempfile.gettempdir() + os.sep
    params.port = 0
    params.n_threads_http = 2 * wanted["seats"] + 4
    params.ui = False
    params.verbosity = ERRORS
    return params


def _flash_attention(wanted: Json, *, on_gpu: bool) -> str:
    """Whether to use it: on a processor it costs time, but a quantised cache needs it.

    Behind 3,000 tokens the first token of a reply took 2.2 times as long with it, and each further
    one 1.8 times (SmolLM2 135M on two cores).
    """
    choice: str = wanted["flash_attention"]
    slower = not on_gpu and wanted["kv_cache"] == "f16"
    return "off" if choice == "auto" and slower else choice


def _places() -> list[int]:
    """Files that exist in memory alone, by their descriptors; Linux has them."""
    if sys.platform != "linux":
        return []
    return [os.memfd_create("state") for _ in range(PLACES)]


def _device(layers: int) -> str:
    """What computes, by llama.cpp's name without a number, such as ``cuda``; else ``cpu``."""
    accelerators = _accelerators()
    if not layers or not accelerators:
        return "cpu"
    name = str(accelerators[0]["name"]).rstrip("0123456789").lower()
    return "metal" if name == "mtl" else name


def _accelerators() -> list[Json]:
    kinds = xllamacpp.ggml_backend_dev_type
    gpus = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return [info for info in xllamacpp.get_device_info() if info["type"] in gpus]


def _guided() -> bool:
    """Whether this build's grammars are llguidance's."""
    return str(xllamacpp.json_schema_to_grammar({"type": "object"})).startswith("%llguidance")


def _failure(wanted: Json, error: RuntimeError) -> Json:
    name = os.path.basename(wanted["model"])  # noqa: PTH119 - it may be anything
    message = (
        f"llama.cpp cannot load {name}: {error} The file is damaged, of a kind that it does not "
        "know, or too large for the memory. It said:"
    )
    return {
        "event": "failed",
        "kind": "ModelFileError",
        "message": message,
        "unexplained": True,
    }


def _send(events: int, event: Json) -> None:
    data = memoryview(orjson.dumps(event) + b"\n")
    while data:
        data = data[os.write(events, data) :]


if __name__ == "__main__":
    main()
