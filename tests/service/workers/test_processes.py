import os
import signal
from collections.abc import Callable, Iterator

import pytest

from service.workers.processes import ForkedProcesses
from service.workers.supervisor import Beat, Ended, Event, Ready, Signalled


def wait(processes: ForkedProcesses) -> Iterator[Event]:
    while events := processes.wait(60):
        yield from events


@pytest.mark.parametrize(("how", "status"), [("exit", 7), ("kill", 137), ("interrupt", 130)])
def test_a_process_is_ready_and_ends_with_a_status(how: str, status: int) -> None:
    def run(worker: int, announce: Callable[[str], None], beat: Callable[[], None]) -> int:
        announce(f"worker {worker}")
        if how != "exit":  # which could come before the beat is received
            beat()
        while how != "exit":  # a call that waits could begin after the signal
            os.sched_yield()
        return 7

    with ForkedProcesses(run) as processes:
        processes.start(3)
        events = wait(processes)
        assert next(events) == Ready(3, "worker 3")
        if how != "exit":
            assert next(events) == Beat(3)
            processes.send(3, signal.SIGKILL if how == "kill" else signal.SIGINT)
        assert next(events) == Ended(3, status)


def test_a_process_can_end_before_it_is_ready() -> None:
    with ForkedProcesses(lambda *_: 0) as processes:
        processes.start(1)
        assert next(wait(processes)) == Ended(1, 0)


def test_signals_of_the_supervisor_are_events_and_handlers_are_restored() -> None:
    former = signal.getsignal(signal.SIGTERM)
    with ForkedProcesses(lambda *_: 0) as processes:
        os.kill(os.getpid(), signal.SIGHUP)
        assert next(wait(processes)) == Signalled(signal.SIGHUP)
    assert signal.getsignal(signal.SIGTERM) == former
