"""API keys over HTTP: what each permits, and how often."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fastapi.security.utils import get_authorization_scheme_param
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from bundle.errors import DomainError, InvalidParameter
from service.errors import RateLimited
from service.keys import KeyEntries, KeyEntry, compute_key_digest, parse_entries

ALL_OPERATIONS = "*"
ADMIN, METRICS = "admin", "metrics"  # rights beside the operations, which `*` does not include
ANY_OPERATION = "any operation"  # not a right of its own: what a key of any operation may do
FILE_SECONDS = 1.0  # between two looks at the file of keys

Hit = Callable[[str, int], bool]  # counts a request of a name; False beyond so many a second

logger = logging.getLogger(__name__)


class Unauthorized(DomainError):
    """The API key is missing or unknown."""


class Forbidden(DomainError):
    """The API key does not permit this operation."""


class ApiKeys:
    """The keys, of the settings and of a file; without any key, everything is permitted.

    The file is read again when it has changed. If it is invalid then, the former keys stay.
    """

    def __init__(
        self,
        entries: Mapping[str, KeyEntry],
        file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        hit: Hit | None = None,
    ) -> None:
        """Count the requests of a key with `hit`; by default those of this process.

        Raises InvalidParameter if the file is unreadable or invalid.
        """
        self._fixed, self._file, self._clock = entries, file, clock
        self._hit = hit or _build_hit()
        self._changed: float | None = None  # time of change of the file
        self._next_look = 0.0
        self._by_digest = _index(entries)
        if file:
            self._read(file)

    @property
    def needed(self) -> bool:
        """True if requests need a key."""
        return bool(self._by_digest) or self._file is not None

    def check(self, key: str | None, right: str | None) -> str | None:
        """Return the name of the key; None if no key is needed.

        Every valid key permits lists and cards, if `right` is None. Raises Unauthorized without a
        valid key, Forbidden if it lacks the right, and RateLimited.
        """
        found = self.identify(key)
        if found is None:
            return None
        name, entry = found
        if right is not None and not _permits(entry, right):
            permitted = ", ".join(sorted(entry.rights)) or "nothing"
            raise Forbidden(f"the API key does not permit {right[:50]}; it permits: {permitted}")
        self._limit(name, entry)
        return name

    def identify(self, key: str | None) -> tuple[str, KeyEntry] | None:
        """Return the name and the entry of a key; None if no key is needed. Raises Unauthorized."""
        self._look()
        if not self.needed:
            return None
        if key is None:
            raise Unauthorized("the API key is missing; send 'Authorization: Bearer KEY'")
        # The digests are compared, so that the time of a comparison reveals nothing of a key.
        found = self._by_digest.get(compute_key_digest(key))
        if found is None:
            raise Unauthorized("the API key is unknown; check the Authorization header")
        return found

    def _limit(self, name: str, entry: KeyEntry) -> None:
        if entry.requests_per_second is None:
            return
        if not self._hit(name, entry.requests_per_second):
            raise RateLimited(
                f"the API key may send {entry.requests_per_second} requests a second; "
                "retry after a second"
            )

    def _look(self) -> None:
        if self._file is None or self._clock() < self._next_look:
            return
        try:
            self._read(self._file)
        except InvalidParameter as error:
            logger.error("kept the former API keys: %s", error)

    def _read(self, file: Path) -> None:
        self._next_look = self._clock() + FILE_SECONDS
        try:
            changed = file.stat().st_mtime
            if changed == self._changed:
                return
            self._changed = changed
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidParameter(f"the file of API keys cannot be read: {error}") from None
        self._by_digest = _index({**self._fixed, **parse_entries(text)})


def _build_hit() -> Hit:
    limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
    return lambda name, limit: limiter.hit(RateLimitItemPerSecond(limit), name)


def read_bearer(authorization: str | None) -> str | None:
    """Return the key in the header `Authorization`, if it holds one."""
    scheme, key = get_authorization_scheme_param(authorization)
    return key if scheme.lower() == "bearer" else None


def _permits(entry: KeyEntry, right: str) -> bool:
    """Return True if a key has a right."""
    if right == ANY_OPERATION:
        return bool({*entry.rights} - {ADMIN, METRICS})
    every = () if right in (ADMIN, METRICS) else (ALL_OPERATIONS,)
    return bool({right, *every} & {*entry.rights})


def _index(entries: Mapping[str, KeyEntry] | KeyEntries) -> dict[str, tuple[str, KeyEntry]]:
    return {entry.sha256: (name, entry) for name, entry in entries.items()}
