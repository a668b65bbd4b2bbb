"""Middleware of the application, in plain ASGI."""

import asyncio
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.api.context import RequestContext, get_context
from service.api.errors import build_error, respond
from service.telemetry.logging import AccessLog
from service.telemetry.metrics import OTHER_LABELS, Metrics

logger = logging.getLogger(__name__)

# Record the trace of a request: its context, its scope and the status of the response.
Trace = Callable[[RequestContext, Scope, int], None]

_VALID_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class RequestLifecycle:
    """Adds request ID, Server-Timing, metrics and access log, in one middleware for speed.

    The ID is the client's own `X-Request-ID` if it is valid, else a random one.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, access_log: AccessLog, trace: Trace | None = None
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.access_log = access_log
        self.trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        context = RequestContext(_choose_request_id(scope))
        context.attach(scope)

        def send_with_headers(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                own = [
                    (b"x-request-id", context.request_id.encode()),
                    (b"server-timing", str(context.timings).encode()),
                ]
                if context.bundle:
                    own.append((b"x-bundle", context.bundle.encode()))
                message["headers"] = [*message["headers"], *own]
            return send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self._report(scope, context)

    def _report(self, scope: Scope, context: RequestContext) -> None:
        """Count, log and trace a request that has ended."""
        seconds = time.monotonic() - context.timings.started
        self.metrics.count_request(context.labels, context.status, seconds)
        if context.error:
            self.metrics.count_error(context.error, context.rejection)
        elif context.labels is not OTHER_LABELS:
            self.metrics.count_phases(context.timings.seconds())
        if self.trace and context.labels is not OTHER_LABELS:
            self.trace(context, scope, context.status)
        # The raw path is quoted: it holds no line breaks.
        path = scope["raw_path"].decode("ascii", "replace")
        self.access_log.write(scope["method"], path, context.status, seconds, context.request_id)


def create_request_id() -> str:
    """Return a random request ID."""
    return f"{random.getrandbits(128):032x}"


def _choose_request_id(scope: Scope) -> str:
    own = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return own.decode() if _VALID_ID.fullmatch(own) else create_request_id()


class InternalErrors:
    """Responds with 500 to unforeseen errors; only the log holds the traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            logger.info(
                "the client disconnected before the response to request %s",
                get_context(scope).request_id,
            )
        except asyncio.CancelledError:
            if not get_context(scope).response_started:  # the shutdown timeout is over
                error = errors.ShuttingDown(
                    "the service shut down before the request was done; send it again"
                )
                await respond(scope, error)(scope, receive, send)
            raise
        except Exception:
            context = get_context(scope)
            logger.exception("unforeseen error in request %s", context.request_id)
            if context.response_started:
                raise
            detail = "an internal error; the log holds it under this request_id"
            await build_error(scope, 500, "internal_error", detail)(scope, receive, send)


class EncodedSlashes:
    """Responds with 404 to a path with an encoded slash.

    Such a slash is part of a name and no separator (RFC 3986, section 2.2).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and b"%2f" in scope["raw_path"].lower():
            path = scope["raw_path"].decode("ascii", "replace")
            detail = f"{scope['method']} {path}: no name holds a slash"
            return build_error(scope, 404, "not_found", detail)(scope, receive, send)
        return self.app(scope, receive, send)


class ProbesOnly:
    """Responds with 503 to all but probes, for connections beyond the maximum."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in ("/livez", "/readyz"):
            await self.app(scope, receive, send)
            return
        detail = "too many connections are open; retry on one that is"
        headers = {"Connection": "close", "Retry-After": "1"}
        response = build_error(
            scope, 503, "overloaded", detail, headers=headers, rejection="connections"
        )
        await response(scope, receive, send)


class HeadAsGet:
    """Handles HEAD as GET; the server omits the body (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)
