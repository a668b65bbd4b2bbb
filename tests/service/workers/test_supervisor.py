import signal
from collections.abc import Iterable, Iterator, Sequence

import pytest

from service.workers.supervisor import (
    MAX_DELAY_SECONDS,
    STEADY_SECONDS,
    Ended,
    Event,
    Ready,
    Signalled,
    Supervisor,
)

TERM = Signalled(signal.SIGTERM)
READY = [Ready(1, "ready"), Ready(2, "ready")]


class FakeProcesses:
    """Processes that only note what the supervisor does, and events that happen one by one.

    A number in place of an event is a time that passes.
    """

    def __init__(self, events: Iterable[Event | float]) -> None:
        self.done: list[object] = []
        self.now = 0.0
        self._events: Iterator[Event | float] = iter(events)

    def start(self, worker: int) -> None:
        self.done.append(worker)

    def send(self, worker: int, number: int) -> None:
        self.done.append((worker, signal.Signals(number).name))

    def wait(self, timeout: float | None) -> Sequence[Event]:
        event = next(self._events)
        if isinstance(event, Signalled | Ready | Ended):
            return [event]
        self.now += event if timeout is None else timeout
        self.done.append(timeout)
        return []

    def announce(self, line: str) -> None:
        self.done.append(line)


def supervise(*events: Event | float, count: int = 2) -> tuple[int, list[object]]:
    """Return the exit status, and what was done."""
    processes = FakeProcesses(events)
    supervisor = Supervisor(processes, count, processes.announce, lambda: processes.now)
    return supervisor.run(), processes.done


def test_the_first_worker_starts_alone_and_all_are_announced_together() -> None:
    events: list[Event] = [Ready(1, "a"), Ready(3, "a"), Ready(2, "a"), TERM]
    status, done = supervise(*events, *(Ended(worker, 0) for worker in (1, 2, 3)), count=3)
    assert status == 0
    assert done == [1, 2, 3, "a", *((worker, "SIGTERM") for worker in (1, 2, 3))]


@pytest.mark.parametrize(("status", "expected"), [(1, 1), (137, 137), (0, 1)])
def test_a_worker_that_ends_before_all_are_ready_ends_the_start(status: int, expected: int) -> None:
    assert supervise(Ended(1, status)) == (expected, [1])
    ended: list[Event] = [Ready(1, "a"), Ended(2, status), Ended(1, 0)]
    assert supervise(*ended) == (expected, [1, 2, (1, "SIGTERM")])


def test_a_worker_that_ends_is_started_again_and_all_look_for_new_versions() -> None:
    again: list[Event | float] = [Ended(1, 137), 1.0, Ready(1, "a"), TERM, Ended(1, 0), Ended(2, 0)]
    status, done = supervise(*READY, *again)
    assert status == 0
    assert done[3:] == [0.1, 1, (1, "SIGHUP"), (2, "SIGHUP"), (2, "SIGTERM"), (1, "SIGTERM")]


def test_a_worker_that_ends_again_and_again_is_started_ever_later() -> None:
    loop: list[Event | float] = [event for _ in range(12) for event in (Ended(2, 1), 1.0)]
    _, done = supervise(*READY, *loop, TERM, Ended(1, 0), Ended(2, 0))
    delays = done[3:-2:2]
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == pytest.approx(MAX_DELAY_SECONDS)
    assert done[-2:] == [(1, "SIGTERM"), (2, "SIGTERM")]


def test_a_worker_that_ran_for_long_is_started_again_at_once() -> None:
    _, done = supervise(*READY, STEADY_SECONDS, Ended(2, 1), 0.0, TERM, Ended(1, 0), Ended(2, 0))
    assert done[4] == 2


def test_signals_reach_the_workers_and_a_worker_that_is_due_is_not_started() -> None:
    events: list[Event] = [Ended(2, 1), Signalled(signal.SIGHUP), Signalled(signal.SIGINT)]
    status, done = supervise(*READY, *events, Ended(1, 130))
    assert status == 130
    assert done[3:] == [(1, "SIGHUP"), (1, "SIGINT")]
    impatient = supervise(*READY, TERM, Signalled(signal.SIGINT), Ended(1, 0), Ended(2, 1))
    assert impatient[0] == 1
    assert impatient[1].count((1, "SIGINT")) == 1


def test_a_signal_before_all_are_ready_starts_no_more() -> None:
    assert supervise(TERM, Ready(1, "a"), Ended(1, 0)) == (0, [1, (1, "SIGTERM")])
