"""Timer for many deadlines."""

import asyncio
import time
from collections.abc import Callable


class Timer:
    """Calls back on the event loop at the earliest time that was set, and forgets later times.

    A timer per request would cost a small request as much as its dispatch.
    """

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._at = float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Call back at this time at the latest, on the clock of `time.monotonic`."""
        loop = asyncio.get_running_loop()
        if at >= self._at and loop is self._loop:
            return
        if self._handle:
            self._handle.cancel()
        self._loop, self._at = loop, at
        self._handle = loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._at, self._handle = float("inf"), None
        self._callback()
