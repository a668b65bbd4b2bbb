"""A connection keeps its limits; what violates HTTP gets a response or an end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import uvicorn

from service.asgi import wait_until_sent
from service.server.connections import Connections
from service.server.limits import (
    MAX_HEADERS,
    MAX_LINE_BYTES,
    ConnectionLimits,
    Refusal,
    Rendered,
    ServedApp,
)
from service.server.protocol import BoundedProtocol

LIMITS = ConnectionLimits(max_connections=2, head_timeout=10, idle_timeout=75, send_timeout=30)
HEAD = b"POST /echo HTTP/1.1\r\nHost: here\r\n"


@dataclass
class Echo:
    """An application that responds with the body of the request, and counts unsent responses."""

    large: bytes = b""
    free: asyncio.Event = field(default_factory=asyncio.Event)
    unsent: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if scope["path"] == "/wait":
            await self.free.wait()
        body = self.large or body
        self.unsent += 1
        await respond(send, 200, body)
        await wait_until_sent(scope)
        self.unsent -= 1


async def respond(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def only_probes(scope: Any, _: Any, send: Any) -> None:
    await respond(send, 200 if scope["path"] == "/livez" else 503, b"probes only")


def refuse(refusal: Refusal) -> Rendered:
    body = f"{refusal.code}: {refusal.detail}".encode()
    return Rendered([(b"content-length", b"%d" % len(body)), (b"x-request-id", b"1")], body)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Running:
    connections: Connections
    connect: Callable[[], Awaitable[Streams]]

    def pass_time(self, seconds: float) -> None:
        """Check the timeouts as if so many seconds had passed."""
        self.connections.check(asyncio.get_running_loop().time() + seconds)

    async def exchange(self, *parts: bytes) -> bytes:
        """Send the parts, each read before the next, and return what comes until the end."""
        reader, writer = await self.connect()
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write_eof()
        received = await reader.read()
        writer.close()
        return received


@asynccontextmanager
async def serving(app: Any, limits: ConnectionLimits = LIMITS) -> AsyncIterator[Running]:
    connections = Connections(limits)
    config = uvicorn.Config(
        app, timeout_keep_alive=limits.idle_timeout, log_config=None, lifespan="off"
    )
    config.load()
    state = uvicorn.server.ServerState()
    served = ServedApp(app, only_probes, refuse)
    build = partial(BoundedProtocol, config, state, {}, connections=connections, served=served)
    server = await asyncio.get_running_loop().create_server(build, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    yield Running(connections, lambda: asyncio.open_connection(*address))
    for connection in list(state.connections):
        connection.shutdown()
    server.close()


def exchange(*parts: bytes) -> bytes:
    async def run() -> bytes:
        async with serving(Echo()) as running:
            return await asyncio.wait_for(running.exchange(*parts), 60)

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("parts", "status", "detail"),
    [
        ([HEAD + b"a: " + b"x" * MAX_LINE_BYTES + b"\r\n\r\n"], 431, b"a header has over 8192"),
        ([HEAD + b"a: x\r\n" * MAX_HEADERS + b"\r\n"], 431, b"over 128 headers"),
        ([HEAD + b"a: %s\r\n" % (b"x" * 8000) * 5 + b"\r\n"], 431, b"head has over 32768 bytes"),
        ([HEAD, *[b"a" * 9000] * 5], 431, b"head has over 32768 bytes"),
        ([b"GET /?%s HTTP/1.1\r\n" % (b"x" * MAX_LINE_BYTES)], 414, b"target has over 8192"),
        ([b"GET / HTTP/1.1\r\n\r\n"], 400, b"the head has 0 Host headers"),
        ([b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"], 400, b"the head has 2 Host headers"),
        ([b"GET /\r\n\r\n"], 400, b"HTTP/0.9 is not served"),
        ([HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"], 400, b"only chunked"),
        ([b"CONNECT here:1 HTTP/1.1\r\nHost: here\r\n\r\n"], 405, b"CONNECT is not served"),
        ([b"GARBAGE\r\n\r\n"], 400, b"not HTTP/1.1"),
    ],
)
def test_a_head_beyond_the_limits_is_refused(
    parts: list[bytes], status: int, detail: bytes
) -> None:
    head, body = exchange(*parts).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: close" in head
    assert b"x-request-id: 1" in head
    assert detail in body


def test_heads_within_the_limits_are_served_however_they_are_cut() -> None:
    head = HEAD + b"a: %s\r\n" % (b"x" * 8000) * 3 + b"Content-Length: 40000\r\n\r\n"
    request = head + b"y" * 40_000
    for size in (100, 7_000, len(request)):
        parts = [request[start : start + size] for start in range(0, len(request), size)]
        assert exchange(*parts).endswith(b"\r\n\r\n" + b"y" * 40_000)
    last = HEAD + b"Connection: close\r\nContent-Length: 4\r\n\r\nlast"
    pipelined = exchange(request + request + last)
    assert pipelined.count(b"HTTP/1.1 200 OK") == 3
    assert pipelined.endswith(b"last")


@pytest.mark.parametrize("cut", [10, 300, 10_000])
def test_the_body_of_a_request_to_upgrade_is_read(cut: int) -> None:
    request = (
        HEAD
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n"
        + b"Content-Length: 4\r\n\r\nbody"
    )
    assert exchange(request[:cut], request[cut:]).endswith(b"\r\n\r\nbody")


def test_slow_heads_and_silent_connections_end() -> None:
    async def run() -> None:
        async with serving(Echo()) as running:
            reader, writer = await running.connect()
            writer.write(HEAD)
            silent, other = await running.connect()
            while len(running.connections) < 2:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            running.pass_time(9)
            running.pass_time(11)
            assert (await reader.read()).startswith(b"HTTP/1.1 408 Request Timeout")
            assert await silent.read() == b""
            writer.close()
            other.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_client_that_takes_nothing_of_its_response_ends_and_frees_it() -> None:
    async def run() -> None:
        echo = Echo(large=bytes(50 * 2**20))
        async with serving(echo) as running:
            reader, writer = await running.connect()
            writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            while not echo.unsent:
                await asyncio.sleep(0.01)
            running.pass_time(0)
            running.pass_time(29)
            assert echo.unsent == 1
            running.pass_time(61)
            while echo.unsent:
                await asyncio.sleep(0.01)
            writer.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_new_connection_ends_the_one_that_waits_for_longest() -> None:
    async def run() -> None:
        async with serving(Echo()) as running:
            first, *writers = await running.connect()
            second, writer = await running.connect()
            while len(running.connections) < 2:
                await asyncio.sleep(0)
            received = await running.exchange(HEAD + b"Content-Length: 2\r\n\r\nok")
            assert received.endswith(b"ok")
            assert await first.read() == b""
            writer.write(HEAD + b"Content-Length: 2\r\n\r\nok")
            assert (await second.readuntil(b"ok")).endswith(b"ok")
            for each in (*writers, writer):
                each.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_probes_are_served_while_all_connections_are_busy() -> None:
    async def run() -> None:
        echo = Echo()
        async with serving(echo) as running:
            busy = [await running.connect() for _ in range(2)]
            for _, writer in busy:
                writer.write(b"GET /wait HTTP/1.1\r\nHost: here\r\n\r\n")
            while sum(each.busy for each in running.connections) < 2:
                await asyncio.sleep(0)
            probe = await running.exchange(b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n")
            other = await running.exchange(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert (probe[9:12], other[9:12]) == (b"200", b"503")
            echo.free.set()
            for reader, writer in busy:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                writer.close()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_connection_whose_body_ended_after_its_response_is_closed_when_it_idles() -> None:
    async def refuse_early(_: Any, __: Any, send: Any) -> None:
        await respond(send, 429, b"")

    async def post() -> bytes:
        limits = ConnectionLimits(2, head_timeout=10, idle_timeout=1, send_timeout=30)
        async with serving(refuse_early, limits) as running:
            reader, writer = await running.connect()
            writer.write(HEAD + b"Content-Length: 4\r\n\r\nbo")
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(b"dy")
            assert await asyncio.wait_for(reader.read(), 60) == b""  # the other side has closed
            writer.close()
        return head

    assert asyncio.run(post()).startswith(b"HTTP/1.1 429 ")


def test_the_rest_of_a_body_that_trickles_after_its_response_ends_the_connection() -> None:
    async def refuse_early(_: Any, __: Any, send: Any) -> None:
        await respond(send, 429, b"")

    async def run() -> bytes:
        async with serving(refuse_early) as running:
            reader, writer = await running.connect()
            writer.write(HEAD + b"Content-Length: 4\r\n\r\nbo")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"d")
            await asyncio.sleep(0.05)
            running.pass_time(11)
            received = await reader.read()
            writer.close()
        return received

    assert asyncio.run(asyncio.wait_for(run(), 60)) == b""
