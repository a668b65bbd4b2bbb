"""Executor that runs waiting work on the device, one batch at a time."""

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from bundle.tensors import Tensors
from service.errors import DeviceLost, ShuttingDown
from service.scheduling import batcher
from service.scheduling.batcher import Batcher, Job, Part, Work
from service.scheduling.latency import LatencyEstimator
from service.scheduling.waiters import Waiters

# Longest batch on the event loop. With a second core, a thread runs beside the loop, but switching
# to it takes longer than a short batch. On one core, a thread would only compete with the loop.
INLINE_SECONDS = 0.001
INLINE_SECONDS_ON_ONE_CORE = 0.02
# Between short batches on the event loop while the thread is busy. A small model waits no longer,
# and leaves the cores to the batch that runs.
OVERTAKE_SECONDS = 0.05
MAX_BATCH_SECONDS = 0.1  # because a longer batch delays other batches and holds its memory

Observer = Callable[[str, int, float], None]  # of a batch: owner, images, seconds


class Completion(NamedTuple):
    """The results of a work, and the seconds that it waited and ran."""

    results: Tensors
    waited: float
    took: float


class DeviceExecutor:
    """Runs batches on its own thread, and short batches on the event loop.

    A batch runs as soon as the device is free, with all work that waits. If the device is idle and
    the batch is not full, the executor waits `max_queue_delay` seconds for more work. A batch with
    an estimate of at most `inline_seconds` runs on the event loop if the device is idle, or if the
    thread runs a batch of another owner. A batch on the loop starts once an iteration brings no
    more work. All methods but `close` and `queued` must be called on the event loop.
    """

    def __init__(
        self,
        max_batch_size: int,
        max_queue_delay: float = 0.0,
        observe: Observer = lambda *_: None,
        inline_seconds: float = INLINE_SECONDS,
    ) -> None:
        self._max_queue_delay = max_queue_delay
        self._observe = observe
        self._inline_seconds = inline_seconds
        self._closed = False
        self._lost: DeviceLost | None = None
        self._lock = threading.Lock()  # of the batcher, the jobs' progress and `_busy`
        self._batcher = Batcher(max_batch_size, self._batch_limit)
        self._waiters = Waiters(self._lock)
        self._latency = LatencyEstimator()
        self._busy = False  # the thread runs, and will take the next batch
        # Of the batches that run, because only one thread at a time may use it.
        self._thread_uses: frozenset[Hashable] = frozenset()
        self._loop_uses: frozenset[Hashable] = frozenset()
        self._next_overtaking = 0.0  # on the clock of `time.monotonic`
        self._start: asyncio.Handle | None = None  # of the next batch
        self._seen = 0  # images that waited in the last iteration of the loop
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    async def run(self, work: Work, deadline: float) -> Completion:
        """Run a work, joined with other work or split, and return results in the order of its rows.

        Raises DeadlineExceeded if the work does not start before `deadline`, on the clock of
        `time.monotonic`. Raises ShuttingDown after `close`, DeviceLost after such an error of any
        work, and any error of the work.
        """
        self._loop = asyncio.get_running_loop()
        if self._lost:
            raise DeviceLost(str(self._lost))
        job = Job(work, deadline)
        with self._lock:
            if self._closed:
                raise _build_shutting_down()
            self._batcher.push(job)
        self._schedule()
        await self._waiters.wait(job)
        if job.error is not None:
            error = job.error
            # Its frames, and this one, would hold the work, and so the graphs, until a collection.
            traceback.clear_frames(error.__traceback__)
            try:
                raise error
            finally:
                del error, job, work
        return Completion(job.results, job.started - job.submitted, job.took)

    @property
    def lost(self) -> DeviceLost | None:
        """The error after which the device cannot be used."""
        return self._lost

    def lose(self, error: DeviceLost) -> None:
        """Take no more work after an error of the device. Any thread may call this."""
        self._lost = error

    def queued(self) -> int:
        """Return the number of images that wait. Any thread may call this."""
        with self._lock:
            return self._batcher.images

    def close(self) -> None:
        """Fail waiting work with ShuttingDown, and wait for the running batch."""
        with self._lock:
            self._closed = True
            left = self._batcher.clear()
        for job in left:
            job.error = _build_shutting_down()
        if left:
            with suppress(RuntimeError):  # the loop has ended, and no request waits
                self._loop.call_soon_threadsafe(self._waiters.wake, left)
        self._thread.shutdown(wait=True)

    def _schedule(self) -> None:
        """Start a batch now or after a delay; a busy thread takes the next long batch itself."""
        delay = self._max_queue_delay
        if delay and self._batcher.images >= self._batcher.max_batch_size:
            delay = 0.0
            self._cancel_start()
        if self._busy:
            delay = max(0.0, self._next_overtaking - time.monotonic())
        if self._start is None:
            # Not at once even without a delay, to batch all work of this iteration of the loop.
            begin = self._begin
            self._start = (
                self._loop.call_later(delay, begin) if delay else self._loop.call_soon(begin)
            )

    def _cancel_start(self) -> None:
        if self._start:
            self._start.cancel()
            self._start = None

    def _begin(self) -> None:
        if self._is_growing():
            self._start = self._loop.call_soon(self._begin)
            return
        self._start, self._seen = None, 0
        with self._lock:
            if self._busy:
                parts = self._batcher.take(self._may_overtake, self._short_limit)
            else:
                parts = self._batcher.take()
            inline = self._busy or self._estimate(parts) <= self._inline_seconds
            if inline:
                self._loop_uses = _find_uses(parts)
            else:
                self._busy, self._thread_uses = True, _find_uses(parts)
        if not parts:
            return
        if not inline:
            self._thread.submit(self._run_all, parts)
            return
        self._run(parts)
        self._loop_uses = frozenset()
        if self._busy:
            self._next_overtaking = time.monotonic() + OVERTAKE_SECONDS
        self._waiters.wake(part.job for part in parts)
        if not self._batcher.empty:
            self._schedule()

    def _is_growing(self) -> bool:
        """Return True if the last iteration of the loop brought work for a batch on the loop.

        The loop would read what has arrived after the batch, and run it in another.
        """
        with self._lock:
            if self._busy:
                return False
            job, images = self._batcher.first, self._batcher.images
        if job is None or job.work.alone:
            return False
        before, self._seen = self._seen, images
        return (
            before < images < self._batcher.max_batch_size
            and self._latency.estimate(_get_key(job.work), images) <= self._inline_seconds
        )

    def _run_all(self, parts: Sequence[Part]) -> None:
        """Run batches on the thread until no work waits but what uses what the loop does."""
        while parts:
            self._run(parts)
            jobs = [part.job for part in parts]
            with self._lock:
                parts = self._batcher.take(lambda job: self._loop_uses.isdisjoint(job.uses))
                self._busy, self._thread_uses = bool(parts), _find_uses(parts)
            with suppress(RuntimeError):  # the loop has ended, and no request waits
                self._loop.call_soon_threadsafe(self._wake, jobs)

    def _wake(self, jobs: Sequence[Job]) -> None:
        self._waiters.wake(jobs)
        if not self._busy:
            self._cancel_start()
        if not self._batcher.empty:
            self._schedule()

    def _may_overtake(self, job: Job) -> bool:
        """Return True for a short job that uses nothing of what the thread runs."""
        needed = job.count if job.work.alone else 1
        return self._thread_uses.isdisjoint(job.uses) and self._short_limit(job) >= needed

    def _short_limit(self, job: Job) -> int:
        """Return how many images of a job can run on the event loop."""
        return int(self._inline_seconds / self._latency.estimate(_get_key(job.work), 1))

    def _run(self, parts: Sequence[Part]) -> None:
        for group, seconds in batcher.run(parts):
            work, images = group[0].job.work, batcher.count_images(group)
            self._latency.record(_get_key(work), images, seconds)
            self._observe(work.owner, images, seconds)
        for part in parts:
            if isinstance(part.job.error, DeviceLost):
                self.lose(part.job.error)

    def _batch_limit(self, job: Job) -> int:
        default = self._batcher.max_batch_size
        return self._latency.images_within(_get_key(job.work), MAX_BATCH_SECONDS, default)

    def _estimate(self, parts: Sequence[Part]) -> float:
        """Estimate the run time of a batch in seconds."""
        return sum(
            self._latency.estimate(_get_key(group[0].job.work), batcher.count_images(group))
            for group in batcher.group_by_work(parts)
        )


def _find_uses(parts: Sequence[Part]) -> frozenset[Hashable]:
    """Return what only the thread of a batch may use."""
    if not parts:
        return frozenset()
    return frozenset().union(*(group[0].job.uses for group in batcher.group_by_work(parts)))


def _get_key(work: Work) -> Hashable:
    return work.owner, work.kind


def _build_shutting_down() -> ShuttingDown:
    return ShuttingDown("the service shut down before the request ran; send it again")
