"""Cross-fitting: each image scored by components that were fitted without it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from training.detector import fitters
from training.detector.components import Component, ComponentName
from training.detector.scene import Scenes

Floats = npt.NDArray[np.float32]


class Scores(NamedTuple):
    """Of images: scores (n,), and maps (n, rows, columns) where the component has any."""

    scores: Floats
    maps: Floats | None


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


@torch.no_grad()
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
    of_images: list[tuple[npt.NDArray[np.int64], Scores]] = []
    of_others: list[tuple[npt.NDArray[np.int64], Scores]] = []
    fitter = fitters.FITTERS[name](scenes, fold_of, bank, seed)
    for fold in range(int(fold_of.max()) + 1):
        held_out = np.flatnonzero(fold_of == fold)
        component = fitter.without(fold).eval()
        of_images.append((held_out, score(component, scenes.take(held_out))))
        if others is not None and sources is not None:
            made = np.flatnonzero(np.isin(sources, held_out))
            if len(made):
                of_others.append((made, score(component, others.take(made))))
    return _in_order(of_images), _in_order(of_others) if of_others else None


def _in_order(parts: Sequence[tuple[npt.NDArray[np.int64], Scores]]) -> Scores:
    order = np.argsort(np.concatenate([indices for indices, _ in parts]))
    scores = np.concatenate([each.scores for _, each in parts])[order]
    maps = [each.maps for _, each in parts if each.maps is not None]
    return Scores(scores, np.concatenate(maps)[order] if maps else None)
