"""Estimates of a batch's run time, from the batches before it."""

from collections.abc import Hashable

RECENT_WEIGHT = 0.2  # of the newest batch in the moving average


class LatencyEstimator:
    """Keeps a moving average of the seconds an image, for each kind of work."""

    def __init__(self) -> None:
        self._seconds: dict[Hashable, float] = {}  # an image

    def record(self, kind: Hashable, images: int, seconds: float) -> None:
        """Add a batch that has run."""
        newest = seconds / images
        average = self._seconds.get(kind, newest)
        self._seconds[kind] = (1 - RECENT_WEIGHT) * average + RECENT_WEIGHT * newest

    def estimate(self, kind: Hashable, images: int) -> float:
        """Seconds that a batch is expected to take; infinity before the first of its kind."""
        return images * self._seconds.get(kind, float("inf"))

    def images_within(self, kind: Hashable, seconds: float, default: int) -> int:
        """Images of a batch that is expected to take so many seconds; the default before the first of its kind."""
        each = self._seconds.get(kind)
        return int(seconds / each) if each else default
