"""Closed-form fits of score components to all normal images, or to all but one fold.

A fitter reads the images once, and can then leave out each fold without reading them again.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import linalg
from torch import Tensor

from training.detector.components import (
    BASELINES,
    BLOCKS_PER_SIDE,
    Component,
    ComponentName,
    MemoryBanks,
    NearestImages,
    Patches,
    PixelPatches,
    PositionGaussians,
    PrincipalResidual,
    group_by_block,
    reduce_pixels,
    round_to_fp16,
)
from training.detector.image_features import ImageFeatures
from training.detector.whitening import Whitening, find_principal_axes

SHRINKAGE = 0.1  # weight of the pooled covariance in the covariance of a block
RIDGE = 1e-3  # share of the mean variance, added to every variance
PROJECTION_DIMENSIONS = 32  # random directions in which a coreset is chosen
MAX_PRINCIPAL_AXES = 32

Folds = npt.NDArray[np.int64]


class Fitter(ABC):
    """Reader of normal images in folds; `bank` is the number of entries of a memory bank."""

    def __init__(self, encoded: ImageFeatures, folds: Folds, bank: int, seed: int) -> None:
        self.encoded, self.folds, self.bank, self.seed = encoded, folds, bank, seed

    @abstractmethod
    def fit_without(self, fold: int | None) -> Component:
        """Fit the component to all images but a fold; to all images if it is None."""

    def mask_kept(self, fold: int | None) -> npt.NDArray[np.bool_]:
        """Mask (n,) of the images outside a fold."""
        return np.ones(len(self.folds), dtype=bool) if fold is None else self.folds != fold

    def make_generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


class GaussiansFitter(Fitter):
    """Sums of patches and of their products in each fold, relative to the mean of all."""

    def __init__(self, encoded: ImageFeatures, folds: Folds, bank: int, seed: int) -> None:
        super().__init__(encoded, folds, bank, seed)
        self.patches = Patches()
        centre = sum(
            (self.patches(batch).sum(dim=0) for batch in encoded.batches()), torch.tensor(0.0)
        ) / len(encoded)
        self.centre = centre
        by_fold = [
            encoded.take(np.flatnonzero(folds == fold)) for fold in range(int(folds.max()) + 1)
        ]
        sums = [self._sums(images) for images in by_fold]
        self.sums, self.products = (torch.stack(each) for each in zip(*sums, strict=True))

    def fit_without(self, fold: int | None) -> PositionGaussians:
        kept = [index for index in range(len(self.sums)) if index != fold]
        count = int(self.mask_kept(fold).sum())
        offset = self.sums[kept].sum(dim=0) / count
        products = self.products[kept].sum(dim=0) - count * _sum_products(offset[None])
        rows, columns = self.centre.shape[:2]
        covariances = (products / (count * (rows * columns // BLOCKS_PER_SIDE**2))).double().numpy()
        pooled = covariances.mean(axis=0)
        ridge = RIDGE * np.trace(pooled) / len(pooled) * np.eye(len(pooled))
        shrunk = (1 - SHRINKAGE) * covariances + SHRINKAGE * pooled + ridge
        factors = np.stack([_invert_cholesky(covariance) for covariance in shrunk])
        return PositionGaussians(self.centre + offset, torch.from_numpy(factors).float())

    def _sums(self, encoded: ImageFeatures) -> tuple[Tensor, Tensor]:
        total, products = torch.zeros_like(self.centre), torch.zeros(())
        for batch in encoded.batches():
            centred = self.patches(batch) - self.centre
            total, products = total + centred.sum(dim=0), products + _sum_products(centred)
        return total, products


class BankLayout(NamedTuple):
    """Memory banks of `side` x `side` blocks of positions, each with a share of the entries."""

    patches: Callable[[], Patches | PixelPatches]
    side: int
    entry_share: float
    draws: int  # random patches for each entry; their coreset is the bank


class BanksFitter(Fitter):
    """Random descriptors of every image in each block of positions; their coreset is its bank."""

    def __init__(
        self, encoded: ImageFeatures, folds: Folds, bank: int, seed: int, layout: BankLayout
    ) -> None:
        super().__init__(encoded, folds, bank, seed)
        self.patches, self.entries = layout.patches(), round(layout.entry_share * bank)
        share, generator = -(-layout.draws * self.entries // len(encoded)), self.make_generator()
        images = (
            group_by_block(image[None], layout.side)
            for batch in encoded.batches()
            for image in self.patches(batch)
        )
        sampled = [
            image[:, torch.randperm(image.shape[1], generator=generator)[:share]]
            for image in images
        ]
        self.candidates = torch.stack(sampled, dim=1)  # (blocks, images, share, channels)
        self.means = self.candidates.mean(dim=(0, 2))

    def fit_without(self, fold: int | None) -> MemoryBanks:
        kept = torch.from_numpy(self.mask_kept(fold))
        mean = round_to_fp16(self.means[kept].mean(dim=0))
        vectors = self.candidates[:, kept].flatten(1, 2).sub_(mean)
        return MemoryBanks(
            self.patches, mean, choose_coreset(vectors, self.entries, self.make_generator())
        )


class ResidualFitter(Fitter):
    """Principal components of reduced photographs."""

    def __init__(
        self, encoded: ImageFeatures, folds: Folds, bank: int, seed: int, peak: bool
    ) -> None:
        super().__init__(encoded, folds, bank, seed)
        self.peak = peak
        self.vectors = torch.cat([reduce_pixels(batch).flatten(1) for batch in encoded.batches()])

    def fit_without(self, fold: int | None) -> PrincipalResidual:
        vectors = self.vectors[torch.from_numpy(self.mask_kept(fold))]
        mean = vectors.mean(dim=0)
        count = min(MAX_PRINCIPAL_AXES, max(1, len(vectors) // 2))
        return PrincipalResidual(
            mean, find_principal_axes((vectors - mean).double(), count)[1].float(), self.peak
        )


class NearestImagesFitter(Fitter):
    """Embeddings of all images."""

    def fit_without(self, fold: int | None) -> NearestImages:
        latents = self.encoded.latents[torch.from_numpy(self.mask_kept(fold))]
        whitening = Whitening(latents, len(latents))
        return NearestImages(whitening, whitening.project(latents))


FITTERS: Mapping[ComponentName, Callable[[ImageFeatures, Folds, int, int], Fitter]] = {
    "gaussians": GaussiansFitter,
    "neighbours": partial(BanksFitter, layout=BankLayout(Patches, side=1, entry_share=1, draws=30)),
    "local-neighbours": partial(
        BanksFitter, layout=BankLayout(Patches, side=BLOCKS_PER_SIDE, entry_share=0.1, draws=5)
    ),
    "pca-mean": partial(ResidualFitter, peak=False),
    "pca-peak": partial(ResidualFitter, peak=True),
    "pixel-neighbours": partial(
        BanksFitter, layout=BankLayout(PixelPatches, side=1, entry_share=1, draws=30)
    ),
    "nearest-images": NearestImagesFitter,
}


def uses_images(names: Iterable[ComponentName]) -> bool:
    """True if a component is a baseline, because baselines take images and no features."""
    return not {*names}.isdisjoint(BASELINES)


def fit(name: ComponentName, encoded: ImageFeatures, bank: int, seed: int) -> Component:
    """Fit the component of this name to all images."""
    with torch.no_grad():
        return (
            FITTERS[name](encoded, np.zeros(len(encoded), dtype=np.int64), bank, seed)
            .fit_without(None)
            .eval()
        )


def choose_coreset(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Coreset (groups, at most count, d) of each group of vectors (groups, n, d).

    The first vector is random. Each next vector is the farthest from all before it (Sener and
    Savarese 2018, algorithm 1). Random projections measure distances (PatchCore, section 3.2).
    """
    groups, n, d = vectors.shape
    if n <= count:
        return vectors
    directions = (
        torch.randn(d, PROJECTION_DIMENSIONS, generator=generator) / PROJECTION_DIMENSIONS**0.5
    )
    projected = (vectors @ directions).numpy()
    lengths = np.square(projected).sum(axis=2)
    distances = np.full((groups, n), np.inf, dtype=np.float32)
    every, chosen = np.arange(groups), np.empty((groups, count), dtype=np.int64)
    chosen[:, 0] = last = torch.randint(n, (groups,), generator=generator).numpy()
    for index in range(1, count):
        squares = np.matmul(projected, projected[every, last, :, None])[:, :, 0]
        squares *= -2
        squares += lengths
        squares += lengths[every, last, None]
        np.minimum(distances, squares, out=distances)
        chosen[:, index] = last = distances.argmax(axis=1)
    return vectors[torch.from_numpy(every[:, None]), torch.from_numpy(chosen)]


def _sum_products(centred: Tensor) -> Tensor:
    """Sums (blocks, channels, channels) of products of channels in each block of positions."""
    blocks = group_by_block(centred, BLOCKS_PER_SIDE)
    return blocks.transpose(1, 2) @ blocks


def _invert_cholesky(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverse of the Cholesky factor, which whitens."""
    factor = linalg.cholesky(covariance, lower=True)
    whitening: npt.NDArray[np.float64] = linalg.solve_triangular(
        factor, np.eye(len(factor)), lower=True
    )
    return whitening
