"""Drift: how far recent scores are from those of the calibration."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bundle.conformal import ConformalScores
from bundle.tensors import Floats

P_VALUES = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
    1.0,
)  # ends of bins
BINS = 10  # of the population stability index
RECENT_IMAGES = 1000  # of which it is computed
MIN_IMAGES = 100  # with fewer it would be random
BATCH_IMAGES = 256  # that are counted together, because one by one costs more


class DriftMetrics(NamedTuple):
    """Counts of images, of anomalous ones, of p-values in each bin, and the sum of the p-values.

    `score_psi` is the population stability index of recent scores, and `latent_psi` that of their latent distances:
    None while they are few, and `latent_psi` if the model gives none.
    """

    images: int
    anomalous: int
    p_values: tuple[int, ...]
    sum: float
    score_psi: float | None
    latent_psi: float | None


class PopulationStability:
    """The population stability index of recent values against those of calibration.

    It is sum((a - e) * log(a / e)) over bins that hold the shares a and e of them (Siddiqi 2006, "Credit Risk
    Scorecards", chapter 8); it is 0 if the two are alike, and its mean is then (bins - 1) * (1 / recent +
    1 / calibrated) (Yurdakul 2018, "Statistical Properties of Population Stability Index", chapter 3).
    """

    def __init__(self, edges: Floats, expected: npt.NDArray[np.float64]) -> None:
        """Between ascending edges (n,) and beyond them are bins with these shares (n + 1,) of the calibration."""
        self._edges = edges
        self._expected = expected
        self._recent: deque[int] = deque(maxlen=RECENT_IMAGES)

    @classmethod
    def of_scores(cls, scores: Floats) -> Self:
        edges = np.unique(np.quantile(scores, np.arange(1, BINS) / BINS))
        return cls(edges, _shares(np.bincount(_bins(edges, scores), minlength=len(edges) + 1)))

    @classmethod
    def of_deciles(cls, deciles: Sequence[float]) -> Self:
        edges, counts = np.unique(np.asarray(deciles, np.float32), return_counts=True)
        return cls(edges, np.append(1, counts) / BINS)

    def add(self, values: Floats) -> None:
        self._recent.extend(_bins(self._edges, values[-RECENT_IMAGES:]).tolist())

    def index(self) -> float | None:
        """None while there are too few values."""
        if len(self._recent) < MIN_IMAGES:
            return None
        found = _shares(np.bincount(self._recent, minlength=len(self._expected)))
        return float(np.sum((found - self._expected) * np.log(found / self._expected)))


class Drift:
    """Counts the scores of a model, and its latent distances if it gives them. Not thread-safe."""

    def __init__(self, conformal: ConformalScores, latent_deciles: Sequence[float] = ()) -> None:
        self._conformal = conformal
        self._scores = PopulationStability.of_scores(conformal.scores)
        self._latents = PopulationStability.of_deciles(latent_deciles) if latent_deciles else None
        self._waiting: list[tuple[Floats, float]] = []
        self._distances: list[Floats] = []
        self._images = self._counted = self._anomalous = 0
        self._counts = np.zeros(len(P_VALUES), np.int64)
        self._sum = 0.0

    def add(
        self, scores: Floats, false_positive_rate: float, latent_distances: Floats | None = None
    ) -> None:
        """Count scores (n,), which were judged at this rate, and latent distances (n,) if there are any."""
        self._waiting.append((scores, false_positive_rate))
        if latent_distances is not None:
            self._distances.append(latent_distances)
        self._images += len(scores)
        if self._images - self._counted >= BATCH_IMAGES:
            self._update()

    def metrics(self) -> DriftMetrics:
        self._update()
        counts = tuple(self._counts.tolist())
        of_latents = self._latents.index() if self._latents else None
        return DriftMetrics(
            self._images, self._anomalous, counts, self._sum, self._scores.index(), of_latents
        )

    def _update(self) -> None:
        if not self._waiting:
            return
        scores = np.concatenate([each for each, _ in self._waiting])
        rates = np.concatenate([np.full(len(each), rate) for each, rate in self._waiting])
        self._waiting.clear()
        self._counted = self._images
        p_values = self._conformal.p_values(scores)
        self._anomalous += int(np.count_nonzero(p_values <= rates))
        self._counts += np.bincount(np.searchsorted(P_VALUES, p_values), minlength=len(P_VALUES))
        self._sum += float(p_values.sum())
        self._scores.add(scores)
        if self._latents and self._distances:
            self._latents.add(np.concatenate(self._distances))
        self._distances.clear()


def _bins(edges: Floats, values: Floats) -> npt.NDArray[np.intp]:
    return np.searchsorted(edges, values, side="right")


def _shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Shares of the bins, none of them 0: half an image more in each."""
    shares: npt.NDArray[np.float64] = (counts + 0.5) / (counts + 0.5).sum()
    return shares
