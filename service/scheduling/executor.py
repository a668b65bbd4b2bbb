"""The device: admits requests up to a bound, and runs what waits in batches, one at a time."""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from bundle.tensors import Tensors
from service.errors import DeadlineExceeded, Overloaded, ShuttingDown
from service.scheduling import batcher
from service.scheduling.batcher import Batcher, Job, Part, Work
from service.scheduling.timer import Alarm

# Seconds of a batch that runs on the event loop. With a second core a thread works while the loop reads and decodes, if
# the way there and back is worth it; on a single core it would only take turns with the loop.
SHORT = 0.001
SHORT_ON_ONE_CORE = 0.02
LONG = 0.1  # seconds of a batch that is not made longer, for others wait behind it and its memory is kept

Watch = Callable[[str, int, float], None]  # is told of a batch: its owner, images and seconds


class Ran(NamedTuple):
    """What a work gave, and the seconds that it waited and then ran, in whatever batches."""

    results: Tensors
    waited: float
    took: float


class Place:
    """What an admitted request holds; a class, for a generator costs several times as much to enter and to leave."""

    __slots__ = ("_executor", "_images")

    def __init__(self, executor: "DeviceExecutor", images: int) -> None:
        self._executor, self._images = executor, images

    def __enter__(self) -> None:
        self._executor.check_room(self._images)
        self._executor.images += self._images

    def __exit__(self, *_: object) -> None:
        self._executor.images -= self._images


class Upload:
    """What the body of a request takes, as far as it has come; a class as `Place` is."""

    __slots__ = ("_executor", "_size")

    def __init__(self, executor: "DeviceExecutor") -> None:
        self._executor, self._size = executor, 0

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.bytes -= self._size

    def expect(self, size: int) -> None:
        """Raise as `check_room` does where there is no place for so many bytes more."""
        self._executor.check_room(0, size)

    def take(self, size: int) -> None:
        """Count bytes that have come. Raises as `check_room` does."""
        self._executor.check_room(0, size)
        self._executor.bytes += size
        self._size += size


