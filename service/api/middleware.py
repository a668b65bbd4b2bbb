"""Plain ASGI middleware, one concern each."""

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.operations import Timings

access = logging.getLogger("service.access")

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Gives every request an identity, the client's own if it is sane, and says it in `X-Request-ID`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        await self.app(scope, receive, tell)


class ServerTiming:
    """Says in `Server-Timing` how many milliseconds decoding, waiting, inference and encoding took."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        timings = scope["state"]["timings"] = Timings()

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                parts = ("decode", "queue", "inference", "encode")
                durations = (f"{part};dur={getattr(timings, part) * 1000:.3f}" for part in parts)
                MutableHeaders(scope=message)["Server-Timing"] = ", ".join(durations)
            await send(message)

        await self.app(scope, receive, tell)


class AccessLog:
    """One log line a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 499  # where the client left before an answer began

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            fields = {
                "method": scope["method"],
                "path": scope["raw_path"].decode("ascii", "replace"),  # still quoted: no line breaks
                "status": status,
                "milliseconds": round((time.monotonic() - began) * 1000, 2),
                "request_id": scope["state"]["request_id"],
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
