"""Batches of work that waits for the device."""

import itertools
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bundle.tensors import Tensors


class SharedRun(NamedTuple):
    """A run in two parts, of which works of several owners can share the first.

    `first` returns results for tensors, and `rest` the results of the work for both. Works of one
    `key` can join their tensors for `first`.
    """

    key: Hashable
    first: Callable[[Tensors], Tensors]
    rest: Callable[[Tensors], Tensors]


@dataclass(eq=False, slots=True)
class Work:
    """A function to run on tensors; the first dimension of tensors and results is the images.

    Works of one owner and one kind can be joined, and works of any owners that share a part of
    their run, unless they run `alone`. Their tensors must have equal shapes beyond the first
    dimension. The owners alternate on the device. Only one thread at a time may use what is in
    `uses`, by default the owner.
    """

    owner: str
    kind: Hashable
    run: Callable[[Tensors], Tensors]
    tensors: Tensors
    alone: bool = False
    shared: SharedRun | None = None
    uses: frozenset[Hashable] = frozenset()

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
        alone, shared = self.work.alone, self.work.shared
        self.uses = self.work.uses or frozenset((self.work.owner,))
        self.join_key = None if alone else (self.work.owner, self.work.kind, shapes)
        self.shared_key = None if alone or shared is None else (shared.key, shapes)

    @property
    def complete(self) -> bool:
        """True if the job has an error or all results."""
        return self.error is not None or self.left == 0

    def is_over(self, now: float) -> bool:
        """Return True if no request waits for the job any more."""
        return self.dropped or self.error is not None or (now > self.deadline and not self.taken)

    def take(self, most: int) -> "Part":
        """Return the next rows, at most so many."""
        start = self.taken
        self.taken = min(self.count, start + most)
        return Part(self, start, self.taken)

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
    def images(self) -> int:
        """The number of rows."""
        return self.stop - self.start

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
    owner leave in order. A job larger than a batch is split. Later jobs, and then those of other
    owners, fill a batch if they fit completely and can be joined with its first job. Not
    thread-safe: the caller holds a lock.
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
        now = time.monotonic()
        for owner, jobs in list(self._owners.items()):
            _drop_over(jobs, now)
            if not jobs:
                del self._owners[owner]
            elif accepts(jobs[0]):
                del self._owners[owner]
                parts = self._fill(jobs, accepts, limit or self._limit)
                if jobs:
                    self._owners[owner] = jobs
                return parts
        return []

    def clear(self) -> list[Job]:
        """Remove and return all waiting jobs."""
        waiting = [job for jobs in self._owners.values() for job in jobs]
        self._owners.clear()
        return waiting

    @property
    def first(self) -> Job | None:
        """The job that the next batch begins with, if any waits."""
        return next((jobs[0] for jobs in self._owners.values()), None)

    @property
    def empty(self) -> bool:
        """True if no job waits."""
        return not self._owners

    @property
    def images(self) -> int:
        """The number of waiting images."""
        return sum(job.count - job.taken for jobs in self._owners.values() for job in jobs)

    def _fill(
        self, jobs: deque[Job], accepts: Callable[[Job], bool], limit: Limit | None
    ) -> list[Part]:
        """Take a batch that begins with the first of the jobs."""
        first, most = jobs[0], self.max_batch_size
        if limit and not first.work.alone:
            most = min(most, max(1, limit(first)))
        parts = [first.take(most)]
        if first.taken < first.count:
            return parts
        jobs.popleft()
        free = most - parts[0].images
        if first.join_key is not None:
            parts += _take_joined(jobs, free, lambda job: job.join_key == first.join_key)
        if first.shared_key is not None:
            self._add_shared(parts, most, accepts, limit)
        return parts

    def _add_shared(
        self, parts: list[Part], most: int, accepts: Callable[[Job], bool], limit: Limit | None
    ) -> None:
        """Add the jobs of other owners that share the first part of their run with a batch.

        The batch stays within the limit of each.
        """
        shared_key = parts[0].job.shared_key
        for owner, jobs in list(self._owners.items()):
            images = count_images(parts)
            if images == most:
                return
            if jobs[0].shared_key == shared_key:
                own = min(most, limit(jobs[0])) if limit else most
                parts += _take_joined(
                    jobs, own - images, lambda job: job.shared_key == shared_key and accepts(job)
                )
                if not jobs:
                    del self._owners[owner]


