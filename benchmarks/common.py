"""What the benchmarks share: options, servers, characters, conversations, the results file."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import orjson
import psutil
import yaml

ROOT = Path(__file__).parents[1]
sys.path += [str(ROOT), str(ROOT / "tests")]

from processes import Served, Servers  # noqa: E402 - found by the line above

from npc_server.client import Client, session  # noqa: E402
from npc_server.config import Settings  # noqa: E402
from npc_server.engines import models  # noqa: E402
from npc_server.engines.bpe import BpeVocabulary  # noqa: E402
from npc_server.engines.gguf import read_header  # noqa: E402
from npc_server.engines.templates import guess, named  # noqa: E402
from npc_server.engines.worker_loop import Tokens  # noqa: E402

from measures import Comparison, Json  # noqa: E402  # isort: skip

__all__ = [
    "LINES", "PERSONA_TOKENS", "REST_SECONDS", "Client", "Comparison", "Json", "Options", "Reply",
    "Served", "Tokens", "character", "growing_bytes", "helper", "options", "private_bytes",
    "prompt_ids", "prompt_view", "prose", "quiet", "reply_since", "reply_to", "report", "run",
    "serving", "talking", "tokens_of",
]  # fmt: skip

RESULTS = Path(__file__).parent / "results"
PERSONA_TOKENS = 560
REST_SECONDS = 0.1
"""A server that did nothing for so long is quiet."""

UNBOUNDED = {
    "NPC_LIMITS__MESSAGES_PER_SECOND": "100000",
    "NPC_LIMITS__MESSAGE_BURST": "100000",
    "NPC_PLAYER_QUOTA__TOKENS_PER_MINUTE": "1000000000",
    "NPC_PLAYER_QUOTA__CONVERSATIONS_PER_HOUR": "1000000",
    "NPC_PLAYER_QUOTA__REPLIES_AT_ONCE": "1000",
    "NPC_KEY_QUOTA__TOKENS_PER_MINUTE": "1000000000",
    # A deadline would have a slow reply begin with an authored line: not what is measured.
    "NPC_DEADLINE_MS": "600000",
    "NPC_TIMEOUTS__FIRST_TOKEN": "600",
    "NPC_TIMEOUTS__REPLY": "600",
    "NPC_LOG_LEVEL": "error",
}
PACKAGES = ("xllamacpp", "ctransformers", "websockets", "redis")


@dataclass(frozen=True, slots=True)
class Options:
    """What a benchmark was asked for.

    Attributes:
        engine: The engine's name.
        model: The model's file.
        quick: Whether a few samples are enough.
        more: Options that only this benchmark has.
    """

    engine: str
    model: Path
    quick: bool
    more: argparse.Namespace

    def samples(self, many: int, few: int) -> int:
        """How many samples to take."""
        return few if self.quick else many


def options(about: str | None, **more: Json) -> Options:
    """Read the command line. ``more`` are further options and what argparse should know of them."""
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="llamacpp", help="llamacpp or ctransformers")
    parser.add_argument("--model", default="smollm2", help="a name of the catalogue, or a file")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    given = parser.parse_args()
    # As an exception, so that every process of ours is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    model = models.pull(given.model, Settings().models_dir)
    return Options(given.engine, model, given.quick, given)


# ---------------------------------------------------------------------------- characters


WHO = "The baker|A carter|The old ferryman|Her sister|The miller|A stray dog|The ward's clerk"
DOES = "mends|carries|hides|counts|paints|forgets|sharpens|borrows|sells|praises|loses|guards"
WHAT = "bell|lantern|ladder|apple crate|blue door|fishing net|copper key|letter|roof|saddle|clock"
WHERE = "by the river|behind the chapel|in the long barn|at the market|under the bridge|on the hill"


def prose(seed: object, tokens: Tokens, count: int) -> str:
    """Plain English sentences of about so many tokens; another seed, other sentences."""
    chance = random.Random(str(seed))
    said = ""
    while tokens.count(said) < count:
        words = (chance.choice(list_.split("|")) for list_ in (WHO, DOES, WHAT, WHERE))
        who, does, what, where = words
        said += f"{' ' if said else ''}{who} {does} the {what} {where}."
    return said


def character(
    name: str, tokens: Tokens, *, size: int = PERSONA_TOKENS, reply: int = 8, temperature: float = 0
) -> Json:
    """A persona whose whole prompt takes about ``size`` tokens before anything is said.

    Args:
        name: Its id. Its prompt begins with it, so that no two share what can be cached.
        tokens: The model's tokeniser.
        size: Tokens of the prompt.
        reply: The longest reply, in tokens.
        temperature: How words are drawn; 0 always takes the likeliest.
    """
    # What the server itself puts around a persona's words takes about 130 tokens.
    return {
        "id": name,
        "name": name.replace("-", " ").title(),
        "summary": "Somebody to measure with.",
        "description": prose(name, tokens, max(8, size - 130)),
        "personality": "Talkative.",
        "speech": "Long, unhurried sentences.",
        "sampling": {"max_tokens": reply, "temperature": temperature},
    }


def tokens_of(model: Path) -> Tokens:
    """The model's own tokens and template, as the engines use them."""
    header = read_header(model)
    return Tokens(BpeVocabulary(header), named(guess(header.metadata, model.name)))


