"""Cross-fitting: each fold is scored by components that were fitted without it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from training.detector import fitters
from training.detector.components import Component, ComponentName
from training.detector.scene import Scenes
from training.detector.threads import map_in_threads

Floats = npt.NDArray[np.float32]


class Scores(NamedTuple):
    """Scores (n,) of images, and their anomaly maps (n, rows, columns), if any."""

    scores: Floats
    maps: Floats | None


class ScoredImages(NamedTuple):
    """Indices of some images, and their scores."""

    indices: npt.NDArray[np.int64]
    scores: Scores


def assign_folds(count: int, max_folds: int, seed: int) -> npt.NDArray[np.int64]:
    """The random fold of each image; folds are even, and at most `max_folds`."""
    return np.random.default_rng(seed).permutation(np.arange(count) % min(max_folds, count))


@torch.no_grad()
def score(component: Component, scenes: Scenes) -> Scores:
    """Score images with a fitted component."""
    outputs = [component(scene) for scene in scenes.batches()]
    maps = [output.maps.numpy() for output in outputs if output.maps is not None]
    scores = np.concatenate([output.scores.numpy() for output in outputs])
    return Scores(scores, np.concatenate(maps) if maps else None)


def cross_score(
    name: ComponentName,
    scenes: Scenes,
    folds: npt.NDArray[np.int64],
    bank: int,
    seed: int,
    anomalous: Scenes | None = None,
    sources: npt.NDArray[np.int64] | None = None,
) -> tuple[Scores, Scores | None]:
    """Score each normal image by a component that was fitted without its fold.

    Each synthetic anomaly of `anomalous` has a source, the normal image that it was generated in.
    It is scored without the fold of its source; `sources` has the indices.
    """
    with torch.no_grad():
        fitter = fitters.FITTERS[name](scenes, folds, bank, seed)

    @torch.no_grad()
    def score_fold(fold: int) -> tuple[ScoredImages, ScoredImages | None]:
        held_out = np.flatnonzero(folds == fold)
        component = fitter.fit_without(fold).eval()
        normal = ScoredImages(held_out, score(component, scenes.take(held_out)))
        if anomalous is None or sources is None:
            return normal, None
        generated = np.flatnonzero(np.isin(sources, held_out))
        if not len(generated):
            return normal, None
        return normal, ScoredImages(generated, score(component, anomalous.take(generated)))

    scored = map_in_threads(score_fold, range(int(folds.max()) + 1))
    generated = [images for _, images in scored if images is not None]
    return _join([images for images, _ in scored]), _join(generated) if generated else None


def _join(folds: Sequence[ScoredImages]) -> Scores:
    """The scores of all folds, in the order of the images."""
    order = np.argsort(np.concatenate([fold.indices for fold in folds]))
    scores = np.concatenate([fold.scores.scores for fold in folds])[order]
    maps = [fold.scores.maps for fold in folds if fold.scores.maps is not None]
    return Scores(scores, np.concatenate(maps)[order] if maps else None)
