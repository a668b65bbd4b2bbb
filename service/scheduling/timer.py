"""One timer for many deadlines."""

import asyncio
import time
from collections.abc import Callable


class Alarm:
    """Calls `ring` on the event loop when the earliest of the times that were set has come, and forgets the others.

    For a small request a timer of its own would cost as much as its dispatch.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at = float("inf")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float) -> None:
        """Ring at this time at the latest, on the clock of `time.monotonic`."""
        loop = asyncio.get_running_loop()
        if at >= self._at and loop is self._loop:
            return
        if self._timer:
            self._timer.cancel()
        self._loop, self._at = loop, at
        self._timer = loop.call_later(max(0.0, at - time.monotonic()), self._go_off)

    def _go_off(self) -> None:
        self._at, self._timer = float("inf"), None
        self._ring()
