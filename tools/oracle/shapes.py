"""Shapes of responses: class of the status, headers and JSON types, without values.

`KNOWN` has the intended differences from MLServer.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

HEADER_LENGTH = "inference-header-content-length"
TYPES = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}
ABSENT = "absent"

Shape = dict[str, str]  # of each path, such as `$.outputs[].name`, the type


class Difference(NamedTuple):
    """Part of a shape that differs between this service and MLServer."""

    path: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.path} is {self.ours}, in MLServer {self.theirs}"


INFERENCES = (
    "UINT8",
    "BYTES",
    "version",
    "outputs",
    "binary UINT8",
    "binary BYTES",
    "binary response",
    "binary output",
)
# Requests, the paths of their intended differences, which hold below them too, and the reason.
TABLE = (
    (
        ("live", "ready", "model ready", "model version ready"),
        ("content-type", "$"),
        "health has a body in the protocol, and none in MLServer",
    ),
    (
        ("model", "model version"),
        ("$.parameters",),
        "metadata of a model have no parameters in the protocol",
    ),
    (
        INFERENCES,
        ("$.id",),
        "the protocol returns the ID of a request, if any; MLServer invents one",
    ),
    (
        (*INFERENCES, "ID"),
        ("$.parameters",),
        "MLServer adds an empty object, which is optional in the protocol",
    ),
    (
        (*INFERENCES, "ID"),
        ("$.outputs[].parameters",),
        "MLServer names its codec there; binary outputs of this service have their size there",
    ),
    (
        ("binary response", "binary output"),
        ("content-type", HEADER_LENGTH, "$.outputs[].data"),
        "MLServer has no binary tensors over HTTP; this service follows Triton",
    ),
    (
        ("malformed JSON", "no inputs", "unknown data type"),
        ("$.error", "$.detail"),
        "errors are `error` in the protocol; MLServer sends FastAPI's own",
    ),
)
KNOWN = {
    (request, path): reason
    for requests, paths, reason in TABLE
    for request in requests
    for path in paths
}


def describe(status: int, headers: Mapping[str, str], body: bytes) -> Shape:
    """Return the shape of a response; the names of the headers are in lower case."""
    shape = {"status": f"{status // 100}xx"}
    if body:
        shape["content-type"] = headers["content-type"].partition(";")[0]
    if HEADER_LENGTH in headers:
        shape[HEADER_LENGTH] = "integer"
        body = body[: int(headers[HEADER_LENGTH])]
    return shape | (_describe_json(json.loads(body), "$") if body else {})


def _describe_json(value: Any, path: str) -> Shape:
    """Return the type at each path; the elements of an array share a path."""
    shape = {path: TYPES[type(value)]}
    if isinstance(value, dict):
        for key, member in value.items():
            shape |= _describe_json(member, f"{path}.{key}")
    if isinstance(value, list):
        shape |= _unite([_describe_json(element, f"{path}[]") for element in value])
    return shape


def _unite(shapes: Sequence[Shape]) -> Shape:
    """Return the types of all shapes at each path."""
    paths = dict.fromkeys(path for shape in shapes for path in shape)
    return {
        path: " or ".join(sorted({shape.get(path, ABSENT) for shape in shapes})) for path in paths
    }


def compare(ours: Shape, theirs: Shape) -> list[Difference]:
    """Return the differences of two shapes."""
    pairs = {path: (ours.get(path, ABSENT), theirs.get(path, ABSENT)) for path in theirs | ours}
    return [Difference(path, *pair) for path, pair in pairs.items() if pair[0] != pair[1]]


def find_known(request: str, difference: Difference) -> tuple[str, str] | None:
    """Return the key of `KNOWN` that covers a difference, if any."""
    for key in KNOWN:
        rest = difference.path.removeprefix(key[1])
        if key[0] == request and (rest == "" or (rest != difference.path and rest[0] in ".[")):
            return key
    return None
