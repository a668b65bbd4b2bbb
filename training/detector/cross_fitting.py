"""Cross-fitting: each image scored by components that were fitted without it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from training.detector import fitters
from training.detector.components import Component, ComponentName
from training.detector.scene import Scenes
from training.detector.threads import in_threads

Floats = npt.NDArray[np.float32]


class Scores(NamedTuple):
    """Of images: scores (n,), and maps (n, rows, columns) where the component has any."""

    scores: Floats
    maps: Floats | None


class Part(NamedTuple):
    """Some of the images, and their scores."""

    indices: npt.NDArray[np.int64]
    scores: Scores


def folds(count: int, most: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each image, random and as even as can be: `most` folds, or one image each."""
    return np.random.default_rng(seed).permutation(np.arange(count) % min(most, count))


@torch.no_grad()
def score(component: Component, scenes: Scenes) -> Scores:
    """Score images with a fitted component."""
    found = [component(scene) for scene in scenes.batches()]
    maps = [reading.maps.numpy() for reading in found if reading.maps is not None]
    scores = np.concatenate([reading.scores.numpy() for reading in found])
    return Scores(scores, np.concatenate(maps) if maps else None)


def cross_score(
    name: ComponentName,
    scenes: Scenes,
    fold_of: npt.NDArray[np.int64],
    bank: int,
    seed: int,
    others: Scenes | None = None,
    sources: npt.NDArray[np.int64] | None = None,
) -> tuple[Scores, Scores | None]:
    """Score every image without its fold, and `others` without the fold of the image that each was made of."""
    with torch.no_grad():
        fitter = fitters.FITTERS[name](scenes, fold_of, bank, seed)

    @torch.no_grad()
    def of_fold(fold: int) -> tuple[Part, Part | None]:
        held_out = np.flatnonzero(fold_of == fold)
        component = fitter.without(fold).eval()
        part = Part(held_out, score(component, scenes.take(held_out)))
        made = (
            np.flatnonzero(np.isin(sources, held_out))
            if sources is not None
            else np.empty(0, np.int64)
        )
        if others is None or not len(made):
            return part, None
        return part, Part(made, score(component, others.take(made)))

    of_images, of_others = zip(*in_threads(of_fold, range(int(fold_of.max()) + 1)), strict=True)
    found = [part for part in of_others if part is not None]
    return _in_order(of_images), _in_order(found) if found else None


def _in_order(parts: Sequence[Part]) -> Scores:
    order = np.argsort(np.concatenate([part.indices for part in parts]))
    scores = np.concatenate([part.scores.scores for part in parts])[order]
    maps = [part.scores.maps for part in parts if part.scores.maps is not None]
    return Scores(scores, np.concatenate(maps)[order] if maps else None)
