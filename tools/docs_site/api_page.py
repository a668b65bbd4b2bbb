"""The page of all requests, from the OpenAPI document."""

import re
from collections.abc import Iterator, Mapping, Sequence

from tools.docs_site.openapi import (
    SUCCESS,
    Operation,
    build_document,
    find_json,
    list_operations,
)
from tools.docs_site.schema_text import (
    Schema,
    build_table,
    describe_default,
    describe_type,
    find_objects,
    join_lines,
    name_reference,
    resolve,
    slugify,
)

EVERY_RESPONSE = "X-Request-ID", "Server-Timing", "X-Bundle"  # headers
INTRODUCTION = """# API reference

Every path, its parameters, its body, its response and its errors.
[Every operation by example](../requests.md) shows requests, and [Responses](responses.md) explains
every field. The service itself has this reference at `/docs`, where requests can be tried.

- Every path below `/v1/models/{model}` and `/v2/models/{model}` also exists with a version, such as
  `/v1/models/{model}/versions/{version}/encode`.
- Every response has the headers `X-Request-ID` and `Server-Timing`. A response of a model has
  `X-Bundle`, the SHA-256 of its manifest.
- [Errors](#errors) lists the codes of each status. Probes and `/v2` have
  [errors without a code](#errors-without-a-code).
- `make reference` writes this page from the OpenAPI document.
"""


def render() -> str:
    """Return the page."""
    document = build_document()
    parts = [INTRODUCTION]
    coded: set[tuple[str, str, str]] = set()
    plain: dict[tuple[str, str], list[str]] = {}
    for heading, operations in list_operations(document):
        parts.append(f"## {heading}\n")
        for operation in operations:
            parts += _render_operation(operation, document)
            for status, text in _list_errors(operation):
                if codes := re.findall(r"^- (`\w+`): (.*)$", text, re.MULTILINE):
                    coded |= {(status, code, join_lines(meaning)) for code, meaning in codes}
                else:
                    plain.setdefault((status, join_lines(text)), []).append(operation.path)
    return "\n".join([*parts, _render_errors(coded, plain)])


def _list_errors(operation: Operation) -> Iterator[tuple[str, str]]:
    """Yield status and description of each error."""
    for status, response in operation.responses.items():
        if status != SUCCESS:
            yield status, response["description"]


def _render_errors(
    coded: set[tuple[str, str, str]], plain: Mapping[tuple[str, str], Sequence[str]]
) -> str:
    """Return the tables of errors with a code, and of errors without, with the paths of each."""
    rows = [
        (status, meaning, ", ".join(f"`{path}`" for path in paths))
        for (status, meaning), paths in sorted(plain.items())
    ]
    parts = [
        "## Errors\n",
        build_table(("status", "code", "meaning"), sorted(coded)),
        "\n### Errors without a code\n",
        build_table(("status", "meaning", "paths"), rows),
    ]
    return "\n".join([*parts, ""])


def _render_operation(operation: Operation, document: Schema) -> Iterator[str]:
    description = operation.description
    yield f"### {description['summary']}\n\n`{operation.method.upper()} {operation.path}`\n"
    yield description["description"] + "\n"
    parameters = [
        [
            f"`{each['name']}`",
            each["in"],
            describe_type(each["schema"], document),
            "required" if each.get("required") else describe_default("", each["schema"], {}),
            join_lines(each.get("description", "")),
        ]
        for each in description.get("parameters", [])
    ]
    if parameters:
        yield build_table(("parameter", "in", "value", "default", "meaning"), parameters) + "\n"
    if "requestBody" in description:
        yield from _render_body(description["requestBody"], document)
    yield _describe_success(operation, document) + "\n"
    statuses = [status for status in operation.responses if status != SUCCESS]
    if statuses:
        yield f"Errors: {', '.join(sorted(statuses))}.\n"


def _render_body(body: Schema, document: Schema) -> Iterator[str]:
    yield f"Body: {', '.join(f'`{media_type}`' for media_type in body['content'])}.\n"
    schema = find_json(body["content"])
    if schema is not None:
        owner = resolve(schema, document)
        yield _render_fields(owner, document)
        for field in owner["properties"].values():
            for name, inner in find_objects(field, document).items():
                yield f"#### {name}\n\n{_render_fields(inner, document)}"
    if "description" in body:
        yield body["description"] + "\n"


def _render_fields(owner: Schema, document: Schema) -> str:
    rows = [
        [
            f"`{name}`",
            describe_type(field, document),
            describe_default(name, field, owner),
            join_lines(field.get("description", "")),
        ]
        for name, field in owner["properties"].items()
    ]
    return build_table(("field of the JSON", "value", "default", "meaning"), rows) + "\n"


def _describe_success(operation: Operation, document: Schema) -> str:
    response = operation.responses[SUCCESS]
    content = response.get("content", {})
    schema = find_json(content)
    forms = [f"`{media_type}`" for media_type in content if media_type != "application/json"]
    if schema is not None:
        reference = schema.get("items", schema)
        name = name_reference(reference)
        link = f"[{name}](responses.md#{slugify(name)})"
        forms.insert(0, f"a list of {link}" if "items" in schema else link)
    text = f"Response: {' or '.join(forms)}."
    headers = [name for name in response.get("headers", {}) if name not in EVERY_RESPONSE]
    for name in headers:
        header = resolve(response["headers"][name], document)
        text += f" Header `{name}`: {join_lines(header['description'])}"
    return text
