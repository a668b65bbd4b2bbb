"""Cancellation of requests whose client has left, or sends its body too slowly."""

import asyncio
import time
from dataclasses import dataclass

from service.api.requests import IncomingRequest
from service.scheduling.timer import Timer

CHECK_SECONDS = 0.1  # most requests are answered before the first check


@dataclass(eq=False, slots=True)
class WatchedRequest:
    """A request, and the task that answers it."""

    request: IncomingRequest
    task: asyncio.Task[None]
    began: float  # on the clock of `time.monotonic`
    timeout: float  # seconds until its body is to be complete
    late: bool = False
    disconnected: bool = False
    reader: asyncio.Task[None] | None = None

    def check(self, now: float) -> None:
        if not self.request.complete:  # whoever reads the body sees a disconnect
            if now >= self.began + self.timeout and not self.late:
                self.late = True
                self.task.cancel()
        elif self.reader is None and now >= self.began + CHECK_SECONDS:
            self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self.task.cancel()


class DisconnectWatcher:
    """Cancels the task of a request if its client disconnects, or its body does not arrive in time.

    Work of the task that waits for the device is then dropped before it runs.
    """

    def __init__(self) -> None:
        self._watched: set[WatchedRequest] = set()
        self._timer = Timer(self._check)

    def watch(self, request: IncomingRequest, timeout: float) -> WatchedRequest:
        """Watch the request that the current task answers, until `release`."""
        task = asyncio.current_task()
        assert task is not None  # a request is answered in a task
        watched = WatchedRequest(request, task, time.monotonic(), timeout)
        self._watched.add(watched)
        self._timer.set(watched.began + min(timeout, CHECK_SECONDS))
        return watched

    def release(self, watched: WatchedRequest) -> None:
        self._watched.discard(watched)
        if watched.reader:
            watched.reader.cancel()

    def _check(self) -> None:
        now = time.monotonic()
        for watched in self._watched:
            watched.check(now)
        if self._watched:
            self._timer.set(now + CHECK_SECONDS)
