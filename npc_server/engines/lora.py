"""Merges a LoRA adapter into a model file, for engines that cannot load one beside it.

An adapter (GGUF, as llama.cpp's converter writes it) has two small matrices for each weight W that
it changes: ``NAME.lora_a`` (rank x in) and ``NAME.lora_b`` (out x rank). The merged weight is
``W + scale * alpha / rank * B @ A``, stored as F16; alpha is in the adapter's metadata, and
where it is not, ``scale`` alone counts. Everything else is copied as it is.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from npc_server.engines.convert import copy_bytes, file_key, leftovers, new_file, writable
from npc_server.engines.dequantise import LAYOUTS, dequantised
from npc_server.engines.ggml_types import GGML_TYPES
from npc_server.engines.gguf import Header, Tensor, read_header
from npc_server.errors import ModelFileError

SUFFIX = ".merged.gguf"
KEPT = 8
MERGES_KNOWN = 32
F16, F16_BYTES = 1, 2
NUMBERS_AT_ONCE = 1 << 24

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Change:
    """What an adapter does to one weight: ``b @ a`` is to be added, already scaled."""

    a: Matrix
    b: Matrix


def merged(
    source: Path, model: Path, adapter: Path, scale: float, cache_dir: Path | None = None
) -> Path:
    """The model file with an adapter in it, made where it is not there yet.

    It lies beside the model, or in ``cache_dir`` where that folder cannot be written. Its name
    holds a hash of both files and the scale. The ``KEPT`` used last are kept for each source.

    Args:
        source: The file that the model was before it was rewritten; gives the name.
        model: A GGUF file.
        adapter: A LoRA adapter in GGUF form, made for that model.
        scale: How strongly it acts.
        cache_dir: The other folder.

    Raises:
        ModelFileError: One of the files cannot be used, or there is no room for a third.
    """
    header = read_header(model)
    folders = [source.parent, *([cache_dir] if cache_dir else [])]
    name = f"{source.stem}.{_key(model, header, adapter, scale)}{SUFFIX}"
    for folder in folders:
        found = folder / name
        if found.is_file():
            with suppress(OSError):
                os.utime(found)
            return found
    changes = read_changes(header, adapter, scale)
    usable = next((folder for folder in folders if writable(folder)), None)
    if usable is None:
        raise ModelFileError(
            f"The adapter {adapter.name} must be merged into a copy of {model.name}, but none of "
            f"{', '.join(map(str, folders))} can be written. Set NPC_DATA_DIR to a folder of yours."
        )
    _remove_oldest(source, usable)
    with new_file(usable / name, like=model) as new, model.open("rb") as old:
        _write(header, changes, old, new)
    return usable / name


class Merger:
    """Merges in a thread of its own, one adapter after the other.

    Args:
        merge: Gives the file for an adapter and a scale.
    """

    def __init__(self, merge: Callable[[Path, float], Path]) -> None:
        self._merge = merge
        self._thread = ThreadPoolExecutor(1)
        self._lock = Lock()
        self._known: OrderedDict[tuple[str, float, int, int], Future[str]] = OrderedDict()

    def __call__(self, adapter: str, scale: float) -> Future[str]:
        """The file to be; fails with ``ModelFileError``.

        Raises:
            ModelFileError: There is no such adapter.
        """
        try:
            stat = Path(adapter).stat()
        except (OSError, ValueError) as error:
            raise ModelFileError(
                f"There is no adapter {adapter}. Check the path that the persona names."
            ) from error
        key = (adapter, scale, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            known = self._known.pop(key, None)
            if known is None or (known.done() and not self._usable(known)):
                known = self._thread.submit(lambda: str(self._merge(Path(adapter), scale)))
            self._known[key] = known
            if len(self._known) > MERGES_KNOWN:
                self._known.popitem(last=False)
            return known

    @staticmethod
    def _usable(done: Future[str]) -> bool:
        if done.exception() is not None:
            return False
        try:
            os.utime(done.result())
        except OSError:
            # It was removed to make room.
            return False
        return True


def read_changes(header: Header, adapter: Path, scale: float) -> dict[str, Change]:
    """What an adapter changes, by the names of the model's weights.

    Raises:
        ModelFileError: It is no LoRA adapter, or made for another model.
    """
    own = read_header(adapter)
    problem = _problem(header, own)
    if problem:
        raise ModelFileError(f"The adapter {adapter} cannot be used: {problem}.")
    alpha = own.metadata.get("adapter.lora.alpha")
    tensors = {tensor.name: tensor for tensor in own.tensors}
    changes = {}
    with adapter.open("rb") as file:
        for name in sorted({name.rpartition(".lora_")[0] for name in tensors}):
            a = _matrix(file, own, tensors[f"{name}.lora_a"])
            b = _matrix(file, own, tensors[f"{name}.lora_b"])
            factor = scale * alpha / len(a) if isinstance(alpha, int | float) and alpha else scale
            changes[name] = Change(a, b * np.float32(factor))
    return changes


def _problem(model: Header, adapter: Header) -> str | None:
    """Why an adapter does not fit a model; ``None`` if it does."""
    if model.format != "GGUF":
        return f"adapters need a model in GGUF form, and this one is {model.format}"
    if adapter.text("general.type") != "adapter" or adapter.text("adapter.type") != "lora":
        return "it is no LoRA adapter in GGUF form; llama.cpp's convert_lora_to_gguf.py makes one"
    kinds = [header.text("general.architecture") for header in (model, adapter)]
    if kinds[1] not in {"", kinds[0]}:
        return f"it is for {kinds[1]} models, and this is a {kinds[0]} model"
    if not adapter.tensors:
        return "it changes nothing"
    weights = {tensor.name: tensor for tensor in model.tensors}
    parts = {tensor.name: tensor for tensor in adapter.tensors}
    return next(filter(None, (_misfit(name, parts, weights) for name in parts)), None)


def _misfit(part: str, parts: dict[str, Tensor], weights: dict[str, Tensor]) -> str | None:
    name, _, which = part.rpartition(".lora_")
    if which not in {"a", "b"} or f"{name}.lora_a" not in parts or f"{name}.lora_b" not in parts:
        return f"{part!r} is no half of a pair of lora_a and lora_b"
    weight = weights.get(name)
    if weight is None:
        return f"the model has no weight {name!r}"
    a, b = parts[f"{name}.lora_a"].shape, parts[f"{name}.lora_b"].shape
    # Shapes in files begin with the length of a row. Embeddings are looked up, not multiplied.
    if name == "token_embd.weight" or len(weight.shape) != 2 or len(a) != 2 or len(b) != 2:
        return f"{name!r} is no matrix that can be adapted"
    if (a[0], b[1]) != weight.shape or a[1] != b[0]:
        return f"{name!r} is {weight.shape} in the model, and {a} and {b} in the adapter"
    for tensor in (weight, parts[part]):
        if tensor.type not in LAYOUTS:
            return f"{tensor.name!r} is stored as {GGML_TYPES[tensor.type].name}, take F16 or Q8_0"
    return None


def _matrix(file: BinaryIO, header: Header, tensor: Tensor) -> Matrix:
    file.seek(header.data_at + tensor.offset)
    return dequantised(file.read(tensor.size), tensor.type).reshape(tensor.shape[::-1])


def _write(header: Header, changes: dict[str, Change], old: BinaryIO, new: BinaryIO) -> None:
    tensors = list(_laid_out(header, changes))
    copy_bytes(old, new, 0, header.tensors_at[0])
    wide = "Q" if header.version > 1 else "I"
    for tensor in tensors:
        name = tensor.name.encode("utf-8", "surrogateescape")
        new.write(struct.pack(f"<{wide}", len(name)) + name)
        new.write(struct.pack(f"<I{len(tensor.shape)}{wide}", len(tensor.shape), *tensor.shape))
        new.write(struct.pack("<IQ", tensor.type, tensor.offset))
    for before, tensor in zip(header.tensors, tensors, strict=True):
        new.write(bytes(-new.tell() % header.alignment))
        begin = header.data_at + before.offset
        if tensor.name not in changes:
            copy_bytes(old, new, begin, before.size)
            continue
        old.seek(begin)
        new.writelines(part.tobytes() for part in _summed(old, before, changes[tensor.name]))


def _laid_out(header: Header, changes: dict[str, Change]) -> Iterator[Tensor]:
    """The tensors of the new file, one behind the other."""
    offset = 0
    for tensor in header.tensors:
        changed = tensor.name in changes
        size = tensor.shape[0] * tensor.shape[1] * F16_BYTES if changed else tensor.size
        kind = F16 if changed else tensor.type
        yield replace(tensor, type=kind, offset=offset, size=size)
        offset += -(-size // header.alignment) * header.alignment


def _summed(old: BinaryIO, tensor: Tensor, change: Change) -> Iterator[NDArray[np.float16]]:
    """The changed weight, some rows at a time."""
    width, height = tensor.shape
    rows = max(1, NUMBERS_AT_ONCE // width)
    row_size = tensor.size // height
    for begin in range(0, height, rows):
        part = change.b[begin : begin + rows]
        numbers = dequantised(old.read(len(part) * row_size), tensor.type).reshape(-1, width)
        yield (numbers + part @ change.a).astype(np.float16)


def _key(model: Path, header: Header, adapter: Path, scale: float) -> str:
    try:
        with adapter.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelFileError(f"Cannot read the adapter {adapter}: {error.strerror}.") from error
    text = f"{file_key(model, header)} {content} {scale!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _remove_oldest(source: Path, folder: Path) -> None:
    """Make room for one more merged file."""

    def last_use(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except OSError:
            return 0.0

    made = sorted(leftovers(source, folder, SUFFIX), key=last_use, reverse=True)
    for old in made[KEPT - 1 :]:
        # A system that does not remove files in use keeps it.
        with suppress(OSError):
            old.unlink()
