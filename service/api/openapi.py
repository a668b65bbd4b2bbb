"""The OpenAPI document: FastAPI's routes and the operations, with every error and header."""

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query
from fastapi.openapi.utils import get_openapi

from service.api.dependencies import Guard, ModelPath, VersionPath
from service.api.errors import CODES_OF_STATUS, TABLE
from service.api.operation import Operation
from service.api.schemas import PROBLEM, gives

_HEADERS = {
    "X-Request-ID": {
        "description": "The client's own, or a new one.",
        "schema": {"type": "string"},
    },
    "Server-Timing": {
        "description": "Milliseconds of decode, queue, inference and encode.",
        "schema": {"type": "string"},
    },
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
_OF_LOOKING_UP = {401, 404, 503}  # what a GET can meet
_EXAMPLE = ("mnist-vae", "3")  # a shipped model and its version; and where the example is another
_EXAMPLE_OF = {"denoise": ("mnist-denoising", "2"), "classify": ("mnist-classifier", "1")}


def document(app: FastAPI) -> dict[str, Any]:
    """The document of an application; made once, then kept."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        schema["components"]["schemas"] |= {"Problem": PROBLEM}
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                _complete(path, method, operation)
        app.openapi_schema = schema
    return app.openapi_schema


def router(prefix: str, operations: Sequence[Operation[Any]], guard: Guard) -> APIRouter:
    """The operations as FastAPI's routes, for the document and for other methods than POST; `endpoint` serves them."""
    routes = APIRouter(tags=["operations"], dependencies=[Depends(guard)])
    for operation in operations:
        routes.add_api_route(
            f"{prefix}/{operation.name}",
            _endpoint(prefix, operation),
            methods=["POST"],
            responses=gives(operation.response, *operation.offered[1:], headers=operation.headers),
            openapi_extra=operation.body,
        )
    return routes


def _endpoint(prefix: str, operation: Operation[Any]) -> Any:
    """A function with the parameters of an operation."""
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
        inspect.Parameter(name, keyword, annotation=kind) for name, kind in annotations.items()
    ]
    endpoint.__name__ = operation.name.replace("-", "_")
    endpoint.__doc__ = operation.handle.__doc__
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return endpoint


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if path.startswith("/v1/"):
        responses.pop("422", None)  # FastAPI's own, which is not what is answered
        responses |= {
            str(status): _problem(status, codes)
            for status, codes in _codes().items()
            if method == "post" or status in _OF_LOOKING_UP
        }
    for response in responses.values():
        response["headers"] = _HEADERS | response.get("headers", {})
    model, version = _EXAMPLE_OF.get(path.rsplit("/", 1)[-1], _EXAMPLE)
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "model":
            parameter["example"] = model
        if parameter["name"] == "version":
            parameter["example"] = version


def _codes() -> dict[int, list[str]]:
    codes: dict[int, list[str]] = {}
    pairs = [(said.status, said.code) for said in TABLE.values()] + [
        *CODES_OF_STATUS.items(),
        (500, "internal_error"),
    ]
    for status, code in sorted(set(pairs)):
        codes.setdefault(status, []).append(code)
    return codes


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
        "headers": _RETRY_AFTER if status in (429, 503) else {},
    }
