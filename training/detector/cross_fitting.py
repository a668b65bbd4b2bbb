"""Cross-fitting: each fold is scored by components that were fitted without it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from training.detector import fitters
from training.detector.components import Component, ComponentName
from training.detector.fitters import Folds
from training.detector.image_features import ImageFeatures, Indices
from training.detector.threads import map_in_threads

Floats = npt.NDArray[np.float32]
Result = TypeVar("Result")


class Scores(NamedTuple):
    """Scores (n,) of images, and their anomaly maps (n, rows, columns), if any."""

    scores: Floats
    maps: Floats | None


class ScoredImages(NamedTuple):
    """Indices of some images, and their scores."""

    indices: Indices
    scores: Scores


def assign_folds(count: int, max_folds: int, seed: int) -> Folds:
    """The random fold of each image; folds are even, and at most `max_folds`."""
    return np.random.default_rng(seed).permutation(np.arange(count) % min(max_folds, count))


@torch.no_grad()
def score(component: Component, encoded: ImageFeatures) -> Scores:
    """Score images with a fitted component."""
    outputs = [component(batch) for batch in encoded.batches()]
    maps = [output.maps.numpy() for output in outputs if output.maps is not None]
    scores = np.concatenate([output.scores.numpy() for output in outputs])
    return Scores(scores, np.concatenate(maps) if maps else None)


def cross_score(
    name: ComponentName, encoded: ImageFeatures, folds: Folds, bank: int, seed: int
) -> Scores:
    """Score each normal image by a component that was fitted without its fold."""

    def score_fold(component: Component, held_out: Indices) -> ScoredImages:
        return ScoredImages(held_out, score(component, encoded.take(held_out)))

    return _join(_map_folds(score_fold, name, encoded, folds, bank, seed))


def cross_score_anomalies(
    name: ComponentName,
    encoded: ImageFeatures,
    folds: Folds,
    bank: int,
    seed: int,
    anomalous: ImageFeatures,
    sources: Indices,
) -> tuple[Scores, Scores]:
    """Score normal images as `cross_score` does, and synthetic anomalies (m,) with them.

    Each anomaly is scored without the fold of its source. `sources` (m,) has the index of each
    source, the normal image that the anomaly was generated in.
    """

    def score_fold(component: Component, held_out: Indices) -> tuple[ScoredImages, ...]:
        generated = np.flatnonzero(np.isin(sources, held_out))
        taken = [(held_out, encoded.take(held_out)), (generated, anomalous.take(generated))]
        return tuple(
            ScoredImages(indices, score(component, images)) for indices, images in taken if images
        )

    scored = _map_folds(score_fold, name, encoded, folds, bank, seed)
    return _join([fold[0] for fold in scored]), _join(
        [each for fold in scored for each in fold[1:]]
    )


def _map_folds(
    score_fold: Callable[[Component, Indices], Result],
    name: ComponentName,
    encoded: ImageFeatures,
    folds: Folds,
    bank: int,
    seed: int,
) -> list[Result]:
    """Call a function for each fold, with a component fitted without it and its indices."""
    with torch.no_grad():
        fitter = fitters.FITTERS[name](encoded, folds, bank, seed)

    @torch.no_grad()
    def call(fold: int) -> Result:
        return score_fold(fitter.fit_without(fold).eval(), np.flatnonzero(folds == fold))

    return map_in_threads(call, range(int(folds.max()) + 1))


def _join(folds: Sequence[ScoredImages]) -> Scores:
    """The scores of all folds, in the order of the images."""
    order = np.argsort(np.concatenate([fold.indices for fold in folds]))
    scores = np.concatenate([fold.scores.scores for fold in folds])[order]
    maps = [fold.scores.maps for fold in folds if fold.scores.maps is not None]
    return Scores(scores, np.concatenate(maps)[order] if maps else None)
