"""OpenAPI document: FastAPI's routes and the operations, with every error and header."""

import inspect
import json
from collections.abc import Iterator, Sequence
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service.api import tags
from service.api.dependencies import Guard, ModelPath, VersionPath
from service.api.error_bodies import EMBEDDINGS, PROBLEM_TYPE, Failure, build_body
from service.api.errors import CODES_BY_STATUS, SERVER_CODES, STATUSES, V2_ERRORS
from service.api.media_types import JSON
from service.api.operation import Operation
from service.api.requests import BodyLimits
from service.api.schemas import OPENAI_ERROR, PROBLEM, describe_headers, describe_responses

_VERSION = "/versions/{version}"
_HEADERS = describe_headers(
    {
        "X-Request-ID": "The ID of the request: from the client, or generated.",
        "Server-Timing": "Milliseconds of decode, queue, inference and encode.",
        "X-Bundle": "SHA-256 of the manifest of the version that responded, in hexadecimal.",
        "WWW-Authenticate": "Scheme of the API keys: Bearer.",
    }
) | {
    "Retry-After": {
        "description": "Seconds to wait before the next request.",
        "schema": {"type": "integer"},
    }
}
_INTRODUCTION = """Score how anomalous images are, embed them, and run autoencoders.

- **Start**: `GET /v1/models` lists the models, and the operations of each. Send an image to one:
  `curl ADDRESS/v1/models/mnist-vae/encode -F images=@image.png`
- **Requests** hold encoded images, JSON or npy (`numpy.save`). Images are resized to the model's
  size. A request has at most {images} images or latent vectors, and at most {bytes} bytes.
- **Responses** are JSON. `Accept: application/x-npy` gives a NumPy array instead, and
  `Accept: image/png` a picture.
- **Errors** are `application/problem+json` (RFC 9457). Programs can rely on `code`. `detail` says
  what failed and how to fix it. If single images are invalid, `errors` names each by its index.
  After 429 and 503, wait for the seconds in `Retry-After`.
- **Keys**: if the service needs a key, send `Authorization: Bearer KEY`.
- **Tracing**: a response repeats the header `X-Request-ID` of its request, or has a random one. The
  log has it too.
"""
_FURTHER_CODES = {
    "not_found": "The service has no such path.",
    "method_not_allowed": "The path has no such method.",
    "request_timeout": "The head of the request took too long.",
    "uri_too_long": "The target of the request is too long.",
    "head_too_large": "The head of the request is too large.",
    "internal_error": "A defect of the service; the log has it under the ID of the request.",
    "overloaded": "Too many connections are open.",
}
_TOO_MANY_CONNECTIONS = (503, "overloaded")
ITEMS, COUNTS = ("images", "latents"), ("count", "steps")
_ERROR_HEADERS = {"401": ["WWW-Authenticate"], "429": ["Retry-After"], "503": ["Retry-After"]}
_REQUEST_ID = "5f3b0c1e9a7d4b2c8e6f0a1b2c3d4e5f"  # of the examples
_KEY_CODES = frozenset({"unauthorized", "rate_limited"})
_GET_CODES = {  # errors of each path, beside those of keys and of connections
    "/v1/models": frozenset(),
    "/v1/models/{model}": frozenset({"model_not_found"}),
    "/v1/models/{model}/calibration": frozenset({"model_not_found", "operation_not_supported"}),
    "/v1/models/{model}/examples": frozenset(
        {
            "forbidden",
            "model_not_found",
            "examples_not_found",
            "model_not_ready",
            "deadline_exceeded",
        }
    ),
    "/metrics": frozenset({"forbidden"}),
    "/openai/v1/models": frozenset(),
    "/openai/v1/models/{model}": frozenset({"model_not_found"}),
}
_EXAMPLE = ("mnist-vae", "4")  # a shipped model and its version
_OTHER_EXAMPLES = {"denoise": ("mnist-denoising", "3"), "classify": ("mnist-classifier", "2")}


def name_operation(route: APIRoute) -> str:
    """Return the operationId of a route: the name of its function, and `_version` for a version."""
    return f"{route.name}_version" if _VERSION in route.path_format else route.name


