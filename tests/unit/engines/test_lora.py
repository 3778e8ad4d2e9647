"""An adapter is merged into a copy of its model, or refused with the reason."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lora_files import SHAPES, lora
from model_files import WIDTH, ggjt, llama, sentencepiece
from numpy.typing import NDArray

from npc_server.engines import lora as merging
from npc_server.engines.dequantise import dequantised
from npc_server.engines.gguf import read_header
from npc_server.engines.lora import Merger, merged
from npc_server.errors import ModelFileError


def weights(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every tensor of a file."""
    header = read_header(path)
    data = path.read_bytes()[header.data_at :]
    return {
        tensor.name: dequantised(
            data[tensor.offset : tensor.offset + tensor.size], tensor.type
        ).reshape(tensor.shape[::-1])
        for tensor in header.tensors
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(llama(version=2, tied=False))
    return path


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter for it."""
    path = tmp_path / "gruff.gguf"
    path.write_bytes(lora())
    return path


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_product_is_added(tmp_path: Path, adapter: Path, version: int) -> None:
    """W + scale * alpha / rank * B @ A for what the adapter names, as F16; the rest stays."""
    model = tmp_path / "tiny.gguf"
    model.write_bytes(llama(version=version, tied=False))
    before, parts = weights(model), weights(adapter)
    made = merged(model, model, adapter, 0.5)
    after = weights(made)
    assert after.keys() == before.keys()
    for name, weight in after.items():
        wanted = before[name]
        if name in SHAPES:
            product = parts[f"{name}.lora_b"] @ parts[f"{name}.lora_a"]
            wanted = (wanted + 0.5 * 8 / 4 * product).astype(np.float16).astype(np.float32)
        np.testing.assert_allclose(weight, wanted, rtol=1e-3, atol=1e-4)
    assert read_header(made).metadata == read_header(model).metadata


def test_without_an_alpha_the_scale_alone_counts(tmp_path: Path, model: Path) -> None:
    """As llama.cpp has it."""
    adapter = tmp_path / "a.gguf"
    adapter.write_bytes(lora(alpha=None))
    header = read_header(model)
    change = merging.read_changes(header, adapter, 3.0)["blk.0.attn_q.weight"]
    parts = weights(adapter)
    np.testing.assert_allclose(change.b, parts["blk.0.attn_q.weight.lora_b"] * 3)


def test_large_weights_are_merged_in_pieces(
    model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few rows at a time give the same file."""
    whole = merged(model, model, adapter, 1.0)
    content = whole.read_bytes()
    whole.unlink()
    monkeypatch.setattr(merging, "NUMBERS_AT_ONCE", 5 * WIDTH)
    assert merged(model, model, adapter, 1.0).read_bytes() == content


def test_a_merged_file_is_made_once(model: Path, adapter: Path) -> None:
    """Another scale or another content is another file; the same again is the same file."""
    first = merged(model, model, adapter, 1.0)
    inode = first.stat().st_ino
    assert merged(model, model, adapter, 1.0) == first
    assert first.stat().st_ino == inode
    assert merged(model, model, adapter, 0.9) != first
    adapter.write_bytes(lora(seed=2))
    assert merged(model, model, adapter, 1.0) != first


def test_the_files_used_last_are_kept(
    model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than a few; one that was asked for again stays."""
    monkeypatch.setattr(merging, "KEPT", 2)
    made = []
    for at, scale in enumerate([1.0, 2.0, 1.0, 3.0]):
        made.append(merged(model, model, adapter, scale))
        os.utime(made[-1], (at, at))
    assert [path.exists() for path in made] == [True, False, True, True]
    assert not list(model.parent.glob(".rewrite-*"))


def test_the_other_folder_is_used_where_the_first_cannot_be_written(
    tmp_path: Path, model: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy then lies there; without one there is an error that says so."""
    other = tmp_path / "other"
    monkeypatch.setattr(merging, "writable", lambda folder: folder == other)
    with pytest.raises(ModelFileError, match="NPC_DATA_DIR"):
        merged(model, model, adapter, 1.0)
    other.mkdir()
    assert merged(model, model, adapter, 1.0, other).parent == other


ODD = {"blk.0.attn_q.weight": (WIDTH, WIDTH * 2)}
BAD: list[tuple[bytes, str]] = [
    (b"", "cut off"),
    (lora()[:-2000], "cut off"),
    (llama(), "no LoRA adapter"),
    (lora(changes={"adapter.type": "other"}), "no LoRA adapter"),
    (lora(changes={"general.architecture": "qwen2"}), "qwen2"),
    (lora(shapes={}), "changes nothing"),
    (lora(shapes=ODD), "in the adapter"),
    (lora(shapes={"blk.7.attn_q.weight": (WIDTH, WIDTH)}), r"blk\.7"),
    (lora(shapes={"token_embd.weight": (WIDTH, 268)}), "cannot be adapted|is no matrix"),
    (lora().replace(b"attn_q.weight.lora_b", b"attn_q.weight.lora_c"), "pair"),
    (lora().replace(b"blk.0.attn_q.weight.lora_b", b"blk.0.attn_k.weight.lora_b"), "pair"),
]


@pytest.mark.parametrize(("content", "told"), BAD)
def test_a_bad_adapter_is_refused(tmp_path: Path, model: Path, content: bytes, told: str) -> None:
    """The message names the file and what is wrong; nothing is left behind."""
    adapter = tmp_path / "bad.gguf"
    adapter.write_bytes(content)
    with pytest.raises(ModelFileError, match=told) as caught:
        merged(model, model, adapter, 1.0)
    assert "bad.gguf" in caught.value.message
    assert {path.name for path in tmp_path.iterdir()} == {"bad.gguf", "tiny.gguf"}


def test_an_adapter_needs_a_gguf_model(tmp_path: Path, adapter: Path) -> None:
    """Files before GGUF do not name their weights."""
    model = tmp_path / "old.bin"
    model.write_bytes(ggjt())
    with pytest.raises(ModelFileError, match="GGJT"):
        merged(model, model, adapter, 1.0)


def test_a_merge_is_begun_once_and_again_after_a_failure(tmp_path: Path, adapter: Path) -> None:
    """Two who ask share one merge; a failed one is tried again; so is one whose file has gone."""
    asked: list[Any] = []

    def merge(path: Path, scale: float) -> Path:
        asked.append(scale)
        if len(asked) == 1:
            raise ModelFileError("no room")
        made = tmp_path / f"{len(asked)}.merged.gguf"
        made.write_bytes(b"x")
        return made

    merger = Merger(merge)
    assert isinstance(merger(str(adapter), 1.0).exception(10), ModelFileError)
    made = merger(str(adapter), 1.0).result(10)
    assert merger(str(adapter), 1.0).result(10) == made
    assert merger(str(adapter), 2.0).result(10) != made
    Path(made).unlink()
    assert merger(str(adapter), 1.0).result(10) != made
    assert asked == [1.0, 1.0, 2.0, 1.0]
    with pytest.raises(ModelFileError, match="no adapter"):
        merger(str(tmp_path / "none.gguf"), 1.0)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: merger(str(adapter), 1.0).result(10), range(2)))
    assert both[0] == both[1]


def test_a_model_of_2023_can_be_adapted(tmp_path: Path, adapter: Path) -> None:
    """A SentencePiece model, which is not rewritten, gets a copy too."""
    model = tmp_path / "old.gguf"
    model.write_bytes(sentencepiece())
    assert merged(model, model, adapter, 1.0).stat().st_size != model.stat().st_size
