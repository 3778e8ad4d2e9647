"""From the text of a persona file to a ``Persona``, or to the line and field that is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from npc_server.errors import PersonaError
from npc_server.persona.model import Persona

MAX_CHARACTERS = 262_144
MAX_NODES = 10_000

Location = tuple[int | str, ...]


def parse(text: str, file: str) -> Persona:
    """Read one persona.

    Args:
        text: The file's text, YAML.
        file: Its name, for errors.

    Raises:
        PersonaError: It cannot be used; says line, field and what was expected.
    """
    problems = find_problems(text, file)
    if isinstance(problems, Persona):
        return problems
    raise problems[0]


def find_problems(text: str, file: str) -> Persona | list[PersonaError]:
    """The persona, or everything that is wrong with its file."""
    try:
        root = _compose(text, file)
        data = _plain(root, file)
    except PersonaError as error:
        return [error]
    try:
        return Persona.model_validate(data)
    except ValidationError as error:
        return [_explain(dict(problem), root, file) for problem in error.errors(include_url=False)]


def _compose(text: str, file: str) -> MappingNode:
    if len(text) > MAX_CHARACTERS:
        raise PersonaError(f"is longer than {MAX_CHARACTERS} characters", file=file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise PersonaError(f"is not valid YAML: {error.problem}", file=file, line=line) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PersonaError(f"is not valid YAML: {error}", file=file) from None
    if root is None:
        raise PersonaError("is empty. Begin with `npc-server persona new`", file=file)
    if not isinstance(root, MappingNode):
        raise PersonaError("must be a mapping of fields, such as 'name: Bram'", file=file, line=1)
    return root


def _plain(root: Node, file: str) -> Any:
    """The values of a tree of nodes; aliases may not make it larger than is sensible."""
    loader = yaml.SafeLoader("")
    budget = MAX_NODES

    def value(node: Node, depth: int) -> Any:
        nonlocal budget
        budget -= 1
        line = node.start_mark.line + 1
        if budget < 0 or depth > 20:
            raise PersonaError("holds too much, or is nested too deeply", file=file, line=line)
        if isinstance(node, SequenceNode):
            return [value(child, depth + 1) for child in node.value]
        if isinstance(node, MappingNode):
            return dict(fields(node, depth))
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise PersonaError(f"cannot be read: {error}", file=file, line=line) from None

    def fields(node: MappingNode, depth: int) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise PersonaError("a field's name must be plain text", file=file, line=line)
            if key.value in seen:
                raise PersonaError("is there twice", file=file, line=line, field=key.value)
            seen.add(key.value)
            yield key.value, value(child, depth + 1)

    return value(root, 0)


def _explain(problem: dict[str, Any], root: MappingNode, file: str) -> PersonaError:
    inside = problem.get("ctx", {}).get("path", ())
    location: Location = (*problem["loc"], *inside)
    line = _line(root, location)
    field = ".".join(str(part) for part in location) or None
    kind, got = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        near = get_close_matches(str(location[-1]), _siblings(location[:-1]), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        return PersonaError(f"is not a field.{hint}", file=file, line=line, field=field)
    if kind == "missing":
        return PersonaError("is missing", file=file, line=line, field=field)
    expected = str(problem["msg"]).removeprefix("Value error, ")
    for part in inside:
        got = got[part]
    shown = repr(got)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return PersonaError(f"{expected} (got {shown})", file=file, line=line, field=field)


def _siblings(location: Location) -> Sequence[str]:
    model: type[BaseModel] = Persona
    for part in location:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return ()
        model = inner
    return tuple(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inside = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((model for model in inside if model), None)


def _line(node: Node, location: Location) -> int:
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == part), None)
            if found is None:
                return line
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
