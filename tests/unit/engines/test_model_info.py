"""Files without metadata are told by their names."""

from pathlib import Path

import pytest

from npc_server.engines.gguf import Header
from npc_server.engines.model_info import describe, llamacpp_reads, model_type


@pytest.mark.parametrize(
    ("name", "format_", "kind"),
    [
        ("wizard-vicuna-7b.ggmlv3.q4_0.bin", "GGJT", "llama"),
        ("ggml-alpaca-7b-q4.bin", "GGML", "llama"),
        ("falcon-7b.bin", "GGJT", "falcon"),
        ("model.bin", "GGCC", "falcon"),
        ("ggml-gpt4all-j-v1.3.bin", "GGML", "gptj"),
        ("pythia-1b.bin", "GGML", "gpt_neox"),
        ("mpt-7b-chat.bin", "GGML", "mpt"),
        ("starchat-beta.bin", "GGML", "gpt_bigcode"),
        ("dolly-v2-3b.bin", "GGML", "dolly-v2"),
        ("replit-code.bin", "GGML", "replit"),
        ("cerebras-111m.bin", "GGML", "gpt2"),
        ("falcon.gguf", "GGUF", None),
    ],
)
def test_the_kind_of_an_old_file_is_guessed(name: str, format_: str, kind: str | None) -> None:
    """By format and name; GGUF files tell it themselves."""
    assert model_type(Path(name), Header(format_, 3, 100)) == kind


def test_a_file_without_metadata_is_described() -> None:
    """What is not known is left out of the table."""
    info = describe(Path("vicuna.bin"), Header("GGJT", 3, 5_000_000, {"vocabulary": 32_000}))
    assert info.rows() == [
        ("file", "vicuna.bin"),
        ("size", "5.0 MB"),
        ("format", "GGJT 3"),
        ("vocabulary", "32000"),
        ("template", "vicuna"),
        ("llama.cpp", "cannot run it: it reads GGUF from version 2 on"),
        ("ctransformers", "takes it for a llama model"),
    ]


@pytest.mark.parametrize(
    ("format_", "version", "reads"),
    [("GGUF", 3, True), ("GGUF", 2, True), ("GGUF", 1, False), ("GGJT", 3, False)],
)
def test_llama_cpp_reads_gguf_from_version_2_on(format_: str, version: int, reads: bool) -> None:
    """The choice between the engines; the table says it too."""
    header = Header(format_, version, 100, {"general.architecture": "qwen3"})
    assert llamacpp_reads(header) is reads
    verdict = describe(Path("model.gguf"), header).llamacpp
    assert (
        verdict == "runs it, if it knows the architecture 'qwen3'" if reads else "cannot" in verdict
    )
