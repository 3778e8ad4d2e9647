"""Modern llama files are rewritten, all others refused with a reason."""

import os
from pathlib import Path
from typing import Any

import pytest
from model_files import gguf, llama, vocabulary

from npc_server.engines import convert as rewriting
from npc_server.engines.bpe import BpeVocabulary
from npc_server.engines.convert import convert, needs_conversion, obstacle, prepared
from npc_server.engines.gguf import read_header
from npc_server.errors import ModelFileError

SPM = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": None,
    "tokenizer.ggml.merges": None,
    "tokenizer.ggml.scores": [0.0] * len(vocabulary()[0]),
}


def model(tmp_path: Path, **how: Any) -> Path:
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama(**how))
    return file


def tensor_data(file: Path, name: str) -> bytes:
    header = read_header(file)
    tensor = next(tensor for tensor in header.tensors if tensor.name == name)
    begin = header.data_at + tensor.offset
    return file.read_bytes()[begin : begin + tensor.size]


def test_a_modern_file_becomes_one_that_ctransformers_loads(tmp_path: Path) -> None:
    """Version 2, an output matrix, a placeholder vocabulary; weights and the rest unchanged."""
    source, target = model(tmp_path), tmp_path / "new" / "out.gguf"
    seen: list[tuple[int, int | None]] = []
    convert(source, target, progress=lambda done, total: seen.append((done, total)))
    old, new = read_header(source), read_header(target)
    assert (new.version, needs_conversion(new), obstacle(new)) == (2, False, None)
    assert new.text("tokenizer.ggml.model") == "llama"
    assert new.texts("tokenizer.ggml.tokens")[10] == "<0x0A>"
    assert tensor_data(target, "output.weight") == tensor_data(source, "token_embd.weight")
    for tensor in old.tensors:
        assert tensor_data(target, tensor.name) == tensor_data(source, tensor.name)
    kept = old.metadata.keys() - set(rewriting.PLACEHOLDERS)
    assert {key: new.metadata[key] for key in kept} == {key: old.metadata[key] for key in kept}
    assert seen[-1] == (target.stat().st_size, target.stat().st_size)


def test_the_vocabulary_survives_the_rewrite(tmp_path: Path) -> None:
    """Tokenising by the rewritten file gives the ids that the original gives."""
    source, target = model(tmp_path), tmp_path / "out.gguf"
    convert(source, target)
    before, after = BpeVocabulary(read_header(source)), BpeVocabulary(read_header(target))
    for text in ("hello world", "안녕 <|im_end|> 😀", "  \n\t x"):
        assert before.encode(text) == after.encode(text)
    assert before.control == after.control


def test_a_sentencepiece_vocabulary_stays_where_it_is(tmp_path: Path) -> None:
    """Only the version changes where ctransformers knows the vocabulary; nothing is doubled."""
    source, target = model(tmp_path, tied=False, changes=SPM), tmp_path / "out.gguf"
    convert(source, target)
    assert read_header(target).metadata == read_header(source).metadata
    assert target.stat().st_size == source.stat().st_size


@pytest.mark.parametrize(
    ("how", "needed"),
    [
        ({}, True),
        ({"version": 2, "tied": False}, True),
        ({"version": 2, "tied": True, "changes": SPM}, True),
        ({"version": 2, "tied": False, "changes": SPM}, False),
    ],
)
def test_only_what_must_be_is_rewritten(tmp_path: Path, how: Any, needed: bool) -> None:
    """A file of ctransformers' time is loaded as it is."""
    source = model(tmp_path, **how)
    assert needs_conversion(read_header(source)) == needed
    assert (prepared(source) != source) == needed


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"general.architecture": "qwen2"}, "qwen2"),
        ({"general.architecture": None}, "not told"),
        ({"general.architecture": "falcon"}, "only llama"),
        ({"tokenizer.ggml.model": "t5"}, "'t5'"),
        ({"llama.attention.head_count": None}, "lacks the sizes"),
        ({"llama.expert_count": 8}, "mixes experts"),
        ({"llama.attention.key_length": 64}, "heads"),
        ({"llama.rope.scaling.type": "yarn"}, "stretches"),
        ({"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.token_type": [1]}, "less than 256"),
    ],
)
def test_what_ctransformers_would_get_wrong_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    """Each reason is told, with the file's name, and nothing is written."""
    source = model(tmp_path, changes=changes)
    with pytest.raises(ModelFileError, match=r"tiny\.gguf") as caught:
        prepared(source)
    assert told in caught.value.message
    assert list(tmp_path.iterdir()) == [source]


