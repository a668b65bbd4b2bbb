"""Throttle of rejections."""

import asyncio

# A rejection takes up to 0.2 ms of the core that also serves admitted requests.
REJECTIONS_PER_SECOND, BURST_REJECTIONS = 500.0, 100.0
MAX_WAIT_SECONDS = 1.0  # by then the client may retry anyway


class RejectionThrottle:
    """Delays callers to `rate` per second, after a burst of `burst`, by at most `max_wait` seconds.

    If more than `rate * max_wait` callers wait, each waits `max_wait` seconds, and the rate rises.
    A client that retries at once thereby waits for its next rejection. Admitted requests keep their
    share of the processor. (The generic cell rate algorithm, ITU-T I.371, annex A.)
    """

    def __init__(
        self,
        rate: float = REJECTIONS_PER_SECOND,
        burst: float = BURST_REJECTIONS,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._interval, self._slack, self._max_wait = 1 / rate, (burst - 1) / rate, max_wait
        self._next = float("-inf")  # time of the next caller without bursts

    async def wait(self) -> None:
        """Delay the caller."""
        if seconds := self.reserve(asyncio.get_running_loop().time()):
            await asyncio.sleep(seconds)

    def reserve(self, now: float) -> float:
        """Return the seconds that a caller at the time `now` must wait, and count the caller."""
        wait = min(max(0.0, self._next - self._slack - now), self._max_wait)
        passes = self._next if wait < self._max_wait else now + self._slack + wait
        self._next = max(passes, now) + self._interval
        return wait
