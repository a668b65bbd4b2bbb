"""Split-conformal calibration: from an anomaly score to a p-value, threshold and verdict."""

from bisect import bisect_left
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bundle.manifest import Calibration
from bundle.tensors import Floats

# False positive rates; if none is requested, the lowest that the calibration allows is taken.
RATES = (0.01, 0.02, 0.05, 0.1, 0.2)


class Verdict(NamedTuple):
    """Meaning of one score; threshold and verdict are None if the calibration is too small."""

    score: float
    p_value: float
    threshold: float | None
    is_anomaly: bool | None


def allows_rate(images: int, rate: float) -> bool:
    """True if so many calibration images allow a p-value as low as the rate."""
    return 1 / (images + 1) <= rate


def find_default_rate(images: int) -> float:
    """The lowest of RATES that so many calibration images allow; the last if they allow none."""
    return next((rate for rate in RATES if allows_rate(images, rate)), RATES[-1])


def find_minimum_rate(images: int) -> float:
    """The lowest rate that so many calibration images allow, rounded up to two digits."""
    scale: int = 10 ** (len(str(images + 1)) + 1)
    return -(-scale // (images + 1)) / scale


def format_rate(rate: float) -> str:
    """A rate in decimal notation."""
    return str(np.format_float_positional(rate, trim="-"))


def threshold(ascending: npt.NDArray[np.float32], false_positive_rate: float) -> float | None:
    """The smallest float32 score with a p-value of at most the rate; None if scores are too few."""
    n = len(ascending)
    ranks = np.arange(1, n + 2) / (n + 1)
    allowed = int(np.count_nonzero(ranks <= false_positive_rate))
    if allowed == 0:
        return None
    if allowed == n + 1:
        return float(np.float32(-np.inf))
    return float(np.nextafter(ascending[n - allowed], np.float32(np.inf)))


class ConformalScores:
    """Split-conformal p-values.

    Vovk et al. 2005, "Algorithmic Learning in a Random World", section 2.2.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.method = calibration.method
        self.scores: npt.NDArray[np.float32] = np.asarray(calibration.scores, dtype=np.float32)
        # A list too, because a few scores are found faster in it than in an array.
        self._scores: list[float] = self.scores.tolist()
        self._threshold = lru_cache(maxsize=64)(self.threshold)
        self.default_rate = find_default_rate(len(self._scores))

    def p_value(self, score: float) -> float:
        """(1 + #{calibration scores >= score}) / (n + 1), in (0, 1], of a float32 score."""
        n = len(self._scores)
        return (1 + n - bisect_left(self._scores, score)) / (n + 1)

    def p_values(self, scores: Floats) -> npt.NDArray[np.float64]:
        """The p-value of each score: (m,) -> (m,)."""
        n = len(self.scores)
        p_values: npt.NDArray[np.float64] = (
            1 + n - np.searchsorted(self.scores, scores.astype(np.float32))
        ) / (n + 1)
        return p_values

    def threshold(self, false_positive_rate: float) -> float | None:
        """The smallest float32 score with a p-value of at most the rate; None if n is too small."""
        return threshold(self.scores, false_positive_rate)

    def reason(self, false_positive_rate: float) -> str | None:
        """The reason why no verdict can be given at this rate; None if one can."""
        if self._threshold(false_positive_rate) is not None:
            return None
        n = len(self._scores)
        least = format_rate(find_minimum_rate(n))
        advice = f"set false_positive_rate to {least} or more"
        return f"{n} calibration images allow no rate below {least}: {advice}"

    def verdicts(self, scores: Floats, false_positive_rate: float) -> list[Verdict]:
        threshold = self._threshold(false_positive_rate)
        verdicts = []
        for score in scores.tolist():
            p = self.p_value(score)
            verdicts.append(
                Verdict(
                    score, p, threshold, None if threshold is None else p <= false_positive_rate
                )
            )
        return verdicts
