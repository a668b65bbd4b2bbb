"""Waits between the attempts of a request."""

import logging
import random
import time

from autoencoder_client.errors import ServiceError, Unreachable

logger = logging.getLogger("autoencoder_client")

FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 10.0
JITTER = 0.25  # of a wait, so that clients do not retry together
OVERLOADED = 429
RETRIED = (OVERLOADED, 502, 503)


class Retries:
    """The attempts of one request, for so many seconds in all."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._wait = FIRST_WAIT_SECONDS

    def next_wait(self, error: ServiceError | Unreachable, retry_after: str | None = None) -> float:
        """Return the seconds until the next attempt, at least as many as the service names.

        Raises the error of the last attempt if there is no time for another.
        """
        named = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        wait = max(named, self._wait)
        self._wait = min(2 * self._wait, MAX_WAIT_SECONDS)
        wait *= 1 + random.uniform(0, JITTER)
        if time.monotonic() + wait > self._until:
            raise error
        # Overload is normal for a client that sends as much as the service takes.
        overloaded = isinstance(error, ServiceError) and error.status == OVERLOADED
        level = logging.INFO if overloaded else logging.WARNING
        logger.log(level, "%s; next attempt in %.1f s", error, wait)
        return wait
