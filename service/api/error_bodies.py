"""Bodies of errors: RFC 9457, and those of the other protocols by their paths."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from service.api.media_types import JSON

PROBLEM_TYPE = "application/problem+json"
V2 = "/v2"  # of the Open Inference Protocol
V2_CALLS = "/inference.GRPCInferenceService/"  # over gRPC
EMBEDDINGS = ("/v1/embeddings", "/openai/")  # of OpenAI's clients
TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}  # of RFC 9110, because Python before 3.13 has other titles


class Failure(NamedTuple):
    """The content of an error; `items` are the errors of single images or latents."""

    request_id: str
    status: int
    code: str
    detail: str
    items: Sequence[Mapping[str, Any]] = ()


def build_body(path: str, failure: Failure) -> tuple[dict[str, Any], str]:
    """Return the body of an error in the protocol of a path, and its media type."""
    if path.startswith(EMBEDDINGS):
        return _build_openai_body(failure), JSON
    if path == V2 or path.startswith((f"{V2}/", V2_CALLS)):
        return {"error": failure.detail}, JSON
    return _build_problem_body(failure), PROBLEM_TYPE


def _build_problem_body(failure: Failure) -> dict[str, Any]:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(failure.status, HTTPStatus(failure.status).phrase),
        "status": failure.status,
        "detail": failure.detail,
        "code": failure.code,
        "request_id": failure.request_id,
    }
    if failure.items:
        body["errors"] = failure.items
    return body


def _build_openai_body(failure: Failure) -> dict[str, Any]:
    if failure.status == HTTPStatus.TOO_MANY_REQUESTS:
        kind = "rate_limit_error"
    else:
        kind = "server_error" if failure.status >= 500 else "invalid_request_error"
    error = {"message": failure.detail, "type": kind, "param": None, "code": failure.code}
    return {"error": error}
