"""Rewrites a modern GGUF file of the llama family so that ctransformers 0.2.27 loads it.

ctransformers reads GGUF up to version 2, knows only SentencePiece vocabularies and wants the output
matrix to be there. The rewrite keeps every weight and all metadata. The version becomes 2; where
the output matrix is missing, the token embeddings, which such a model uses in its place, are
written a second time; and a byte-level BPE vocabulary is kept under ``npc_server.`` keys, while
placeholders stand in its old place: ``npc_server.engines.bpe`` does the tokenising.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from npc_server.engines.ggml_types import CTRANSFORMERS_TYPES, GGML_TYPES
from npc_server.engines.gguf import Header, Tensor, read_header
from npc_server.errors import ModelFileError

KEPT = "npc_server."
SUFFIX = ".ctransformers.gguf"
PLACEHOLDERS = (
    "tokenizer.ggml.model",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
)
ARCHITECTURES = frozenset({"llama", "falcon"})
BYTE_TOKENS = 256
COPY = 1 << 20
STALE_SECONDS = 3600

Progress = Callable[[int, int | None], None]


def obstacle(header: Header) -> str | None:
    """Why ctransformers cannot run a GGUF model, with or without a rewrite; ``None`` if it can."""
    if header.format != "GGUF":
        return None
    architecture = header.text("general.architecture")
    if architecture not in ARCHITECTURES:
        return f"its architecture is {architecture or 'not told'!r}, ctransformers runs llama"
    strange = {tensor.type for tensor in header.tensors} - CTRANSFORMERS_TYPES
    if strange:
        kinds = ", ".join(sorted(GGML_TYPES[kind].name for kind in strange))
        return f"it is quantised as {kinds}; take F16, Q8_0, Q4_0 or Q4_K_M"
    return _beyond_llama(header) if needs_conversion(header) else None


def needs_conversion(header: Header) -> bool:
    """Whether a GGUF model has to be rewritten for ctransformers."""
    if header.format != "GGUF":
        return False
    tied = all(tensor.name != "output.weight" for tensor in header.tensors)
    return header.version > 2 or tied or _is_bpe(header)


def prepared(
    source: Path, cache_dir: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """The file that ctransformers is to load: the model itself, or its rewrite.

    The rewrite lies beside the model, or in ``cache_dir`` where that folder cannot be written. Its
    name holds a hash of the model's header, size and time of change, so a model that was replaced
    is rewritten again; rewrites of what it was before are removed.

    Raises:
        ModelFileError: The model cannot be read or run, or there is no room for the rewrite.
    """
    header = read_header(source)
    reason = obstacle(header)
    if reason:
        raise ModelFileError(f"ctransformers cannot run the model {source}: {reason}.")
    if not needs_conversion(header):
        return source
    key = file_key(source, header)
    folders = [source.parent, *([cache_dir] if cache_dir else [])]
    for folder in folders:
        found = folder / f"{source.stem}.{key}{SUFFIX}"
        if found.is_file():
            return found
    usable = [folder for folder in folders if writable(folder)]
    if not usable:
        raise ModelFileError(
            f"The model {source} must be rewritten for ctransformers, but none of "
            f"{', '.join(map(str, folders))} can be written. Set NPC_DATA_DIR to a folder of yours."
        )
    target = usable[0] / f"{source.stem}.{key}{SUFFIX}"
    _remove_leftovers(source, usable[0])
    convert(source, target, progress=progress)
    return target


def convert(source: Path, target: Path, *, progress: Progress | None = None) -> None:
    """Rewrite ``source`` into ``target``, which appears only once it is whole.

    Args:
        source: A GGUF file of the llama family, version 2 or 3.
        target: The file to write; replaced if it is there.
        progress: Called with the bytes that were written and those that there will be.

    Raises:
        ModelFileError: The source is no such model, or the target cannot be written.
    """
    header = read_header(source)
    if header.format != "GGUF" or header.version < 2:
        raise ModelFileError(f"{source} is no GGUF file of version 2 or 3 and cannot be rewritten.")
    reason = obstacle(header) or _beyond_llama(header)
    if reason:
        raise ModelFileError(f"{source} cannot be rewritten for ctransformers: {reason}.")
    with new_file(target, like=source) as new, source.open("rb") as old:
        _write(header, old, new, progress or (lambda _done, _total: None))


@contextmanager
def new_file(target: Path, *, like: Path) -> Iterator[BinaryIO]:
    """A file to be written, which appears under its name only once it is whole.

    Args:
        target: The file; replaced if it is there.
        like: A file of about that size, for the message.

    Raises:
        ModelFileError: It cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=".rewrite-", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(number, "wb") as new:
                yield new
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise ModelFileError(
            f"Cannot write {target}: {error.strerror}. It needs as much room as {like.name} has."
        ) from error


