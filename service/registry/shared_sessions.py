"""Sessions of graphs that models share: a graph that several bundles hold is opened once."""

import threading
import weakref
from collections.abc import Callable, Collection
from pathlib import Path

from service import memory
from service.inference.engine import Engine
from service.inference.session import Session

# Of the bytes of a graph's file: weights in float16 are float32 in memory.
MIN_GROWTH, MAX_GROWTH = 2, 4
SESSION_BYTES = 4 * 2**20  # of a session without weights, at most


class SharedSessions:
    """Open sessions by the digests of their graphs, and the bytes that each takes.

    A session is closed with the last model that uses it. Only one thread at a time may call `open`.
    """

    def __init__(
        self,
        engine: Engine,
        measure: Callable[[], int] = memory.read_used,
        shares: bool = True,
    ) -> None:
        """Open sessions by an engine; `measure` returns the bytes that the process uses.

        With `shares` False, each model gets sessions of its own.
        """
        self.engine, self._measure, self._shares = engine, measure, shares
        self._lock = threading.Lock()
        self._open: weakref.WeakValueDictionary[str, Session] = weakref.WeakValueDictionary()
        self._bytes: dict[str, int] = {}  # also of sessions that were open once
        self.on_close: Callable[[], None] = lambda: None  # called in any thread

    def open(self, path: Path, digest: str) -> Session:
        """Return the session of a graph. Raises BundleError and DeviceError as the engine does."""
        session = self._open.get(digest) if self._shares else None
        if session is None:
            memory.trim()
            before = self._measure()
            session = self.engine.open(path)
            memory.trim()
            size = path.stat().st_size
            # Other threads use and free memory meanwhile, so the measured bytes can be far off.
            least, most = MIN_GROWTH * size, MAX_GROWTH * size + SESSION_BYTES
            with self._lock:
                self._bytes[digest] = min(max(self._measure() - before, least), most)
                self._open[digest] = session
            weakref.finalize(session, lambda: self.on_close()).atexit = False
        return session

    def count_bytes(self, digests: Collection[str] | None = None) -> int:
        """Return the bytes of all open sessions, or of those among the digests."""
        with self._lock:
            # Not the keys, of which other threads may drop some in the meantime.
            found = {each.key for each in self._open.valuerefs() if each() is not None}
            return sum(self._bytes[each] for each in found if digests is None or each in digests)

    def estimate(self, path: Path, digest: str) -> int:
        """Return the bytes that opening a graph takes: none if it is open, or still in a store."""
        if self._shares and digest in self._open:
            return 0
        if digest in self._bytes:
            return self._bytes[digest]
        try:
            return MIN_GROWTH * path.stat().st_size
        except OSError:
            return 0
