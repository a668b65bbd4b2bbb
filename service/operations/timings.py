"""Timings of a request, for the header `Server-Timing`, metrics and traces."""

import time
from dataclasses import dataclass, field
from typing import Literal

from service.telemetry.metrics import PHASES

Phase = Literal["decode", "queue", "inference", "encode"]

_SERVER_TIMING = ", ".join(f"{phase};dur=%.3f" for phase in PHASES)


@dataclass(slots=True)
class Timings:
    """Start of a request on the clock of `time.monotonic`, and its phases.

    `intervals` has each phase with its begin and its seconds; a phase may have several.
    """

    started: float = field(default_factory=time.monotonic)
    intervals: list[tuple[Phase, float, float]] = field(default_factory=list)

    def __str__(self) -> str:
        """Format the header `Server-Timing`, in milliseconds."""
        return _SERVER_TIMING % tuple([1000 * seconds for seconds in self.seconds()])

    def seconds(self) -> tuple[float, ...]:
        """Return the seconds of each of `PHASES`."""
        sums: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        for phase, _, seconds in self.intervals:
            sums[phase] += seconds
        return tuple(sums.values())

    def add(self, phase: Phase, began: float, seconds: float) -> None:
        """Add time to a phase."""
        self.intervals.append((phase, began, seconds))

    def measure(self, phase: Phase) -> "Measurement":
        """Add the time of a `with` statement to a phase."""
        return Measurement(self, phase)


class Measurement:
    """Context manager that adds its time to a phase; faster than a generator."""

    __slots__ = ("_began", "_phase", "_timings")

    def __init__(self, timings: Timings, phase: Phase) -> None:
        self._timings, self._phase = timings, phase

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._timings.add(self._phase, self._began, time.monotonic() - self._began)
