import signal
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import pytest

from service.workers.supervisor import (
    DOUBT_SECONDS,
    MAX_DELAY_SECONDS,
    SILENCE_SECONDS,
    STEADY_SECONDS,
    Beat,
    Ended,
    Event,
    Ready,
    Signalled,
    Supervisor,
)

TERM = Signalled(signal.SIGTERM)
READY = [Ready(1, "ready"), Ready(2, "ready")]
ENDED = [Ended(1, 0), Ended(2, 0)]
END_SECONDS = 25.0


class FakeProcesses:
    """Processes that only note what the supervisor does, and events that happen one by one.

    A number in place of an event is a time that passes, but not beyond the timeout. `failing` are
    the starts that fail, counted from 0.
    """

    def __init__(self, events: Iterable[Event | float], failing: Iterable[int]) -> None:
        self.done: list[object] = []
        self.now = 0.0
        self._fails = (index in failing for index in count())
        self._events: Iterator[Event | float] = iter(events)

    def start(self, worker: int) -> None:
        if next(self._fails):
            raise BlockingIOError("no room")
        self.done.append(worker)

    def send(self, worker: int, number: int) -> None:
        self.done.append((worker, signal.Signals(number).name))

    def wait(self, timeout: float | None) -> Sequence[Event]:
        event = next(self._events)
        if not isinstance(event, float):
            return [event]
        assert timeout is not None
        self.now += min(event, timeout)
        self.done.append(timeout)
        return []

    def announce(self, line: str) -> None:
        self.done.append(line)


def supervise(
    *events: Event | float, workers: int = 2, failing: Sequence[int] = ()
) -> tuple[int, list[object]]:
    """Return the exit status, and what was done."""
    processes = FakeProcesses(events, failing)
    supervisor = Supervisor(
        processes, workers, processes.announce, END_SECONDS, lambda: processes.now
    )
    return supervisor.run(), processes.done


def test_the_first_worker_starts_alone_and_all_are_announced_together() -> None:
    events: list[Event] = [Ready(1, "a"), Ready(3, "a"), Ready(2, "a"), TERM]
    status, done = supervise(*events, *(Ended(worker, 0) for worker in (1, 2, 3)), workers=3)
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
    loop: list[Event | float] = [event for _ in range(12) for event in (Ended(1, 1), 60.0)]
    _, done = supervise(READY[0], *loop, TERM, Ended(1, 0), workers=1)
    delays = done[2:-1:2]
    assert delays[:4] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == pytest.approx(MAX_DELAY_SECONDS)
    assert done[-1] == (1, "SIGTERM")


def test_a_worker_that_ran_for_long_is_started_again_at_once() -> None:
    lap: list[Event | float] = [STEADY_SECONDS / 6, Beat(1), Beat(2)]
    _, done = supervise(*READY, *lap * 6, Ended(2, 1), TERM, *ENDED)
    assert done[-3:] == [2, (1, "SIGTERM"), (2, "SIGTERM")]


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


def test_a_worker_that_hangs_is_killed_and_started_again(caplog: pytest.LogCaptureFixture) -> None:
    hang: list[Event | float] = [SILENCE_SECONDS, Beat(1), DOUBT_SECONDS, Ended(2, 137), 1.0]
    status, done = supervise(*READY, *hang, TERM, *ENDED)
    assert status == 0
    assert done[3:6] == [SILENCE_SECONDS, DOUBT_SECONDS, (2, "SIGKILL")]
    assert done[7:] == [2, (1, "SIGTERM"), (2, "SIGTERM")]
    assert "worker 2 did not respond for 30 s, and is killed" in caplog.text


def test_a_pause_of_the_machine_kills_no_worker() -> None:
    pause: list[Event | float] = [SILENCE_SECONDS, Beat(1), Beat(2)]
    _, done = supervise(*READY, *pause, *pause, TERM, *ENDED)
    assert done[3:] == [SILENCE_SECONDS, SILENCE_SECONDS, (1, "SIGTERM"), (2, "SIGTERM")]


def test_a_worker_that_does_not_end_is_killed(caplog: pytest.LogCaptureFixture) -> None:
    status, done = supervise(*READY, TERM, Beat(2), Ended(1, 0), 10.0, 60.0, Ended(2, 137))
    assert status == 137
    assert done[5:] == [END_SECONDS, END_SECONDS - 10, (2, "SIGKILL")]
    assert "worker 2 did not end within 25 s, and is killed" in caplog.text


def test_a_worker_that_cannot_be_started_again_is_tried_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    events: list[Event | float] = [Ended(2, 1), 1.0, 1.0]
    status, done = supervise(*READY, *events, TERM, *ENDED, failing=[2])
    assert status == 0
    assert done[3:5] == pytest.approx([0.1, 0.2])
    assert done[5:] == [2, (1, "SIGTERM"), (2, "SIGTERM")]
    assert "worker 2 cannot be started: no room" in caplog.text
    assert "worker 2 did not start, and is started again in 0.2 s" in caplog.text


def test_a_worker_that_cannot_be_started_at_first_ends_the_start() -> None:
    assert supervise(failing=[0]) == (1, [])
    status, done = supervise(READY[0], Ended(1, 0), workers=3, failing=[1])
    assert (status, done) == (1, [1, (1, "SIGTERM")])
