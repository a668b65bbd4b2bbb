"""Estimates of the run time of batches, from earlier batches."""

from collections.abc import Hashable

RECENT_WEIGHT = 0.2  # weight of the newest batch in the moving average
GROWTH = 1.01  # of the fastest estimate with each batch, so that it follows lasting changes


class LatencyEstimator:
    """Moving averages and minima of the seconds per image, for each kind of work.

    The minimum is what the work itself takes: other work on the same cores can make a batch ten
    times slower, whichever thread runs it.
    """

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}  # per image
        self._fastest: dict[Hashable, float] = {}

    def record(self, kind: Hashable, images: int, seconds: float) -> None:
        """Add the run time of a batch."""
        newest = seconds / images
        average = self._seconds.get(kind, newest)
        self._seconds[kind] = (1 - RECENT_WEIGHT) * average + RECENT_WEIGHT * newest
        self._fastest[kind] = min(newest, GROWTH * self._fastest.get(kind, newest))

    def estimate(self, kind: Hashable, images: int) -> float:
        """Estimate the seconds of a batch alone; infinity before the first of its kind."""
        return images * self._fastest.get(kind, float("inf"))

    def images_within(self, kind: Hashable, seconds: float, default: int) -> int:
        """Estimate the images of a batch of so many seconds; the default before the first."""
        each = self._seconds.get(kind)
        return int(seconds / each) if each else default
