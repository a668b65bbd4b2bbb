"""Whether the clients of requests are still there, and send what they announced."""

import asyncio
import time
from dataclasses import dataclass

from service.api.requests import Incoming
from service.scheduling.timer import Alarm

LOOK_EVERY = 0.1  # seconds: most requests are answered before anybody looks


@dataclass(eq=False, slots=True)
class Presence:
    """The client of one request, and the task that answers it."""

    request: Incoming
    task: asyncio.Task[None]
    began: float  # on the clock of `time.monotonic`
    patience: float  # seconds until its body is to be whole
    late: bool = False
    left: bool = False
    watch: asyncio.Task[None] | None = None

    def look(self, now: float) -> None:
        if not self.request.whole:  # whoever reads the body sees whether the client leaves
            if now >= self.began + self.patience and not self.late:
                self.late = True
                self.task.cancel()
        elif self.watch is None and now >= self.began + LOOK_EVERY:
            self.watch = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        self.task.cancel()


class Presences:
    """Cancels the task of a request whose client has left, or whose body does not come in time.

    What the task waits for on the device is then dropped before it runs.
    """

    def __init__(self) -> None:
        self._present: set[Presence] = set()
        self._alarm = Alarm(self._look)

    def enter(self, request: Incoming, patience: float) -> Presence:
        """Look after the request that the current task answers, until it is handed to `leave`."""
        task = asyncio.current_task()
        assert task is not None  # a request is answered in a task
        presence = Presence(request, task, time.monotonic(), patience)
        self._present.add(presence)
        self._alarm.set(presence.began + min(patience, LOOK_EVERY))
        return presence

    def leave(self, presence: Presence) -> None:
        self._present.discard(presence)
        if presence.watch:
            presence.watch.cancel()

    def _look(self) -> None:
        now = time.monotonic()
        for presence in self._present:
            presence.look(now)
        if self._present:
            self._alarm.set(now + LOOK_EVERY)
