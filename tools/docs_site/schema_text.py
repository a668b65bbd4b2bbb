"""Text of JSON schemas, for tables in Markdown."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]
NAMES = {
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "string": ("text", "texts"),
    "boolean": ("`true` or `false`", "booleans"),
    "object": ("object", "objects"),
    "null": ("`null`", "nulls"),
}
BOUNDS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)


def slugify(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def resolve(schema: Schema, root: Schema) -> Schema:
    """Return the schema that a reference leads to, or the schema itself."""
    while "$ref" in schema:
        target: Any = root
        for name in schema["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        schema = target
    return schema


def list_choices(schema: Schema) -> list[Schema]:
    """Return the alternatives of a schema without null, or the schema itself."""
    choices = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return [choice for choice in choices if choice.get("type") != "null"] or [schema]


def allows_null(schema: Schema) -> bool:
    """Return True if a value may be null, beside other values."""
    return any(choice.get("type") == "null" for choice in schema.get("anyOf", ()))


def find_objects(schema: Schema, root: Schema) -> dict[str, Schema]:
    """Return the named objects with known fields that a value may be or hold, in their order."""
    found: dict[str, Schema] = {}
    for choice in list_choices(schema):
        target = resolve(choice, root)
        if "$ref" in choice and "properties" in target:
            found[name_reference(choice)] = target
        for inner in (target.get("items"), target.get("additionalProperties")):
            if isinstance(inner, Mapping):
                found |= find_objects(inner, root)
    return found


def name_reference(schema: Schema) -> str:
    """Return the name at the end of a reference."""
    return str(schema["$ref"]).rpartition("/")[2]


def describe_type(schema: Schema, root: Schema, *, several: bool = False) -> str:
    """Return the values that a schema allows, such as `whole number, at least 1`."""
    choices = list_choices(schema)
    if len(choices) > 1:
        described = [describe_type(choice, root, several=several) for choice in choices]
        return " or ".join(dict.fromkeys(described))
    target = resolve(choices[0], root)
    if "$ref" in choices[0] and "properties" in target:
        name = name_reference(choices[0])
        return f"[{name}](#{slugify(name)})"
    values = target.get("enum") or ([target["const"]] if "const" in target else [])
    if values:
        return ", ".join(f"`{_show(value)}`" for value in values)
    if target.get("type") == "array":
        return _describe_array(target, root, several)
    if isinstance(target.get("additionalProperties"), Mapping):
        return f"{describe_type(target['additionalProperties'], root)} by name"
    if target.get("format") == "binary":
        return "bytes"
    if "type" not in target:
        return "any value"
    return ", ".join([NAMES[target["type"]][several], *_describe_bounds(target)])


def _show(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _describe_array(schema: Schema, root: Schema, several: bool) -> str:
    parts: Sequence[Schema] = schema.get("prefixItems", ())
    if parts:
        return f"{len(parts)} {describe_type(parts[0], root, several=True)}"
    items: Schema = schema.get("items", {})
    return f"{'lists' if several else 'list'} of {describe_type(items, root, several=True)}"


def _describe_bounds(schema: Schema) -> list[str]:
    return [f"{words} {_format_number(schema[key])}" for key, words in BOUNDS if key in schema]


def _format_number(number: float) -> str:
    return f"{int(number) if number == int(number) else number:,}"


def describe_default(name: str, schema: Schema, owner: Schema) -> str:
    """Return the default of a field in code, or that it is required or unset."""
    if name in owner.get("required", ()):
        return "required"
    default = schema.get("default")
    if default is None:
        return "unset"
    return "its defaults" if isinstance(default, Mapping) else f"`{json.dumps(default)}`"


def join_lines(text: str) -> str:
    """Return a text in one line, safe in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def build_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
