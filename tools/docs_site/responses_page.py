"""The page of all fields of responses, from the OpenAPI document."""

from collections.abc import Iterator

from tools.docs_site.openapi import build_document, find_bodies, list_operations
from tools.docs_site.schema_text import (
    Schema,
    allows_null,
    build_table,
    describe_type,
    find_objects,
    join_lines,
    resolve,
)

HEADS = "field", "value", "present", "meaning"
INTRODUCTION = """# Responses

Every field of every JSON response. [The API reference](api.md) says which request gets which
response. [Every operation by example](../requests.md) shows requests.

- An optional field may be absent. It is `null` only if its value says so.
- `error.code` is the field `code` of the object in `error`.
- `errors[].index` is the field `index` of each object in the list `errors`.
- `make reference` writes this page from the OpenAPI document.
"""


def render() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for heading, bodies in list_bodies(build_document()):
        parts.append(f"## {heading}\n")
        for name, body in bodies.items():
            description = body.get("description", "")
            table = build_table(HEADS, list(_list_rows(body, build_document())))
            parts += [f"### {name}\n", *([description, ""] if description else []), table, ""]
    return "\n".join(parts)


def list_bodies(document: Schema) -> Iterator[tuple[str, dict[str, Schema]]]:
    """Yield headings, and the named objects of responses that no earlier heading has."""
    seen: set[str] = set()
    errors: dict[str, Schema] = {}
    for heading, operations in list_operations(document):
        found: dict[str, Schema] = {}
        for operation in operations:
            for name, body in find_bodies(operation, document, errors=False).items():
                found |= _with_parts(name, body, document)
            for name, body in find_bodies(operation, document, errors=True).items():
                errors |= _with_parts(name, body, document)
        yield heading, {name: body for name, body in found.items() if name not in seen}
        seen |= set(found)
    yield "Errors", {name: body for name, body in errors.items() if name not in seen}


def _with_parts(name: str, body: Schema, root: Schema) -> dict[str, Schema]:
    """Return an object, and the named objects in its fields."""
    found = {name: body}
    for field in body["properties"].values():
        for inner, part in find_objects(field, root).items():
            found |= _with_parts(inner, part, root)
    return found


def list_fields(body: Schema, root: Schema, prefix: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """Yield the path of each field, its schema, and True if it is always present."""
    required = body.get("required", ())
    for name, field in body["properties"].items():
        yield f"{prefix}{name}", field, name in required
        inner = field if "properties" in field else field.get("items", {})
        if "properties" in inner:
            dots = "." if inner is field else "[]."
            yield from list_fields(inner, root, f"{prefix}{name}{dots}")


def _list_rows(body: Schema, root: Schema) -> Iterator[list[str]]:
    for path, field, always in list_fields(body, root):
        meaning = field.get("description") or resolve(field, root).get("description", "")
        yield [
            f"`{path}`",
            describe_type(field, root) + (" or `null`" if allows_null(field) else ""),
            "always" if always else "optional",
            join_lines(meaning),
        ]
