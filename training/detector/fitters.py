"""Closed-form fits of score components to normal images, to all of them or to all but one fold.

A fitter reads the images once; leaving a fold out then costs no second look at them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg
from torch import Tensor

from training.detector.components import (
    BLOCKS,
    Component,
    ComponentName,
    NearestImages,
    NearestPatches,
    Patches,
    PixelNeighbours,
    PositionGaussians,
    PrincipalResidual,
    by_block,
    half,
    pixel_patches,
    small_pixels,
)
from training.detector.scene import Scene, Scenes
from training.detector.whitening import Whitening, principal_axes

SHRINKAGE = 0.1  # weight of the pooled covariance in that of a block
RIDGE = 1e-3  # part of the mean variance, added to every variance
WHITENING_RIDGE = 0.05  # the same, for patches that are whitened before they are compared
CANDIDATES = 60_000  # random patches of which a memory bank is chosen
PROJECTED = 32  # random directions in which the representative ones are looked for
MAX_COMPONENTS = 32

Folds = npt.NDArray[np.int64]


class Fitter(ABC):
    """Reads normal images, each of which is in a fold; `bank` is the entries of a memory bank."""

    def __init__(self, scenes: Scenes, fold_of: Folds, bank: int, seed: int) -> None:
        self.scenes, self.fold_of, self.bank, self.seed = scenes, fold_of, bank, seed

    @abstractmethod
    def without(self, fold: int | None) -> Component:
        """The component, fitted to all images but those of a fold; to all for None."""

    def kept(self, fold: int | None) -> npt.NDArray[np.bool_]:
        return np.ones(len(self.fold_of), dtype=bool) if fold is None else self.fold_of != fold

    def generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


class GaussiansFitter(Fitter):
    """Sums of patches and of their products, by fold, about the mean of all."""

    def __init__(self, scenes: Scenes, fold_of: Folds, bank: int, seed: int) -> None:
        super().__init__(scenes, fold_of, bank, seed)
        self.patches = Patches()
        centre = sum((self.patches(scene).sum(dim=0) for scene in scenes.batches()), torch.tensor(0.0)) / len(scenes)
        self.centre = centre
        folds = [scenes.take(np.flatnonzero(fold_of == fold)) for fold in range(int(fold_of.max()) + 1)]
        sums = [self._sums(part) for part in folds]
        self.sums, self.products = (torch.stack(each) for each in zip(*sums, strict=True))

    def without(self, fold: int | None) -> PositionGaussians:
        kept = [each for each in range(len(self.sums)) if each != fold]
        count = int(self.kept(fold).sum())
        offset = self.sums[kept].sum(dim=0) / count
        products = self.products[kept].sum(dim=0) - count * _products(offset[None])
        rows, columns = self.centre.shape[:2]
        covariances = (products / (count * (rows * columns // BLOCKS**2))).double().numpy()
        pooled = covariances.mean(axis=0)
        ridge = RIDGE * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
        shrunk = (1 - SHRINKAGE) * covariances + SHRINKAGE * pooled + ridge
        factors = np.stack([_inverse_factor(each) for each in shrunk])
        return PositionGaussians(self.centre + offset, torch.from_numpy(factors).float())

    def _sums(self, scenes: Scenes) -> tuple[Tensor, Tensor]:
        total, products = torch.zeros_like(self.centre), torch.zeros(())
        for scene in scenes.batches():
            centred = self.patches(scene) - self.centre
            total, products = total + centred.sum(dim=0), products + _products(centred)
        return total, products


class PatchesFitter(Fitter):
    """Random descriptors of every image, of which the representative ones make the bank."""

    def __init__(self, scenes: Scenes, fold_of: Folds, bank: int, seed: int, whitened: bool) -> None:
        super().__init__(scenes, fold_of, bank, seed)
        self.whitened = whitened
        self.candidates = _candidates(scenes, Patches(), self.generator())

    def without(self, fold: int | None) -> NearestPatches:
        candidates = self.candidates[torch.from_numpy(self.kept(fold))].flatten(0, 1)
        mean = half(candidates.mean(dim=0))
        axes = half(_whitening(candidates - mean) if self.whitened else torch.eye(len(mean)))
        coordinates = (candidates - mean) @ axes
        return NearestPatches(mean, axes, coordinates[representative(coordinates, self.bank, self.generator())])


class ResidualFitter(Fitter):
    """Principal components of the small photographs."""

    def __init__(self, scenes: Scenes, fold_of: Folds, bank: int, seed: int, peak: bool) -> None:
        super().__init__(scenes, fold_of, bank, seed)
        self.peak = peak
        self.vectors = torch.cat([small_pixels(scene).flatten(1) for scene in scenes.batches()])

    def without(self, fold: int | None) -> PrincipalResidual:
        vectors = self.vectors[torch.from_numpy(self.kept(fold))]
        mean = vectors.mean(dim=0)
        count = min(MAX_COMPONENTS, max(1, len(vectors) // 2))
        return PrincipalResidual(mean, principal_axes((vectors - mean).double(), count)[1].float(), self.peak)


class PixelPatchesFitter(Fitter):
    """Random patches of pixels, of which the representative ones make the bank."""

    def __init__(self, scenes: Scenes, fold_of: Folds, bank: int, seed: int) -> None:
        super().__init__(scenes, fold_of, bank, seed)
        self.candidates = _candidates(scenes, pixel_patches, self.generator())

    def without(self, fold: int | None) -> PixelNeighbours:
        candidates = self.candidates[torch.from_numpy(self.kept(fold))].flatten(0, 1)
        return PixelNeighbours(candidates[representative(candidates, self.bank, self.generator())])


class ImagesFitter(Fitter):
    """Embeddings of all images."""

    def without(self, fold: int | None) -> NearestImages:
        latents = self.scenes.latents[torch.from_numpy(self.kept(fold))]
        whitening = Whitening(latents, len(latents))
        return NearestImages(whitening, whitening.coordinates(latents))


FITTERS: Mapping[ComponentName, Callable[[Scenes, Folds, int, int], Fitter]] = {
    "gaussians": GaussiansFitter,
    "neighbours": partial(PatchesFitter, whitened=False),
    "whitened-neighbours": partial(PatchesFitter, whitened=True),
    "pca-mean": partial(ResidualFitter, peak=False),
    "pca-peak": partial(ResidualFitter, peak=True),
    "pixel-neighbours": PixelPatchesFitter,
    "nearest-images": ImagesFitter,
}


def fit(name: ComponentName, scenes: Scenes, bank: int, seed: int) -> Component:
    """The component of this name, fitted to all of the images."""
    with torch.no_grad():
        return FITTERS[name](scenes, np.zeros(len(scenes), dtype=np.int64), bank, seed).without(None).eval()


def representative(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Indices of a coreset: each next one is the farthest from all before (Sener and Savarese 2018, algorithm 1).

    Distances are those of random projections, as in PatchCore, section 3.2.
    """
    if len(vectors) <= count:
        return torch.arange(len(vectors))
    directions = torch.randn(vectors.shape[1], PROJECTED, generator=generator) / PROJECTED**0.5
    projected = (vectors @ directions).numpy()
    lengths = np.square(projected).sum(axis=1)
    chosen = np.empty(count, dtype=np.int64)
    chosen[0] = int(torch.randint(len(vectors), (1,), generator=generator))
    distances = np.full(len(vectors), np.inf, dtype=np.float32)
    for index in range(1, count):
        last = chosen[index - 1]
        np.minimum(distances, lengths - 2 * (projected @ projected[last]) + lengths[last], out=distances)
        chosen[index] = distances.argmax()
    return torch.from_numpy(chosen)


