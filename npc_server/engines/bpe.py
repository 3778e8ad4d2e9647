"""Byte-level BPE vocabularies: text to ids by the model's own merges, ids to bytes by its table."""

from __future__ import annotations

from collections.abc import Mapping

from tokenizers import Regex, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

from npc_server.engines.gguf import Header
from npc_server.errors import ModelFileError

CONTROL, UNKNOWN = 3, 2
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
KNOWN_SPLITS = ("gpt-2", "smollm", "llama-bpe", "qwen2")


class BpeVocabulary:
    """The byte-level BPE vocabulary of a GGUF model; see ``Vocabulary``.

    Args:
        header: The model's header, as it was or rewritten.

    Attributes:
        split: How the model splits text into words; ``gpt-2`` where its own way is not known.
        split_known: Whether that is the model's own way.

    Raises:
        ModelFileError: The vocabulary is damaged.
    """

    def __init__(self, header: Header) -> None:
        tokens = _texts(header, "tokens")
        kinds = _kinds(header, len(tokens))
        declared = header.text("tokenizer.ggml.pre")
        self.split = declared if declared in KNOWN_SPLITS else "gpt-2"
        self.split_known = declared in KNOWN_SPLITS
        self.size = len(tokens)
        self.control: Mapping[int, str] = {
            index: token
            for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
            if kind in (CONTROL, UNKNOWN)
        }
        self.bos = _id(header, "bos", self.size)
        self.eos = _id(header, "eos", self.size)
        self._bytes = _bytes_of_letters()
        self._tokens = tokens
        self._tokenizer = _tokenizer(tokens, _merges(header), self.split)

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes:
        """The bytes of one token."""
        if token in self.control:
            return b""
        text = self._tokens[token]
        # Words that were added to a vocabulary stand there as themselves.
        if any(letter not in self._bytes for letter in text):
            return text.encode(errors="replace")
        return bytes(self._bytes[letter] for letter in text)


def _texts(header: Header, name: str) -> list[str]:
    return header.texts(f"npc_server.tokenizer.ggml.{name}") or header.texts(
        f"tokenizer.ggml.{name}"
    )


def _kinds(header: Header, count: int) -> list[int]:
    key = "tokenizer.ggml.token_type"
    value = header.metadata.get(f"npc_server.{key}", header.metadata.get(key))
    kinds = [int(kind) for kind in value] if isinstance(value, list) else []
    if not count or len(kinds) != count:
        raise ModelFileError(
            f"The model's vocabulary is damaged: {count} tokens, {len(kinds)} kinds of tokens. "
            "Fetch the file again."
        )
    return kinds


def _merges(header: Header) -> list[tuple[str, str]]:
    merges = [merge.partition(" ") for merge in _texts(header, "merges")]
    return [(left, right) for left, space, right in merges if space]


def _id(header: Header, name: str, size: int) -> int | None:
    token = header.number(f"tokenizer.ggml.{name}_token_id")
    return token if token is not None and 0 <= token < size else None


def _tokenizer(tokens: list[str], merges: list[tuple[str, str]], split: str) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        model = BPE(vocab=vocabulary, merges=merges, ignore_merges=split == "llama-bpe")
    except Exception as error:
        # The library raises plain Exception for merges that make no token.
        raise ModelFileError(f"The model's vocabulary is damaged: {error}.") from error
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = Sequence(_splitters(split))
    return tokenizer


def _splitters(split: str) -> list[PreTokenizer]:
    if split == "smollm":
        return [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    if split == "gpt-2":
        return [ByteLevel(add_prefix_space=False)]
    pattern = LLAMA3_SPLIT if split == "llama-bpe" else LLAMA3_SPLIT.replace("{1,3}", "")
    return [
        Split(Regex(pattern), behavior="isolated"),
        ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _bytes_of_letters() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for letters from 256."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + index): byte for index, byte in enumerate(others)}