# ---------------------------------------------------------------------------- servers


@contextmanager
def serving(asked: Options, characters: Sequence[Json], **settings: object) -> Iterator[Served]:
    """A server as a process of its own, with these characters and nothing kept from before.

    Args:
        asked: Engine and model.
        characters: Personas.
        settings: The server's settings by name.
    """
    with tempfile.TemporaryDirectory(prefix="npc-benchmark-") as name:
        folder = Path(name)
        for part in ("data", "personas"):
            (folder / part).mkdir()
        for persona in characters:
            path = folder / "personas" / f"{persona['id']}.yaml"
            path.write_text(yaml.safe_dump(persona, allow_unicode=True), encoding="utf-8")
        servers = Servers(folder / "data")
        named_settings = {f"NPC_{key.upper()}": str(value) for key, value in settings.items()}
        flags = ["--engine", asked.engine, "--model", str(asked.model)]
        try:
            flags += ["--personas", str(folder / "personas")]
            yield servers.start(*flags, data=None, **UNBOUNDED, **named_settings)
        finally:
            servers.end()


@contextmanager
def helper(script: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """One of this folder's small servers as a process: its address and process id."""
    command = [sys.executable, str(Path(__file__).parent / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().split()
            if line[:1] != ["ready"]:
                raise RuntimeError(f"{script} did not get ready: run it by hand to see why")
            yield line[1], process.pid
        finally:
            process.kill()


async def quiet(served: Served) -> None:
    """Wait until the server's workers do nothing, such as reading ahead for the next turn."""
    before = _busy_seconds(served)
    while True:
        await asyncio.sleep(REST_SECONDS)
        now = _busy_seconds(served)
        if now - before < 0.02:
            return
        before = now


def _busy_seconds(served: Served) -> float:
    times = [child.cpu_times() for child in served.children()]
    return sum(time_.user + time_.system for time_ in times)


def private_bytes(served: Served) -> dict[str, int]:
    """Proportional memory (PSS) of the server, its workers and its Redis, in bytes."""
    return _by_kind(served, _pss)


def growing_bytes(served: Served) -> dict[str, int]:
    """The same without pages of files, and with what was swapped out; where Linux tells it."""
    return _by_kind(served, _not_of_files)


def _by_kind(served: Served, measure: Callable[[psutil.Process], int]) -> dict[str, int]:
    server = psutil.Process(served.process.pid)
    found = {"server": measure(server)}
    for child in server.children(recursive=True):
        kind = "redis" if "redis" in child.name() else "worker"
        found[kind] = found.get(kind, 0) + measure(child)
    return found


def _pss(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", 0) or info.rss)


def _not_of_files(process: psutil.Process) -> int:
    path = Path(f"/proc/{process.pid}/smaps_rollup")
    told = path.read_text(encoding="ascii") if path.exists() else ""
    kib = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB$", told, re.MULTILINE)}
    if "Pss_Anon" not in kib:
        return _pss(process)
    return 1024 * (kib["Pss_Anon"] + kib["Pss_Shmem"] + kib["SwapPss"])


# ---------------------------------------------------------------------------- conversations


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back for a ``say``.

    Attributes:
        first_ms: From sending it to the first ``reply.delta``.
        total_ms: From sending it to ``reply.done``.
        turn: The reply's id.
        text: All of it.
        prompt: Tokens of the prompt.
        cached: How many of them were cached.
        completion: Tokens of the reply.
        degraded: Whether an authored line stood in for the model's words.
    """

    first_ms: float
    total_ms: float
    turn: str
    text: str
    prompt: int
    cached: int
    completion: int
    degraded: bool


async def reply_to(client: Client, conversation: str, text: str) -> Reply:
    """Say something and time the answer."""
    begun = time.perf_counter()
    await client.send("say", conversation=conversation, text=text)
    return await reply_since(begun, client)


async def reply_since(begun: float, client: Client) -> Reply:
    """The reply that is on its way, timed from ``begun``; the line is idle when it is here."""
    first = done_at = None
    done: Json = {}
    async for event in client.until_idle():
        if event["type"] == "reply.delta" and first is None:
            first = time.perf_counter()
        if event["type"] == "reply.done":
            done, done_at = event, time.perf_counter()
    if done_at is None or done["finish"] == "error":
        raise RuntimeError(f"no reply came: {done or 'only silence'}")
    usage = done.get("usage") or {"prompt": 0, "cached": 0, "completion": 0}
    return Reply(
        first_ms=((first or done_at) - begun) * 1000,
        total_ms=(done_at - begun) * 1000,
        turn=done["turn"],
        text=done["text"],
        degraded=bool(done.get("degraded")),
        **{name: int(usage[name]) for name in ("prompt", "cached", "completion")},
    )


@asynccontextmanager
async def talking(
    served: Served, npc: str, player: str = "player"
) -> AsyncIterator[tuple[Client, str]]:
    """A session of its own with an open conversation."""
    async with session(served.address, player=player) as client:
        opened = await client.ask("conversation.open", npcs=[npc], greet="never")
        yield client, str(opened["conversation"])


def prompt_ids(served: Served, tokens: Tokens, turn: str) -> list[int]:
    """The token ids of the prompt that a reply was made from."""
    return tokens.prompt([[m["role"], m["text"]] for m in prompt_view(served, turn)["messages"]])


def prompt_view(served: Served, turn: str) -> Json:
    """What ``GET /prompts`` shows of a reply."""
    with urlopen(f"{served.page}prompts/{turn}") as response:
        shown: Json = orjson.loads(response.read())
    return shown


LINES = (
    "What did you do this morning?",
    "Who else comes by here?",
    "Tell me about the bridge.",
    "What would you mend first?",
    "Do you like the rain?",
    "Where does that road lead?",
    "What is in the crate?",
    "Who rang the bell last night?",
)


# ---------------------------------------------------------------------------- results


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a benchmark's main coroutine."""
    asyncio.run(work)


def report(
    name: str,
    asked: Options,
    comparisons: Sequence[Comparison],
    *,
    facts: Sequence[tuple[str, str]] = (),
    series: Json | None = None,
) -> None:
    """Print what was found and write it to the results folder.

    Args:
        name: The benchmark.
        asked: Its options.
        comparisons: What was measured side by side.
        facts: Other findings, each with its name.
        series: What a plot needs besides.
    """
    for comparison in comparisons:
        print(comparison, flush=True)
    for label, value in facts:
        print(f"{label}: {value}", flush=True)
    RESULTS.mkdir(exist_ok=True)
    found = {
        "benchmark": name,
        "engine": asked.engine,
        "quick": asked.quick,
        "machine": machine(asked.model),
        "comparisons": [comparison.as_dict() for comparison in comparisons],
        "facts": [list(fact) for fact in facts],
        "series": series or {},
    }
    path = RESULTS / f"{name}-{asked.engine}.json"
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")


def machine(model: Path) -> Json:
    """What the figures were measured on."""
    return {
        "cores": len(psutil.Process().cpu_affinity() or [0]),
        "processor": _processor(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "model": model.name,
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
