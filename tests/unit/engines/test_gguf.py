"""Headers of model files are read strictly."""

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_files import gguf, llama, text, value

from npc_server.engines.gguf import Header, read_header
from npc_server.errors import ModelFileError

SMALL = gguf(
    {
        "general.architecture": "llama",
        "general.name": "작은",
        "a.number": 7,
        "a.float": 0.5,
        "a.flag": True,
        "a.list": ["x", "y"],
        "a.kinds": [1, 3],
        "a.scores": [0.5, 1.0],
        "a.nothing": [],
    },
    {"one": (32, 2), "two": (8,)},
)


def read(tmp_path: Path, data: bytes) -> Header:
    file = tmp_path / "model.gguf"
    file.write_bytes(data)
    return read_header(file)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_all_three_versions_are_read(tmp_path: Path, version: int) -> None:
    """Metadata and tensors of each version come out as they went in."""
    metadata = {"general.name": "작은", "a.number": 7, "a.flag": True, "a.list": ["x", "y"]}
    header = read(tmp_path, gguf(metadata, {"one": (32, 2), "two": (8,)}, version=version))
    assert (header.format, header.version) == ("GGUF", version)
    assert header.metadata == metadata
    assert header.text("general.name") == "작은"
    assert (header.number("a.number"), header.number("a.flag")) == (7, None)
    assert header.texts("a.list") == ["x", "y"]
    assert [(t.name, t.shape, t.offset, t.size) for t in header.tensors] == [
        ("one", (32, 2), 0, 256),
        ("two", (8,), 256, 32),
    ]
    assert header.data_at % 32 == 0


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    """Numbers, flags, texts and lists of them, empty ones too, and what is missing."""
    header = read(tmp_path, SMALL)
    assert header.metadata["a.float"] == 0.5
    assert header.metadata["a.flag"] is True
    assert header.metadata["a.kinds"] == [1, 3]
    assert header.metadata["a.scores"] == [0.5, 1.0]
    assert header.metadata["a.nothing"] == []
    assert (header.text("no"), header.number("no"), header.texts("no")) == ("", None, [])
    begin, end = header.spans["a.number"]
    assert SMALL[begin:end] == value(7)


@pytest.mark.parametrize(
    ("magic", "name", "version"),
    [(b"lmgg", "GGML", 0), (b"fmgg", "GGMF", 1), (b"tjgg", "GGJT", 3), (b"ccgg", "GGCC", 10)],
)
def test_older_files_are_recognised(tmp_path: Path, magic: bytes, name: str, version: int) -> None:
    """The files before GGUF are told by their magic and version."""
    sizes = struct.pack("<7I", 20, 64, 256, 4, 1, 16, 2)
    numbers = struct.pack("<I", version) if version else b""
    header = read(tmp_path, magic + numbers + sizes + bytes(64))
    assert (header.format, header.version, header.metadata) == (name, version, {"vocabulary": 20})


def one_tensor(shape: tuple[int, ...], *, kind: int = 0, offset: int = 0) -> bytes:
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, 0) + text("t")
    head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return head + bytes(4096)


def one_key(data: bytes) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("k") + data + bytes(64)


