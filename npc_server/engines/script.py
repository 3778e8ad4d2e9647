"""What the scripted engine says: rules in a YAML file, or the built-in answers."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import regex
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from npc_server.errors import ConfigError

ENGLISH = (
    'Ah, "{words}". I have thought about that more than once.',
    'You said "{words}"? Tell me more. I have time until the evening.',
    'Hmm. "{words}" is a good thing to ask about. Come closer and I will tell you.',
    'If you say "{words}" to the others, they laugh. I do not. What made you think of it?',
    'Nobody has said "{words}" to me for a long while. It makes me smile.',
    '"{words}", is it? Well, sit down first. Then we will see.',
)
KOREAN = (
    '아, "{words}" 말이지. 나도 그 생각을 여러 번 했어.',
    '"{words}"라고 했니? 더 이야기해 봐. 저녁까지 시간이 있단다.',
    '음, "{words}" 이야기는 참 좋구나. 가까이 오면 들려줄게.',
    '다른 사람들은 "{words}" 하면 웃지만 나는 안 웃어. 왜 그 생각을 했니?',
    '"{words}"라는 말은 정말 오랜만에 듣는구나. 그래서 웃음이 나네.',
    '"{words}"라고? 그래, 우선 여기 앉아. 그리고 천천히 이야기하자.',
)


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Kind = Literal["reply", "json", "choose"]
"""What is asked of an engine: a reply, a reply that fits a JSON Schema, a choice of labels."""


class Rule(_Part):
    """One rule: when it applies, what is said, how fast, and how it fails.

    A rule that says something is for requests of that kind alone: ``reply`` for replies, ``json``
    for those with a JSON Schema, ``choose`` for choices. One that says nothing is for all.
    """

    match: str | None = Field(
        None,
        description="A regular expression searched in the last user message; without it the rule "
        "always applies. Upper and lower case are the same.",
    )
    times: int | None = Field(None, ge=1, description="How often the rule applies; then no more.")
    reply: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (), description="What is said; of several, each in its turn, then again from the first."
    )
    data: dict[str, Any] | None = Field(
        None, alias="json", description="What is answered to a request with a JSON Schema."
    )
    choose: str | dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="Which label is chosen; or the weights of labels, of the rest 0."
    )
    first_ms: float = Field(0, ge=0, description="Milliseconds before the first piece.")
    piece_ms: float = Field(0, ge=0, description="Milliseconds between two pieces.")
    piece: Literal["word", "char"] | int = Field(
        "word", description="What one piece is: a word, a character, or so many characters."
    )
    fail: Literal["unavailable", "stall"] | None = Field(
        None, description="`unavailable` ends in an error, `stall` says nothing more for ever."
    )
    fail_after: int = Field(0, ge=0, description="How many pieces are sent before it fails.")

    @field_validator("match")
    @classmethod
    def _is_a_pattern(cls, value: str | None) -> str | None:
        try:
            regex.compile(value or "")
        except regex.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return value

    @field_validator("piece")
    @classmethod
    def _is_a_length(cls, value: Literal["word", "char"] | int) -> Literal["word", "char"] | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be 'word', 'char' or a number from 1")
        return value

    @property
    def failure(self) -> Literal["unavailable", "stall"] | None:
        """How the rule fails; ``fail_after`` alone means ``unavailable``."""
        return self.fail or ("unavailable" if self.fail_after else None)

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of requests that it is for."""
        said: dict[Kind, bool] = {
            "reply": bool(self.reply),
            "json": self.data is not None,
            "choose": self.choose is not None,
        }
        return frozenset(kind for kind, there in said.items() if there or not any(said.values()))

    def applies(self, text: str, kind: Kind = "reply") -> bool:
        """Whether the rule is for this user message, and for a request of this kind."""
        found = self.match is None or regex.search(self.match, text, regex.IGNORECASE)
        return bool(found) and kind in self.kinds

    def cut(self, text: str) -> list[str]:
        """The text in pieces; together they are the text again."""
        if self.piece == "word":
            return regex.findall(r"\s*\S+(?:\s+$)?|^\s+$", text)
        size = 1 if self.piece == "char" else self.piece
        return [text[at : at + size] for at in range(0, len(text), size)]


class Script(_Part):
    """A scripted engine's answers: the first rule that applies, else the built-in answers."""

    model: str = Field("scripted", description="The name that the engine gives its model.")
    context: int = Field(4096, ge=64, description="Tokens that prompt and reply share.")
    seats: int = Field(4, ge=1, le=4096, description="Replies that are generated at once.")
    holds_schema: bool = Field(
        True, alias="schema", description="Whether it keeps to JSON Schemas; else it ignores them."
    )
    scores: bool = Field(True, description="Whether it says that its choices are probabilities.")
    adapters: bool = Field(True, description="Whether it takes LoRA adapters; it only notes them.")
    rules: tuple[Rule, ...] = Field((), description="Tried in order.")


def load_script(path: Path) -> Script:
    """Read a script from a YAML file.

    Raises:
        ConfigError: The file is missing, is not YAML or is no script; the message says where.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Script.model_validate({} if data is None else data)
    except OSError as error:
        raise ConfigError(f"Cannot read the script {path}: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"The script {path} is not valid YAML: {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise ConfigError(f"The script {path} cannot be used: {problems}.") from error


def default_reply(text: str, seed: int) -> str:
    """A plausible answer that takes up the player's words, in the player's script.

    The same text and seed give the same answer. Hangul is answered in Korean, all else in English.
    """
    lines = KOREAN if regex.search(r"\p{Hangul}", text) else ENGLISH
    digest = hashlib.sha256(f"{seed}\0{text}".encode(errors="replace")).digest()
    words = regex.findall(r"[\p{L}\p{N}'’-]+", text.strip().rpartition("\n")[2])
    return lines[digest[0] % len(lines)].format(words=" ".join(words[-5:])[-60:] or "…")