def build_document(app: FastAPI, limits: BodyLimits) -> dict[str, Any]:
    """Return the document of an application, built once and then cached."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=_INTRODUCTION.format(
                images=f"{limits.max_items:,}", bytes=f"{limits.max_bytes:,}"
            ),
            license_info={"name": "Apache License 2.0", "identifier": "Apache-2.0"},
            tags=[{"name": name, "description": text} for name, text in tags.DESCRIPTIONS.items()],
            routes=app.routes,
        )
        _complete(document)
        for operation in _list_operations(document):
            _bound(operation, limits.max_items)
        app.openapi_schema = document
    return app.openapi_schema


def _list_operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (operation for item in document["paths"].values() for operation in item.values())


def build_router(prefix: str, operations: Sequence[Operation[Any]], guard: Guard) -> APIRouter:
    """Return the operations as FastAPI routes, for the document and for methods other than POST.

    `endpoint` serves the operations themselves.
    """
    routes = APIRouter(tags=[tags.OPERATIONS], dependencies=[Depends(guard)])
    for operation in operations:
        routes.add_api_route(
            f"{prefix}/{operation.name}",
            _build_endpoint(prefix, operation),
            methods=["POST"],
            summary=operation.summary,
            description=_describe(operation),
            responses=describe_responses(
                operation.response, *operation.offered[1:], headers=operation.headers
            ),
            openapi_extra=operation.body,
        )
    return routes


def _build_endpoint(prefix: str, operation: Operation[Any]) -> Any:
    """Return a function with the parameters of an operation."""
    annotations = {
        "model": ModelPath,
        "version": VersionPath,
        "options": Annotated[operation.options, Query()],
    }
    if "{version}" not in prefix:
        del annotations["version"]

    def endpoint() -> None: ...

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(name, keyword, annotation=annotation)
        for name, annotation in annotations.items()
    ]
    endpoint.__name__ = operation.name.replace("-", "_")
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return endpoint


def _describe(operation: Operation[Any]) -> str:
    """Return the docstring of an operation's handler, with what holds for every operation."""
    text = inspect.getdoc(operation.handle) or ""
    return f"""{text}

The model needs `{operation.name}` among its `capabilities`.

Likely errors:

- 404: there is no such model, or it lacks the capability.
- 413: there are too many images, latent vectors, pixels or bytes.
- 415: the media type, or the format of an image, is unsupported.
- 422: an image, a latent vector or an option is invalid.
- 429: the service is overloaded; retry after the seconds in `Retry-After`."""


def _complete(document: dict[str, Any]) -> None:
    """Add headers, errors, examples, and the texts of routes with a version."""
    paths, components = document["paths"], document["components"]
    schemas = components["schemas"]
    schemas |= {"Problem": PROBLEM, "OpenAIError": OPENAI_ERROR}
    schemas["InputSpec"]["required"].append("resample")  # cards have it, manifests may omit it
    for unused in ("HTTPValidationError", "ValidationError"):
        del schemas[unused]
    codes, recorded = _group_codes(), _read_response_examples()
    components["headers"] = _HEADERS
    components["examples"] = _build_error_examples(codes) | recorded
    for path, item in paths.items():
        for method, operation in item.items():
            _add_errors(path, method, operation["responses"], codes)
            _add_headers(operation)
            _add_examples(path, operation, recorded)
            _describe_success(operation["responses"], schemas)
            if _VERSION in path:
                sibling = paths[path.replace(_VERSION, "")][method]
                operation |= {key: sibling[key] for key in ("summary", "description")}
                operation["tags"] = [tags.ONE_VERSION]


def _add_errors(
    path: str, method: str, responses: dict[str, Any], codes: dict[int, dict[str, str]]
) -> None:
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # FastAPI's own body, which the service never sends
    if path.startswith(("/v1/", *EMBEDDINGS)) or path == "/metrics":
        possible = codes if method == "post" else _select_get_codes(path, codes)
        responses |= {
            str(status): _describe_error(path, status, descriptions)
            for status, descriptions in possible.items()
        }


def _select_get_codes(path: str, codes: dict[int, dict[str, str]]) -> dict[int, dict[str, str]]:
    """Return the codes that a GET of a path can give, by status."""
    possible = _KEY_CODES | _GET_CODES[path.replace(_VERSION, "")]
    if _VERSION in path:
        possible |= {"version_not_found"}
    selected = {
        status: {
            code: text
            for code, text in descriptions.items()
            if code in possible or (status, code) == _TOO_MANY_CONNECTIONS
        }
        for status, descriptions in codes.items()
    }
    return {status: descriptions for status, descriptions in selected.items() if descriptions}


