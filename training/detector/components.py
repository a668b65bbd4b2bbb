"""Score components: measures of how anomalous an image and its patches are.

They are fitted in closed form to normal images (`training.detector.fitters`). Each is a module
of the scorer graph. It holds its tensors in fp16, as bundles store them, and computes in float32.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bundle.tensors import TensorName
from training.detector.image_features import FeatureBatch
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
ComponentNames = tuple[ComponentName, ...]
COMPONENT_NAMES: ComponentNames = get_args(ComponentName)
MEMORY_BANKS: ComponentNames = ("local-neighbours", "neighbours")  # of patches
BASELINES: ComponentNames = ("pca-mean", "pca-peak", "pixel-neighbours")

BLOCKS_PER_SIDE = 8  # positions in a block share a covariance or a memory bank
BATCH_ENTRIES = 1000  # bank entries compared at once
REDUCED_SIDE_PIXELS = 64  # components on pixels see photographs of about this side
PATCH_SIDE, PATCH_STEP = 8, 4  # pixels of the reduced photograph
NEAREST_IMAGES = 5
MIN_SQUARED_DISTANCE = 0.01  # of whitened latents: smaller values are mostly rounding error


class ComponentOutput(NamedTuple):
    """Scores (n,), higher is more anomalous, and anomaly maps (n, rows, columns), if any."""

    scores: Tensor
    maps: Tensor | None


class Component(nn.Module, ABC):
    """Measure of a batch; `inputs` names the tensors that it takes."""

    inputs: tuple[TensorName, ...]

    @abstractmethod
    def forward(self, batch: FeatureBatch) -> ComponentOutput: ...


class Patches(nn.Module):
    """Descriptors (n, rows, columns, channels): feature maps averaged over 3x3, on the finest grid.

    PatchCore (Roth et al. 2022, "Towards Total Recall in Industrial Anomaly Detection"),
    section 3.1.
    """

    inputs: tuple[TensorName, ...] = ("features_8", "features_16")

    def forward(self, batch: FeatureBatch) -> Tensor:
        fine, *coarse = (_smooth(batch[name]) for name in self.inputs)
        size = list(fine.shape[2:])
        enlarged = [
            functional.interpolate(maps, size, mode="bilinear", align_corners=False)
            for maps in coarse
        ]
        return torch.cat([fine, *enlarged], dim=1).permute(0, 2, 3, 1)


class PixelPatches(nn.Module):
    """Patches (n, rows, columns, values) of reduced photographs, each of mean 0 and deviation 1."""

    inputs: tuple[TensorName, ...] = ("images",)

    def forward(self, batch: FeatureBatch) -> Tensor:
        pixels = reduce_pixels(batch)
        channels = pixels.shape[1]
        kernels = (
            torch.eye(PATCH_SIDE * PATCH_SIDE)
            .view(-1, 1, PATCH_SIDE, PATCH_SIDE)
            .repeat(channels, 1, 1, 1)
        )
        patches = functional.conv2d(pixels, kernels, stride=PATCH_STEP, groups=channels).permute(
            0, 2, 3, 1
        )
        centred = patches - patches.mean(dim=3, keepdim=True)
        return centred / (centred.square().mean(dim=3, keepdim=True) + 1e-3).sqrt()


class PositionGaussians(Component):
    """Mahalanobis distance of each patch from the normal patches at its position.

    Defard et al. 2021, "PaDiM", section 3. PaDiM has a covariance for each position. Here a block
    of positions shares one, shrunk to the mean covariance: this needs fewer images and bytes.
    """

    inputs = Patches.inputs
    mean: Tensor
    factors: Tensor

    def __init__(self, mean: Tensor, factors: Tensor) -> None:
        """Take means (rows, columns, channels), whitening factors (blocks, channels, channels)."""
        super().__init__()
        self.patches = Patches()
        self.register_buffer("mean", round_to_fp16(mean))
        self.register_buffer("factors", round_to_fp16(factors))

    def forward(self, batch: FeatureBatch) -> ComponentOutput:
        patches = self.patches(batch)
        rows, columns = patches.shape[1:3]
        whitened = group_by_block(patches - self.mean, BLOCKS_PER_SIDE) @ self.factors.transpose(
            1, 2
        )
        return _find_peaks(_restore_positions(whitened.square().sum(dim=2).sqrt(), rows, columns))


class MemoryBanks(Component):
    """Distance of each patch from the nearest normal patch in the memory bank of its block.

    One bank for all positions follows PatchCore, sections 3.2 and 3.3. Banks that are limited to
    positions follow "RAD" (arXiv 2601.22763).
    """

    mean: Tensor
    banks: Tensor

    def __init__(self, patches: Patches | PixelPatches, mean: Tensor, banks: Tensor) -> None:
        """Take banks (blocks, m, channels) of descriptors, from which their mean is subtracted."""
        super().__init__()
        self.patches, self.inputs = patches, patches.inputs
        self.register_buffer("mean", round_to_fp16(mean))
        self.register_buffer("banks", round_to_fp16(banks))

    def forward(self, batch: FeatureBatch) -> ComponentOutput:
        patches = self.patches(batch)
        vectors = group_by_block(patches - self.mean, math.isqrt(len(self.banks)))
        return _find_peaks(
            _restore_positions(measure_nearest(vectors, self.banks).sqrt(), *patches.shape[1:3])
        )


class PrincipalResidual(Component):
    """Squared residual of principal components of reduced photographs: its mean, or its peak."""

    inputs: tuple[TensorName, ...] = ("images",)
    mean: Tensor
    axes: Tensor

    def __init__(self, mean: Tensor, axes: Tensor, peak: bool) -> None:
        super().__init__()
        self.register_buffer("mean", round_to_fp16(mean))
        self.register_buffer("axes", round_to_fp16(axes))
        self.peak = peak

    def forward(self, batch: FeatureBatch) -> ComponentOutput:
        pixels = reduce_pixels(batch)
        centred = pixels.flatten(1) - self.mean
        remainder = centred - centred @ self.axes.T @ self.axes
        residual = (remainder * remainder).view(pixels.shape).mean(dim=1)
        return (
            _find_peaks(residual)
            if self.peak
            else ComponentOutput(residual.mean(dim=(1, 2)), residual)
        )


class NearestImages(Component):
    """Logarithm of the mean distance from the nearest training embeddings, which are whitened."""

    inputs: tuple[TensorName, ...] = ("latents",)
    bank: Tensor

    def __init__(self, whitening: Whitening, bank: Tensor) -> None:
        super().__init__()
        self.whitening = whitening
        self.register_buffer("bank", round_to_fp16(bank))

    def forward(self, batch: FeatureBatch) -> ComponentOutput:
        coordinates = self.whitening.project(batch["latents"])
        squares = _measure_squared_distances(coordinates, self.bank)
        closest = squares.topk(min(NEAREST_IMAGES, len(self.bank)), dim=1, largest=False).values
        return ComponentOutput(
            closest.clamp(min=MIN_SQUARED_DISTANCE).sqrt().mean(dim=1).log(), None
        )


def measure_nearest(vectors: Tensor, banks: Tensor) -> Tensor:
    """Squared distances (blocks, n) of vectors (blocks, n, d) from the nearest in their bank.

    Banks (blocks, m, d) are compared in batches of entries, to limit memory.
    """
    smallest = [
        torch.baddbmm(
            entries.square().sum(dim=2).unsqueeze(1), vectors, entries.transpose(1, 2), alpha=-2
        ).amin(dim=2)
        for entries in torch.split(banks, BATCH_ENTRIES, dim=1)
    ]
    return (torch.stack(smallest).amin(dim=0) + vectors.square().sum(dim=2)).clamp(min=0)


def group_by_block(patches: Tensor, side: int) -> Tensor:
    """Patches (n, rows, columns, channels) as (blocks, n * positions, channels).

    There are `side` blocks along each side.
    """
    n, rows, columns, channels = patches.shape
    blocks = patches.reshape(n, side, rows // side, side, columns // side, channels)
    return blocks.permute(1, 3, 0, 2, 4, 5).reshape(side**2, -1, channels)


def _restore_positions(values: Tensor, rows: int, columns: int) -> Tensor:
    """Values (blocks, n * positions) as (n, rows, columns): reverses `group_by_block`."""
    side = math.isqrt(len(values))
    blocks = values.view(side, side, -1, rows // side, columns // side)
    return blocks.permute(2, 0, 3, 1, 4).reshape(-1, rows, columns)


def _measure_squared_distances(vectors: Tensor, bank: Tensor) -> Tensor:
    """Squared distances (n, m) of vectors (n, d) from a bank (m, d)."""
    squares = torch.addmm(bank.square().sum(dim=1), vectors, bank.T, alpha=-2)
    return squares + vectors.square().sum(dim=1, keepdim=True)


def reduce_pixels(batch: FeatureBatch) -> Tensor:
    """Photographs in 0..1, reduced to about 64 pixels a side: (n, channels, height, width)."""
    images = batch["images"].permute(0, 3, 1, 2).float() / 255
    factor = max(1, round(min(images.shape[2:]) / REDUCED_SIDE_PIXELS))
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def _smooth(maps: Tensor) -> Tensor:
    """Means over 3x3 of (n, channels, rows, columns)."""
    return functional.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


def _find_peaks(distances: Tensor) -> ComponentOutput:
    """Maps (n, rows, columns) averaged over 3x3, and the maximum of each.

    Zeros beyond the border damp values near it, because features there depend on padding.
    """
    maps = functional.avg_pool2d(distances[:, None], 3, stride=1, padding=1).squeeze(1)
    return ComponentOutput(maps.amax(dim=(1, 2)), maps)


def round_to_fp16(tensor: Tensor) -> Tensor:
    """Round to fp16, in which bundles store tensors."""
    return tensor.half().float()
