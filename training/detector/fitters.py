"""Closed-form fits of score components to normal images, to all of them or to all but one fold.

A fitter reads the images once; leaving a fold out then costs no second look at them.
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
    BLOCKS,
    Component,
    ComponentName,
    MemoryBanks,
    NearestImages,
    Patches,
    PixelPatches,
    PositionGaussians,
    PrincipalResidual,
    by_block,
    half,
    small_pixels,
)
from training.detector.scene import Scenes
from training.detector.whitening import Whitening, principal_axes

SHRINKAGE = 0.1  # weight of the pooled covariance in that of a block
RIDGE = 1e-3  # part of the mean variance, added to every variance
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
        centre = sum(
            (self.patches(scene).sum(dim=0) for scene in scenes.batches()), torch.tensor(0.0)
        ) / len(scenes)
        self.centre = centre
        folds = [
            scenes.take(np.flatnonzero(fold_of == fold)) for fold in range(int(fold_of.max()) + 1)
        ]
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


class BankLayout(NamedTuple):
    """The memory banks of a component: of `side` x `side` blocks of positions, each with a share of the entries."""

    patches: Callable[[], Patches | PixelPatches]
    side: int
    entry_share: float
    draws: int  # random patches for each entry, of which the representative ones make the bank


class BanksFitter(Fitter):
    """Random descriptors of every image at each block of positions, of which the representative ones make its bank."""

    def __init__(
        self, scenes: Scenes, fold_of: Folds, bank: int, seed: int, layout: BankLayout
    ) -> None:
        super().__init__(scenes, fold_of, bank, seed)
        self.patches, self.entries = layout.patches(), round(layout.entry_share * bank)
        share, generator = -(-layout.draws * self.entries // len(scenes)), self.generator()
        images = (
            by_block(image[None], layout.side)
            for scene in scenes.batches()
            for image in self.patches(scene)
        )
        parts = [
            image[:, torch.randperm(image.shape[1], generator=generator)[:share]]
            for image in images
        ]
        self.candidates = torch.stack(parts, dim=1)  # (blocks, images, share, channels)
        self.means = self.candidates.mean(dim=(0, 2))

    def without(self, fold: int | None) -> MemoryBanks:
        kept = torch.from_numpy(self.kept(fold))
        mean = half(self.means[kept].mean(dim=0))
        vectors = self.candidates[:, kept].flatten(1, 2).sub_(mean)
        return MemoryBanks(
            self.patches, mean, representative(vectors, self.entries, self.generator())
        )


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
        return PrincipalResidual(
            mean, principal_axes((vectors - mean).double(), count)[1].float(), self.peak
        )


class ImagesFitter(Fitter):
    """Embeddings of all images."""

    def without(self, fold: int | None) -> NearestImages:
        latents = self.scenes.latents[torch.from_numpy(self.kept(fold))]
        whitening = Whitening(latents, len(latents))
        return NearestImages(whitening, whitening.coordinates(latents))


FITTERS: Mapping[ComponentName, Callable[[Scenes, Folds, int, int], Fitter]] = {
    "gaussians": GaussiansFitter,
    "neighbours": partial(BanksFitter, layout=BankLayout(Patches, side=1, entry_share=1, draws=30)),
    "local-neighbours": partial(
        BanksFitter, layout=BankLayout(Patches, side=BLOCKS, entry_share=0.1, draws=5)
    ),
    "pca-mean": partial(ResidualFitter, peak=False),
    "pca-peak": partial(ResidualFitter, peak=True),
    "pixel-neighbours": partial(
        BanksFitter, layout=BankLayout(PixelPatches, side=1, entry_share=1, draws=30)
    ),
    "nearest-images": ImagesFitter,
}


def take_images(names: Iterable[ComponentName]) -> bool:
    """Say whether a component is a baseline, which sees the images and not what the encoder makes of them."""
    return not {*names}.isdisjoint(BASELINES)


def fit(name: ComponentName, scenes: Scenes, bank: int, seed: int) -> Component:
    """The component of this name, fitted to all of the images."""
    with torch.no_grad():
        return (
            FITTERS[name](scenes, np.zeros(len(scenes), dtype=np.int64), bank, seed)
            .without(None)
            .eval()
        )


def representative(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Coresets of groups of vectors (groups, n, d), the first of each group at random: (groups, at most count, d).

    Each next vector is the farthest from all before (Sener and Savarese 2018, algorithm 1). Distances are those of
    random projections, as in PatchCore, section 3.2.
    """
    groups, n, d = vectors.shape
    if n <= count:
        return vectors
    directions = torch.randn(d, PROJECTED, generator=generator) / PROJECTED**0.5
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


def _products(centred: Tensor) -> Tensor:
    """Sums of products of the channels, by block of positions: (blocks, channels, channels)."""
    blocks = by_block(centred, BLOCKS)
    return blocks.transpose(1, 2) @ blocks


def _inverse_factor(covariance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The inverse of the Cholesky factor, which whitens."""
    factor = linalg.cholesky(covariance, lower=True)
    whitening: npt.NDArray[np.float64] = linalg.solve_triangular(
        factor, np.eye(len(factor)), lower=True
    )
    return whitening
