"""Fetches a file over HTTP: goes on where it broke off, checks it, and puts it there whole."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import orjson
import regex

from npc_server.errors import ModelFileError

Progress = Callable[[int, int | None], None]
Sleep = Callable[[float], None]

ATTEMPTS = 6
LONGEST_PAUSE = 8.0
TIMEOUT = httpx.Timeout(30, connect=10)
CONTENT_RANGE = regex.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(
    url: str,
    target: Path,
    *,
    progress: Progress,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    check: Callable[[Path], None] = lambda _path: None,
    sleep: Sleep = time.sleep,
) -> None:
    """Fetch ``url`` into ``target``, by way of a ``.part`` file beside it.

    Args:
        url: What to fetch.
        target: Where to put it; its folder is made.
        progress: Called with the bytes that are there and those that there will be, if known.
        sha256: What the file must hash to, in hex.
        headers: Sent along.
        check: Looks at the whole file before it is put in its place; may raise.
        sleep: Waits between attempts.

    Raises:
        ModelFileError: The server refuses, the connection keeps breaking, the file is not the one
            that was expected, or there is no room. What was fetched of a broken download stays.
    """
    part = Part(url, target)
    problem: Exception | None = None
    failures = 0
    while failures < ATTEMPTS:
        before = part.size
        try:
            part.fetch(progress, dict(headers or {}))
            break
        except (httpx.TransportError, httpx.DecodingError, OSError) as error:
            if isinstance(error, OSError):
                raise ModelFileError(f"Cannot write {target}: {error.strerror}.") from error
            problem = error
            failures = 1 if part.size > before else failures + 1
            sleep(min(LONGEST_PAUSE, 0.25 * 2.0**failures))
    else:
        raise ModelFileError(
            f"The download of {url} broke off at {part.size} bytes: {problem}. Run the command "
            "again; it goes on from there."
        ) from problem
    check_sha256(part.path, sha256, url)
    check(part.path)
    part.finish()


def check_sha256(path: Path, expected: str | None, source: str) -> None:
    """Compare a file with what it must hash to; a file that differs is deleted.

    Raises:
        ModelFileError: It differs.
    """
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.strip().lower():
        path.unlink()
        raise ModelFileError(
            f"What came from {source} is not the file that was expected: its SHA-256 is {found}, "
            f"not {expected}. It was deleted; check the source and the hash."
        )


class Part:
    """A download under way: the bytes so far, and where they came from."""

    def __init__(self, url: str, target: Path) -> None:
        self._url = url
        self._target = target
        self.path = target.with_name(target.name + ".part")
        self._about = target.with_name(target.name + ".part.json")

    @property
    def size(self) -> int:
        """How many bytes are there."""
        return self.path.stat().st_size if self.path.exists() else 0

    def fetch(self, progress: Progress, headers: dict[str, str]) -> None:
        """Fetch what is missing.

        Raises:
            httpx.TransportError: The connection broke; what came so far is kept.
            ModelFileError: The server refuses.
        """
        self._target.parent.mkdir(parents=True, exist_ok=True)
        have = self.size if self._version() else 0
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self._version()}
        # A compressed body has other offsets than the file.
        headers |= {"Accept-Encoding": "identity"}
        with (
            httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client,
            client.stream("GET", self._url, headers=headers) as response,
        ):
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                self.discard()
                raise httpx.RemoteProtocolError("the server has less than was fetched before")
            self._check_status(response)
            begin, total = _extent(response)
            if begin not in (0, have):
                raise httpx.RemoteProtocolError(f"the server sent bytes from {begin}, not {have}")
            self._write(response, begin, total, progress)

    def finish(self) -> None:
        """Put the whole file in its place."""
        self.path.replace(self._target)
        self._about.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget what was fetched."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def _write(
        self, response: httpx.Response, begin: int, total: int | None, progress: Progress
    ) -> None:
        free = shutil.disk_usage(self._target.parent).free
        if total is not None and total - begin > free:
            raise ModelFileError(
                f"{self._target.name} has {total} bytes, and {free} are free in "
                f"{self._target.parent}. Make room."
            )
        about = {"url": self._url, "version": _version(response)}
        self._about.write_bytes(orjson.dumps(about))
        done = begin
        with self.path.open("r+b" if begin else "wb") as file:
            file.seek(begin)
            file.truncate()
            for data in response.iter_raw():
                file.write(data)
                done += len(data)
                progress(done, total)
        if total is not None and done != total:
            raise httpx.RemoteProtocolError(f"{done} bytes came instead of {total}")

    def _version(self) -> str:
        """The entity tag of what is there; empty if it cannot be gone on with."""
        try:
            about = orjson.loads(self._about.read_bytes())
            return str(about["version"]) if about["url"] == self._url else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.REQUEST_TIMEOUT) or status >= 500:
            raise httpx.RemoteProtocolError(f"the server answered {status}")
        if status not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            hint = {401: " It asks for a login.", 403: " It asks for a login.", 404: ""}
            raise ModelFileError(
                f"{response.url.host} answered {status} for {self._url}.{hint.get(status, '')} "
                "Check the address."
            )


def _extent(response: httpx.Response) -> tuple[int, int | None]:
    """Where the body begins in the file, and how long the whole file is, if that is known."""
    if response.status_code == httpx.codes.PARTIAL_CONTENT:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None:
            raise httpx.RemoteProtocolError("the server does not say which part it sent")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _version(response: httpx.Response) -> str:
    """What names this version of the file: a strong entity tag, or its date."""
    tag = str(response.headers.get("ETag", ""))
    return (
        tag if tag and not tag.startswith("W/") else str(response.headers.get("Last-Modified", ""))
    )
