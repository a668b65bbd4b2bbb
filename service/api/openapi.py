"""The OpenAPI document: what FastAPI makes of the routes, with every error and header of the contract."""

from typing import Any

from fastapi import FastAPI

from service.api.errors import CODES_OF_STATUS, TABLE
from service.api.schemas import PROBLEM

_HEADERS = {
    "X-Request-ID": {"description": "The client's own, or a new one.", "schema": {"type": "string"}},
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
    """The whole document; made once, then kept."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        schema["components"]["schemas"] |= {"Problem": PROBLEM}
        for path, item in schema["paths"].items():
            for method, operation in item.items():
                _complete(path, method, operation)
    assert app.openapi_schema is not None  # FastAPI has just set it
    return app.openapi_schema


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
    pairs = [(said.status, said.code) for said in TABLE.values()] + [*CODES_OF_STATUS.items(), (500, "internal_error")]
    for status, code in sorted(set(pairs)):
        codes.setdefault(status, []).append(code)
    return codes


def _problem(status: int, codes: list[str]) -> dict[str, Any]:
    return {
        "description": " or ".join(f"`{code}`" for code in codes),
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        "headers": _RETRY_AFTER if status in (429, 503) else {},
    }
