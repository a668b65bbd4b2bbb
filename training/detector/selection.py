"""The choice of a detector by synthetic anomalies in held-out normal images.

Candidates are compared by their mean AUROC over the kinds of anomalies. A paired bootstrap over the
same images decides if the best is clearly better. If not, the preferred candidate is chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle import conformal
from training.detector.components import ComponentName, ComponentNames
from training.detector.cross_fitting import Floats, Scores
from training.detector.synthetic_anomalies import KINDS
from training.metrics.detection import auroc

BOOTSTRAP_DRAWS = 400
CONFIDENCE = 0.95  # one-sided
MIN_GAIN = 0.25  # share of the error, 1 - AUROC, that a costlier size or bank must remove
RANDOM_AUROC = 0.5


@dataclass(frozen=True)
class Outcome:
    """Scores by a candidate of held-out normal images (n,) and of synthetic anomalies (m,)."""

    normal: Floats
    anomalous: Floats


def combine_components(
    names: ComponentNames, scores: Mapping[ComponentName, tuple[Scores, Scores]]
) -> Outcome:
    """The scores of a candidate: of its component, or the mean of standardised components."""
    outcomes = [Outcome(*(images.scores for images in scores[name])) for name in names]
    if len(outcomes) == 1:
        return outcomes[0]
    standardised = [_standardise_outcome(outcome) for outcome in outcomes]
    return Outcome(
        average_scores([outcome.normal for outcome in standardised]),
        average_scores([outcome.anomalous for outcome in standardised]),
    )


def average_scores(scores: Sequence[Floats]) -> Floats:
    """The mean score of each image over components."""
    return np.asarray(np.mean(scores, axis=0), dtype=np.float32)


def auroc_by_kind(outcome: Outcome, kinds: npt.NDArray[np.int64]) -> dict[str, float]:
    """AUROC of each kind of synthetic anomaly."""
    return {
        name: auroc(outcome.normal, outcome.anomalous[kinds == kind])
        for kind, name in enumerate(KINDS)
    }


def mean_auroc(outcome: Outcome, kinds: npt.NDArray[np.int64]) -> float:
    """Mean AUROC over the kinds of synthetic anomalies."""
    return float(np.mean(list(auroc_by_kind(outcome, kinds).values())))


class Bootstrap:
    """Random draws, the same for all candidates, of normal images and of anomalies of each kind."""

    def __init__(self, normal: int, kinds: npt.NDArray[np.int64], seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._kinds = kinds
        self._normal = (
            generator.multinomial(normal, np.full(normal, 1 / normal), size=BOOTSTRAP_DRAWS)
            / normal
        )
        self._anomalous = np.zeros((BOOTSTRAP_DRAWS, len(kinds)))
        for kind, count in enumerate(np.bincount(kinds, minlength=len(KINDS))):
            drawn = generator.multinomial(count, np.full(count, 1 / count), size=BOOTSTRAP_DRAWS)
            self._anomalous[:, kinds == kind] = drawn / count

    def areas(self, outcome: Outcome) -> npt.NDArray[np.float64]:
        """AUROC (draws, kinds) of each kind in each draw."""
        normal, anomalous = outcome.normal[:, None], outcome.anomalous[None]
        above = (anomalous > normal) + 0.5 * (anomalous == normal)
        weighed = (self._normal @ above) * self._anomalous
        return np.stack(
            [weighed[:, self._kinds == kind].sum(axis=1) for kind in range(len(KINDS))], axis=1
        )

    def is_better(self, better: Outcome, worse: Outcome) -> bool:
        """True if the mean AUROC of `better` is higher in 95 % of the draws."""
        difference = self.areas(better).mean(axis=1) - self.areas(worse).mean(axis=1)
        return float(np.quantile(difference, 1 - CONFIDENCE)) > 0


def choose(
    outcomes: Mapping[ComponentNames, Outcome], kinds: npt.NDArray[np.int64], seed: int
) -> ComponentNames:
    """Choose the first candidate, in order of preference, that the best does not clearly beat."""
    bootstrap = Bootstrap(len(next(iter(outcomes.values())).normal), kinds, seed)
    best = max(outcomes, key=lambda names: mean_auroc(outcomes[names], kinds))
    return next(
        names
        for names in outcomes
        if names == best or not bootstrap.is_better(outcomes[best], outcomes[names])
    )


def gains(costlier: Outcome, cheaper: Outcome, kinds: npt.NDArray[np.int64], seed: int) -> bool:
    """True if the costlier candidate is clearly better and removes `MIN_GAIN` of the error."""
    error, before = (1 - mean_auroc(outcome, kinds) for outcome in (costlier, cheaper))
    bootstrap = Bootstrap(len(costlier.normal), kinds, seed)
    return error <= (1 - MIN_GAIN) * before and bootstrap.is_better(costlier, cheaper)


def threshold(normal: Floats, rate: float) -> float | None:
    """The smallest score with a p-value of at most the rate; None if images are too few."""
    return conformal.threshold(np.sort(normal), rate)


def recall(outcome: Outcome, kinds: npt.NDArray[np.int64], rate: float) -> dict[str, float] | None:
    """Share of each kind of anomaly found at a false positive rate; None if images are too few."""
    level = threshold(outcome.normal, rate)
    if level is None:
        return None
    return {
        name: float((outcome.anomalous[kinds == kind] >= level).mean())
        for kind, name in enumerate(KINDS)
    }


def weak_bound(
    outcome: Outcome, kinds: npt.NDArray[np.int64], extents: npt.NDArray[np.float64], seed: int
) -> float:
    """Lower 95 % bound of the AUROC of the second hardest kind, over the larger half of anomalies.

    In images of pure noise, two kinds cannot be found, because noise replaces noise: cut and paste,
    and other texture.
    """
    large = extents >= np.median(extents)
    larger = Outcome(outcome.normal, outcome.anomalous[large])
    areas = Bootstrap(len(outcome.normal), kinds[large], seed).areas(larger)
    return float(np.quantile(np.sort(areas, axis=1)[:, 1], 1 - CONFIDENCE))


def _standardise_outcome(outcome: Outcome) -> Outcome:
    scale = measure_spread(outcome.normal)
    return Outcome(standardise(outcome.normal, scale), standardise(outcome.anomalous, scale))


def standardise(values: Floats, scale: tuple[float, float]) -> Floats:
    """Express values in standard deviations from the mean of normal images."""
    return np.asarray((values - scale[0]) / scale[1], dtype=np.float32)


def measure_spread(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean and standard deviation of values of normal images."""
    return float(values.mean()), max(float(values.std()), 1e-6)
