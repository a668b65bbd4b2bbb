"""The choice of a detector by synthetic anomalies in held-out normal images.

Candidates are compared by their mean AUROC over the kinds of anomalies. Of candidates that a paired bootstrap over the
same images cannot tell apart, the one that is preferred is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bundle import conformal
from training.detector.components import ComponentName, Names
from training.detector.cross_fitting import Floats, Scores
from training.detector.synthetic_anomalies import KINDS
from training.metrics.detection import auroc

DRAWS = 400  # of the bootstrap
CONFIDENCE = 0.95  # one-sided
GAIN = 0.25  # part of the error, 1 - AUROC, that a dearer working size or bank has to take away
CHANCE = 0.5  # AUROC


@dataclass(frozen=True)
class Outcome:
    """Scores of normal images (n,) and of synthetic anomalies (m,) in them, held out, by a candidate."""

    normal: Floats
    anomalous: Floats


def outcome_of(names: Names, found: Mapping[ComponentName, tuple[Scores, Scores]]) -> Outcome:
    """The scores of a candidate by those of its components: a sum of more than one is of standardised ones."""
    each = [Outcome(*(of.scores for of in found[name])) for name in names]
    if len(each) == 1:
        return each[0]
    parts = [_standardised(outcome) for outcome in each]
    return Outcome(
        sum_of([part.normal for part in parts]), sum_of([part.anomalous for part in parts])
    )


def sum_of(scores: Sequence[Floats]) -> Floats:
    return np.asarray(np.mean(scores, axis=0), dtype=np.float32)


def by_kind(outcome: Outcome, kinds: npt.NDArray[np.int64]) -> dict[str, float]:
    """AUROC of each kind of synthetic anomaly."""
    return {
        name: auroc(outcome.normal, outcome.anomalous[kinds == kind])
        for kind, name in enumerate(KINDS)
    }


def mean_auroc(outcome: Outcome, kinds: npt.NDArray[np.int64]) -> float:
    return float(np.mean(list(by_kind(outcome, kinds).values())))


class Bootstrap:
    """Draws of the same images for all candidates: normal images, and anomalies within their kinds."""

    def __init__(self, normal: int, kinds: npt.NDArray[np.int64], seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._kinds = kinds
        self._normal = (
            generator.multinomial(normal, np.full(normal, 1 / normal), size=DRAWS) / normal
        )
        self._anomalous = np.zeros((DRAWS, len(kinds)))
        for kind, count in enumerate(np.bincount(kinds, minlength=len(KINDS))):
            drawn = generator.multinomial(count, np.full(count, 1 / count), size=DRAWS)
            self._anomalous[:, kinds == kind] = drawn / count

    def areas(self, outcome: Outcome) -> npt.NDArray[np.float64]:
        """AUROC of each kind in each draw: (draws, kinds)."""
        normal, anomalous = outcome.normal[:, None], outcome.anomalous[None]
        above = (anomalous > normal) + 0.5 * (anomalous == normal)
        weighed = (self._normal @ above) * self._anomalous
        return np.stack(
            [weighed[:, self._kinds == kind].sum(axis=1) for kind in range(len(KINDS))], axis=1
        )

    def is_better(self, better: Outcome, worse: Outcome) -> bool:
        """Whether the mean AUROC over kinds of the one is above the other's in nearly all draws."""
        difference = self.areas(better).mean(axis=1) - self.areas(worse).mean(axis=1)
        return float(np.quantile(difference, 1 - CONFIDENCE)) > 0


def choose(found: Mapping[Names, Outcome], kinds: npt.NDArray[np.int64], seed: int) -> Names:
    """The first of the candidates, which come in the order of preference, that the best is not clearly better than."""
    bootstrap = Bootstrap(len(next(iter(found.values())).normal), kinds, seed)
    best = max(found, key=lambda names: mean_auroc(found[names], kinds))
    return next(
        names
        for names in found
        if names == best or not bootstrap.is_better(found[best], found[names])
    )


def gains(dearer: Outcome, cheaper: Outcome, kinds: npt.NDArray[np.int64], seed: int) -> bool:
    """Whether a dearer working size or bank takes a good part of the error away, and not by luck of the draw."""
    error, before = (1 - mean_auroc(outcome, kinds) for outcome in (dearer, cheaper))
    bootstrap = Bootstrap(len(dearer.normal), kinds, seed)
    return error <= (1 - GAIN) * before and bootstrap.is_better(dearer, cheaper)


def threshold(normal: Floats, rate: float) -> float | None:
    """The smallest score whose p-value is at most the rate; None where the images are too few for it."""
    return conformal.threshold(np.sort(normal), rate)


def recall(outcome: Outcome, kinds: npt.NDArray[np.int64], rate: float) -> dict[str, float] | None:
    """Share of each kind of anomaly that is found at a false positive rate; None where it cannot be told."""
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
    """Lower 95 % bound of the AUROC of the second hardest kind, of the larger half of the anomalies.

    In mere noise, two kinds cannot be found at all: parts of the same noise, and of another photograph's.
    """
    large = extents >= np.median(extents)
    found = Outcome(outcome.normal, outcome.anomalous[large])
    areas = Bootstrap(len(outcome.normal), kinds[large], seed).areas(found)
    return float(np.quantile(np.sort(areas, axis=1)[:, 1], 1 - CONFIDENCE))


def _standardised(outcome: Outcome) -> Outcome:
    scale = spread(outcome.normal)
    return Outcome(standardised(outcome.normal, scale), standardised(outcome.anomalous, scale))


def standardised(values: Floats, scale: tuple[float, float]) -> Floats:
    """In standard deviations from the mean of normal images."""
    return np.asarray((values - scale[0]) / scale[1], dtype=np.float32)


def spread(values: npt.NDArray[np.floating]) -> tuple[float, float]:
    """Mean and standard deviation of values of normal images."""
    return float(values.mean()), max(float(values.std()), 1e-6)