def test_biases_and_rope_factors_are_refused(tmp_path: Path) -> None:
    """Tensors that the old code does not know are named as a reason."""
    for name, told in (("blk.0.attn_q.bias", "biases"), ("rope_freqs.weight", "rope_freqs")):
        metadata = read_header(model(tmp_path)).metadata
        file = tmp_path / "extra.gguf"
        file.write_bytes(gguf(metadata, {"token_embd.weight": (32, 268), name: (32,)}))
        with pytest.raises(ModelFileError, match=told):
            convert(file, tmp_path / "out.gguf")


def test_unknown_quantisations_are_refused(tmp_path: Path) -> None:
    """The text names the kind and what to take instead."""
    file = tmp_path / "iq.gguf"
    file.write_bytes(
        gguf({"general.architecture": "llama"}, {"token_embd.weight": (256, 4)}, kind=23)
    )
    with pytest.raises(ModelFileError, match=r"IQ4_XS.*Q4_K_M"):
        prepared(file)


def test_other_formats_are_not_rewritten(tmp_path: Path) -> None:
    """A GGML file is left as it is, and asking for a rewrite is an error."""
    file = tmp_path / "old.bin"
    file.write_bytes(b"tjgg\x03\0\0\0\x01" + bytes(64))
    assert prepared(file) == file
    with pytest.raises(ModelFileError, match="cannot be rewritten"):
        convert(file, tmp_path / "out.gguf")


def test_a_rewrite_is_kept_and_renewed_when_the_model_changes(tmp_path: Path) -> None:
    """The second call finds the first one's file; another model of that name replaces it."""
    source = model(tmp_path)
    first = prepared(source)
    written = first.stat().st_mtime_ns
    assert (prepared(source), first.stat().st_mtime_ns) == (first, written)
    source.write_bytes(llama(changes={"general.name": "Other"}))
    second = prepared(source)
    assert second != first
    assert sorted(tmp_path.iterdir()) == sorted([source, second])


def test_a_folder_that_cannot_be_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rewrite goes into the cache folder; with none there is an error that helps."""
    folder, cache = tmp_path / "models", tmp_path / "cache"
    folder.mkdir()
    source = model(folder)
    monkeypatch.setattr(rewriting, "writable", lambda path: path != folder)
    assert prepared(source, cache).parent == cache
    with pytest.raises(ModelFileError, match="NPC_DATA_DIR"):
        prepared(source)
    monkeypatch.undo()
    (tmp_path / "file").write_bytes(b"")
    assert not rewriting.writable(tmp_path / "file")


def test_a_failed_rewrite_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room there is an error, and no half of a file."""

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    source = model(tmp_path)
    monkeypatch.setattr(rewriting, "_write", full)
    with pytest.raises(ModelFileError, match="No space left"):
        convert(source, tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == [source]


def test_what_a_killed_rewrite_left_is_removed_later(tmp_path: Path) -> None:
    """An old temporary file goes, one of a rewrite that may be running stays."""
    source = model(tmp_path)
    old, fresh = tmp_path / ".rewrite-old", tmp_path / ".rewrite-new"
    old.write_bytes(b"")
    fresh.write_bytes(b"")
    os.utime(old, (0, 0))
    prepared(source)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_a_source_that_shrinks_is_noticed(tmp_path: Path) -> None:
    """A file cut while it is copied gives an error instead of a broken rewrite."""
    source = model(tmp_path)
    header = read_header(source)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[: header.data_at + 100])
    shortened = pytest.raises(ModelFileError, match="shortened")
    with cut.open("rb") as old, (tmp_path / "out.gguf").open("wb") as new, shortened:
        rewriting._write(header, old, new, lambda _done, _total: None)
