"""The OpenAPI document of this service, and the operations in it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from service.app import assemble, create_api
from service.settings import Settings
from tools.docs_site.schema_text import Schema, find_objects

MODELS = Path(__file__).parents[2] / "models"
SUCCESS = "200"
JSON_TYPES = "application/json", "application/problem+json"


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    path: str
    method: str
    description: Schema

    @property
    def responses(self) -> Mapping[str, Any]:
        responses: Mapping[str, Any] = self.description["responses"]
        return responses


@cache
def build_document() -> dict[str, Any]:
    """Return the document, as `python -m service schema` prints it."""
    settings = Settings(models=str(MODELS), device="cpu")
    return create_api(assemble(settings)).openapi()


def list_operations(document: Schema) -> Iterator[tuple[str, list[Operation]]]:
    """Yield each tag, and its operations on paths without a version."""
    every = [
        Operation(path, method, description)
        for path, item in document["paths"].items()
        for method, description in item.items()
        if "{version}" not in path
    ]
    described = [tag["name"] for tag in document.get("tags", ())]
    for tag in dict.fromkeys([*described, *(each.description["tags"][0] for each in every)]):
        operations = [each for each in every if tag in each.description["tags"]]
        if operations:
            yield tag, operations


def find_json(content: Schema) -> Schema | None:
    """Return the schema of the JSON among the media types of a body, if there is one."""
    return next((content[name]["schema"] for name in JSON_TYPES if name in content), None)


def find_bodies(operation: Operation, document: Schema, *, errors: bool) -> dict[str, Schema]:
    """Return the named objects in the JSON of responses: of errors, or of success."""
    found: dict[str, Schema] = {}
    for status, response in operation.responses.items():
        schema = find_json(response.get("content", {}))
        if schema is not None and (status != SUCCESS) is errors:
            found |= find_objects(schema, document)
    return found
