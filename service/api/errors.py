"""Errors over HTTP: one table of statuses and codes, one body (RFC 9457)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bundle.errors import (
    DomainError,
    ImageTooLarge,
    InvalidImage,
    InvalidParameter,
    UnsupportedFormat,
)
from service import errors
from service.api.context import get_context
from service.api.security import Forbidden, Unauthorized
from service.errors import InvalidItems, Rejected


class MalformedRequest(DomainError):
    """The body violates its media type."""


class UnsupportedMediaType(DomainError):
    """The media type of the body is unsupported."""


class NotAcceptable(DomainError):
    """The client accepts none of the offered media types."""


class PayloadTooLarge(DomainError):
    """The body has more bytes than the limit."""


class NotControlled(DomainError):
    """Models are not loaded and unloaded by requests."""


class LoadFailed(DomainError):
    """A bundle of the model cannot be loaded; a version that was loaded before still serves."""


@dataclass(frozen=True)
class Status:
    """HTTP status of an error, its code in the body, and its headers."""

    status: int
    code: str
    headers: Mapping[str, str] = field(default_factory=dict)


STATUSES: Mapping[type[DomainError], Status] = {
    MalformedRequest: Status(400, "malformed_request"),
    LoadFailed: Status(400, "load_failed"),
    Unauthorized: Status(401, "unauthorized", headers={"WWW-Authenticate": "Bearer"}),
    Forbidden: Status(403, "forbidden"),
    errors.ModelNotFound: Status(404, "model_not_found"),
    errors.VersionNotFound: Status(404, "version_not_found"),
    errors.OperationNotSupported: Status(404, "operation_not_supported"),
    NotAcceptable: Status(406, "not_acceptable"),
    NotControlled: Status(409, "not_controlled"),
    PayloadTooLarge: Status(413, "payload_too_large"),
    errors.TooManyImages: Status(413, "too_many_images"),
    ImageTooLarge: Status(413, "image_too_large"),
    UnsupportedMediaType: Status(415, "unsupported_media_type"),
    UnsupportedFormat: Status(415, "unsupported_media_type"),
    InvalidImage: Status(422, "invalid_image"),
    errors.InvalidLatents: Status(422, "invalid_latents"),
    InvalidParameter: Status(422, "invalid_parameter"),
    errors.Overloaded: Status(429, "overloaded", headers={"Retry-After": "1"}),
    errors.RateLimited: Status(429, "rate_limited", headers={"Retry-After": "1"}),
    errors.ModelNotReady: Status(503, "model_not_ready", headers={"Retry-After": "10"}),
    errors.ShuttingDown: Status(503, "shutting_down", headers={"Retry-After": "1"}),
    errors.DeviceLost: Status(503, "device_lost", headers={"Retry-After": "10"}),
    errors.DeadlineExceeded: Status(504, "deadline_exceeded"),
}
TITLES = {
    413: "Content Too Large",
    414: "URI Too Long",
    422: "Unprocessable Content",
}  # of RFC 9110, because Python before 3.13 has other titles
V2 = "/v2/"  # paths of the Open Inference Protocol, whose errors have another body
REPOSITORY_ERRORS = (LoadFailed, NotControlled)
SERVER_CODES = {408: "request_timeout", 414: "uri_too_long", 431: "head_too_large"}
CODES_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}


class ErrorResponse(Response):
    """Response to an error; notes its code, and the reason of a rejection, for the metrics."""

    def __init__(
        self,
        body: Mapping[str, Any],
        status: int,
        headers: Mapping[str, str],
        media_type: str,
        code: str,
        rejection: str | None = None,
    ) -> None:
        super().__init__(orjson.dumps(body), status, dict(headers), media_type)
        self.code, self._rejection = code, rejection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = get_context(scope)
        context.error, context.rejection = self.code, self._rejection
        await super().__call__(scope, receive, send)


def build_problem(
    request_id: str,
    status: int,
    code: str,
    detail: str,
    items: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    rejection: str | None = None,
) -> ErrorResponse:
    """Return a response with the body that all errors share."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES.get(status, HTTPStatus(status).phrase),
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    if items:
        body["errors"] = items
    return ErrorResponse(body, status, headers or {}, "application/problem+json", code, rejection)


def install(app: FastAPI) -> None:
    """Add the error handlers to an application."""
    app.add_exception_handler(DomainError, _handle_domain_error)
    app.add_exception_handler(HTTPException, _handle_http_error)


def respond(request_id: str, error: DomainError) -> Response:
    """Return the response to an error; invalid items share the status of the first."""
    items: list[dict[str, Any]] = []
    cause: DomainError = error
    if isinstance(error, InvalidItems):
        items = [
            {"index": index, "code": STATUSES[type(item)].code, "detail": str(item)}
            for index, item in error.errors
        ]
        cause = error.errors[0][1]
    status = STATUSES[type(cause)]
    return build_problem(
        request_id,
        status.status,
        status.code,
        str(error),
        items,
        status.headers,
        _find_rejection(cause),
    )


def _find_rejection(error: DomainError) -> str | None:
    return error.reason if isinstance(error, Rejected) else None


def _build_v2_error(
    status: int, code: str, detail: str, headers: Mapping[str, str], rejection: str | None = None
) -> ErrorResponse:
    """Return a response with the body of the Open Inference Protocol."""
    return ErrorResponse({"error": detail}, status, headers, "application/json", code, rejection)


async def _handle_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)
    if request.url.path.startswith(V2):
        status = STATUSES[type(error)]
        return _build_v2_error(
            status.status, status.code, str(error), status.headers, _find_rejection(error)
        )
    return respond(get_context(request.scope).request_id, error)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES_BY_STATUS.get(error.status_code, "malformed_request")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    if request.url.path.startswith(V2):
        return _build_v2_error(error.status_code, code, detail, error.headers or {})
    return build_problem(
        get_context(request.scope).request_id,
        error.status_code,
        code,
        detail,
        headers=error.headers,
    )
