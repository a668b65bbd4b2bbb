"""Limits of heads and connections, and the responses of the protocol itself."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_HEAD_BYTES = 32 * 1024
MAX_LINE_BYTES = 8 * 1024  # of the target or of one header
MAX_HEADERS = 128
PROBE_CONNECTIONS = 16  # beyond the maximum, for probes only


class Refusal(Exception):
    """A request that violates HTTP or a limit: its status, and the code and detail of its body."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail


class Rendered(NamedTuple):
    """The headers and the body of a response."""

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of connections, in seconds but for their number.

    `head_timeout` is the time of a head, and of the rest of a body after its response.
    `send_timeout` is the time in which a client must take a byte of its response.
    """

    max_connections: int
    head_timeout: float
    idle_timeout: int
    send_timeout: float


@dataclass(frozen=True)
class ServedApp:
    """The application, the one for connections beyond the maximum, and the render of refusals."""

    app: Callable[..., Awaitable[None]]
    probes_only: Callable[..., Awaitable[None]]
    refuse: Callable[[Refusal], Rendered]


def refuse_header(size: int = 0, count: int = 0) -> Refusal:
    """Return the refusal of a head: of a header's size, of their number, else of all bytes."""
    problem = f"the head has over {MAX_HEAD_BYTES} bytes"
    if size > MAX_LINE_BYTES:
        problem = f"a header has over {MAX_LINE_BYTES} bytes"
    elif count > MAX_HEADERS:
        problem = f"the head has over {MAX_HEADERS} headers"
    return Refusal(431, "head_too_large", f"{problem}; send fewer or shorter headers")


def refuse_target() -> Refusal:
    """Return the refusal of a target, path and query, that is too long."""
    return Refusal(
        414, "uri_too_long", f"the target has over {MAX_LINE_BYTES} bytes; shorten the query"
    )


def find_refusal(
    version: str, method: str, headers: Sequence[tuple[bytes, bytes]]
) -> Refusal | None:
    """Return the refusal of a version, method, host or transfer coding that is not served."""
    hosts, codings = 0, []
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding":
            codings.append(value.strip().lower())
    if version not in ("1.0", "1.1"):
        return Refusal(400, "malformed_request", f"HTTP/{version} is not served; use HTTP/1.1")
    if method == "CONNECT":
        return Refusal(405, "method_not_allowed", "CONNECT is not served; this is no proxy")
    if hosts > 1 or (not hosts and version == "1.1"):
        return Refusal(400, "malformed_request", f"the head has {hosts} Host headers; send one")
    if codings not in ([], [b"chunked"]):
        return Refusal(
            400, "malformed_request", "only chunked is supported as Transfer-Encoding; send it once"
        )
    return None
