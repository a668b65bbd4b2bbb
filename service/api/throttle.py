"""How fast refusals are given."""

import asyncio

# A refusal costs up to a fifth of a millisecond of the core that also serves those who were admitted.
RATE, BURST = 500.0, 100.0
LONGEST = 1.0  # seconds; by then the client may come back anyway


class Pace:
    """Lets callers pass at `rate` a second, the first `burst` of them at once; none waits for more than `longest` s.

    Where more than `rate * longest` wait, each passes after `longest` seconds, and all together pass faster.
    A client that comes back as soon as it is refused thereby waits for its next refusal, and those who were admitted
    keep their share of the processor. (The generic cell rate algorithm, ITU-T I.371, annex A.)
    """

    def __init__(self, rate: float = RATE, burst: float = BURST, longest: float = LONGEST) -> None:
        self._interval, self._slack, self._longest = 1 / rate, (burst - 1) / rate, longest
        self._next = float("-inf")  # when the next caller would pass if there were no bursts

    async def turn(self) -> None:
        """Wait until the caller may pass."""
        if wait := self.book(asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)

    def book(self, now: float) -> float:
        """Take a turn for a caller that comes `now`, on any clock; gives the seconds for which it is to wait."""
        wait = min(max(0.0, self._next - self._slack - now), self._longest)
        self._next = max(self._next if wait < self._longest else now + self._slack + wait, now) + self._interval
        return wait