def _add_headers(operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        names = ["X-Request-ID", "Server-Timing"]
        if status == "200" and "requestBody" in operation:
            names.append("X-Bundle")
        if "security" in operation:  # probes have statuses, and no errors
            names += _ERROR_HEADERS.get(status, [])
        headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
        response["headers"] = headers | response.get("headers", {})


def _add_examples(path: str, operation: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Add examples of parameters, the path in those for a shell, and recorded responses."""
    model, version = _OTHER_EXAMPLES.get(path.rsplit("/", 1)[-1], _EXAMPLE)
    for parameter in operation.get("parameters", []):
        if parameter["name"] in ("model", "version"):
            parameter["example"] = model if parameter["name"] == "model" else version
    if body := operation.get("requestBody"):
        target = path.format(model=model, version=version)
        body["description"] = body["description"].replace("/PATH", target)
    name = operation["operationId"].removesuffix("_version")
    if name in recorded:
        reference = {"$ref": f"#/components/examples/{name}"}
        operation["responses"]["200"]["content"][JSON]["examples"] = {name: reference}


def _describe_success(responses: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give a response the description of its schema, in place of FastAPI's."""
    response = responses["200"]
    reference = response["content"].get(JSON, {}).get("schema", {}).get("$ref", "")
    if schema := schemas.get(reference.removeprefix("#/components/schemas/")):
        response["description"] = schema["description"]


def _bound(operation: dict[str, Any], max_items: int) -> None:
    """State the maximum of items where a request may have several."""
    for parameter in operation.get("parameters", []):
        if parameter["name"] in COUNTS:
            parameter["schema"]["maximum"] = max_items
    for content in operation.get("requestBody", {}).get("content", {}).values():
        for name, entry in content["schema"].get("properties", {}).items():
            if name in COUNTS:
                entry["maximum"] = max_items
            elif name in ITEMS:
                entry.setdefault("maxItems", max_items)


def _group_codes() -> dict[int, dict[str, str]]:
    """Return the codes of each status, with their descriptions."""
    described = [
        (entry.status, entry.code, inspect.getdoc(error) or "")
        for error, entry in STATUSES.items()
        if error not in V2_ERRORS
    ]
    further = [
        *CODES_BY_STATUS.items(),
        *SERVER_CODES.items(),
        (500, "internal_error"),
        _TOO_MANY_CONNECTIONS,
    ]
    described += [(status, code, _FURTHER_CODES[code]) for status, code in further]
    codes: dict[int, dict[str, str]] = {}
    for status, code, text in sorted(described):
        of_status = codes.setdefault(status, {})
        of_status[code] = f"{of_status[code]} {text}" if code in of_status else text
    return codes


def _describe_error(path: str, status: int, codes: dict[str, str]) -> dict[str, Any]:
    for_openai = path.startswith(EMBEDDINGS)
    name, media_type = ("OpenAIError", JSON) if for_openai else ("Problem", PROBLEM_TYPE)
    examples = {code: {"$ref": f"#/components/examples/{name}.{status}.{code}"} for code in codes}
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {
        "description": "\n".join(f"- `{code}`: {text}" for code, text in codes.items()),
        "content": {media_type: {"schema": schema, "examples": examples}},
    }


def _read_response_examples() -> dict[str, Any]:
    """Return recorded responses by operation ID; `tools/response_examples.py` records them."""
    file = resources.files("service.api").joinpath("examples.json")
    responses = json.loads(file.read_text(encoding="utf-8"))
    return {
        name: {"summary": "Response to the example of the request.", "value": response}
        for name, response in responses.items()
    }


def _build_error_examples(codes: dict[int, dict[str, str]]) -> dict[str, Any]:
    """Return a body for each code, in the format of each protocol."""
    return {
        f"{name}.{status}.{code}": {
            "value": build_body(path, Failure(_REQUEST_ID, status, code, text))[0]
        }
        for name, path in (("Problem", ""), ("OpenAIError", EMBEDDINGS[0]))
        for status, descriptions in codes.items()
        for code, text in descriptions.items()
    }