def _write(header: Header, old: BinaryIO, new: BinaryIO, progress: Progress) -> None:
    embeddings = next(tensor for tensor in header.tensors if tensor.name == "token_embd.weight")
    tied = all(tensor.name != "output.weight" for tensor in header.tensors)
    data_size = max(tensor.offset + tensor.size for tensor in header.tensors)
    output_at = -(-data_size // header.alignment) * header.alignment
    pairs = list(_metadata(header, old))
    new.write(struct.pack("<4sIQQ", b"GGUF", 2, len(header.tensors) + tied, len(pairs)))
    new.writelines(pairs)
    old.seek(header.tensors_at[0])
    new.write(old.read(header.tensors_at[1] - header.tensors_at[0]))
    if tied:
        new.write(_description("output.weight", embeddings, output_at))
    new.write(bytes(-new.tell() % header.alignment))
    total = new.tell() + output_at + tied * embeddings.size

    def told(done: int) -> None:
        progress(done, total)

    copy_bytes(old, new, header.data_at, data_size, told)
    if tied:
        new.write(bytes(output_at - data_size))
        copy_bytes(old, new, header.data_at + embeddings.offset, embeddings.size, told)


def _metadata(header: Header, old: BinaryIO) -> Iterator[bytes]:
    bpe = _is_bpe(header)
    for key, (begin, end) in header.spans.items():
        old.seek(begin)
        name = KEPT + key if bpe and key in PLACEHOLDERS else key
        yield _text(name) + old.read(end - begin)
    if not bpe:
        return
    count = len(header.texts("tokenizer.ggml.tokens"))
    names = [f"<0x{i:02X}>" if i < BYTE_TOKENS else f"t{i}" for i in range(count)]
    kinds = [6 if i < BYTE_TOKENS else 1 for i in range(count)]
    yield _text("tokenizer.ggml.model") + struct.pack("<I", 8) + _text("llama")
    yield _array("tokens", 8, count) + b"".join(map(_text, names))
    yield _array("scores", 6, count) + bytes(4 * count)
    yield _array("token_type", 5, count) + struct.pack(f"<{count}i", *kinds)


def _array(key: str, kind: int, count: int) -> bytes:
    return _text(f"tokenizer.ggml.{key}") + struct.pack("<IIQ", 9, kind, count)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _description(name: str, like: Tensor, offset: int) -> bytes:
    shape = struct.pack(f"<I{len(like.shape)}Q", len(like.shape), *like.shape)
    return _text(name) + shape + struct.pack("<IQ", like.type, offset)


def copy_bytes(
    old: BinaryIO,
    new: BinaryIO,
    begin: int,
    size: int,
    told: Callable[[int], None] = lambda _done: None,
) -> None:
    """Copy so many bytes from a place in one file to where the other is; tells where it is then.

    Raises:
        ModelFileError: The first file ends too soon.
    """
    old.seek(begin)
    while size:
        data = old.read(min(size, COPY))
        if not data:
            raise ModelFileError("The model file was shortened while it was read. Fetch it again.")
        new.write(data)
        size -= len(data)
        told(new.tell())


def _is_bpe(header: Header) -> bool:
    return header.text("tokenizer.ggml.model") == "gpt2"


def _beyond_llama(header: Header) -> str | None:
    """What a llama model has that ctransformers would compute wrongly or not at all."""
    if header.text("general.architecture") != "llama":
        return f"a {header.text('general.architecture')} model cannot be rewritten, only llama"
    kind = header.text("tokenizer.ggml.model")
    if kind not in {"llama", "gpt2"}:
        return f"its vocabulary is of the kind {kind or 'not told'!r}, known are llama and gpt2"
    names = {tensor.name for tensor in header.tensors}
    heads, width = (
        header.number(f"llama.{key}") for key in ("attention.head_count", "embedding_length")
    )
    if not heads or not width or "token_embd.weight" not in names:
        return "its metadata lacks the sizes of a llama model"
    for problem, found in {
        "it mixes experts": header.number("llama.expert_count"),
        "its attention has biases": any(name.endswith(".bias") for name in names),
        "it corrects positions by rope_freqs": "rope_freqs.weight" in names,
        "its heads are not as wide as the model divided by their number": header.number(
            "llama.attention.key_length"
        )
        not in {None, width // heads},
        "it stretches positions": header.text("llama.rope.scaling.type") not in {"", "none"},
        "its vocabulary has less than 256 tokens": len(header.texts("tokenizer.ggml.tokens"))
        < BYTE_TOKENS,
    }.items():
        if found:
            return f"{problem}, which ctransformers does not know"
    return None


def file_key(source: Path, header: Header) -> str:
    """A short hash of a model file's header, size and time of change."""
    stat = source.stat()
    digest = hashlib.sha256(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    with source.open("rb") as file:
        digest.update(file.read(header.data_at))
    return digest.hexdigest()[:16]


def writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _remove_leftovers(source: Path, folder: Path) -> None:
    """Remove rewrites of what the model was before, and what a killed rewrite has left."""
    for old in leftovers(source, folder, SUFFIX):
        with suppress(OSError):
            old.unlink()
    for broken in folder.glob(".rewrite-*"):
        with suppress(OSError):
            if time.time() - broken.stat().st_mtime > STALE_SECONDS:
                broken.unlink()


def leftovers(source: Path, folder: Path, suffix: str) -> list[Path]:
    """The files in a folder that were made of a model: its name, a hash and a suffix."""
    return list(folder.glob(f"{_escaped(source.stem)}.????????????????{suffix}"))


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