def _drop_over(jobs: deque[Job], now: float) -> None:
    """Remove the first jobs as long as no request waits for them."""
    while jobs and jobs[0].is_over(now):
        jobs.popleft()


def _take_joined(jobs: deque[Job], free: int, joins: Callable[[Job], bool]) -> list[Part]:
    """Take the jobs that can be joined, until one does not fit; remove those that are over."""
    now = time.monotonic()
    parts: list[Part] = []
    later: list[Job] = []  # in their order
    while jobs and free > 0:
        job = jobs.popleft()
        if job.is_over(now):
            continue
        if not joins(job):
            later.append(job)
            continue
        if job.count > free:
            later.append(job)
            break
        parts.append(job.take(free))
        free -= job.count
    jobs.extendleft(reversed(later))
    return parts


def count_images(parts: Sequence[Part]) -> int:
    """Return the number of images of a batch."""
    return sum(part.images for part in parts)


class TimedRun(NamedTuple):
    """Parts of one work that ran in a batch, and the seconds that they took of it."""

    parts: Sequence[Part]
    seconds: float


def run(parts: Sequence[Part]) -> list[TimedRun]:
    """Run the parts of a batch together, and store the rows of each job.

    After an error, each part runs by itself, so that only the jobs that cause it fail.
    """
    began = time.monotonic()
    for job, _, _ in parts:
        job.started = job.started or began
    try:
        results, runs = _run_together(parts)
    except Exception as error:  # the job gets any error, because the thread must continue
        if len(parts) > 1:
            return [timed for part in parts for timed in run([part])]
        parts[0].job.error = error
        return [TimedRun(parts, time.monotonic() - began)]
    took = time.monotonic() - began
    for part, rows in zip(parts, results, strict=True):
        part.job.took += took
        part.job.accept(part.start, rows)
    return runs


def group_by_work(parts: Sequence[Part]) -> list[list[Part]]:
    """Return the parts of each owner and kind, which lie side by side in a batch."""
    if parts and parts[-1].job.work.owner == parts[0].job.work.owner:  # most batches; for speed
        return [[*parts]]
    groups = itertools.groupby(parts, lambda part: (part.job.work.owner, part.job.work.kind))
    return [list(group) for _, group in groups]


def _run_together(parts: Sequence[Part]) -> tuple[list[Tensors], list[TimedRun]]:
    """Return the rows of each part, and the times of each work."""
    began = time.monotonic()
    groups, first = group_by_work(parts), parts[0].job.work
    if len(groups) == 1 or first.shared is None:
        return _run_group(parts, first.run, {}), [TimedRun(parts, time.monotonic() - began)]
    shared = first.shared.first(_join(parts))
    images = count_images(parts)
    _check_rows(shared, images)
    each = (time.monotonic() - began) / images
    results: list[Tensors] = []
    runs: list[TimedRun] = []
    offset = 0
    for group in groups:
        run_rest = group[0].job.work.shared
        assert run_rest is not None  # only works with one are joined with other owners
        count, began = count_images(group), time.monotonic()
        rows = {name: tensor[offset : offset + count] for name, tensor in shared.items()}
        results += _run_group(group, run_rest.rest, rows)
        runs.append(TimedRun(group, each * count + time.monotonic() - began))
        offset += count
    return results, runs


def _run_group(
    parts: Sequence[Part], work: Callable[[Tensors], Tensors], known: Tensors
) -> list[Tensors]:
    """Run the rest of parts of one work, and return the rows of each."""
    results = work(_join(parts) | known)
    count = count_images(parts)
    _check_rows(results, count)
    if len(parts) == 1:
        return [results]
    stops = list(itertools.accumulate(part.images for part in parts))
    return [
        {name: rows[stop - part.images : stop] for name, rows in results.items()}
        for part, stop in zip(parts, stops, strict=True)
    ]


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
