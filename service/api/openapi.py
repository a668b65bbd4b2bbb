"""OpenAPI document: FastAPI's routes and the operations, with every error and header."""

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.openapi.utils import get_openapi

from service.api.dependencies import Guard, ModelPath, VersionPath
from service.api.error_bodies import EMBEDDINGS, PROBLEM_TYPE
from service.api.errors import CODES_BY_STATUS, SERVER_CODES, STATUSES, V2_ERRORS
from service.api.media_types import JSON
from service.api.operation import Operation
from service.api.schemas import OPENAI_ERROR, PROBLEM, describe_responses

_HEADERS = {
    "X-Request-ID": {
        "description": "The ID of the request: from the client, or generated.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds of decode, queue, inference and encode.",
        "schema": {"type": "string"},
    },
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
ITEMS, COUNTS = ("images", "latents"), ("count", "steps")
_GET_STATUSES = {401, 403, 404, 503}  # errors of a GET
_EXAMPLE = ("mnist-vae", "4")  # a shipped model and its version
_OTHER_EXAMPLES = {"denoise": ("mnist-denoising", "3"), "classify": ("mnist-classifier", "2")}


def build_document(app: FastAPI, max_items: int) -> dict[str, Any]:
    """Return the document of an application, built once and then cached.

    `max_items` is the maximum of images, of latents and of samples in a request.
    """
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["components"]["schemas"] |= {"Problem": PROBLEM, "OpenAIError": OPENAI_ERROR}
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                _complete(path, method, operation)
                _bound(operation, max_items)
        app.openapi_schema = schema
    return app.openapi_schema


def build_router(prefix: str, operations: Sequence[Operation[Any]], guard: Guard) -> APIRouter:
    """Return the operations as FastAPI routes, for the document and for methods other than POST.

    `endpoint` serves the operations themselves.
    """
    routes = APIRouter(tags=["operations"], dependencies=[Depends(guard)])
    for operation in operations:
        routes.add_api_route(
            f"{prefix}/{operation.name}",
            _build_endpoint(prefix, operation),
            methods=["POST"],
            responses=describe_responses(
                operation.response, *operation.offered[1:], headers=operation.headers
            ),
            openapi_extra=operation.body,
        )
    return routes


def _build_endpoint(prefix: str, operation: Operation[Any]) -> Any:
    """Return a function with the parameters and the docstring of an operation."""
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
    endpoint.__doc__ = operation.handle.__doc__
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return endpoint


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]  # FastAPI's own body, which the service never sends
    if path.startswith(("/v1/", *EMBEDDINGS)) or path == "/metrics":
        responses |= {
            str(status): _describe_error(path, status, codes)
            for status, codes in _group_codes().items()
            if method == "post" or status in _GET_STATUSES
        }
    for response in responses.values():
        response["headers"] = _HEADERS | response.get("headers", {})
    model, version = _OTHER_EXAMPLES.get(path.rsplit("/", 1)[-1], _EXAMPLE)
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "model":
            parameter["example"] = model
        if parameter["name"] == "version":
            parameter["example"] = version


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


def _group_codes() -> dict[int, list[str]]:
    codes: dict[int, list[str]] = {}
    pairs = [
        *(
            (entry.status, entry.code)
            for error, entry in STATUSES.items()
            if error not in V2_ERRORS
        ),
        *CODES_BY_STATUS.items(),
        *SERVER_CODES.items(),
        (500, "internal_error"),
    ]
    for status, code in sorted(set(pairs)):
        codes.setdefault(status, []).append(code)
    return codes


def _describe_error(path: str, status: int, codes: list[str]) -> dict[str, Any]:
    for_openai = path.startswith(EMBEDDINGS)
    name, media_type = ("OpenAIError", JSON) if for_openai else ("Problem", PROBLEM_TYPE)
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "content": {media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}},
        "headers": _RETRY_AFTER if status in (429, 503) else {},
    }
