"""PURE. From a JSON Schema to llama.cpp's own kind of grammar (GBNF), for compact JSON.

It is for vocabularies with which llama.cpp's other grammars (llguidance) fail. Whatever such a
grammar lets through satisfies the schema; of what satisfies it, not everything is let through:
properties come in the schema's order, and none besides them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any] | bool

MOST_REPEATS = 500
MOST_NUMBERS = 1_000
MOST_DEPTH = 64
NOTES = frozenset(
    {"title", "description", "default", "examples", "format", "deprecated", "readOnly"}
    | {"writeOnly", "x-guidance", "$schema", "$id", "$comment", "$defs", "definitions"}
)
KEYS: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
COMMON = r"""
char ::= [^"\\\x00-\x1F\x7F] | "\\" ["\\/bfnrt]
string ::= "\"" char* "\""
integer ::= "-"? ("0" | [1-9] [0-9]{0,14})
number ::= integer ("." [0-9]{1,15})?
boolean ::= "true" | "false"
null ::= "null"
object ::= "{" (string ":" value ("," string ":" value)*)? "}"
array ::= "[" (value ("," value)*)? "]"
value ::= string | number | boolean | null | object | array
"""


def grammar(schema: Mapping[str, Any]) -> str:
    """The grammar of a schema.

    Raises:
        ValueError: It demands what such a grammar cannot hold a reply to.
    """
    maker = _Maker(schema)
    root = maker.expression(schema, 0)
    rules = [f"{name} ::= {rule}" for name, rule in maker.rules.items()]
    return "\n".join([f"root ::= {root}", *rules, COMMON.strip()])


class _Maker:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._names: dict[str, str] = {}
        self.rules: dict[str, str] = {}

    def expression(self, schema: Schema, depth: int) -> str:
        if depth > MOST_DEPTH:
            raise ValueError("The schema is nested too deeply.")
        if isinstance(schema, bool):
            if not schema:
                raise ValueError("The schema allows nothing.")
            return "value"
        if "$ref" in schema:
            return self._reference(_only(schema, "$ref"), depth)
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return _either([_literal(item) for item in schema["enum"]])
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                options = _only(schema, key)
                if key == "allOf" and len(options) > 1:
                    raise ValueError("The schema joins several by 'allOf'.")
                return _either([self.expression(option, depth + 1) for option in options])
        kinds = schema["type"] if "type" in schema else _implied(schema)
        if isinstance(kinds, str):
            return self._of_kind(kinds, schema, depth)
        return _either([self._of_kind(kind, schema, depth) for kind in kinds])

    def _of_kind(self, kind: str, schema: Mapping[str, Any], depth: int) -> str:
        if kind == "value":
            return kind
        if kind not in KEYS:
            raise ValueError(f"The schema has the unknown type {kind!r}.")
        # With several types, each of them minds its own keys.
        known = KEYS[kind] if schema.get("type") == kind else frozenset[str]().union(*KEYS.values())
        _refuse(schema.keys() - known - NOTES - {"type"}, schema)
        if kind == "object" and "properties" in schema:
            return self._object(schema, depth)
        if kind == "array":
            item = self.expression(schema.get("items", True), depth + 1)
            least, most = schema.get("minItems", 0), schema.get("maxItems")
            return f'"[" {_listed(item, least, most)} "]"'
        if kind == "string" and KEYS["string"] & schema.keys():
            times = _times(schema.get("minLength", 0), schema.get("maxLength"))
            return rf'"\"" char{times} "\""'
        if kind == "integer" and KEYS["integer"] & schema.keys():
            return _bounded(schema)
        return kind

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        required = {*schema.get("required", ())}
        if required - schema["properties"].keys():
            raise ValueError("The schema requires properties that it does not describe.")
        pairs = []
        for name, inner in schema["properties"].items():
            pair = f'{_literal(name)} ":" {self.expression(inner, depth + 1)}'
            pairs.append((pair, name in required))
        return f'"{{" {_members(pairs)} "}}"'

    def _reference(self, pointer: str, depth: int) -> str:
        if pointer not in self._names:
            found: Any = self._root
            for step in pointer.removeprefix("#").split("/")[1:]:
                found = found.get(step) if isinstance(found, Mapping) else None
            if not pointer.startswith("#") or not isinstance(found, Mapping | bool):
                raise ValueError(f"The schema refers to {pointer!r}, which is not in it.")
            self._names[pointer] = name = f"ref{len(self._names)}"
            self.rules[name] = self.expression(found, depth + 1)
        return self._names[pointer]


def _members(pairs: Sequence[tuple[str, bool]]) -> str:
    """Properties in their order, the optional ones there or not."""
    if not pairs:
        return ""
    (pair, required), rest = pairs[0], pairs[1:]
    behind = " ".join(f'"," {more}' if must else f'("," {more})?' for more, must in rest)
    first = f"{pair} {behind}".strip()
    if required:
        return first
    without = _members(rest)
    return f"({first} | {without})" if without else f"({first})?"


def _listed(item: str, least: int, most: int | None) -> str:
    if most == 0:
        return ""
    more = f'{item} ("," {item}){_times(max(least - 1, 0), None if most is None else most - 1)}'
    return more if least else f"({more})?"


def _times(least: int, most: int | None) -> str:
    if least > MOST_REPEATS:
        raise ValueError(f"The schema demands something {least} times; {MOST_REPEATS} can be kept.")
    if most is None:
        return f"{{{least},}}" if least else "*"
    return f"{{{least},{min(most, MOST_REPEATS)}}}"


def _bounded(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least == 0 and most is None:
        return '("0" | [1-9] [0-9]{0,14})'
    if least is None or most is None or most - least > MOST_NUMBERS:
        raise ValueError("The schema bounds a number too widely for it to be held to that.")
    return _either([f'"{number}"' for number in range(int(least), int(most) + 1)])


def _implied(schema: Mapping[str, Any]) -> str:
    """The type that a schema means which names none; ``value`` if it says nothing."""
    for kind, keys in KEYS.items():
        if keys & schema.keys():
            return kind
    _refuse(schema.keys() - NOTES, schema)
    return "value"


def _only(schema: Mapping[str, Any], key: str) -> Any:
    _refuse(schema.keys() - NOTES - {key}, schema)
    return schema[key]


def _refuse(keys: set[str], schema: Mapping[str, Any]) -> None:
    if keys:
        raise ValueError(f"The schema demands {', '.join(sorted(keys))} in {dict(schema)!r:.200}.")


def _either(options: Sequence[str]) -> str:
    if not options:
        raise ValueError("The schema allows nothing.")
    return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def _literal(item: Any) -> str:
    text = json.dumps(item, ensure_ascii=False, separators=(",", ":"))
    # GBNF writes its texts as JSON does.
    return json.dumps(text, ensure_ascii=False)
