"""From the text of an author's file to a model, or to the line and field that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from npc_server.errors import FileError

MAX_CHARACTERS = 262_144
MAX_NODES = 10_000

Model = TypeVar("Model", bound=BaseModel)
Location = tuple[int | str, ...]
Finding = tuple[Location, str]
"""A place in a file, and what is wrong there."""


def read(
    text: str,
    file: str,
    model: type[Model],
    check: Callable[[Model], Iterable[Finding]] | None = None,
) -> Model | list[FileError]:
    """What a file says, or everything that is wrong with it.

    Args:
        text: The file's text, YAML.
        file: Its name, for errors.
        model: What it is to be.
        check: Finds what else is wrong with something whose fields are right.
    """
    try:
        root = _compose(text, file)
        data = _plain(root, file)
    except FileError as error:
        return [error]
    try:
        made = model.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        return [_explain(dict(problem), root, file, model) for problem in problems]
    found = check(made) if check is not None else ()
    return [_error(reason, root, file, location) for location, reason in found] or made


def near(name: str, known: Iterable[str]) -> str:
    """Names that may have been meant, for an error: near ones, else the first ones."""
    names = sorted(set(known))
    return ", ".join(get_close_matches(name, names, n=3) or names[:12])


def _compose(text: str, file: str) -> MappingNode:
    if len(text) > MAX_CHARACTERS:
        raise FileError(f"is longer than {MAX_CHARACTERS} characters", file=file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise FileError(f"is not valid YAML: {error.problem}", file=file, line=line) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise FileError(f"is not valid YAML: {error}", file=file) from None
    if root is None:
        raise FileError("is empty. Begin with `npc-server persona new` or `scene new`", file=file)
    if not isinstance(root, MappingNode):
        raise FileError("must be a mapping of fields, such as 'name: Bram'", file=file, line=1)
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
            raise FileError("holds too much, or is nested too deeply", file=file, line=line)
        if isinstance(node, SequenceNode):
            return [value(child, depth + 1) for child in node.value]
        if isinstance(node, MappingNode):
            return dict(fields(node, depth))
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            raise FileError(f"cannot be read: {error}", file=file, line=line) from None

    def fields(node: MappingNode, depth: int) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        for key, child in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise FileError("a field's name must be plain text", file=file, line=line)
            if key.value in seen:
                raise FileError("is there twice", file=file, line=line, field=key.value)
            seen.add(key.value)
            yield key.value, value(child, depth + 1)

    return value(root, 0)


def _explain(
    problem: dict[str, Any], root: MappingNode, file: str, model: type[BaseModel]
) -> FileError:
    inside = problem.get("ctx", {}).get("path", ())
    location: Location = (*problem["loc"], *inside)
    kind, got = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        close = get_close_matches(str(location[-1]), _siblings(model, location[:-1]), n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return _error(f"is not a field.{hint}", root, file, location)
    if kind == "missing":
        return _error("is missing", root, file, location)
    expected = str(problem["msg"]).removeprefix("Value error, ")
    for part in inside:
        got = got[part]
    shown = repr(got)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return _error(f"{expected} (got {shown})", root, file, location)


def _error(reason: str, root: MappingNode, file: str, location: Location) -> FileError:
    field = ".".join(str(part) for part in location) or None
    return FileError(reason, file=file, line=_line(root, location), field=field)


def _siblings(model: type[BaseModel], location: Location) -> Sequence[str]:
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
