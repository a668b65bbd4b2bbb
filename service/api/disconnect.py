"""Cancellation of requests if the client disconnects or sends the body too slowly."""

import asyncio
import time
from dataclasses import dataclass

from service.api.requests import IncomingRequest
from service.scheduling.timer import Timer

CHECK_SECONDS = 0.1  # most requests finish before the first check


@dataclass(eq=False, slots=True)
class WatchedRequest:
    """A request, and the task that responds to it."""

    request: IncomingRequest
    task: asyncio.Task[None]
    began: float  # on the clock of `time.monotonic`
    timeout: float  # seconds until its body must be complete
    late: bool = False
    disconnected: bool = False
    reader: asyncio.Task[None] | None = None

    def check(self, now: float) -> None:
        """Cancel the task if the body is late; start to listen for a disconnect after the body."""
        if not self.request.complete:  # the reader of the body sees a disconnect itself
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
    """Cancels the task of a request after a disconnect or the timeout of its body.

    Work of the task that waits for the device is then dropped before it runs.
    """

    def __init__(self) -> None:
        self._watched: set[WatchedRequest] = set()
        self._timer = Timer(self._check)

    def watch(self, request: IncomingRequest, timeout: float) -> WatchedRequest:
        """Watch the request of the current task until `release`; `timeout` is in seconds."""
        task = asyncio.current_task()
        assert task is not None  # the server runs each request in a task
        watched = WatchedRequest(request, task, time.monotonic(), timeout)
        self._watched.add(watched)
        self._timer.set(watched.began + min(timeout, CHECK_SECONDS))
        return watched

    def release(self, watched: WatchedRequest) -> None:
        """Stop watching a request."""
        self._watched.discard(watched)
        if watched.reader:
            watched.reader.cancel()

    def _check(self) -> None:
        now = time.monotonic()
        for watched in self._watched:
            watched.check(now)
        if self._watched:
            self._timer.set(now + CHECK_SECONDS)
