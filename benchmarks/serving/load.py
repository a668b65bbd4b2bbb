"""Load generator: each connection sends a request as soon as it has the last response."""

import asyncio
import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import numpy as np
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """A POST, which is sent repeatedly."""

    path: str
    media_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, port: int) -> bytes:
        """The bytes of the request to a server on this machine."""
        head = [
            f"POST {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Content-Type: {self.media_type}",
        ]
        head += [f"{name}: {value}" for name, value in self.headers]
        return (
            "\r\n".join([*head, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body
        )


@dataclass
class Responses:
    """Responses to a load."""

    latencies: list[float] = field(default_factory=list)  # seconds, of status 200
    statuses: Counter[int] = field(default_factory=Counter)  # 0: disconnected
    seconds: float = 0.0  # of the whole load

    @property
    def rate(self) -> float:
        """Responses with status 200 a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Percentile of the latencies, in seconds."""
        return float(np.percentile(self.latencies, percent))


class _Connection(asyncio.Protocol):
    def __init__(self, requests: Iterator[bytes], responses: Responses, until: float) -> None:
        self._requests, self._responses, self._until = requests, responses, until
        self._received = b""
        # Bytes of the response: None before its length is known, -1 if it is chunked.
        self._length: int | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._length is None and (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, end + 2)
            self._length = end + 4 + int(length[1]) if length else -1
        if self._length is None or not self._is_complete(self._length):
            return
        now, status = time.perf_counter(), int(self._received[9:12])
        self._responses.statuses[status] += 1
        if status == 200:
            self._responses.latencies.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self._responses.statuses[0] += 1
        if not self.done.done():
            self.done.set_result(None)

    def _is_complete(self, length: int) -> bool:
        if length < 0:
            return self._received.endswith(b"0\r\n\r\n")
        return len(self._received) >= length

    def _send(self) -> None:
        self._received, self._length, self._sent = b"", None, time.perf_counter()
        self._transport.write(next(self._requests))


def run(request: Request, port: int, connections: int, seconds: float) -> Responses:
    """Load a server on this machine with one request."""
    return run_mix([itertools.repeat(request.encode(port))] * connections, port, seconds)


def run_mix(requests: Sequence[Iterator[bytes]], port: int, seconds: float) -> Responses:
    """Load a server on this machine; each connection sends its own requests."""

    async def load() -> Responses:
        loop, responses = asyncio.get_running_loop(), Responses()
        began = time.perf_counter()
        made = [
            await loop.create_connection(
                partial(_Connection, each, responses, began + seconds), "127.0.0.1", port
            )
            for each in requests
        ]
        await asyncio.wait([connection.done for _, connection in made], timeout=seconds + 60)
        responses.seconds = time.perf_counter() - began
        return responses

    return uvloop.run(load())


def send(request: Request, port: int) -> bytes:
    """Send a request once, and return the body of the response.

    Raises OSError if there is no response, and ValueError if its status is not 200.
    """
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": request.media_type, **dict(request.headers)}
    try:
        connection.request("POST", request.path, request.body, headers)
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"{response.status}: {body[:300]!r}")
    return body
