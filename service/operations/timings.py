"""Timings of a request, for the header `Server-Timing`, metrics and traces."""

import time
from dataclasses import dataclass, field
from typing import Literal

Phase = Literal["decode", "queue", "inference", "encode"]


@dataclass(slots=True)
class Timings:
    """Start of a request on the clock of `time.monotonic`, and the seconds of its phases.

    `intervals` has each phase with its begin and its seconds; a phase may have several.
    """

    started: float = field(default_factory=time.monotonic)
    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    encode: float = 0.0
    intervals: list[tuple[Phase, float, float]] = field(default_factory=list)

    def __str__(self) -> str:
        """Format the header `Server-Timing`, in milliseconds."""
        return (
            f"decode;dur={self.decode * 1000:.3f}, queue;dur={self.queue * 1000:.3f}, "
            f"inference;dur={self.inference * 1000:.3f}, encode;dur={self.encode * 1000:.3f}"
        )

    def seconds(self) -> tuple[float, float, float, float]:
        """Return the seconds of decode, queue, inference and encode."""
        return self.decode, self.queue, self.inference, self.encode

    def add(self, phase: Phase, began: float, seconds: float) -> None:
        """Add time to a phase."""
        setattr(self, phase, getattr(self, phase) + seconds)
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
