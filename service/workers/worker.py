"""A worker's place among the workers."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # which containers with a read-only file system have too


@dataclass(frozen=True)
class Worker:
    """One of `count` workers, numbered from 1, with a directory that only they can read."""

    number: int
    count: int
    directory: Path

    @property
    def others(self) -> list[int]:
        """The numbers of the other workers."""
        return [number for number in range(1, self.count + 1) if number != self.number]

    @property
    def label(self) -> int | None:
        """The number in lines of the log; None for a process without workers."""
        return self.number if self.others else None


@contextmanager
def open_directory() -> Iterator[Path]:
    """Create the directory of the workers, and remove it at the end."""
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(
        prefix="autoencoder-", dir=parent, ignore_cleanup_errors=True
    ) as directory:
        yield Path(directory)


ALONE = Worker(1, 1, Path())  # a process without workers, which needs no directory
