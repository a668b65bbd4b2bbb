"""Supervisor of the workers: starts them, forwards signals, and restarts those that end or hang."""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

STEADY_SECONDS = 60.0  # of a worker, whose end is then no reason to wait
FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS = 0.1, 30.0  # of a restart; it doubles each time
# A silent worker is doubted before it is killed, because a pause of the machine silences all.
SILENCE_SECONDS, DOUBT_SECONDS = 20.0, 10.0

logger = logging.getLogger(__name__)


class Signalled(NamedTuple):
    """The supervisor has received a signal."""

    number: int


class Ready(NamedTuple):
    """A worker serves; the line describes it."""

    worker: int
    line: str


class Beat(NamedTuple):
    """The event loop of a worker runs."""

    worker: int


class Ended(NamedTuple):
    """A worker has ended."""

    worker: int
    status: int


Event = Signalled | Ready | Beat | Ended


class Processes(Protocol):
    """The processes of the workers."""

    def start(self, worker: int) -> None:
        """Start the process of a worker. Raises OSError if the system has no room for it."""

    def send(self, worker: int, number: int) -> None:
        """Send a signal to the process of a worker."""

    def wait(self, timeout: float | None) -> Sequence[Event]:
        """Return what happens next, or nothing after so many seconds."""


class Supervisor:
    """Keeps so many workers running until a signal.

    The first worker starts alone, so that an error at the start is printed once, and a bundle of a
    store is fetched once. Until all are ready, the end of a worker ends them all. After a signal,
    the workers have `end_seconds` to end.
    """

    def __init__(
        self,
        processes: Processes,
        count: int,
        on_ready: Callable[[str], None],
        end_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes, self._count, self._clock = processes, count, clock
        self._on_ready, self._end_seconds = on_ready, end_seconds
        self._began: dict[int, float] = {}  # of the workers that run
        self._ready: set[int] = set()
        self._silent: dict[int, float] = {}  # when workers that are ready are silent for too long
        self._doubted: set[int] = set()
        self._kill_at = float("inf")  # when workers that have not ended are killed
        self._due: dict[int, float] = {}  # when workers that have ended are started again
        self._delays: dict[int, float] = {}
        self._complete = self._ending = False
        self._status = 0

    def run(self) -> int:
        """Run until all workers have ended, and return the exit status."""
        self._start(1)
        while self._began or self._due:
            for event in self._processes.wait(self._find_timeout()):
                self._handle(event)
            now = self._clock()
            for worker in [worker for worker, due in self._due.items() if due <= now]:
                del self._due[worker]
                self._start(worker)
            for worker in [worker for worker, due in self._silent.items() if due <= now]:
                self._doubt(worker)
            if self._kill_at <= now:
                self._kill_all()
        return self._status

    def _start(self, worker: int) -> None:
        try:
            self._processes.start(worker)
        except OSError as error:
            logger.error("worker %d cannot be started: %s", worker, error)
            self._judge(worker, 1, 0.0, "did not start")
        else:
            self._began[worker] = self._clock()

    def _find_timeout(self) -> float | None:
        first = min([*self._due.values(), *self._silent.values(), self._kill_at])
        return None if first == float("inf") else max(first - self._clock(), 0.0)

    def _handle(self, event: Event) -> None:
        match event:
            case Signalled(signal.SIGHUP):
                self._look()
            case Signalled(number):
                self._end(number)
            case Ready(worker, line):
                self._ready.add(worker)
                self._hear(worker)
                self._proceed(line)
            case Beat(worker):
                self._hear(worker)
            case Ended(worker, status):
                began = self._began.pop(worker)
                self._ready.discard(worker)
                self._silent.pop(worker, None)
                self._judge(worker, status, self._clock() - began, f"ended with status {status}")

    def _hear(self, worker: int) -> None:
        if not self._ending:
            self._doubted.discard(worker)
            self._silent[worker] = self._clock() + SILENCE_SECONDS

    def _doubt(self, worker: int) -> None:
        """Kill a worker that is silent for the second time."""
        if worker not in self._doubted:
            self._doubted.add(worker)
            self._silent[worker] = self._clock() + DOUBT_SECONDS
            return
        del self._silent[worker]
        self._kill(worker, f"did not respond for {SILENCE_SECONDS + DOUBT_SECONDS:g} s")

    def _kill(self, worker: int, why: str) -> None:
        logger.error("worker %d %s, and is killed", worker, why)
        self._processes.send(worker, signal.SIGKILL)

    def _kill_all(self) -> None:
        self._kill_at = float("inf")
        for worker in self._began:
            self._kill(worker, f"did not end within {self._end_seconds:g} s")

    def _look(self) -> None:
        for worker in self._ready:
            self._processes.send(worker, signal.SIGHUP)

    def _end(self, number: int) -> None:
        if not self._ending:
            self._kill_at = self._clock() + self._end_seconds
        self._ending = True
        self._due.clear()
        self._silent.clear()
        for worker in self._began:
            self._processes.send(worker, number)

    def _proceed(self, line: str) -> None:
        """Start the other workers, or announce that all are ready."""
        if self._complete:
            self._look()  # because a worker that is started again may have found new versions
        elif self._ending:
            return
        elif len(self._began) == 1 < self._count:
            for worker in range(2, self._count + 1):
                if not self._ending:  # because another could not be started
                    self._start(worker)
        elif len(self._ready) == self._count:
            self._complete = True
            self._on_ready(line)

    def _judge(self, worker: int, status: int, seconds: float, what: str) -> None:
        """Start an ended worker again, unless all end or have never been ready."""
        if self._ending:
            self._status = max(self._status, status)
        elif not self._complete:
            self._status = status or 1
            self._end(signal.SIGTERM)
        else:
            steady, former = seconds >= STEADY_SECONDS, self._delays.get(worker, 0.0)
            delay = 0.0 if steady else min(max(2 * former, FIRST_DELAY_SECONDS), MAX_DELAY_SECONDS)
            self._delays[worker] = delay
            self._due[worker] = self._clock() + delay
            logger.error("worker %d %s, and is started again in %g s", worker, what, delay)
