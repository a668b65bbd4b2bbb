"""Open connections: their number, and those that a client leaves waiting."""

import resource
from collections.abc import Iterator
from typing import Protocol

from service.server.limits import PROBE_CONNECTIONS, ConnectionLimits

RESERVED_FILES = 64  # of the process, for models, logs and the listener


class Connection(Protocol):
    """A connection, as the set of connections sees it."""

    @property
    def busy(self) -> bool:
        """True while a request is handled."""

    @property
    def since(self) -> float:
        """When the connection began to wait."""

    def check(self, now: float) -> None:
        """End the connection if a timeout has passed."""

    def end(self) -> None:
        """End the connection at once."""


class Connections:
    """The open connections of the server, within limits.

    At the maximum, a new connection ends the one that has waited for a request longest. If all are
    busy, a few more are accepted for probes.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._open: set[Connection] = set()

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: Connection) -> bool:
        """Add a connection; return False if it may only serve probes. May end it."""
        excess = len(self._open) - self.limits.max_connections
        self._open.add(connection)
        if excess < 0:
            return True
        waiting = [each for each in self._open if not each.busy and each is not connection]
        if waiting:
            min(waiting, key=lambda each: each.since).end()
            return True
        if excess >= PROBE_CONNECTIONS:
            connection.end()
        return False

    def remove(self, connection: Connection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)

    def check(self, now: float) -> None:
        """End connections whose timeout has passed, on the clock of the event loop."""
        for connection in list(self._open):
            connection.check(now)


def limit_by_files(max_connections: int, ports: int = 1) -> int:
    """Return how many connections each port may have files for, at most `max_connections`.

    Raises the soft limit of open files to the hard limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return max_connections
    return max(1, min(max_connections, (hard - RESERVED_FILES - PROBE_CONNECTIONS) // ports))
