"""How well anomaly scores and maps find what is strange, and what simpler methods find."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch.nn import functional

from training.data import Images

Floats = npt.NDArray[np.floating]

MOST_COMPONENTS = 32
NEIGHBOURS = 5
SIDE = 64  # pixels: larger images are reduced for the baselines
HIGHEST_RATE = 0.3  # of false positive pixels, up to which regions' overlaps count
RATES = 300


def auroc(normal: Floats, outliers: Floats) -> float:
    """How well scores tell outliers from normal images: area under the ROC curve, 0 to 1, by chance 0.5."""
    truth = np.repeat([0, 1], [len(normal), len(outliers)])
    return float(roc_auc_score(truth, np.concatenate([normal, outliers])))


def pixel_auroc(normal: Floats, strange: Floats, masks: npt.NDArray[np.bool_]) -> float:
    """The same of all pixels, by maps (n, height, width); those outside the masks of strange images are normal."""
    return auroc(np.concatenate([normal.ravel(), strange[~masks]]), strange[masks])


def aupro(normal: Floats, strange: Floats, masks: npt.NDArray[np.bool_]) -> float:
    """The mean share of each connected defect that is found, over the rates of false positive pixels up to 0.3.

    Area under the per-region overlap, divided by its range (Bergmann et al. 2020, "Uninformed Students", section 4.1).
    """
    wrong = np.sort(np.concatenate([normal.ravel(), strange[~masks]]))[::-1]
    rates = np.linspace(0, HIGHEST_RATE, RATES + 1)
    thresholds = wrong[np.minimum((rates * len(wrong)).astype(int), len(wrong) - 1)]
    overlaps = []
    for scores, mask in zip(strange, masks, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            found = np.sort(scores[labels == region])
            overlaps.append(1 - np.searchsorted(found, thresholds, side="right") / len(found))
    mean = np.mean(overlaps, axis=0)
    return float(np.trapezoid(mean, rates) / HIGHEST_RATE)


@dataclass(frozen=True)
class Baselines:
    """What a detector has to beat: simple methods on the training images, reduced to at most about 64 pixels."""

    training: Images
    seed: int

    def scores(self, images: Images) -> dict[str, Floats]:
        """Scores (n,) of images by the error of principal components, and the mean distance of 5 nearest neighbours."""
        vectors = _vectors(images)
        restored = self._components.inverse_transform(self._components.transform(vectors))
        distances, _ = self._neighbours.kneighbors(vectors)
        return {"pca": np.square(vectors - restored).mean(axis=1), "nearest_neighbours": distances.mean(axis=1)}

    @cached_property
    def _components(self) -> PCA:
        vectors = _vectors(self.training)
        return PCA(min(MOST_COMPONENTS, len(vectors) // 2), random_state=self.seed).fit(vectors)

    @cached_property
    def _neighbours(self) -> NearestNeighbors:
        vectors = _vectors(self.training)
        return NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(vectors)), algorithm="brute").fit(vectors)


def _vectors(images: Images) -> npt.NDArray[np.float32]:
    factor = max(1, round(min(images.shape[1:3]) / SIDE))
    parts = [
        functional.avg_pool2d(torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2) / 255, factor).flatten(
            1
        )
        for start in range(0, len(images), 256)
    ]
    found: npt.NDArray[np.float32] = torch.cat(parts).numpy()
    return found
