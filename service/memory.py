"""Memory of this process, and the memory that it may use."""

import ctypes
import os
from pathlib import Path

_STATUS = Path("/proc/self/status")
_LIMITS = (  # of a container, by cgroup 2 or 1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def read_used() -> int:
    """Return the bytes of this process that are no file's; 0 if the system does not report them."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon:")), 0)


def find_limit() -> int:
    """Return the bytes that the process may use: of the machine, or of its container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(limit for path in _LIMITS if (limit := _read_limit(path)))])


def _read_limit(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max" is no limit
        return None


def trim() -> None:
    """Return freed memory to the system, if the C library can."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release:
        release(0)
