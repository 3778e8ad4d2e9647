"""What a persona file says: who an NPC is, how it talks, what it knows and may do."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from npc_server.persona import conditions
from npc_server.persona.arguments import schema_problem
from npc_server.protocol.emotion import EMOTIONS, Emotion

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[^\r\n]*$"),
]
Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=6000)]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]
Colour = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]


def _condition(value: Any) -> conditions.Condition:
    if isinstance(value, conditions.Condition):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError("condition", "must be text, such as 'player.gold >= 5'")
    return conditions.parse(value)


Condition = Annotated[
    conditions.Condition,
    PlainValidator(_condition),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": conditions.MAX_CHARACTERS}),
]


class Part(BaseModel):
    """What every part of an author's file has in common: it is frozen, and knows its fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Example(Part):
    """One exchange that shows how the NPC talks."""

    player: Line = Field(description="What the player says.")
    npc: Line = Field(description="What the NPC answers, as it would be spoken.")


class Secret(Part):
    """Something that the NPC knows and guards."""

    text: Line = Field(description="The secret itself, in the third person.")
    guard: Line | None = Field(
        None, description="When the NPC lets it out, or how it dodges, in plain words."
    )
    when: Condition | None = Field(
        None, description="The facts of the game by which the NPC knows it; by default always."
    )


class Knowledge(Part):
    """Something that the NPC knows and may tell."""

    text: Line = Field(description="The fact, in the third person.")
    keys: tuple[Name, ...] = Field(
        (), description="Words that bring it up. Without any, the NPC always has it in mind."
    )
    when: Condition | None = Field(
        None, description="The facts of the game by which the NPC knows it; by default always."
    )


class Action(Part):
    """Something that the NPC can make happen in the game."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = Field(
        description="The name that the game receives, such as `give_item`."
    )
    description: Line = Field(description="When and why the NPC does this.")
    arguments: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object", "properties": {}},
        description="A JSON Schema (an object) of the arguments.",
    )
    confirm: bool = Field(
        False, description="Whether the game must confirm it before the NPC speaks of it."
    )

    @field_validator("arguments")
    @classmethod
    def _is_a_schema(cls, value: dict[str, Any]) -> dict[str, Any]:
        found = schema_problem(value)
        if found is not None:
            path, reason = found
            raise PydanticCustomError("json_schema", "{reason}", {"reason": reason, "path": path})
        return value


class Sampling(Part):
    """How words are drawn from the model."""

    temperature: float = Field(0.7, ge=0, le=2, description="0 always takes the likeliest word.")
    top_p: float = Field(0.9, gt=0, le=1, description="Keep the likeliest words up to this mass.")
    top_k: int = Field(40, ge=0, le=1000, description="Keep this many words; 0 keeps all.")
    repetition_penalty: float = Field(
        1.1, ge=1, le=2, description="Above 1 makes words that were just used less likely."
    )
    max_tokens: int = Field(120, ge=8, le=2048, description="The longest reply, in tokens.")


class LoraAdapter(Part):
    """A LoRA adapter with which the NPC speaks."""

    path: str = Field(
        min_length=1,
        max_length=1024,
        description="A GGUF file; relative paths begin at the models folder.",
    )
    scale: float = Field(1.0, ge=-8, le=8, description="How strongly it acts; 1 is as trained.")


class Relation(Part):
    """What the NPC thinks of another NPC."""

    npc: Slug = Field(description="The other persona's id.")
    text: Line = Field(description="How they stand to each other, from this NPC's side.")


class Portrait(Part):
    """How the playground draws the NPC."""

    age: Literal["child", "adult", "elder"] = "adult"
    skin: Colour = "#e8b894"
    hair: Colour = "#4a3728"
    hair_style: Literal["short", "long", "bun", "curly", "bald", "bob"] = "short"
    clothes: Colour = "#5b6b8c"
    accessory: Literal["none", "glasses", "hat", "scarf", "apron", "flower", "headset"] = "none"
    beard: bool = False


class Persona(Part):
    """An NPC as its author wrote it. One YAML file each; the file's name is the ``id``.

    All prose is written in the language in which the NPC speaks, or in English. Names in text are
    plain: no macros.
    """

    id: Slug = Field(description="The id by which a game names this persona.")
    name: Name = Field(description="The name that players see and that others call the NPC.")
    nicknames: tuple[Name, ...] = Field((), description="Other names that the NPC answers to.")
    languages: tuple[Language, ...] = Field(
        ("en",), min_length=1, description="BCP 47 tags; the first is the one it speaks unasked."
    )
    summary: Line = Field(description="One line for a list of characters.")
    description: Prose = Field(description="Who the NPC is: looks, history, place in the world.")
    personality: Prose = Field(description="Its character: what moves, pleases and annoys it.")
    speech: Prose = Field(description="How it talks: register, rhythm, pet words, what it avoids.")
    scenario: Prose | None = Field(None, description="Where it is and what it is doing just now.")
    examples: tuple[Example, ...] = Field((), description="Example dialogue; dropped first.")
    greetings: tuple[Line, ...] = Field((), description="First lines; one of them is chosen.")
    goals: tuple[Line, ...] = Field((), description="What the NPC wants out of a conversation.")
    knowledge: tuple[Knowledge, ...] = Field((), description="What it knows and may tell.")
    secrets: tuple[Secret, ...] = Field((), description="What it knows and guards.")
    expressions: tuple[Emotion, ...] = Field(
        EMOTIONS, min_length=1, description="The emotions that its model can show."
    )
    gestures: tuple[Name, ...] = Field((), description="Gestures that its model can make.")
    actions: tuple[Action, ...] = Field(
        (), max_length=16, description="What it can make happen in the game."
    )
    sampling: Sampling = Field(Sampling(), description="How words are drawn from the model.")
    engine: Slug | None = Field(
        None, description="The named engine that it speaks with; by default the server's own."
    )
    adapter: LoraAdapter | None = Field(None, description="A LoRA adapter for this NPC.")
    fillers: tuple[Line, ...] = Field(
        (), description="Short things said in character to win time, such as 'Hmm, let me see.'"
    )
    refusals: tuple[Line, ...] = Field(
        (), description="Whole lines in character for when there is nothing else to say."
    )
    relations: tuple[Relation, ...] = Field((), description="What it thinks of other NPCs.")
    portrait: Portrait = Field(Portrait(), description="How the playground draws it.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Persona:
        for what, names in (
            ("action", [action.name for action in self.actions]),
            ("relation", [relation.npc for relation in self.relations]),
        ):
            if len(names) != len(set(names)):
                raise ValueError(f"each {what} may be declared once only")
        return self
