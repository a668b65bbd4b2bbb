"""Waits between the attempts of a request."""

import random
import time

from autoencoder_client.errors import Unreachable

FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 10.0
JITTER = 0.25  # of a wait, so that clients do not retry together
RETRIED = (429, 502, 503)


class Retries:
    """The attempts of one request, for so many seconds in all."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._wait = FIRST_WAIT_SECONDS

    def next_wait(self, problem: str, retry_after: str | None = None) -> float:
        """Return the seconds until the next attempt, at least as many as the service names.

        Raises Unreachable if there is no time for it.
        """
        named = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        wait = max(named, self._wait)
        self._wait = min(2 * self._wait, MAX_WAIT_SECONDS)
        wait *= 1 + random.uniform(0, JITTER)
        if time.monotonic() + wait > self._until:
            raise Unreachable(problem)
        return wait
