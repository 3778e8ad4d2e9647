"""What a model file says of itself, in words for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path

from npc_server.engines.convert import KEPT, needs_conversion, obstacle
from npc_server.engines.ggml_types import GGML_TYPES
from npc_server.engines.gguf import Header
from npc_server.engines.templates import guess

ARCHITECTURE = "general.architecture"
KINDS = {
    "falcon": ("falcon",),
    "gpt2": ("gpt2", "gpt-2", "cerebras"),
    "gptj": ("gptj", "gpt-j", "gpt4all-j"),
    "gpt_neox": ("neox", "pythia", "stablelm", "redpajama"),
    "mpt": ("mpt-",),
    "gpt_bigcode": ("starcoder", "starchat", "santacoder"),
    "dolly-v2": ("dolly",),
    "replit": ("replit",),
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model file's header in short.

    Attributes:
        path: The file.
        size: Its size in bytes.
        format: ``GGUF 3``, ``GGJT 3`` and the like.
        name: What the file calls the model; empty if it does not.
        architecture: Such as ``llama``; empty for files before GGUF.
        parameters: How many numbers the model has; 0 where the header does not tell.
        quantisation: How most of them are stored; empty where the header does not tell.
        context: How many tokens it was trained with; ``None`` where the header does not tell.
        vocabulary: How many tokens it knows; 0 where the header does not tell.
        licence: As declared in the file; empty if it is not.
        template: The prompt template that would be used.
        llamacpp: What llama.cpp makes of it.
        verdict: What ctransformers makes of it.
    """

    path: Path
    size: int
    format: str
    name: str
    architecture: str
    parameters: int
    quantisation: str
    context: int | None
    vocabulary: int
    licence: str
    template: str
    llamacpp: str
    verdict: str

    def one_line(self) -> str:
        """The most important in a line."""
        facts = [self.name or self.path.name, self.format, self.architecture, self.quantisation]
        return ", ".join([*filter(None, facts), f"{self.size / 1e6:.0f} MB"])

    def rows(self) -> list[tuple[str, str]]:
        """Names and values for a table; what is not known is left out."""
        rows = [
            ("file", str(self.path)),
            ("size", f"{self.size / 1e6:.1f} MB"),
            ("format", self.format),
            ("name", self.name),
            ("architecture", self.architecture),
            ("parameters", f"{self.parameters / 1e6:.1f} M" if self.parameters else ""),
            ("quantisation", self.quantisation),
            ("context", str(self.context or "")),
            ("vocabulary", str(self.vocabulary or "")),
            ("licence", self.licence),
            ("template", self.template),
            ("llama.cpp", self.llamacpp),
            ("ctransformers", self.verdict),
        ]
        return [(name, value) for name, value in rows if value]


def describe(path: Path, header: Header) -> ModelInfo:
    """Put a header into words."""
    architecture = header.text(ARCHITECTURE)
    stored: Counter[int] = Counter()
    for tensor in header.tensors:
        stored[tensor.type] += prod(tensor.shape)
    tokens = header.texts(f"{KEPT}tokenizer.ggml.tokens") or header.texts("tokenizer.ggml.tokens")
    return ModelInfo(
        path=path,
        size=header.size,
        format=f"{header.format} {header.version}" if header.version else header.format,
        name=_printable(header.text("general.name")),
        architecture=_printable(architecture),
        parameters=sum(stored.values()),
        quantisation=GGML_TYPES[stored.most_common(1)[0][0]].name if stored else "",
        context=header.number(f"{architecture}.context_length"),
        vocabulary=len(tokens) or header.number("vocabulary") or 0,
        licence=_printable(header.text("general.license")),
        template=guess(header.metadata, path.name),
        llamacpp=_llamacpp_verdict(header),
        verdict=_verdict(path, header),
    )


def llamacpp_reads(header: Header) -> bool:
    """Whether the file is of a form that llama.cpp reads: GGUF from version 2 on."""
    return header.format == "GGUF" and header.version >= 2


def model_type(path: Path, header: Header) -> str | None:
    """The kind of model, by ctransformers' name for it, which files before GGUF do not tell.

    GGMF and GGJT files are llama models, GGCC files falcon models; the others are told by their
    name, and are llama models where it says nothing. ``None`` for GGUF.
    """
    if header.format == "GGUF":
        return None
    name = path.name.lower()
    for kind, signs in KINDS.items():
        if any(sign in name for sign in signs):
            return kind
    return "falcon" if header.format == "GGCC" else "llama"


def _llamacpp_verdict(header: Header) -> str:
    if not llamacpp_reads(header):
        return "cannot run it: it reads GGUF from version 2 on"
    return f"runs it, if it knows the architecture {_printable(header.text(ARCHITECTURE))!r}"


def _verdict(path: Path, header: Header) -> str:
    if header.format != "GGUF":
        return f"takes it for a {model_type(path, header)} model"
    reason = obstacle(header)
    if reason:
        return f"cannot run it: {reason}"
    return "runs it after a rewrite" if needs_conversion(header) else "runs it"


def _printable(text: str) -> str:
    """The text without control characters and broken bytes, at most a line of it."""
    clean = text.encode(errors="replace").decode()
    return "".join(letter if letter.isprintable() else " " for letter in clean)[:200].strip()
