"""Times of a request's parts, for `Server-Timing`."""

import time
from dataclasses import dataclass, field
from typing import Literal


@dataclass(slots=True)
class Timings:
    """Start of a request, and the seconds that its parts took."""

    started: float = field(default_factory=time.monotonic)
    decode: float = 0.0
    queue: float = 0.0
    inference: float = 0.0
    encode: float = 0.0

    def __str__(self) -> str:
        """The value of the header `Server-Timing`, in milliseconds."""
        return (
            f"decode;dur={self.decode * 1000:.3f}, queue;dur={self.queue * 1000:.3f}, "
            f"inference;dur={self.inference * 1000:.3f}, encode;dur={self.encode * 1000:.3f}"
        )

    def measure(self, part: Literal["decode", "encode"]) -> "Measurement":
        """Add the time of a `with` statement to a part."""
        return Measurement(self, part)


class Measurement:
    """A class, because a generator is several times slower to enter and to leave."""

    __slots__ = ("_began", "_part", "_timings")

    def __init__(self, timings: Timings, part: Literal["decode", "encode"]) -> None:
        self._timings, self._part = timings, part

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        seconds = time.monotonic() - self._began
        setattr(self._timings, self._part, getattr(self._timings, self._part) + seconds)
