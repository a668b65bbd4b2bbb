"""Rates of API keys, counted by all workers together."""

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

_STATE = struct.Struct("qqq")  # second, requests in it, requests in the second before


class SharedRates:
    """Sliding windows of a second, as those of the package `limits`, in a file for each key.

    The lock of a file ends with the process that holds it; one in shared memory would not. It is
    held for microseconds; the supervisor kills a worker that hangs with it.
    """

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory, self._clock = directory, clock
        self._files: dict[str, int] = {}

    def hit(self, name: str, limit: int) -> bool:
        """Count a request of a key; return False if it exceeds the requests of a second."""
        file = self._open(name)
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            now = self._clock()
            current, before = _read(file, int(now))
            if int(before * (1 - now % 1)) + current >= limit:
                return False
            os.pwrite(file, _STATE.pack(int(now), current + 1, before), 0)
            return True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def _open(self, name: str) -> int:
        file = self._files.get(name)
        if file is None:
            path = self._directory / f"{hashlib.sha256(name.encode()).hexdigest()}.rate"
            file = self._files[name] = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        return file


def _read(file: int, second: int) -> tuple[int, int]:
    """Return the requests in a second, and in the second before."""
    state = os.pread(file, _STATE.size, 0)
    counted, current, before = _STATE.unpack(state) if state else (0, 0, 0)
    if counted == second:
        return current, before
    return 0, current if counted == second - 1 else 0
