"""Small model files, made by the tests themselves."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

WIDTH, HIDDEN, HEADS = 32, 64, 4


def text(value: str | bytes, version: int = 3) -> bytes:
    """A string as GGUF stores it."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q" if version > 1 else "<I", len(data)) + data


def value(item: Any, version: int = 3) -> bytes:
    """A value with its type in front: bool, int, float, str, or a list of one of them."""
    kind = _kind(item)
    body = _list(item, version) if kind == 9 else _scalar(kind, item, version)
    return struct.pack("<I", kind) + body


def _kind(item: Any) -> int:
    kinds: dict[type, int] = {bool: 7, int: 4, float: 6, str: 8, list: 9}
    return kinds[type(item)]


def _scalar(kind: int, item: Any, version: int) -> bytes:
    if kind == 8:
        return text(item, version)
    return struct.pack({4: "<I", 6: "<f", 7: "<?"}[kind], item)


def _list(items: Sequence[Any], version: int) -> bytes:
    kind = 5 if items and type(items[0]) is int else _kind(items[0]) if items else 4
    head = struct.pack("<IQ" if version > 1 else "<II", kind, len(items))
    return head + b"".join(
        struct.pack("<i", item) if kind == 5 else _scalar(kind, item, version) for item in items
    )


def gguf(
    metadata: Mapping[str, Any],
    tensors: Mapping[str, tuple[int, ...]],
    *,
    version: int = 3,
    kind: int = 0,
    step: int = 1,
    size: float = 0.001,
) -> bytes:
    """A GGUF file of 32-bit tensors of numbers that go up and down; see ``numbers``."""
    wide = "Q" if version > 1 else "I"
    head = struct.pack(f"<4sI{wide}{wide}", b"GGUF", version, len(tensors), len(metadata))
    for key, item in metadata.items():
        head += text(key, version) + value(item, version)
    data = b""
    for name, shape in tensors.items():
        head += text(name, version) + struct.pack(f"<I{len(shape)}{wide}", len(shape), *shape)
        head += struct.pack("<IQ", kind, len(data))
        data += numbers(prod(shape), step, size)
        data += bytes(-len(data) % 32)
    return head + bytes(-len(head) % 32) + data


def letters() -> list[str]:
    """The 256 letters of a byte-level alphabet, in the order of GPT-2's vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(byte) for byte in printable] + [chr(256 + at) for at in range(256 - len(printable))]


def vocabulary() -> tuple[list[str], list[int], list[str]]:
    """Tokens, their kinds and merges of a tiny byte-level BPE vocabulary with ChatML's tokens."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"]
    merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "< |", "| >", "i m"]
    tokens = [*special, *letters(), *(merge.replace(" ", "") for merge in merges)]
    return tokens, [3] * len(special) + [1] * (len(tokens) - len(special)), merges


def llama(
    *,
    version: int = 3,
    tied: bool = True,
    changes: Mapping[str, Any] | None = None,
    count: int | None = None,
    step: int = 1,
    size: float = 0.001,
) -> bytes:
    """A llama model of one layer with that vocabulary; it runs, and talks nonsense.

    With another ``step`` and numbers of more ``size`` it has opinions of its own.
    """
    tokens, kinds, merges = vocabulary()
    count = count or len(tokens)
    metadata = {
        "general.architecture": "llama",
        "general.name": "Tiny",
        "llama.block_count": 1,
        "llama.context_length": 256,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": HIDDEN,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": "{{ '<|im_start|>' }}",
        **(changes or {}),
    }
    layer = {
        "attn_norm": (WIDTH,),
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (WIDTH, WIDTH),
        "attn_v": (WIDTH, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_norm": (WIDTH,),
        "ffn_gate": (WIDTH, HIDDEN),
        "ffn_up": (WIDTH, HIDDEN),
        "ffn_down": (HIDDEN, WIDTH),
    }
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, count)}
    tensors |= {f"blk.0.{name}.weight": shape for name, shape in layer.items()}
    tensors["output_norm.weight"] = (WIDTH,)
    if not tied:
        tensors["output.weight"] = (WIDTH, count)
    kept = {key: item for key, item in metadata.items() if item is not None}
    return gguf(kept, tensors, version=version, step=step, size=size)


def sentencepiece(*, version: int = 2, changes: Mapping[str, Any] | None = None) -> bytes:
    """A llama model of 2023: a SentencePiece vocabulary in which text can spell ``</s>``."""
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyz</>[]ISNT:", "</", "s>", "▁a", "[I", "NS"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    all_changes = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": None,
        "tokenizer.ggml.merges": None,
        "tokenizer.chat_template": None,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": [-0.01 * at for at in range(len(tokens))],
        "general.name": "Tiny Vicuna",
        **(changes or {}),
    }
    return llama(version=version, tied=False, changes=all_changes, count=len(tokens))


def ggjt() -> bytes:
    """The same small model as a GGJT 3 file, as LLaMA and Alpaca came in 2023."""
    hidden = 128
    pieces = [" ", *"abcdefghijklmnopqrstuvwxyz</>", "</", "s>", " a"]
    tokens = [b"<unk>", b"<s>", b"</s>", *(bytes([byte]) for byte in range(256))]
    tokens += [piece.encode() for piece in pieces]
    head = struct.pack("<4sI7I", b"tjgg", 3, len(tokens), WIDTH, 64, HEADS, 1, WIDTH // HEADS, 0)
    for at, token in enumerate(tokens):
        head += struct.pack("<I", len(token)) + token + struct.pack("<f", -0.01 * at)
    layer = {
        "attention.wq": (WIDTH, WIDTH),
        "attention.wk": (WIDTH, WIDTH),
        "attention.wv": (WIDTH, WIDTH),
        "attention.wo": (WIDTH, WIDTH),
        "attention_norm": (WIDTH,),
        "feed_forward.w1": (WIDTH, hidden),
        "feed_forward.w2": (hidden, WIDTH),
        "feed_forward.w3": (WIDTH, hidden),
        "ffn_norm": (WIDTH,),
    }
    tensors = {
        "tok_embeddings": (WIDTH, len(tokens)),
        "norm": (WIDTH,),
        "output": (WIDTH, len(tokens)),
        **{f"layers.0.{name}": shape for name, shape in layer.items()},
    }
    for name, shape in tensors.items():
        label = f"{name}.weight".encode()
        head += struct.pack(f"<3I{len(shape)}I", len(shape), len(label), 0, *shape) + label
        head += bytes(-len(head) % 32) + numbers(prod(shape))
    return head


def numbers(count: int, step: int = 1, size: float = 0.001) -> bytes:
    """So many numbers of 32 bits, from -3 to 3 times ``size``; another ``step``, another order."""
    mixed = ((at * at * (step - 1) % 101 + at) % 7 - 3 for at in range(count))
    return struct.pack(f"<{count}f", *(size * number for number in mixed))
