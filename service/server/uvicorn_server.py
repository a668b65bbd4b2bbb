"""Server of the service: uvicorn in one process, with `BoundedProtocol` and a graceful end."""

import asyncio
import functools
import ipaddress
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, Protocol

import uvicorn

from service.server.connections import Connections
from service.server.limits import ConnectionLimits, ServedApp
from service.server.protocol import BoundedProtocol

STOP_SECONDS = 0.1  # between two looks at a companion that stops
BEAT_SECONDS = 5.0  # between two calls of `on_beat`
REPEAT_SECONDS = 1.0  # within which SIGTERM is the same: systemd sends it, and then the supervisor
LINGER_SECONDS = 0.3  # in which requests that were on their way at the end are still read


@dataclass(frozen=True)
class Shutdown:
    """Seconds after a signal: new requests are served for `delay`, then finished for `timeout`.

    `on_signal` announces the end, so that no more requests are sent here. The server ends without
    a signal, and without the delay, once `must_end` returns True.
    """

    delay: float
    timeout: int
    on_signal: Callable[[], None]
    must_end: Callable[[], bool]


class Tls(NamedTuple):
    """Files of the certificate chain and of its private key; without a certificate, no TLS."""

    certificate: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """Raise OSError if the files are missing, or are no certificate with its key."""
        if self.certificate:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)


class Companion(Protocol):
    """A server of another protocol, on a port of its own and on the same event loop."""

    async def start(self) -> None:
        """Listen. Raises InvalidParameter if the address cannot be listened on."""

    async def stop(self, seconds: float) -> None:
        """Admit nothing new, and end what runs after so many seconds."""


class Server(uvicorn.Server):
    """A server that serves on after SIGTERM, until others have noticed.

    Responses after the signal end their connection. SIGINT or a later signal skips the wait.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        connections: Connections,
        shutdown: Shutdown,
        on_ready: Callable[[], None],
        on_hangup: Callable[[], None],
        on_beat: Callable[[], None],
        companions: Sequence[Companion] = (),
    ) -> None:
        super().__init__(config)
        self._companions = companions
        self._connections, self._shutdown = connections, shutdown
        self._on_ready, self._on_hangup, self._on_beat = on_ready, on_hangup, on_beat
        self._end = float("inf")  # of the delay, on the clock of `time.monotonic`

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        for companion in self._companions:
            await companion.start()
        await super().startup(sockets)
        if self.started:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            self._on_ready()
            self._beat(loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._on_beat()
        loop.call_later(BEAT_SECONDS, self._beat, loop)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        first = self._end == float("inf")
        repeatable = self._end - self._shutdown.delay + REPEAT_SECONDS
        if not first and sig == signal.SIGTERM and time.monotonic() < repeatable:
            return
        if not first or sig == signal.SIGINT or not self._shutdown.delay:
            super().handle_exit(sig, frame)
        else:
            self._captured_signals.append(sig)
        if first:
            self._announce_end()

    def _announce_end(self) -> None:
        self._end = time.monotonic() + self._shutdown.delay
        close = (b"connection", b"close")
        self.config.encoded_headers.append(close)  # from which the default headers are renewed
        self.server_state.default_headers = [*self.server_state.default_headers, close]
        self._shutdown.on_signal()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._connections.check(asyncio.get_running_loop().time())
        if time.monotonic() >= self._end or self._shutdown.must_end():
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        if not self.force_exit:
            await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)

    async def _wait_tasks_to_complete(self) -> None:
        seconds = max(self._shutdown.timeout - LINGER_SECONDS, 0.0)
        stops = [asyncio.ensure_future(each.stop(seconds)) for each in self._companions]
        await super()._wait_tasks_to_complete()
        while not all(stop.done() for stop in stops):
            if self.force_exit:
                await asyncio.gather(*(companion.stop(0) for companion in self._companions))
            await asyncio.sleep(STOP_SECONDS)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that is bound, but does not listen yet.

    With `shared`, other such sockets can have the address too. Raises OSError if it is invalid or
    taken.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return _bind(family, address, shared)


def share(bound: socket.socket) -> socket.socket:
    """Close a bound socket, and return one that keeps its address for sockets that share it."""
    host, port = bound.getsockname()[:2]
    bound.close()
    keeper = bind(host, port, shared=True)
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # which would let others bind too
    return keeper


def bind_unix(path: Path) -> socket.socket:
    """Return a Unix socket that is bound at a path, in place of one that nobody listens on.

    Raises OSError if the path is taken or cannot be written.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if path.is_socket() and probe.connect_ex(str(path)):
            path.unlink()
    return _bind(socket.AF_UNIX, str(path))


def _bind(family: int, address: Any, shared: bool = False) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


def is_public(listener: socket.socket) -> bool:
    """Return True if other machines can reach a bound socket."""
    if listener.family == socket.AF_UNIX:
        return False
    return is_public_host(listener.getsockname()[0])


def is_public_host(host: str) -> bool:
    """Return True if other machines can reach a host. Raises OSError if it has no address."""
    address = socket.getaddrinfo(host, None)[0][4][0]
    return not ipaddress.ip_address(address).is_loopback


def describe(listener: socket.socket, tls: Tls) -> str:
    """Return the URL of a bound socket."""
    if listener.family == socket.AF_UNIX:
        return f"unix:{listener.getsockname()}"
    host, port = listener.getsockname()[:2]
    scheme = "https" if tls.certificate else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def serve(
    served: ServedApp,
    listener: socket.socket,
    limits: ConnectionLimits,
    shutdown: Shutdown,
    on_ready: Callable[[], None],
    on_hangup: Callable[[], None],
    on_beat: Callable[[], None],
    tls: Tls,
    companions: Sequence[Companion] = (),
) -> int:
    """Serve until a signal, and return the exit status.

    `on_hangup` is called on the event loop after SIGHUP, and `on_beat` every few seconds. Raises
    InvalidParameter if a companion cannot listen.
    """
    connections = Connections(limits)
    config = uvicorn.Config(
        served.app,
        http=functools.partial(  # type: ignore[arg-type]
            BoundedProtocol, connections=connections, served=served
        ),
        ws="none",
        ssl_certfile=tls.certificate,
        ssl_keyfile=tls.key,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # because nothing uses the address of the client
        timeout_keep_alive=limits.idle_timeout,
        timeout_graceful_shutdown=shutdown.timeout,
    )
    server = Server(config, connections, shutdown, on_ready, on_hangup, on_beat, companions)
    try:
        server.run([listener])
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0 if server.started else 1