class DeviceExecutor:
    """The thread that has the device to itself, with a batcher before it.

    A batch runs as soon as the device is free, with all that has come until then; where the device is idle and the
    batch not full, `max_queue_delay` seconds are waited for more. A batch that finds the device idle and is expected
    to take at most `short` seconds runs on the event loop, on which all methods but `close` are called.
    """

    def __init__(
        self,
        max_images: int,
        max_bytes: int,
        max_batch_size: int,
        max_queue_delay: float = 0.0,
        watch: Watch = lambda *_: None,
        short: float = SHORT,
    ) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._max_queue_delay = max_queue_delay
        self._watch = watch
        self._short = short
        self.images = 0  # in flight
        self.bytes = 0  # of bodies, whole or not
        self._draining = False
        self._ended = False
        self._waiting: dict[Job, asyncio.Future[None]] = {}
        self._batcher = Batcher(max_batch_size, self._most)
        self._busy = False  # whether the thread works, and will look for more when it is done
        self._alarm = Alarm(self._give_up)
        self._lock = threading.Lock()  # of the batcher and of `_busy`
        self._start: asyncio.Handle | None = None  # of a batch on the idle device
        self._pace: dict[tuple[str, Hashable], float] = {}  # seconds an image, by owner and kind
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    def check_room(self, images: int = 1, size: int = 0) -> None:
        """Raise Overloaded where there is no place for so much, and ShuttingDown after `drain`."""
        if self._draining:
            raise ShuttingDown("the service is shutting down; send the request to another replica")
        if self.images + images > self._max_images or self.bytes + size > self._max_bytes:
            raise Overloaded(f"{self.images} images and {self.bytes} bytes are in flight; try again shortly")

    def admit(self, images: int) -> Place:
        """Hold a place for so many images, in a `with` statement. Raises as `check_room` does."""
        return Place(self, images)

    def upload(self) -> Upload:
        """Count the bytes of a body, in a `with` statement that lasts until the request is answered."""
        return Upload(self)

    async def run(self, work: Work, deadline: float) -> Ran:
        """Run the work, joined with others or in parts, and give its results in the order of its rows.

        Raises DeadlineExceeded where its turn does not come before `deadline`, on the clock of `time.monotonic`,
        ShuttingDown where `close` comes first, and whatever the work itself raises.
        """
        self._loop = asyncio.get_running_loop()
        job = Job(work, deadline)
        with self._lock:
            if self._ended:
                raise _shut_down()
            self._batcher.push(job)
        done = self._waiting[job] = self._loop.create_future()
        self._wake()
        self._alarm.set(deadline)
        try:
            await done
        finally:
            job.dropped = True
            del self._waiting[job]
        if job.error is not None:
            raise job.error
        assert job.results is not None  # it has no error, so it is done
        assert job.started is not None
        return Ran(job.results, job.started - job.submitted, job.took)

    def drain(self) -> None:
        """Admit nothing more; what was admitted goes on."""
        self._draining = True

    @property
    def draining(self) -> bool:
        return self._draining

    def close(self) -> None:
        """Drain, tell what waits that it will not run, and wait for the batch that is running."""
        self.drain()
        with self._lock:
            self._ended = True
            left = self._batcher.clear()
        for job in left:
            job.error = _shut_down()
        if left:
            self._loop.call_soon_threadsafe(self._deliver, left)
        self._thread.shutdown(wait=True)

    def _give_up(self) -> None:
        """Answer the jobs whose time is up, unless they have begun."""
        now = time.monotonic()
        with self._lock:
            waiting = [job for job in self._waiting if not job.taken]
            late = [job for job in waiting if job.deadline <= now]
            for job in late:
                job.dropped = True
        for job in late:
            job.error = DeadlineExceeded(f"the request's turn did not come within {job.deadline - job.submitted:.1f} s")
        self._deliver(late)
        if deadlines := [job.deadline for job in waiting if job.deadline > now]:
            self._alarm.set(min(deadlines))

    def _wake(self) -> None:
        """See to it that a batch begins, soon or when the delay is over; a thread that is busy sees to it itself."""
        delay = self._max_queue_delay
        if delay and self._batcher.images >= self._batcher.max_batch_size:
            delay = 0.0
            if self._start:
                self._start.cancel()
                self._start = None
        if not self._busy and self._start is None:
            # Even without a delay not at once: what came in the same turn of the loop is to be in the batch.
            self._start = self._loop.call_later(delay, self._begin) if delay else self._loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._start = None
        with self._lock:
            parts = [] if self._busy else self._batcher.take()
            short = self._expected(parts) <= self._short
            self._busy = self._busy or not short
        if not parts:
            return
        if not short:
            self._thread.submit(self._work, parts)
            return
        self._run(parts)
        self._deliver(part.job for part in parts)
        if not self._batcher.empty:
            self._wake()

    def _work(self, parts: Sequence[Part]) -> None:
        """Run batches, on the thread, until none is left."""
        while parts:
            self._run(parts)
            jobs = [part.job for part in parts]
            with self._lock:
                parts = self._batcher.take()
                self._busy = bool(parts)
            with suppress(RuntimeError):  # where the loop has ended nobody waits
                self._loop.call_soon_threadsafe(self._deliver, jobs)

    def _run(self, parts: Sequence[Part]) -> None:
        began = time.monotonic()
        batcher.run(parts)
        took = time.monotonic() - began
        work, images = parts[0].job.work, _images(parts)
        key, pace = (work.owner, work.kind), took / images
        self._pace[key] = 0.8 * self._pace.get(key, pace) + 0.2 * pace
        self._watch(work.owner, images, took)

    def _most(self, job: Job) -> int:
        pace = self._pace_of(job.work)
        return int(LONG / pace) if pace else self._batcher.max_batch_size

    def _expected(self, parts: Sequence[Part]) -> float:
        """Seconds for which a batch will run, as far as is known."""
        if not parts:
            return 0.0
        pace = self._pace_of(parts[0].job.work)
        return _images(parts) * pace if pace else float("inf")

    def _pace_of(self, work: Work) -> float:
        """Seconds an image lately; 0 where nothing is known."""
        return self._pace.get((work.owner, work.kind), 0.0)

    def _deliver(self, jobs: Iterable[Job]) -> None:
        """Wake those who wait for the jobs that are complete."""
        for job in jobs:
            done = self._waiting.get(job)
            if job.complete and done and not done.done():
                done.set_result(None)


def _images(parts: Sequence[Part]) -> int:
    return sum(stop - start for _, start, stop in parts)


def _shut_down() -> ShuttingDown:
    return ShuttingDown("the service shut down before the request's turn came")
