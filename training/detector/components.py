"""Score components: measures of how anomalous an image and its patches are.

They are fitted in closed form to normal images (`training.detector.fitters`). Each is a module of the scoring graph. It
holds its numbers in float16, as bundles store them, and computes in float32.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.detector.scene import Scene
from training.detector.whitening import Whitening

ComponentName = Literal[
    "local-neighbours", "gaussians", "neighbours", "pca-mean", "pca-peak", "pixel-neighbours", "nearest-images"
]
Names = tuple[ComponentName, ...]
NAMES: Names = get_args(ComponentName)
MEMORY_BANKS: Names = ("local-neighbours", "neighbours")  # of patches
BASELINES: Names = ("pca-mean", "pca-peak", "pixel-neighbours")

BLOCKS = 8  # of positions, along each side, that share a covariance or a memory bank
BLOCK = 1000  # entries of a bank that are compared at once
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

    inputs: ClassVar[tuple[str, ...]]

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
        enlarged = [functional.interpolate(maps, size, mode="bilinear", align_corners=False) for maps in coarse]
        return torch.cat([fine, *enlarged], dim=1).permute(0, 2, 3, 1)


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
        whitened = by_block(patches - self.mean) @ self.factors.transpose(1, 2)
        return _peak(_at_positions(whitened.square().sum(dim=2).sqrt(), rows, columns))


class NearestPatches(Component):
    """Distance of each patch from the nearest in a memory bank of normal ones (PatchCore, sections 3.2 and 3.3)."""

    inputs = Patches.inputs
    mean: Tensor
    bank: Tensor

    def __init__(self, mean: Tensor, bank: Tensor) -> None:
        """A bank (m, channels) of descriptors less their mean (channels,)."""
        super().__init__()
        self.patches = Patches()
        self.register_buffer("mean", half(mean))
        self.register_buffer("bank", half(bank))

    def forward(self, scene: Scene) -> Reading:
        patches = self.patches(scene)
        return _peak(nearest(patches.flatten(0, 2) - self.mean, self.bank).sqrt().view(patches.shape[:3]))


class LocalNeighbours(Component):
    """Distance of each patch from the nearest normal one at nearby positions.

    The bound on positions is that of "RAD" (arXiv 2601.22763). Here each of 8x8 blocks of positions has a memory bank.
    """

    inputs = Patches.inputs
    mean: Tensor
    banks: Tensor

    def __init__(self, mean: Tensor, banks: Tensor) -> None:
        """Banks (blocks, m, channels) of descriptors less their mean (channels,)."""
        super().__init__()
        self.patches = Patches()
        self.register_buffer("mean", half(mean))
        self.register_buffer("banks", half(banks))

    def forward(self, scene: Scene) -> Reading:
        patches = self.patches(scene)
        vectors = by_block(patches - self.mean)
        own = self.banks.square().sum(dim=2).unsqueeze(1)
        smallest = torch.baddbmm(own, vectors, self.banks.transpose(1, 2), alpha=-2).amin(dim=2)
        distances = (smallest + vectors.square().sum(dim=2)).clamp(min=0).sqrt()
        return _peak(_at_positions(distances, *patches.shape[1:3]))


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


class PixelNeighbours(Component):
    """Distance of each patch of pixels from the nearest normal one, brightness and contrast taken out."""

    inputs = ("images",)
    bank: Tensor

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", half(bank))

    def forward(self, scene: Scene) -> Reading:
        patches = pixel_patches(scene)
        return _peak(nearest(patches.flatten(0, 2), self.bank).sqrt().view(patches.shape[:3]))


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
        squares = _squares_less_own(coordinates, self.bank) + coordinates.square().sum(dim=1, keepdim=True)
        closest = squares.topk(min(NEAREST, len(self.bank)), dim=1, largest=False).values
        return Reading(closest.clamp(min=MIN_SQUARE).sqrt().mean(dim=1).log(), None)


def nearest(vectors: Tensor, bank: Tensor) -> Tensor:
    """Squared distances (n,) of vectors (n, d) from the nearest of a bank (m, d), a block of which at once."""
    smallest = [_squares_less_own(vectors, part).amin(dim=1) for part in torch.split(bank, BLOCK)]
    return (torch.stack(smallest).amin(dim=0) + vectors.square().sum(dim=1)).clamp(min=0)


def by_block(patches: Tensor) -> Tensor:
    """Patches (n, rows, columns, channels) by block of positions: (blocks, n * positions, channels)."""
    n, rows, columns, channels = patches.shape
    parts = patches.reshape(n, BLOCKS, rows // BLOCKS, BLOCKS, columns // BLOCKS, channels)
    return parts.permute(1, 3, 0, 2, 4, 5).reshape(BLOCKS**2, -1, channels)


def _at_positions(values: Tensor, rows: int, columns: int) -> Tensor:
    """Numbers (blocks, n * positions) of patches by block, back at their positions: (n, rows, columns)."""
    parts = values.view(BLOCKS, BLOCKS, -1, rows // BLOCKS, columns // BLOCKS)
    return parts.permute(2, 0, 3, 1, 4).reshape(-1, rows, columns)


def _squares_less_own(vectors: Tensor, bank: Tensor) -> Tensor:
    """Squared distances (n, m) of vectors (n, d) from a bank (m, d), less each vector's own square: one product."""
    return torch.addmm(bank.square().sum(dim=1), vectors, bank.T, alpha=-2)


def small_pixels(scene: Scene) -> Tensor:
    """Photographs in 0..1, reduced to about 64 pixels: (n, channels, height, width)."""
    images = scene["images"].permute(0, 3, 1, 2).float() / 255
    factor = max(1, round(min(images.shape[2:]) / PIXEL_SIDE))
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def pixel_patches(scene: Scene) -> Tensor:
    """Patches of the small photographs, each less its mean and by its deviation: (n, rows, columns, numbers)."""
    pixels = small_pixels(scene)
    channels = pixels.shape[1]
    kernels = torch.eye(PATCH * PATCH).view(-1, 1, PATCH, PATCH).repeat(channels, 1, 1, 1)
    patches = functional.conv2d(pixels, kernels, stride=STEP, groups=channels).permute(0, 2, 3, 1)
    centred = patches - patches.mean(dim=3, keepdim=True)
    return centred / (centred.square().mean(dim=3, keepdim=True) + 1e-3).sqrt()


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
