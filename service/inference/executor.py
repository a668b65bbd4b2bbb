"""The one thread that runs graphs on the device, behind a bounded queue."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded, Overloaded, ShuttingDown

Result = TypeVar("Result")


@dataclass(frozen=True)
class Ran(Generic[Result]):
    """What a job gave, and the seconds that it waited and took."""

    result: Result
    waited: float
    took: float


class DeviceExecutor:
    """Admits requests up to a number of images and bytes in flight, and runs their jobs in order, one at a time."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._max_images = max_images
        self._max_bytes = max_bytes
        self._images = 0
        self._bytes = 0
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")

    @contextmanager
    def admit(self, images: int, size: int) -> Iterator[None]:
        """Hold a place for `images` that came in `size` bytes.

        Raises Overloaded where there is none, and ShuttingDown after `close`.
        """
        if self._closed:
            raise ShuttingDown("the service is shutting down; send the request to another replica")
        if self._images + images > self._max_images or self._bytes + size > self._max_bytes:
            raise Overloaded(f"{self._images} images of {self._bytes} bytes are in flight; try again shortly")
        self._images += images
        self._bytes += size
        try:
            yield
        finally:
            self._images -= images
            self._bytes -= size

    async def run(self, job: Callable[[], Result], deadline: float) -> Ran[Result]:
        """Run the job when its turn comes.

        Raises DeadlineExceeded where that is later than `deadline`, on the clock of `time.monotonic`, and
        ShuttingDown where `close` came first.
        """
        submitted = time.monotonic()

        def timed() -> Ran[Result]:
            started = time.monotonic()
            return Ran(job(), started - submitted, time.monotonic() - started)

        future = self._thread.submit(timed)
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait([waiting], timeout=max(0.0, deadline - submitted))
        except asyncio.CancelledError:
            future.cancel()
            raise
        if future.cancelled():
            raise ShuttingDown("the service shut down before the request's turn came")
        if not waiting.done() and future.cancel():  # which a job that has begun does not let happen
            raise DeadlineExceeded(f"the request's turn did not come within {deadline - submitted:.1f} s")
        return await waiting

    def drain(self) -> None:
        """Admit nothing more; what was admitted goes on."""
        self._closed = True

    @property
    def draining(self) -> bool:
        return self._closed

    def close(self) -> None:
        """Drain, and wait for the job that is running."""
        self.drain()
        self._thread.shutdown(wait=True, cancel_futures=True)
