"""Reads the headers of model files strictly and without loading them.

GGUF versions 1 to 3, little endian, are read in whole: metadata and tensor descriptions, every
count, length and offset checked against a bound and against the file's size before anything is
allocated. The older GGML, GGMF, GGJT and GGCC files have no metadata; of them the kind is told, and
their first numbers are checked.
The layout is the one of the GGUF specification in the ggml project.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np

from npc_server.engines.ggml_types import GGML_TYPES
from npc_server.errors import ModelFileError

Value = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]

MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_ITEMS = 4_194_304
MAX_STRING = 16_777_216
MAX_HEADER = 134_217_728
MAX_DIMENSIONS = 4
STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
LEGACY = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"ccgg": "GGCC"}
LEGACY_SIZES = 7
MAX_LEGACY_SIZE = 1_048_576
ADVICE = "Fetch the file again, or take another one."


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies: ``offset`` is counted in bytes from the start of the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a model file says before its numbers begin.

    Attributes:
        format: ``GGUF``, ``GGJT``, ``GGMF``, ``GGCC`` or ``GGML``.
        version: The format's version; 0 for GGML, which has none.
        size: The file's size in bytes.
        metadata: Keys and values; texts that are no UTF-8 hold surrogate escapes.
        spans: Where each key's type and value lie in the file: begin and end.
        tensors: The tensors in their order.
        tensors_at: Where the tensors' descriptions lie in the file: begin and end.
        data_at: Where the tensors' data begins.
        alignment: What offsets are multiples of.
    """

    format: str
    version: int
    size: int
    metadata: dict[str, Value] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    tensors: tuple[Tensor, ...] = ()
    tensors_at: tuple[int, int] = (0, 0)
    data_at: int = 0
    alignment: int = 32

    def text(self, key: str) -> str:
        """A text of the metadata; empty where there is none of that name."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int | None:
        """A whole number of the metadata; ``None`` where there is none of that name."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def texts(self, key: str) -> list[str]:
        """A list of texts of the metadata; empty where there is none of that name."""
        value = self.metadata.get(key)
        return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def read_header(path: Path) -> Header:
    """Read the header of a model file.

    Raises:
        ModelFileError: The file cannot be opened, is cut off, is damaged, or is no model.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header()
    except (OSError, ValueError) as error:
        # A path with a NUL in it is a ValueError.
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelFileError(f"Cannot read the model file {path}: {reason}.") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._size = file.seek(0, 2)
        self._at = file.seek(0)
        self._wide = True
        self._items = 0

    def header(self) -> Header:
        magic = self._take(4, "its first four bytes")
        if magic in LEGACY:
            return self._legacy(LEGACY[magic])
        if magic != b"GGUF":
            self._fail(f"it begins with {magic!r} and is no GGUF or GGML file", _guess(magic))
        return self._gguf()

    def _legacy(self, name: str) -> Header:
        """The beginning of an older file; its first numbers are the model's sizes."""
        version = 0 if name == "GGML" else self._scalar("I", "its version")
        sizes = [self._scalar("I", "the model's sizes") for _ in range(LEGACY_SIZES)]
        # Each token takes at least as much as its length does.
        if not 0 < sizes[0] <= self._size // 4 or max(sizes) > MAX_LEGACY_SIZE:
            self._fail(f"its sizes are impossible: {sizes}")
        return Header(name, version, self._size, {"vocabulary": sizes[0]})

    def _gguf(self) -> Header:
        version = self._scalar("I", "its version")
        if version not in {1, 2, 3}:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            kind = "is big endian" if swapped in {2, 3} else f"has GGUF version {version}"
            self._fail(f"it {kind}; little-endian versions 1 to 3 can be read")
        self._wide = version > 1
        tensor_count = self._count(MAX_TENSORS, "tensors")
        key_count = self._count(MAX_KEYS, "metadata keys")
        metadata, spans = self._metadata(key_count)
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not _is_alignment(alignment):
            self._fail(f"its alignment is {alignment!r}, not a power of two from 8 to 65536")
        begin = self._at
        tensors = tuple(self._tensor(alignment) for _ in range(tensor_count))
        end = self._at
        data_at = -(-end // alignment) * alignment
        self._check_extents(tensors, data_at)
        return Header(
            "GGUF", version, self._size, metadata, spans, tensors, (begin, end), data_at, alignment
        )

    def _metadata(self, count: int) -> tuple[dict[str, Value], dict[str, tuple[int, int]]]:
        metadata: dict[str, Value] = {}
        spans: dict[str, tuple[int, int]] = {}
        for _ in range(count):
            key = self._string("a metadata key")
            if key in metadata:
                self._fail(f"the key {key!r} is in it twice")
            begin = self._at
            metadata[key] = self._value(key)
            spans[key] = begin, self._at
        return metadata, spans

    def _value(self, key: str) -> Value:
        kind = self._scalar("I", f"the type of {key!r}")
        if kind == ARRAY:
            return self._array(key)
        if kind == STRING:
            return self._string(f"the value of {key!r}")
        if kind not in SCALARS:
            self._fail(f"{key!r} has the unknown type {kind}")
        if kind == 7:
            return self._take(1, f"the value of {key!r}") != b"\0"
        value: int | float = struct.unpack("<" + SCALARS[kind], self._take_scalar(kind, key))[0]
        return value

    def _take_scalar(self, kind: int, key: str) -> bytes:
        return self._take(struct.calcsize("<" + SCALARS[kind]), f"the value of {key!r}")

    def _array(self, key: str) -> Value:
        kind = self._scalar("I", f"the type of the items of {key!r}")
        count = self._count(MAX_ITEMS, f"items of {key!r}")
        self._items += count
        if self._items > MAX_ITEMS:
            self._fail(f"its metadata has more than {MAX_ITEMS} items")
        if kind == STRING:
            return [self._string(f"an item of {key!r}") for _ in range(count)]
        if kind not in SCALARS:
            self._fail(f"the items of {key!r} have the unusable type {kind}")
        code = SCALARS[kind]
        data = self._take(count * struct.calcsize("<" + code), f"the items of {key!r}")
        items: list[int] = np.frombuffer(data, np.dtype(code).newbyteorder("<")).tolist()
        return items

    def _tensor(self, alignment: int) -> Tensor:
        name = self._string("a tensor's name")
        dimensions = self._scalar("I", f"the shape of {name!r}")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            self._fail(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._length(f"the shape of {name!r}") for _ in range(dimensions))
        kind = self._scalar("I", f"the type of {name!r}")
        offset = self._scalar("Q", f"the offset of {name!r}")
        if kind not in GGML_TYPES:
            self._fail(f"the tensor {name!r} has the unknown type {kind}")
        _, block, size = GGML_TYPES[kind]
        if min(shape) < 1 or prod(shape) > self._size * block or shape[0] % block:
            self._fail(f"the tensor {name!r} has the impossible shape {shape}")
        if offset % alignment:
            self._fail(f"the tensor {name!r} lies at {offset}, which is not aligned")
        return Tensor(name, shape, kind, offset, prod(shape) // block * size)

    def _check_extents(self, tensors: tuple[Tensor, ...], data_at: int) -> None:
        if len({tensor.name for tensor in tensors}) < len(tensors):
            self._fail("two of its tensors have the same name")
        for tensor in tensors:
            end = data_at + tensor.offset + tensor.size
            if end > self._size:
                self._fail(
                    f"it is cut off: the tensor {tensor.name!r} ends at byte {end}, the file "
                    f"at {self._size}"
                )

    def _count(self, limit: int, what: str) -> int:
        count = self._length(f"the number of {what}")
        # Each of them takes a byte at least.
        if count > min(limit, self._size - self._at):
            self._fail(f"it claims to have {count} {what}")
        return count

    def _length(self, what: str) -> int:
        return self._scalar("Q" if self._wide else "I", what)

    def _string(self, what: str) -> str:
        length = self._length(f"the length of {what}")
        if length > MAX_STRING:
            self._fail(f"{what} claims to have {length} bytes")
        return self._take(length, what).decode("utf-8", "surrogateescape")

    def _scalar(self, code: str, what: str) -> int:
        value: int = struct.unpack("<" + code, self._take(struct.calcsize("<" + code), what))[0]
        return value

    def _take(self, length: int, what: str) -> bytes:
        if length > self._size - self._at:
            self._fail(f"it is cut off: at byte {self._at}, {what} should follow")
        if self._at + length > MAX_HEADER:
            self._fail(f"its header is larger than {MAX_HEADER >> 20} MiB")
        data = self._file.read(length)
        self._at += length
        if len(data) < length:
            self._fail("it was shortened while it was read")
        return data

    def _fail(self, problem: str, advice: str = ADVICE) -> NoReturn:
        raise ModelFileError(f"The model file {self._path} cannot be used: {problem}. {advice}")


def _is_alignment(value: int) -> bool:
    return 8 <= value <= 65_536 and value & (value - 1) == 0


def _guess(magic: bytes) -> str:
    if magic[:2] == b"PK":
        return "It looks like a PyTorch or zip archive. Look for the model in GGUF form."
    if magic == b"algg":
        return "It is a LoRA adapter, which is loaded beside a model: set NPC_LORA."
    if magic[:1] in {b"<", b"{"} or magic == b"vers":
        return "It looks like a web page or a pointer instead of the file itself. " + ADVICE
    return ADVICE
