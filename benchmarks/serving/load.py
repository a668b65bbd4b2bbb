"""A load generator: some connections, each of which sends a request as soon as it has the answer to the last."""

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import numpy as np
import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """A POST, always the same."""

    path: str
    kind: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def encoded(self, port: int) -> bytes:
        head = [
            f"POST {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Content-Type: {self.kind}",
        ]
        head += [f"{name}: {value}" for name, value in self.headers]
        return (
            "\r\n".join([*head, f"Content-Length: {len(self.body)}", "", ""]).encode() + self.body
        )


@dataclass
class Answers:
    """Seconds that each answer with status 200 took, how many had which status, and seconds of it all."""

    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers with status 200 a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Seconds."""
        return float(np.percentile(self.latencies, percent))


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, answers: Answers, until: float) -> None:
        self._request, self._answers, self._until = request, answers, until
        self._received = b""
        self._whole: int | None = None  # bytes of the answer; None before its length is known
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._whole is None and (end := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, end + 2)
            self._whole = end + 4 + int(length[1]) if length else -1
        if self._whole is None or not self._is_whole(self._whole):
            return
        now, status = time.perf_counter(), int(self._received[9:12])
        self._answers.statuses[status] += 1
        if status == 200:
            self._answers.latencies.append(now - self._sent)
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self._answers.statuses[0] += 1  # cut off
        if not self.done.done():
            self.done.set_result(None)

    def _is_whole(self, length: int) -> bool:
        return (
            self._received.endswith(b"0\r\n\r\n") if length < 0 else len(self._received) >= length
        )

    def _send(self) -> None:
        self._received, self._whole, self._sent = b"", None, time.perf_counter()
        self._transport.write(self._request)


def run(request: Request, port: int, connections: int, seconds: float) -> Answers:
    """Load a server on this machine."""

    async def load() -> Answers:
        loop, answers, encoded = asyncio.get_running_loop(), Answers(), request.encoded(port)
        began = time.perf_counter()
        made = [
            await loop.create_connection(
                lambda: _Connection(encoded, answers, began + seconds), "127.0.0.1", port
            )
            for _ in range(connections)
        ]
        await asyncio.wait([connection.done for _, connection in made], timeout=seconds + 60)
        answers.seconds = time.perf_counter() - began
        return answers

    return uvloop.run(load())


def ask(request: Request, port: int) -> bytes:
    """The body of one answer. Raises OSError where there is none, ValueError where its status is not 200."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"Content-Type": request.kind, **dict(request.headers)}
    try:
        connection.request("POST", request.path, request.body, headers)
        answer = connection.getresponse()
        body = answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    if answer.status != 200:
        raise ValueError(f"{answer.status}: {body[:300]!r}")
    return body