def _candidates(scenes: Scenes, patches: Callable[[Scene], Tensor], generator: torch.Generator) -> Tensor:
    """Random descriptors of all images, as many of each image: (images, share, channels)."""
    share = -(-CANDIDATES // len(scenes))
    images = (image for scene in scenes.batches() for image in patches(scene).flatten(1, 2))
    return torch.stack([image[torch.randperm(len(image), generator=generator)[:share]] for image in images])


def _whitening(centred: Tensor) -> Tensor:
    """Axes (d, d) on which centred vectors (n, d) have unit variance, less where it is small."""
    vectors = centred.double().numpy()
    values, axes = linalg.eigh(vectors.T @ vectors / len(vectors))
    return torch.from_numpy(axes / np.sqrt(values.clip(min=0) + WHITENING_RIDGE * values.mean())).float()


def _products(centred: Tensor) -> Tensor:
    """Sums of products of the channels, by block of positions: (blocks, channels, channels)."""
    blocks = by_block(centred)
    return blocks.transpose(1, 2) @ blocks


def _inverse_factor(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of the Cholesky factor, which whitens."""
    factor = linalg.cholesky(covariance, lower=True)
    whitening: npt.NDArray[np.float64] = linalg.solve_triangular(factor, np.eye(len(factor)), lower=True)
    return whitening
