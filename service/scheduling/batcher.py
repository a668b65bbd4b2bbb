"""Batches of the work that waits for the device. The function to run is passed in."""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bundle.tensors import Tensors


@dataclass(eq=False, slots=True)
class Work:
    """A function to run on tensors, which have the images in their first dimension, as have its results.

    Works of one owner and one kind can be joined if their tensors have equal shapes beyond the first dimension;
    a work that runs `alone` never is. The owners take turns on the device.
    """

    owner: str
    kind: Hashable
    run: Callable[[Tensors], Tensors]
    tensors: Tensors
    alone: bool = False

    @property
    def count(self) -> int:
        return len(next(iter(self.tensors.values())))


@dataclass(eq=False)
class Job:
    """A work that waits, runs or is complete.

    It is complete with either an `error` or the `results` of all its rows. `submitted` and `started` (0: not yet) are
    times on the clock of `time.monotonic`; `took` is the seconds of all runs that it had a part in.
    """

    work: Work
    deadline: float = float("inf")
    dropped: bool = False  # nobody waits for it
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    took: float = 0.0
    results: Tensors = field(default_factory=dict)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self.count = self.left = self.work.count
        self.taken = 0
        shapes = tuple((tensor.shape[1:], tensor.dtype) for tensor in self.work.tensors.values())
        self.joins = None if self.work.alone else (self.work.kind, shapes)

    @property
    def complete(self) -> bool:
        return self.error is not None or self.left == 0

    def accept(self, start: int, rows: Tensors) -> None:
        """Store the results of the rows from `start` on."""
        count = len(next(iter(rows.values())))
        self.left -= count
        if count == self.count:
            self.results = rows
            return
        if not self.results:
            self.results = {
                name: np.empty((self.count, *got.shape[1:]), got.dtype)
                for name, got in rows.items()
            }
        for name, got in rows.items():
            self.results[name][start : start + count] = got


class Part(NamedTuple):
    """Some rows of a job."""

    job: Job
    start: int
    stop: int

    @property
    def tensors(self) -> Tensors:
        if self.stop - self.start == self.job.count:
            return self.job.work.tensors
        return {
            name: tensor[self.start : self.stop] for name, tensor in self.job.work.tensors.items()
        }


class Batcher:
    """A queue of jobs, taken as batches of at most `max_batch_size` images.

    `limit` may lower this for a batch by its first job, unless that runs alone: its batches follow from its count.
    The jobs of an owner leave in order. A job that is larger than a batch is split. Later jobs fill a batch up if they
    can be joined with its first job and fit completely. Not thread-safe: its user holds a lock.
    """

    def __init__(self, max_batch_size: int, limit: Callable[[Job], int] | None = None) -> None:
        self.max_batch_size = max_batch_size
        self._limit = limit
        self._owners: OrderedDict[str, deque[Job]] = OrderedDict()

    def push(self, job: Job) -> None:
        self._owners.setdefault(job.work.owner, deque()).append(job)

    def take(self) -> list[Part]:
        """The next batch, of the owner whose turn it is; empty if nothing waits.

        Jobs that were dropped or are too late are removed.
        """
        while self._owners:
            owner, jobs = self._owners.popitem(last=False)
            parts = self._fill(jobs)
            if jobs:
                self._owners[owner] = jobs
            if parts:
                return parts
        return []

    def clear(self) -> list[Job]:
        """Remove and return all jobs that wait."""
        waiting = [job for jobs in self._owners.values() for job in jobs]
        self._owners.clear()
        return waiting

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._owners

    @property
    def images(self) -> int:
        """How many images wait."""
        return sum(job.count - job.taken for jobs in self._owners.values() for job in jobs)

    def _fill(self, jobs: deque[Job]) -> list[Part]:
        now = time.monotonic()
        parts: list[Part] = []
        behind: list[Job] = []  # of other kinds; they keep their order
        room = self.max_batch_size
        while jobs and room:
            job = jobs.popleft()
            if job.dropped or job.error or (now > job.deadline and not job.taken):
                continue
            left = job.count - job.taken
            if parts and (job.joins is None or job.joins != parts[0].job.joins):
                behind.append(job)
                continue
            if parts and left > room:
                behind.append(job)
                break
            if not parts and self._limit and not job.work.alone:
                room = min(room, max(1, self._limit(job)))
            taken = min(left, room)
            parts.append(Part(job, job.taken, job.taken + taken))
            job.taken += taken
            room -= taken
            if job.taken < job.count:
                behind.append(job)
        jobs.extendleft(reversed(behind))
        return parts


def run(parts: Sequence[Part]) -> None:
    """Run the parts of a batch together, and store each job's rows.

    If that fails, each part runs by itself, so that only the jobs that cause it fail.
    """
    began = time.monotonic()
    for job, _, _ in parts:
        job.started = job.started or began
    try:
        results = parts[0].job.work.run(_joined(parts))
        _check_rows(results, sum(stop - start for _, start, stop in parts))
    except Exception as error:  # any error belongs to the job, and must not end the thread
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


def _joined(parts: Sequence[Part]) -> Tensors:
    if len(parts) == 1:
        return parts[0].tensors
    tensors = [part.tensors for part in parts]
    return {name: np.concatenate([part[name] for part in tensors]) for name in tensors[0]}


def _check_rows(results: Tensors, count: int) -> None:
    """Raise ValueError if the rows cannot be assigned to images."""
    for name, rows in results.items():
        if len(rows) != count:
            raise ValueError(f"{name} has {len(rows)} rows for {count} images")
