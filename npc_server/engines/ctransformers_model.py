"""The native side of the ctransformers worker: instances of a model, and its own vocabulary."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import regex
from ctransformers import lib
from ctransformers.llm import LLM, Config

from npc_server.engines.drawing import Logits
from npc_server.engines.gguf import Header
from npc_server.errors import EngineUnavailable, ModelFileError

CONTROL_NAME = regex.compile(rb"<\|[^<>|]+\|>|</?s>|<unk>|<pad>|<mask>|<cls>|<sep>")
SCRATCH = 64 << 20
MEMORY_USED = 0.8


class NativeInstance:
    """One instance of the model: reads tokens, tells what may come next.

    Args:
        path: A file that ctransformers can load.
        kind: ctransformers' name for the kind of model; ``None`` for GGUF.
        context: Tokens that it can hold.
        gpu_layers: Layers on the GPU.
        threads: Threads that compute.
        library: The shared library; see ``library``.

    Raises:
        ModelFileError: The library does not take the model.
    """

    def __init__(
        self,
        path: Path,
        kind: str | None,
        *,
        context: int,
        gpu_layers: int,
        threads: int,
        library: str,
    ) -> None:
        config = Config(context_length=context, gpu_layers=gpu_layers)
        try:
            self.llm: Any = LLM(str(path), kind, config=config, lib=library)
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelFileError(
                f"ctransformers cannot load {path.name} ({error}). Fetch the file again, or take "
                "another model; `npc-server models info` shows what this one is."
            ) from error
        self._threads = threads
        self.context = min(context, int(self.llm.context_length))

    def read(self, tokens: Sequence[int], position: int) -> None:
        """Read tokens that follow the first ``position`` ones.

        Raises:
            EngineUnavailable: The library could not.
        """
        count = len(tokens)
        array = (ctypes.c_int * count)(*tokens)
        if not self.llm.ctransformers_llm_batch_eval(array, count, position, count, self._threads):
            raise EngineUnavailable("ctransformers could not evaluate the prompt.")

    def logits(self) -> Logits:
        """One logit for each token; a view that the next ``read`` changes."""
        size = self.llm.ctransformers_llm_logits_size()
        if size <= 0:
            raise EngineUnavailable("ctransformers gave no logits.")
        return np.ctypeslib.as_array(self.llm.ctransformers_llm_logits_data(), (size,))


class NativeVocabulary:
    """The vocabulary as ctransformers knows it; see ``Vocabulary``.

    Args:
        instance: An instance of the model.
        header: The model's header, which tells the control tokens of GGUF files. Those of older
            files are known by their names.
    """

    def __init__(self, instance: NativeInstance, header: Header) -> None:
        self._llm = instance.llm
        self.size = int(self._llm.vocab_size)
        self._pieces = [self._llm.ctransformers_llm_detokenize(i) or b"" for i in range(self.size)]
        self.bos = self._id(int(self._llm.bos_token_id))
        self.eos = self._id(int(self._llm.eos_token_id))
        self.control: Mapping[int, str] = self._declared(header) or self._by_name()

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        # The library ends a text at a NUL, and writes past the buffer that its own wrapper makes.
        data = text.replace("\0", "").encode(errors="replace")
        array = (ctypes.c_int * (len(data) + 8))()
        count = self._llm.ctransformers_llm_tokenize(data, False, array)
        return list(array[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        return b"" if token in self.control else self._pieces[token]

    def _id(self, token: int) -> int | None:
        return token if 0 <= token < self.size else None

    def _declared(self, header: Header) -> dict[int, str]:
        kinds = header.metadata.get("tokenizer.ggml.token_type")
        names = header.texts("tokenizer.ggml.tokens")
        if not isinstance(kinds, list) or len(kinds) != len(names):
            return {}
        return {at: name for at, name in enumerate(names) if kinds[at] in (2, 3)}

    def _by_name(self) -> dict[int, str]:
        control = {
            token: piece.decode(errors="replace")
            for token, piece in enumerate(self._pieces)
            if CONTROL_NAME.fullmatch(piece)
        }
        for token, name in ((self.bos, "<s>"), (self.eos, "</s>")):
            if token is not None:
                control.setdefault(token, name)
        return control


def library(gpu_layers: int) -> str:
    """The path of the shared library that fits this processor, or its GPU.

    Raises:
        EngineUnavailable: ctransformers has none for this machine.
    """
    # On its own, ctransformers starts a process to ask for the processor's abilities.
    ours = Path(lib.__file__).parent / "lib" / "local"
    fast = gpu_layers <= 0 and not ours.is_dir() and b" avx2 " in _processor()
    try:
        return str(lib.find_library("avx2" if fast else None, gpu=gpu_layers > 0))
    except OSError as error:
        raise EngineUnavailable(
            "ctransformers has no library for this machine. Build it: "
            "pip install ctransformers --no-binary ctransformers."
        ) from error


def _processor() -> bytes:
    path = Path("/proc/cpuinfo")
    return path.read_bytes() if path.exists() else b""


def device(gpu_layers: int) -> str:
    """What computes: ``cpu``, ``cuda`` or ``metal``."""
    if gpu_layers <= 0:
        return "cpu"
    return "metal" if sys.platform == "darwin" else "cuda"


def seat_bytes(header: Header, context: int, grown: int) -> int:
    """About how much memory one more seat takes.

    Keys and values are two 16-bit numbers for each layer, token and channel of the attention.

    Args:
        header: The model's header.
        context: Tokens of a seat.
        grown: By how many bytes the process grew with the first seat; its keys and values are not
            in memory yet.
    """
    name = header.text("general.architecture")
    layers = header.number(f"{name}.block_count") or 0
    width = header.number(f"{name}.embedding_length") or 0
    heads = header.number(f"{name}.attention.head_count") or 1
    kept = header.number(f"{name}.attention.head_count_kv") or heads
    return 2 * 2 * layers * context * width * kept // heads + max(grown, SCRATCH)


def affordable_seats(wanted: int, each: int) -> int:
    """How many seats the free memory has room for, one at least."""
    return max(1, min(wanted, 1 + int(psutil.virtual_memory().available * MEMORY_USED) // each))


def affordable_adapters(seats: int, model_size: int) -> int:
    """How many model files with adapters the free memory has room for, one at least."""
    # What an adapter changes is stored as F16: twice as much as Q8_0.
    free = int(psutil.virtual_memory().available * MEMORY_USED)
    return max(1, min(seats, free // max(2 * model_size, 1)))


def memory_used() -> int:
    """The bytes that this process has for itself, files that it reads left out."""
    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))
