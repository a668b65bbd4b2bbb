"""Plain ASGI middleware."""

import asyncio
import logging
import random
import re
import time

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import errors
from service.api.errors import answer, problem
from service.operations import Timings
from service.telemetry.metrics import OTHER, Metrics

logger = logging.getLogger(__name__)
access = logging.getLogger("service.access")

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Exchange:
    """What every request gets, in one layer for speed: an identity, the times of its parts, a count, a line in the log.

    The identity is the client's own `X-Request-ID` if it is sane. The answer says both, in `X-Request-ID` and
    `Server-Timing`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        request_id = given.decode() if _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"
        timings, status = Timings(), 499  # where the client left before an answer began
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, timings=timings, labels=OTHER)

        async def tell(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                told = (b"x-request-id", request_id.encode()), (b"server-timing", str(timings).encode())
                message["headers"] = [*message["headers"], *told]
            await send(message)

        try:
            await self.app(scope, receive, tell)
        finally:
            seconds = time.monotonic() - timings.started
            self.metrics.request(state["labels"], status, seconds)
            fields = {
                "method": scope["method"],
                "path": scope["raw_path"].decode("ascii", "replace"),  # still quoted: no line breaks
                "status": status,
                "milliseconds": round(seconds * 1000, 2),
                "request_id": request_id,
            }
            access.info("%(method)s %(path)s %(status)d %(milliseconds)s ms %(request_id)s", fields, extra=fields)


class HeadAsGet:
    """Answers HEAD as GET; the server leaves the body out (RFC 9110, section 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive, send)


class InternalErrors:
    """Answers 500 for whatever was not foreseen; the traceback goes to the log and nowhere else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except ClientDisconnect:
            logger.info("the client left before its request %s was answered", scope["state"]["request_id"])
        except asyncio.CancelledError:
            if not started:  # the server ends, and this request took longer than it can wait
                error = errors.ShuttingDown("the service shut down before the request was done")
                await answer(scope["state"]["request_id"], error)(scope, receive, send)
            raise
        except Exception:
            request_id = scope["state"]["request_id"]
            logger.exception("unforeseen error in request %s", request_id)
            if started:
                raise
            detail = "an internal error; the log holds it under this request_id"
            await problem(request_id, 500, "internal_error", detail)(scope, receive, send)
