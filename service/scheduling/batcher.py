"""Batches of work that waits for the device."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bundle.tensors import Tensors


@dataclass(eq=False, slots=True)
class Work:
    """A function to run on tensors; the first dimension of tensors and results is the images.

    Works of one owner and one kind can be joined, unless they run `alone`. Their tensors must have
    equal shapes beyond the first dimension. The owners alternate on the device.
    """

    owner: str
    kind: Hashable
    run: Callable[[Tensors], Tensors]
    tensors: Tensors
    alone: bool = False

    @property
    def count(self) -> int:
        """The number of images."""
        return len(next(iter(self.tensors.values())))


@dataclass(eq=False)
class Job:
    """A work that waits, runs or is complete.

    A complete job has an `error`, or the `results` of all rows. `submitted` and `started` (0: not
    yet) are times on the clock of `time.monotonic`. `took` is the seconds of all its batches.
    """

    work: Work
    deadline: float = float("inf")
    dropped: bool = False  # no request waits for it
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    took: float = 0.0
    results: Tensors = field(default_factory=dict)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.count = self.left = self.work.count
        self.taken = 0
        shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in self.work.tensors.values())
        self.join_key = None if self.work.alone else (self.work.kind, shapes)

    @property
    def complete(self) -> bool:
        """True if the job has an error or all results."""
        return self.error is not None or self.left == 0

    def accept(self, start: int, rows: Tensors) -> None:
        """Store the results of the rows from `start`."""
        count = len(next(iter(rows.values())))
        self.left -= count
        if count == self.count:
            self.results = rows
            return
        if not self.results:
            self.results = {
                name: np.empty((self.count, *result.shape[1:]), result.dtype)
                for name, result in rows.items()
            }
        for name, result in rows.items():
            self.results[name][start : start + count] = result


Limit = Callable[[Job], int]  # the images of a batch, by its first job


class Part(NamedTuple):
    """Rows of a job, from `start` to `stop`."""

    job: Job
    start: int
    stop: int

    @property
    def tensors(self) -> Tensors:
        """The rows of the job's tensors."""
        if self.stop - self.start == self.job.count:
            return self.job.work.tensors
        return {
            name: tensor[self.start : self.stop] for name, tensor in self.job.work.tensors.items()
        }


class Batcher:
    """A queue of jobs, taken as batches of at most `max_batch_size` images.

    `limit` may lower this size by the first job of a batch, unless the job runs alone. Jobs of an
    owner leave in order. A job larger than a batch is split. Later jobs fill a batch if they fit
    completely and can be joined with its first job. Not thread-safe: the caller holds a lock.
    """

    def __init__(self, max_batch_size: int, limit: Limit | None = None) -> None:
        self.max_batch_size = max_batch_size
        self._limit = limit
        self._owners: OrderedDict[str, deque[Job]] = OrderedDict()

    def push(self, job: Job) -> None:
        """Add a job to the queue of its owner."""
        self._owners.setdefault(job.work.owner, deque()).append(job)

    def take(
        self, accepts: Callable[[Job], bool] = lambda _: True, limit: Limit | None = None
    ) -> list[Part]:
        """Take the next batch, of the next owner whose first job is accepted; empty if none is.

        `limit` replaces that of the queue. Dropped jobs and jobs past their deadline are removed.
        """
        for owner in list(self._owners):
            jobs = self._owners[owner]
            if not accepts(jobs[0]):
                continue
            del self._owners[owner]
            parts = self._fill(jobs, limit or self._limit)
            if jobs:
                self._owners[owner] = jobs
            if parts:
                return parts
        return []

    def clear(self) -> list[Job]:
        """Remove and return all waiting jobs."""
        waiting = [job for jobs in self._owners.values() for job in jobs]
        self._owners.clear()
        return waiting

    @property
    def empty(self) -> bool:
        """True if no job waits."""
        return not self._owners

    @property
    def images(self) -> int:
        """The number of waiting images."""
        return sum(job.count - job.taken for jobs in self._owners.values() for job in jobs)

    def _fill(self, jobs: deque[Job], limit: Limit | None) -> list[Part]:
        now = time.monotonic()
        parts: list[Part] = []
        later: list[Job] = []  # in their order
        free = self.max_batch_size
        while jobs and free:
            job = jobs.popleft()
            if job.dropped or job.error or (now > job.deadline and not job.taken):
                continue
            left = job.count - job.taken
            if parts and (job.join_key is None or job.join_key != parts[0].job.join_key):
                later.append(job)
                continue
            if parts and left > free:
                later.append(job)
                break
            if not parts and limit and not job.work.alone:
                free = min(free, max(1, limit(job)))
            taken = min(left, free)
            parts.append(Part(job, job.taken, job.taken + taken))
            job.taken += taken
            free -= taken
            if job.taken < job.count:
                later.append(job)
        jobs.extendleft(reversed(later))
        return parts


def run(parts: Sequence[Part]) -> None:
    """Run the parts of a batch together, and store the rows of each job.

    After an error, each part runs by itself, so that only the jobs that cause it fail.
    """
    began = time.monotonic()
    for job, _, _ in parts:
        job.started = job.started or began
    try:
        results = parts[0].job.work.run(_join(parts))
        _check_rows(results, sum(stop - start for _, start, stop in parts))
    except Exception as error:  # the job gets any error, because the thread must continue
        if len(parts) > 1:
            for part in parts:
                run([part])
        else:
            parts[0].job.error = error
        return
    took = time.monotonic() - began
    offset = 0
    for job, start, stop in parts:
        job.took += took
        job.accept(
            start, {name: rows[offset : offset + stop - start] for name, rows in results.items()}
        )
        offset += stop - start


def _join(parts: Sequence[Part]) -> Tensors:
    if len(parts) == 1:
        return parts[0].tensors
    tensors = [part.tensors for part in parts]
    return {name: np.concatenate([part[name] for part in tensors]) for name in tensors[0]}


def _check_rows(results: Tensors, count: int) -> None:
    """Raise ValueError if results have another number of rows than images."""
    for name, rows in results.items():
        if len(rows) != count:
            raise ValueError(f"{name} has {len(rows)} rows for {count} images")
