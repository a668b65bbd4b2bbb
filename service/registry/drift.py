"""Drift of recent scores from the scores of the calibration."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from bundle.conformal import ConformalScores
from bundle.tensors import Floats, TensorName

P_VALUE_BINS = (
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
)  # upper ends of bins
PSI_BINS = 10
RECENT_IMAGES = 1000  # of which the PSI is computed
MIN_IMAGES = 100  # because the PSI of fewer images is mostly noise
DRIFT_OUTPUTS: tuple[TensorName, ...] = ("latent_distances",)  # which are counted
BATCH_IMAGES = 256  # counted together, because one by one is slower


class Bins(NamedTuple):
    """Counts of recent values in bins, and the expected shares of the bins."""

    counts: tuple[int, ...]
    expected: tuple[float, ...]


class DriftMetrics(NamedTuple):
    """Counts of images, anomalous images and p-values in each bin, and the sum of the p-values.

    `score_bins` are of recent scores, `latent_bins` of their latent distances, if there are any.
    Each PSI is None below `MIN_IMAGES`.
    """

    images: int
    anomalous: int
    p_values: tuple[int, ...]
    sum: float
    score_bins: Bins
    latent_bins: Bins | None

    @property
    def score_psi(self) -> float | None:
        """The population stability index of recent scores."""
        return compute_psi(*self.score_bins)

    @property
    def latent_psi(self) -> float | None:
        """The population stability index of recent latent distances."""
        return compute_psi(*self.latent_bins) if self.latent_bins else None


def compute_psi(counts: Sequence[int], expected: Sequence[float]) -> float | None:
    """Return the population stability index (PSI); None below `MIN_IMAGES` values.

    It is sum((a - e) * log(a / e)) over bins, with the shares a of recent and e of calibrated
    values. Without drift, its mean is (bins - 1) * (1 / recent + 1 / calibrated). Sources: Siddiqi
    2006, "Credit Risk Scorecards", chapter 8; Yurdakul 2018, "Statistical Properties of Population
    Stability Index", chapter 3.
    """
    if sum(counts) < MIN_IMAGES:
        return None
    shares, calibrated = _compute_shares(np.asarray(counts)), np.asarray(expected)
    return float(np.sum((shares - calibrated) * np.log(shares / calibrated)))


class RecentValues:
    """Recent values in the bins of a calibration, of which the PSI is computed."""

    def __init__(self, edges: Floats, expected: npt.NDArray[np.float64]) -> None:
        """Define bins by ascending edges (n,) and their expected shares (n + 1,)."""
        self._edges = edges
        self._expected = tuple(expected.tolist())
        self._recent: deque[int] = deque(maxlen=RECENT_IMAGES)

    @classmethod
    def of_scores(cls, scores: Floats) -> Self:
        """Create bins at the deciles of the calibration's scores (n,)."""
        edges = np.unique(np.quantile(scores, np.arange(1, PSI_BINS) / PSI_BINS))
        return cls(
            edges,
            _compute_shares(np.bincount(_assign_bins(edges, scores), minlength=len(edges) + 1)),
        )

    @classmethod
    def of_deciles(cls, deciles: Sequence[float]) -> Self:
        """Create bins at these deciles of the calibration."""
        edges, counts = np.unique(np.asarray(deciles, np.float32), return_counts=True)
        return cls(edges, np.append(1, counts) / PSI_BINS)

    def add(self, values: Floats) -> None:
        """Add values (n,)."""
        self._recent.extend(_assign_bins(self._edges, values[-RECENT_IMAGES:]).tolist())

    def count(self) -> Bins:
        """Return the counts of the bins, and their expected shares."""
        recent = np.fromiter(self._recent, np.intp, len(self._recent))
        counts = np.bincount(recent, minlength=len(self._expected))
        return Bins(tuple(counts.tolist()), self._expected)


class Drift:
    """Counts of a model's scores, and of its latent distances if any. Not thread-safe."""

    def __init__(self, conformal: ConformalScores, latent_deciles: Sequence[float] = ()) -> None:
        self._conformal = conformal
        self._scores = RecentValues.of_scores(conformal.scores)
        self._latents = RecentValues.of_deciles(latent_deciles) if latent_deciles else None
        self._waiting: list[tuple[Floats, float]] = []
        self._distances: list[Floats] = []
        self._images = self._counted = self._anomalous = 0
        self._counts = np.zeros(len(P_VALUE_BINS), np.int64)
        self._sum = 0.0

    @property
    def images(self) -> int:
        """The number of images that were scored."""
        return self._images

    def add(
        self, scores: Floats, false_positive_rate: float, latent_distances: Floats | None = None
    ) -> None:
        """Count scores (n,) with verdicts at a false positive rate, and latent distances (n,)."""
        self._waiting.append((scores, false_positive_rate))
        if latent_distances is not None:
            self._distances.append(latent_distances)
        self._images += len(scores)
        if self._images - self._counted >= BATCH_IMAGES:
            self._update()

    def metrics(self) -> DriftMetrics:
        """Return the metrics of all scores so far."""
        self._update()
        counts = tuple(self._counts.tolist())
        latents = self._latents.count() if self._latents else None
        return DriftMetrics(
            self._images, self._anomalous, counts, self._sum, self._scores.count(), latents
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
        self._counts += np.bincount(
            np.searchsorted(P_VALUE_BINS, p_values), minlength=len(P_VALUE_BINS)
        )
        self._sum += float(p_values.sum())
        self._scores.add(scores)
        if self._latents and self._distances:
            self._latents.add(np.concatenate(self._distances))
        self._distances.clear()


def _assign_bins(edges: Floats, values: Floats) -> npt.NDArray[np.intp]:
    return np.searchsorted(edges, values, side="right")


def _compute_shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the shares of the bins with half an image added to each, so that none is 0."""
    shares: npt.NDArray[np.float64] = (counts + 0.5) / (counts + 0.5).sum()
    return shares
