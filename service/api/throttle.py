"""A throttle of rejections."""

import asyncio

# A rejection costs up to a fifth of a millisecond of the core that also serves admitted requests.
REJECTIONS_PER_SECOND, BURST = 500.0, 100.0
MAX_WAIT_SECONDS = 1.0  # by then the client may retry anyway


class Throttle:
    """Lets callers pass at `rate` a second, the first `burst` of them at once; none waits longer than `max_wait`.

    If more than `rate * max_wait` callers wait, each passes after `max_wait` seconds, and all together pass faster.
    A client that retries as soon as it is rejected thereby waits for its next rejection, and admitted requests keep
    their share of the processor. (The generic cell rate algorithm, ITU-T I.371, annex A.)
    """

    def __init__(
        self,
        rate: float = REJECTIONS_PER_SECOND,
        burst: float = BURST,
        max_wait: float = MAX_WAIT_SECONDS,
    ) -> None:
        self._interval, self._slack, self._max_wait = 1 / rate, (burst - 1) / rate, max_wait
        self._next = float("-inf")  # when the next caller would pass if there were no bursts

    async def wait(self) -> None:
        """Wait until the caller may pass."""
        if seconds := self.reserve(asyncio.get_running_loop().time()):
            await asyncio.sleep(seconds)

    def reserve(self, now: float) -> float:
        """Reserve the next turn for a caller that comes `now`, on any clock; gives the seconds that it has to wait."""
        wait = min(max(0.0, self._next - self._slack - now), self._max_wait)
        passes = self._next if wait < self._max_wait else now + self._slack + wait
        self._next = max(passes, now) + self._interval
        return wait
