"""A call of gRPC as a request of ASGI: its message is the body, its metadata are the headers."""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any

import grpc
from grpc import aio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Scope

from service.api.errors import MalformedRequest
from service.errors import DeadlineExceeded, Overloaded

logger = logging.getLogger(__name__)

MAX_READS = 32  # messages that are received at the same time
SLOW_SECONDS = 10.0  # after which a message ends if another waits to be received
CHECK_SECONDS = 1.0
STATUS_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
SHOWN_HEADERS = (b"x-request-id", b"server-timing", b"x-bundle", b"retry-after")
MAX_DETAIL = 1000  # characters, because clients take 8 KiB of metadata


class Reads:
    """Slots to receive messages, because each may take the bytes of the largest message."""

    def __init__(self, timeout: float, maximum: int = MAX_READS) -> None:
        """Receive so many messages at a time, each for at most `timeout` seconds."""
        self._slots, self._timeout = asyncio.Semaphore(maximum), timeout
        self._waiting: set[object] = set()  # calls for which none has been ended yet
        self._reading: list[object] = []  # the longest first

    async def read(self, context: Any) -> bytes | None:
        """Return the next message of a call; None if there is none, or it is too large.

        Raises DeadlineExceeded if it is late. Raises Overloaded if it is slow, another call waits,
        and none has been received for longer.
        """
        self._waiting.add(context)
        try:
            await self._slots.acquire()
        finally:
            self._waiting.discard(context)
        read = asyncio.ensure_future(context.read())
        self._reading.append(read)
        try:
            message = await self._wait(read)
        finally:
            read.cancel()
            self._reading.remove(read)
            self._slots.release()
        return message if isinstance(message, bytes) else None  # `aio.EOF`

    async def _wait(self, read: asyncio.Future[Any]) -> Any:
        clock = asyncio.get_running_loop().time
        began = clock()
        while not (await asyncio.wait([read], timeout=CHECK_SECONDS))[0]:
            seconds = clock() - began
            if seconds >= self._timeout:
                raise DeadlineExceeded(f"the message was not complete after {self._timeout:g} s")
            if self._waiting and seconds >= SLOW_SECONDS and self._reading[0] is read:
                self._waiting.pop()
                raise Overloaded("other messages wait for this one; send it again", "bytes")
        return read.result()


class Call:
    """A call, which ends without a response if its client leaves."""

    def __init__(self, path: str, context: Any, reads: Reads) -> None:
        self._path, self._context, self._reads = path, context, reads
        self._asked = False  # for the message
        self._left = asyncio.Event()
        self._status = 0
        self._headers: Mapping[bytes, bytes] = {}
        self._error = b""

    async def run(self, app: ASGIApp) -> None:
        """Respond with an application."""
        task = asyncio.ensure_future(app(self._build_scope(), self._receive, self._send))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            self._left.set()  # by which the application drops what waits
            if self._status:
                task.cancel()
            await asyncio.wait([task])
            raise
        self._context.set_trailing_metadata(self._list_metadata())
        if self._status >= 400:
            await _abort(self._context, self._status, _read_detail(self._error))

    def _build_scope(self) -> Scope:
        metadata = self._context.invocation_metadata()
        headers = [(key.encode(), value.encode()) for key, value in metadata if key[-4:] != "-bin"]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "2",
            "method": "POST",
            "scheme": "http",
            "path": self._path,
            "raw_path": self._path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": None,
            "server": None,
        }

    async def _receive(self) -> Any:
        if not self._asked:
            self._asked = True
            message = await self._reads.read(self._context)
            if message is None:
                raise MalformedRequest("the message is missing, or has over AE_MAX_BODY_BYTES")
            return {"type": "http.request", "body": message}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: Any) -> None:
        if self._left.is_set():
            raise ClientDisconnect
        if event["type"] == "http.response.start":
            self._status, self._headers = event["status"], dict(event["headers"])
        elif self._status < 400:
            # It waits until the client takes it; the age of a connection bounds the wait.
            try:
                await self._context.write(event["body"])
            except aio.BaseError:
                raise ClientDisconnect from None
        else:
            self._error += event["body"]

    def _list_metadata(self) -> list[tuple[str, str]]:
        shown = [
            (name.decode(), self._headers[name].decode("latin-1"))
            for name in SHOWN_HEADERS
            if name in self._headers
        ]
        if seconds := self._headers.get(b"retry-after"):
            shown.append(("grpc-retry-pushback-ms", f"{seconds.decode()}000"))
        return shown


async def _abort(context: Any, status: int, detail: str) -> None:
    """End a call with an error, unless its client has just left."""
    try:
        await context.abort(_find_code(status), detail)
    except aio.InternalError:
        logger.debug("a client left before its error: %s", detail)


def _find_code(status: int) -> grpc.StatusCode:
    other = grpc.StatusCode.INTERNAL if status >= 500 else grpc.StatusCode.INVALID_ARGUMENT
    return STATUS_CODES.get(status, other)


def _read_detail(body: bytes) -> str:
    document = json.loads(body)
    return str(document["error"])[:MAX_DETAIL]
