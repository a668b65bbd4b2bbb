"""Score components: measures of how anomalous an image and its patches are.

They are fitted in closed form to normal images (`training.detector.fitters`). Each is a module of the scoring graph. It
holds its numbers in float16, as bundles store them, and computes in float32.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.detector.scene import Scene
from training.detector.whitening import Whitening

ComponentName = Literal[
    "local-neighbours",
    "gaussians",
    "neighbours",
    "pca-mean",
    "pca-peak",
    "pixel-neighbours",
    "nearest-images",
]
Names = tuple[ComponentName, ...]
NAMES: Names = get_args(ComponentName)
MEMORY_BANKS: Names = ("local-neighbours", "neighbours")  # of patches
BASELINES: Names = ("pca-mean", "pca-peak", "pixel-neighbours")

BLOCKS = 8  # of positions, along each side, that share a covariance or a memory bank
BATCH_ENTRIES = 1000  # of a bank that are compared at once
PIXEL_SIDE = 64  # pixels: larger photographs are reduced for components on pixels
PATCH, STEP = 8, 4  # pixels: side of a patch, and distance between patches, at that size
NEAREST = 5
MIN_SQUARE = 0.01  # of a distance of whitened latents: of closer ones it would be mostly rounding


class Reading(NamedTuple):
    """Scores (n,), higher is more anomalous, and maps (n, rows, columns) of them where the component has any."""

    scores: Tensor
    maps: Tensor | None


class Component(nn.Module, ABC):
    """Takes the tensors of a scene that `inputs` names."""

    inputs: tuple[str, ...]

    @abstractmethod
    def forward(self, scene: Scene) -> Reading: ...


class Patches(nn.Module):
    """Descriptors (n, rows, columns, channels) of patches: feature maps averaged over 3x3, on the finest grid.

    Roth et al. 2022, "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), section 3.1.
    """

    inputs = ("features_8", "features_16")

    def forward(self, scene: Scene) -> Tensor:
        fine, *coarse = (_smooth(scene[name]) for name in self.inputs)
        size = list(fine.shape[2:])
        enlarged = [
            functional.interpolate(maps, size, mode="bilinear", align_corners=False)
            for maps in coarse
        ]
        return torch.cat([fine, *enlarged], dim=1).permute(0, 2, 3, 1)


class PixelPatches(nn.Module):
    """Patches (n, rows, columns, numbers) of the small photographs, brightness and contrast taken out."""

    inputs = ("images",)

    def forward(self, scene: Scene) -> Tensor:
        pixels = small_pixels(scene)
        channels = pixels.shape[1]
        kernels = torch.eye(PATCH * PATCH).view(-1, 1, PATCH, PATCH).repeat(channels, 1, 1, 1)
        patches = functional.conv2d(pixels, kernels, stride=STEP, groups=channels).permute(
            0, 2, 3, 1
        )
        centred = patches - patches.mean(dim=3, keepdim=True)
        return centred / (centred.square().mean(dim=3, keepdim=True) + 1e-3).sqrt()


class PositionGaussians(Component):
    """Mahalanobis distance of each patch from the normal patches at its position.

    Defard et al. 2021, "PaDiM", section 3, which has a covariance for each position. Here 8x8 blocks of positions share
    one, shrunk to that of all positions, so that few photographs and few bytes will do.
    """

    inputs = Patches.inputs
    mean: Tensor
    factors: Tensor

    def __init__(self, mean: Tensor, factors: Tensor) -> None:
        """Means (rows, columns, channels), and factors (blocks, channels, channels) that whiten."""
        super().__init__()
        self.patches = Patches()
        self.register_buffer("mean", half(mean))
        self.register_buffer("factors", half(factors))

    def forward(self, scene: Scene) -> Reading:
        patches = self.patches(scene)
        rows, columns = patches.shape[1:3]
        whitened = by_block(patches - self.mean, BLOCKS) @ self.factors.transpose(1, 2)
        return _peak(_at_positions(whitened.square().sum(dim=2).sqrt(), rows, columns))


class MemoryBanks(Component):
    """Distance of each patch from the nearest normal one in the memory bank of its block of positions.

    One bank for all positions is PatchCore's (sections 3.2 and 3.3). The bound on positions is that of "RAD" (arXiv
    2601.22763).
    """

    mean: Tensor
    banks: Tensor

    def __init__(self, patches: Patches | PixelPatches, mean: Tensor, banks: Tensor) -> None:
        """Banks (blocks, m, channels) of descriptors less their mean (channels,)."""
        super().__init__()
        self.patches, self.inputs = patches, patches.inputs
        self.register_buffer("mean", half(mean))
        self.register_buffer("banks", half(banks))

    def forward(self, scene: Scene) -> Reading:
        patches = self.patches(scene)
        vectors = by_block(patches - self.mean, math.isqrt(len(self.banks)))
        return _peak(_at_positions(nearest(vectors, self.banks).sqrt(), *patches.shape[1:3]))


class PrincipalResidual(Component):
    """What principal components of small photographs leave over: its mean over the pixels, or its peak."""

    inputs = ("images",)
    mean: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, axes: Tensor, peak: bool) -> None:
        super().__init__()
        self.register_buffer("mean", half(mean))
        self.register_buffer("axes", half(axes))
        self.peak = peak

    def forward(self, scene: Scene) -> Reading:
        pixels = small_pixels(scene)
        centred = pixels.flatten(1) - self.mean
        rest = centred - centred @ self.axes.T @ self.axes
        residual = (rest * rest).view(pixels.shape).mean(dim=1)
        return _peak(residual) if self.peak else Reading(residual.mean(dim=(1, 2)), residual)


class NearestImages(Component):
    """Mean distance of the embedding from the nearest of the training images, in whitened coordinates, as logarithm."""

    inputs = ("latents",)
    bank: Tensor

    def __init__(self, whitening: Whitening, bank: Tensor) -> None:
        super().__init__()
        self.whitening = whitening
        self.register_buffer("bank", half(bank))

    def forward(self, scene: Scene) -> Reading:
        coordinates = self.whitening.coordinates(scene["latents"])
        squares = _squares_less_own(coordinates, self.bank) + coordinates.square().sum(
            dim=1, keepdim=True
        )
        closest = squares.topk(min(NEAREST, len(self.bank)), dim=1, largest=False).values
        return Reading(closest.clamp(min=MIN_SQUARE).sqrt().mean(dim=1).log(), None)


def nearest(vectors: Tensor, banks: Tensor) -> Tensor:
    """Squared distances (blocks, n) of vectors (blocks, n, d) from the nearest in banks (blocks, m, d), in parts."""
    smallest = [
        torch.baddbmm(
            part.square().sum(dim=2).unsqueeze(1), vectors, part.transpose(1, 2), alpha=-2
        ).amin(dim=2)
        for part in torch.split(banks, BATCH_ENTRIES, dim=1)
    ]
    return (torch.stack(smallest).amin(dim=0) + vectors.square().sum(dim=2)).clamp(min=0)


def by_block(patches: Tensor, side: int) -> Tensor:
    """Patches (n, rows, columns, channels) by block, `side` along each side: (blocks, n * positions, channels)."""
    n, rows, columns, channels = patches.shape
    parts = patches.reshape(n, side, rows // side, side, columns // side, channels)
    return parts.permute(1, 3, 0, 2, 4, 5).reshape(side**2, -1, channels)


def _at_positions(values: Tensor, rows: int, columns: int) -> Tensor:
    """Numbers (blocks, n * positions) of patches by block, back at their positions: (n, rows, columns)."""
    side = math.isqrt(len(values))
    parts = values.view(side, side, -1, rows // side, columns // side)
    return parts.permute(2, 0, 3, 1, 4).reshape(-1, rows, columns)


def _squares_less_own(vectors: Tensor, bank: Tensor) -> Tensor:
    """Squared distances (n, m) of vectors (n, d) from a bank (m, d), less each vector's own square: one product."""
    return torch.addmm(bank.square().sum(dim=1), vectors, bank.T, alpha=-2)


def small_pixels(scene: Scene) -> Tensor:
    """Photographs in 0..1, reduced to about 64 pixels: (n, channels, height, width)."""
    images = scene["images"].permute(0, 3, 1, 2).float() / 255
    factor = max(1, round(min(images.shape[2:]) / PIXEL_SIDE))
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def _smooth(maps: Tensor) -> Tensor:
    """Means over 3x3 of (n, channels, rows, columns)."""
    return functional.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


def _peak(distances: Tensor) -> Reading:
    """Maps (n, rows, columns) averaged over 3x3, and the largest of each.

    Zeros beyond the border damp it, where features are those of padding as much as of the photograph.
    """
    maps = functional.avg_pool2d(distances[:, None], 3, stride=1, padding=1).squeeze(1)
    return Reading(maps.amax(dim=(1, 2)), maps)


def half(tensor: Tensor) -> Tensor:
    """Rounded to float16, in which bundles store numbers."""
    return tensor.half().float()
