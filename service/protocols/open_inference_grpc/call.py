"""A call of gRPC as a request of ASGI: its message is the body, its metadata are the headers."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import grpc
from grpc import aio
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Scope

from service.errors import DeadlineExceeded, Overloaded

MAX_READS = 32  # messages that are received at the same time
SLOW_SECONDS = 1.0  # after which a message ends if other calls wait to be read
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

    async def read(self, context: Any) -> Any:
        """Return the message of a call, or EOF.

        Raises DeadlineExceeded if it is late; Overloaded if it is slow, and all slots are taken.
        """
        async with self._slots:
            read = asyncio.ensure_future(context.read())
            seconds = 0.0
            try:
                while not (await asyncio.wait([read], timeout=SLOW_SECONDS))[0]:
                    seconds += SLOW_SECONDS
                    self._check(seconds)
                return read.result()
            finally:
                read.cancel()

    def _check(self, seconds: float) -> None:
        if self._slots.locked():
            raise Overloaded("too many messages are received; send this one again", "bytes")
        if seconds >= self._timeout:
            raise DeadlineExceeded(f"the message was not complete after {self._timeout:g} s")


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
            await self._context.abort(_find_code(self._status), _read_detail(self._error))

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
            if message is not aio.EOF:
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
            await self._context.write(event["body"])
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


def _find_code(status: int) -> grpc.StatusCode:
    other = grpc.StatusCode.INTERNAL if status >= 500 else grpc.StatusCode.INVALID_ARGUMENT
    return STATUS_CODES.get(status, other)


def _read_detail(body: bytes) -> str:
    document = json.loads(body)
    return str(document["error"])[:MAX_DETAIL]
