"""A backbone of two operations, and images with an obvious anomaly."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bundle.manifest import Weights
from bundle.tensors import Images, Tensors
from training.architectures.backbones import Backbone
from training.detector.encoder import BackboneEncoder
from training.detector.image_features import ExportedEncoder, ImageFeatures

SIDE = 64  # pixels
SQUARE = 16  # pixels: side of an anomaly


class PoolingBackbone(Backbone):
    """Feature maps are the mean and the mean square of the pixels in each square."""

    weights = Weights(
        name="pooling", source="tests", licence="none", trained_on="nothing", sha256="0" * 64
    )
    strides = (8, 16)

    def forward(self, images: Tensor, depth: int) -> dict[int, Tensor]:
        unit = images / 255
        both = torch.cat([unit, unit.square()], dim=1)
        return {
            stride: functional.avg_pool2d(both, stride)
            for stride in self.strides
            if stride <= depth
        }

    def describe(self) -> str:
        return "pooled pixels"


class FakeEncoder(ExportedEncoder):
    """Encodes images as the exported encoder of a detector would."""

    def __init__(self) -> None:
        self.module = BackboneEncoder(PoolingBackbone(), 16, (8, 16)).eval()
        super().__init__(self._run, self.module.outputs)

    def encode(self, images: Images, keep_images: bool = True) -> ImageFeatures:
        return super().encode(images, keep_images)

    @torch.no_grad()
    def _run(self, images: Images) -> Tensors:
        found = self.module(torch.from_numpy(images))
        return {name: each.numpy() for name, each in zip(self.module.outputs, found, strict=True)}


def encode(images: Images) -> ImageFeatures:
    return FakeEncoder().encode(images)


def normal_images(count: int, seed: int = 0, side: int = SIDE) -> Images:
    """A pattern that differs from place to place; from image to image, a little noise and light."""
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[:side, :side] / side
    pattern = np.stack(
        [100 + 60 * np.sin(9 * down), 90 + 70 * across, 80 + 40 * down * across], axis=-1
    )
    light = generator.normal(0, 1.5, (count, 1, 1, 3))
    noise = generator.normal(0, 2, (count, side, side, 3))
    return (pattern + light + noise).clip(0, 255).round().astype(np.uint8)


def anomalous_images(
    count: int, seed: int = 1, side: int = SIDE
) -> tuple[Images, list[tuple[int, int]]]:
    """Normal images with a bright square, and the top left corner of each square."""
    images, generator = normal_images(count, seed, side), np.random.default_rng(seed)
    corners = [(int(y), int(x)) for y, x in generator.integers(0, side - SQUARE, (count, 2))]
    for image, (y, x) in zip(images, corners, strict=True):
        image[y : y + SQUARE, x : x + SQUARE] = 250
    return images, corners


def random_encoded(count: int, seed: int = 0, side: int = 8) -> ImageFeatures:
    """Images with embeddings and correlated feature maps, of one Gaussian at every position."""
    generator = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(5, 5))
    fine = np.einsum("ij,njrc->nirc", mixing, generator.normal(size=(count, 5, side, side)))
    coarse, latents = (
        generator.normal(size=(count, 3, side // 2, side // 2)),
        generator.normal(size=(count, 6)),
    )
    arrays: Tensors = {
        "features_8": fine.astype(np.float16),
        "features_16": coarse.astype(np.float16),
    }
    return ImageFeatures.from_arrays({**arrays, "latents": latents.astype(np.float32)})
