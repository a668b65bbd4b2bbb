"""Processes of the workers, which are forked, so that they share the memory of what is loaded."""

import ctypes
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from typing import Self

from service.workers.supervisor import Beat, Ended, Event, Ready, Signalled

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
PR_SET_PDEATHSIG = 1  # of prctl, which sends a signal when the parent ends

# Of a worker, which calls the first function when it is ready, and the second while it responds.
Run = Callable[[int, Callable[[str], None], Callable[[], None]], int]


class ForkedProcesses:
    """Forks of this process, which must have no threads, event loop or session.

    As a context manager, it receives the signals of this process.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._pid = run, os.getpid()
        self._context = multiprocessing.get_context("fork")
        self._processes: dict[int, ForkProcess] = {}
        self._lines: dict[int, Connection] = {}  # on which workers report
        self._received, self._wakeup = socket.socketpair()

    def __enter__(self) -> Self:
        for end in (self._received, self._wakeup):
            end.setblocking(False)
        self._handlers = {each: signal.signal(each, lambda *_: None) for each in SIGNALS}
        signal.set_wakeup_fd(self._wakeup.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        self._leave_signals()

    def _leave_signals(self) -> None:
        """Restore the former handlers."""
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._received.close()
        self._wakeup.close()

    def start(self, worker: int) -> None:
        """Fork the process of a worker. Raises OSError if the system has no room for it."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=self._begin, args=(worker, sender), daemon=True)
        with _blocked_signals():  # because the child must not handle them as its parent does
            process.start()
        sender.close()
        self._processes[worker], self._lines[worker] = process, receiver

    def send(self, worker: int, number: int) -> None:
        """Send a signal to the process of a worker."""
        pid = self._processes[worker].pid
        if pid is not None:
            with suppress(ProcessLookupError):  # its end is the next event
                os.kill(pid, number)

    def wait(self, timeout: float | None) -> Sequence[Event]:
        """Return what happens next, or nothing after so many seconds."""
        ends = {process.sentinel: worker for worker, process in self._processes.items()}
        lines = {receiver.fileno(): worker for worker, receiver in self._lines.items()}
        found = {*connection.wait([self._received, *ends, *lines], timeout)}
        events: list[Event] = []
        if self._received in found:
            events += [Signalled(number) for number in self._received.recv(64)]
        for file, worker in lines.items():
            events += self._receive(worker) if file in found else ()
        return [*events, *(self._join(worker) for file, worker in ends.items() if file in found)]

    def _receive(self, worker: int) -> Iterator[Event]:
        try:
            line = self._lines[worker].recv()
        except (EOFError, OSError):  # it has ended
            self._lines.pop(worker).close()
        else:
            yield Beat(worker) if line is None else Ready(worker, line)

    def _join(self, worker: int) -> Ended:
        process = self._processes.pop(worker)
        process.join()
        if receiver := self._lines.pop(worker, None):
            receiver.close()
        status = process.exitcode or 0
        return Ended(worker, status if status >= 0 else 128 - status)

    def _begin(self, worker: int, sender: Connection) -> None:
        """Run a worker in its own process."""
        os.setpgid(0, 0)  # so that a terminal interrupts the parent only, which then signals
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != self._pid:  # which ended before the call
            sys.exit(128 + signal.SIGTERM)
        self._leave_signals()
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            sys.exit(self._run(worker, sender.send, partial(sender.send, None)))
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
