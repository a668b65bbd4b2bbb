"""Errors over HTTP: one table of statuses and codes, and the responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from service.api.error_bodies import Failure, build_body
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


class NotServed(DomainError):
    """A part of another protocol that this service does not have."""


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
    errors.ExamplesNotFound: Status(404, "examples_not_found"),
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
    NotServed: Status(501, "not_served"),
    errors.ModelNotReady: Status(503, "model_not_ready", headers={"Retry-After": "10"}),
    errors.ShuttingDown: Status(503, "shutting_down", headers={"Retry-After": "1"}),
    errors.DeviceLost: Status(503, "device_lost", headers={"Retry-After": "10"}),
    errors.DeadlineExceeded: Status(504, "deadline_exceeded"),
}
V2_ERRORS = (LoadFailed, NotControlled, NotServed)  # of no other paths
SERVER_CODES = {408: "request_timeout", 414: "uri_too_long", 431: "head_too_large"}
CODES_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}


class ErrorResponse(Response):
    """Response to an error; notes its code, and the reason of a rejection, for the metrics."""

    def __init__(
        self,
        path: str,
        failure: Failure,
        headers: Mapping[str, str] | None = None,
        rejection: str | None = None,
    ) -> None:
        """Build the body in the protocol of the path."""
        body, media_type = build_body(path, failure)
        super().__init__(orjson.dumps(body), failure.status, dict(headers or {}), media_type)
        self._code, self._rejection = failure.code, rejection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = get_context(scope)
        context.error, context.rejection = self._code, self._rejection
        await super().__call__(scope, receive, send)


def install(app: FastAPI) -> None:
    """Add the error handlers to an application."""
    app.add_exception_handler(DomainError, _handle_domain_error)
    app.add_exception_handler(HTTPException, _handle_http_error)


def respond(scope: Scope, error: DomainError) -> ErrorResponse:
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
    rejection = cause.reason if isinstance(cause, Rejected) else None
    return build_error(
        scope, status.status, status.code, str(error), items, status.headers, rejection
    )


def build_error(
    scope: Scope,
    status: int,
    code: str,
    detail: str,
    items: Sequence[Mapping[str, Any]] = (),
    headers: Mapping[str, str] | None = None,
    rejection: str | None = None,
) -> ErrorResponse:
    """Return the response to a request, in the protocol of its path."""
    failure = Failure(get_context(scope).request_id, status, code, detail, items)
    return ErrorResponse(scope["path"], failure, headers, rejection)


async def _handle_domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, DomainError)
    return respond(request.scope, error)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES_BY_STATUS.get(error.status_code, "malformed_request")
    detail = f"{request.method} {request.url.path}: {error.detail}"
    return build_error(request.scope, error.status_code, code, detail, headers=error.headers)
