"""Whether the client of a request is still there."""

import asyncio

from service.api.bodies import Incoming

LOOK_AFTER = 0.1  # seconds: most requests are answered before it would be worth a look


class Presence:
    """Cancels the task that it is made in where the client leaves before the answer is made.

    What the task waits for on the device is then dropped before it runs.
    """

    def __init__(self, request: Incoming, look_after: float = LOOK_AFTER) -> None:
        self.left = False
        self._request = request
        self._look_after = look_after
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._watch: asyncio.Task[None] | None = None
        self._timer = self._loop.call_later(look_after, self._look)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()
        if self._watch:
            self._watch.cancel()

    def _look(self) -> None:
        if self._request.whole:
            self._watch = self._loop.create_task(self._wait())
        else:  # whoever reads the body will see it
            self._timer = self._loop.call_later(self._look_after, self._look)

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        assert self._task is not None  # a request is answered in a task
        self._task.cancel()
