"""The executor: runs waiting work on the device in batches, one at a time."""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from bundle.tensors import Tensors
from service.errors import ShuttingDown
from service.scheduling import batcher
from service.scheduling.batcher import Batcher, Job, Part, Work
from service.scheduling.latency import LatencyEstimator
from service.scheduling.waiters import Waiters

# Longest batch that runs on the event loop. With a second core a thread works while the loop reads and decodes, if a
# batch is worth the way there and back; on a single core a thread would only take turns with the loop.
INLINE_SECONDS = 0.001
INLINE_SECONDS_ON_ONE_CORE = 0.02
MAX_BATCH_SECONDS = 0.1  # a longer batch delays others and keeps its memory

Observer = Callable[[str, int, float], None]  # of a batch: its owner, images and seconds


class Completed(NamedTuple):
    """The results of a work, and the seconds that it waited and then ran, in whatever batches."""

    results: Tensors
    waited: float
    took: float


class DeviceExecutor:
    """Runs batches on a thread of its own, short ones on the event loop.

    A batch runs as soon as the device is free, with all work that has come until then. If the device is idle and the
    batch not full, the executor waits `max_queue_delay` seconds for more. A batch that finds the device idle and is
    expected to take at most `inline_seconds` runs on the event loop, on which all methods but `close` are called.
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
        self._lock = threading.Lock()  # of the batcher, the jobs' progress and `_busy`
        self._batcher = Batcher(max_batch_size, self._batch_limit)
        self._waiters = Waiters(self._lock)
        self._latency = LatencyEstimator()
        self._busy = False  # the thread works, and takes the next batch when it is done
        self._start: asyncio.Handle | None = None  # of a batch on the idle device
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    async def run(self, work: Work, deadline: float) -> Completed:
        """Run the work, joined with other work or in parts; gives its results in the order of its rows.

        Raises DeadlineExceeded if its turn does not come before `deadline`, on the clock of `time.monotonic`,
        ShuttingDown if `close` comes first, and whatever the work itself raises.
        """
        self._loop = asyncio.get_running_loop()
        job = Job(work, deadline)
        with self._lock:
            if self._closed:
                raise _shut_down()
            self._batcher.push(job)
        self._schedule()
        await self._waiters.wait(job)
        if job.error is not None:
            raise job.error
        return Completed(job.results, job.started - job.submitted, job.took)

    def close(self) -> None:
        """End the work that waits with ShuttingDown, and wait for the batch that runs."""
        with self._lock:
            self._closed = True
            left = self._batcher.clear()
        for job in left:
            job.error = _shut_down()
        if left:
            self._loop.call_soon_threadsafe(self._waiters.wake, left)
        self._thread.shutdown(wait=True)

    def _schedule(self) -> None:
        """Begin a batch soon, or when the delay is over; a busy thread takes the next batch itself."""
        delay = self._max_queue_delay
        if delay and self._batcher.images >= self._batcher.max_batch_size:
            delay = 0.0
            if self._start:
                self._start.cancel()
                self._start = None
        if not self._busy and self._start is None:
            # Even without a delay not at once: work of the same turn of the loop belongs in the batch.
            begin = self._begin
            self._start = (
                self._loop.call_later(delay, begin) if delay else self._loop.call_soon(begin)
            )

    def _begin(self) -> None:
        self._start = None
        with self._lock:
            parts = [] if self._busy else self._batcher.take()
            inline = self._estimate(parts) <= self._inline_seconds
            self._busy = self._busy or not inline
        if not parts:
            return
        if not inline:
            self._thread.submit(self._run_all, parts)
            return
        self._run(parts)
        self._waiters.wake(part.job for part in parts)
        if not self._batcher.empty:
            self._schedule()

    def _run_all(self, parts: Sequence[Part]) -> None:
        """Run batches, on the thread, until none is left."""
        while parts:
            self._run(parts)
            jobs = [part.job for part in parts]
            with self._lock:
                parts = self._batcher.take()
                self._busy = bool(parts)
            with suppress(RuntimeError):  # nobody waits after the loop has ended
                self._loop.call_soon_threadsafe(self._waiters.wake, jobs)

    def _run(self, parts: Sequence[Part]) -> None:
        began = time.monotonic()
        batcher.run(parts)
        took = time.monotonic() - began
        work, images = parts[0].job.work, _count(parts)
        self._latency.record(_kind(work), images, took)
        self._observe(work.owner, images, took)

    def _batch_limit(self, job: Job) -> int:
        default = self._batcher.max_batch_size
        return self._latency.images_within(_kind(job.work), MAX_BATCH_SECONDS, default)

    def _estimate(self, parts: Sequence[Part]) -> float:
        """Seconds that a batch is expected to run."""
        return self._latency.estimate(_kind(parts[0].job.work), _count(parts)) if parts else 0.0


def _kind(work: Work) -> Hashable:
    return work.owner, work.kind


def _count(parts: Sequence[Part]) -> int:
    return sum(stop - start for _, start, stop in parts)


def _shut_down() -> ShuttingDown:
    return ShuttingDown("the service shut down before the request's turn came")