HUGE = 2**63
BAD = {
    "empty": (b"", "cut off"),
    "magic": (b"ELF\x7f" + bytes(64), "no GGUF"),
    "zip": (b"PK\x03\x04" + bytes(64), "PyTorch"),
    "page": (b"<!DOCTYPE html>", "web page"),
    "lora": (b"algg" + bytes(64), "LoRA"),
    "old sizes": (b"tjgg" + struct.pack("<8I", 3, 20, 2**21, 256, 4, 1, 16, 2), "impossible"),
    "old vocabulary": (b"lmgg" + struct.pack("<7I", 2**20, 64, 256, 4, 1, 16, 2), "impossible"),
    "old and short": (b"tjgg\x03\0\0\0", "cut off"),
    "version": (struct.pack("<4sIQQ", b"GGUF", 9, 0, 0), "version 9"),
    "endian": (struct.pack(">4sIQQ", b"GGUF", 3, 0, 0), "big endian"),
    "tensors": (struct.pack("<4sIQQ", b"GGUF", 3, HUGE, 0) + bytes(64), "claims"),
    "keys": (struct.pack("<4sIQQ", b"GGUF", 3, 0, HUGE) + bytes(64), "claims"),
    "string": (one_key(struct.pack("<IQ", 8, HUGE)), "claims"),
    "cut string": (one_key(struct.pack("<IQ", 8, 5000)), "cut off"),
    "list": (one_key(struct.pack("<IIQ", 9, 4, HUGE)), "claims"),
    "nested list": (one_key(struct.pack("<IIQ", 9, 9, 1)), "unusable type 9"),
    "kind": (one_key(struct.pack("<I", 77)), "unknown type 77"),
    "twice": (gguf({"k": 1}, {})[:16] + struct.pack("<Q", 2) + (text("k") + value(1)) * 2, "twice"),
    "alignment": (gguf({"general.alignment": 3}, {"t": (8,)}), "alignment"),
    "alignment kind": (gguf({"general.alignment": "x"}, {"t": (8,)}), "alignment"),
    "dimensions": (one_tensor((1, 1, 1, 1, 1)), "5 dimensions"),
    "no dimension": (one_tensor(()), "0 dimensions"),
    "zero": (one_tensor((0,)), "impossible shape"),
    "overflow": (one_tensor((2**62, 2**62, 2**62, 2**62)), "impossible shape"),
    "block": (one_tensor((33,), kind=2), "impossible shape"),
    "type": (one_tensor((32,), kind=99), "unknown type 99"),
    "offset": (one_tensor((32,), offset=7), "not aligned"),
    "far": (one_tensor((32,), offset=2**62), "cut off"),
    "names": (SMALL.replace(text("two"), text("one")), "same name"),
    "data": (SMALL[:-8], "cut off"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_say_what_is_wrong(tmp_path: Path, name: str) -> None:
    """Each kind of damage has its own text, which names the file."""
    data, told = BAD[name]
    with pytest.raises(ModelFileError, match=r"model\.gguf") as caught:
        read(tmp_path, data)
    assert told in caught.value.message


@pytest.mark.parametrize("path", ["missing.gguf", ".", "a\0b"])
def test_what_is_no_file_says_so(tmp_path: Path, path: str) -> None:
    """A missing file, a folder and an impossible name are ModelFileErrors as well."""
    with pytest.raises(ModelFileError, match="Cannot read"):
        read_header(tmp_path / path)


def test_lists_have_a_bound_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many lists cannot hold more than one may."""
    monkeypatch.setattr("npc_server.engines.gguf.MAX_ITEMS", 5)
    with pytest.raises(ModelFileError, match="more than 5"):
        read(tmp_path, gguf({"a": [1, 2, 3], "b": [1, 2, 3]}, {}))


def test_a_header_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that never ends is given up."""
    monkeypatch.setattr("npc_server.engines.gguf.MAX_HEADER", 100)
    with pytest.raises(ModelFileError, match="header is larger"):
        read(tmp_path, SMALL)


MODEL = llama()


@given(
    cut=st.integers(0, len(MODEL)),
    changes=st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 255)), max_size=12),
    wide=st.one_of(st.none(), st.tuples(st.integers(0, 12_000), st.integers(0, 2**64 - 1))),
)
def test_damage_gives_one_kind_of_error_and_no_large_allocation(
    tmp_path_factory: pytest.TempPathFactory,
    cut: int,
    changes: list[tuple[int, int]],
    wide: tuple[int, int] | None,
) -> None:
    """A cut or overwritten model is read or refused, within a few megabytes of memory."""
    data = bytearray(MODEL)
    for at, byte in changes:
        data[at] = byte
    if wide:
        data[wide[0] : wide[0] + 8] = struct.pack("<Q", wide[1])
    file = tmp_path_factory.getbasetemp() / "damaged.gguf"
    file.write_bytes(data[:cut] if cut % 2 else data)
    tracemalloc.start()
    try:
        with suppress(ModelFileError):
            assert read_header(file).data_at <= len(data)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8_000_000
