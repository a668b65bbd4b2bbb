"""Waiters for jobs: requests that wait until a job is complete or its deadline has passed."""

import asyncio
import threading
import time
from collections.abc import Iterable

from service.errors import DeadlineExceeded
from service.scheduling.batcher import Job
from service.scheduling.timer import Timer


class Waiters:
    """Wakes each request after its job or its deadline. Only the event loop may use it.

    `lock` guards the progress of jobs, which the device's thread changes.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._futures: dict[Job, asyncio.Future[None]] = {}
        self._timer = Timer(self._expire)

    async def wait(self, job: Job) -> None:
        """Wait until a job is complete; a job without waiter is dropped."""
        done = self._futures[job] = asyncio.get_running_loop().create_future()
        self._timer.set(job.deadline)
        try:
            await done
        finally:
            job.dropped = True
            del self._futures[job]

    def wake(self, jobs: Iterable[Job]) -> None:
        """Wake the requests of complete jobs."""
        for job in jobs:
            done = self._futures.get(job)
            if job.complete and done and not done.done():
                done.set_result(None)

    def _expire(self) -> None:
        """Fail jobs past their deadline, unless they have started."""
        now = time.monotonic()
        with self._lock:
            waiting = [job for job in self._futures if not job.taken]
            late = [job for job in waiting if job.deadline <= now]
            for job in late:
                job.dropped = True
        for job in late:
            seconds = job.deadline - job.submitted
            job.error = DeadlineExceeded(
                f"the request did not run within {seconds:.1f} s; retry when the load is lower"
            )
        self.wake(late)
        if deadlines := [job.deadline for job in waiting if job.deadline > now]:
            self._timer.set(min(deadlines))
