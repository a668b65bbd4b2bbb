"""Whether what is scored is still like what the scores were calibrated on."""

from collections import deque
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.anomaly import ConformalScores, Floats

P_VALUES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # ends of bins
BINS = 10  # of the stability index
RECENT = 1000  # images of which it is taken
FEWEST = 100  # images, without which it would be chance
AT_ONCE = 256  # images that are looked at together, for one by one costs more


class DriftFigures(NamedTuple):
    """Of all images: how many, how many were called anomalous, how many p-values lie in each bin, and their sum.

    `stability` is the index of the recent ones, None while they are few.
    """

    images: int
    anomalous: int
    p_values: tuple[int, ...]
    sum: float
    stability: float | None


class Drift:
    """Follows the scores of a model.

    The population stability index of its recent scores against those of calibration is sum((a - e) * log(a / e)) over
    bins that hold the shares a and e of them (Siddiqi 2006, "Credit Risk Scorecards", chapter 8); it is 0 where the two
    are alike, and its mean is then (bins - 1) * (1 / recent + 1 / calibrated) (Yurdakul 2018, "Statistical Properties
    of Population Stability Index", chapter 3). Not safe for threads.
    """

    def __init__(self, conformal: ConformalScores) -> None:
        self._conformal = conformal
        self._edges = np.unique(np.quantile(conformal.scores, np.arange(1, BINS) / BINS))
        self._expected = self._shares(np.bincount(self._bins(conformal.scores), minlength=len(self._edges) + 1))
        self._waiting: list[tuple[Floats, float]] = []
        self._recent: deque[int] = deque(maxlen=RECENT)
        self._images = self._looked_at = self._anomalous = 0
        self._counts = np.zeros(len(P_VALUES), np.int64)
        self._sum = 0.0

    def add(self, scores: Floats, false_positive_rate: float) -> None:
        """Count scores (n,), which were judged at this rate."""
        self._waiting.append((scores, false_positive_rate))
        self._images += len(scores)
        if self._images - self._looked_at >= AT_ONCE:
            self._look()

    def figures(self) -> DriftFigures:
        self._look()
        counts = tuple(self._counts.tolist())
        return DriftFigures(self._images, self._anomalous, counts, self._sum, self._stability())

    def _look(self) -> None:
        if not self._waiting:
            return
        scores = np.concatenate([each for each, _ in self._waiting])
        rates = np.concatenate([np.full(len(each), rate) for each, rate in self._waiting])
        self._waiting.clear()
        self._looked_at = self._images
        p_values = self._conformal.p_values(scores)
        self._anomalous += int(np.count_nonzero(p_values <= rates))
        self._counts += np.bincount(np.searchsorted(P_VALUES, p_values), minlength=len(P_VALUES))
        self._sum += float(p_values.sum())
        self._recent.extend(self._bins(scores[-RECENT:]).tolist())

    def _stability(self) -> float | None:
        if len(self._recent) < FEWEST:
            return None
        found = self._shares(np.bincount(self._recent, minlength=len(self._expected)))
        return float(np.sum((found - self._expected) * np.log(found / self._expected)))

    def _bins(self, scores: Floats) -> npt.NDArray[np.intp]:
        return np.searchsorted(self._edges, scores, side="right")

    @staticmethod
    def _shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Shares of the bins, none of them 0: half an image more in each."""
        shares: npt.NDArray[np.float64] = (counts + 0.5) / (counts + 0.5).sum()
        return shares
