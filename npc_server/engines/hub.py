"""Finds model files on a model hub; ``HF_ENDPOINT`` names another one than the default."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from npc_server.errors import ModelFileError

PREFERRED = ("q4_k_m", "q4_0", "q4_k_s", "q5_k_m", "q4_1", "q8_0", "f16")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file on a hub: where to fetch it, and what it hashes to, if the hub says so."""

    url: str
    headers: dict[str, str]
    sha256: str | None


def locate(repo: str, file: str | None) -> tuple[str, HubFile]:
    """Look a model up.

    Args:
        repo: ``owner/name``.
        file: The file; without it the one that suits ctransformers best.

    Returns:
        The file's name in the repository, and the file.

    Raises:
        ModelFileError: There is no such repository or file, or the hub cannot be reached.
    """
    # Loading it takes longer than the rest of the command line together.
    from huggingface_hub import HfApi, get_token, hf_hub_url  # noqa: PLC0415

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        info = HfApi(endpoint=endpoint).model_info(repo, files_metadata=True, timeout=20)
    except Exception as error:
        # Versions of huggingface_hub raise the errors of different HTTP clients.
        raise ModelFileError(
            f"The hub does not know {repo} or cannot be reached: {_first_line(error)}. Check the "
            "name, HF_ENDPOINT, and HF_TOKEN if the model is not open to all."
        ) from error
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    name = file or best(list(files))
    if name is None or name not in files:
        there = ", ".join(sorted(name for name in files if name.endswith(".gguf"))) or "none"
        raise ModelFileError(f"{repo} has no {file or 'usable .gguf file'}. GGUF files: {there}.")
    large = files[name].lfs
    token = get_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = hf_hub_url(repo, name, endpoint=endpoint)
    return name, HubFile(url, headers, large.sha256 if large else None)


def best(names: Sequence[str]) -> str | None:
    """The GGUF file that suits ctransformers best: a well supported quantisation of medium size."""
    usable = sorted(name for name in names if name.endswith(".gguf") and "-of-0" not in name)
    for kind in PREFERRED:
        for name in usable:
            if kind in name.lower():
                return name
    return usable[0] if usable else None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
