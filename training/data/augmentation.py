"""What training does to images by chance: augmentation, binarisation, noise.

All is drawn from the generator that is passed in, so that a run can be repeated and resumed bit by bit.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from training.config import Config


class CorruptionConfig(Config):
    """What the network sees in place of the image that it is to give back (denoising: Vincent et al. 2008)."""

    sigma: NonNegativeFloat = (
        0.0  # standard deviation of Gaussian noise on the 0..1 scale, before a clip to 0..1
    )
    masking: float = Field(0.0, ge=0, lt=1)  # the share of pixels set to 0

    @property
    def active(self) -> bool:
        return bool(self.sigma or self.masking)


class AugmentationConfig(Config):
    """Random affine and elastic distortions; every range is symmetric around no change."""

    shift: NonNegativeFloat = 0.0  # pixels
    rotation: NonNegativeFloat = 0.0  # degrees
    scale: float = Field(0.0, ge=0, lt=1)  # 0.1: between 0.9 and 1.1, in each direction
    shear: NonNegativeFloat = 0.0  # degrees
    elastic: NonNegativeFloat = (
        0.0  # pixels: the scale of a smooth random field (Simard et al. 2003)
    )
    brightness: float = Field(0.0, ge=0, lt=1)  # 0.1: between 0.9 and 1.1
    mirror: bool = False  # left and right, and up and down, each in half of the images
    outside: Literal["black", "edge"] = "black"  # what comes in from beyond the border

    @property
    def active(self) -> bool:
        return any(self.model_dump(exclude={"outside"}).values())


class RandomChanges(NamedTuple):
    """Random changes of training images: of what is given back, then of what the network sees."""

    augmentation: AugmentationConfig = AugmentationConfig()
    corruption: CorruptionConfig = CorruptionConfig()
    binarise: bool = False


def uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def corrupt(images: Tensor, config: CorruptionConfig, generator: torch.Generator) -> Tensor:
    """Images (n, channels, height, width) in 0..1 with noise, still in 0..1."""
    if config.sigma:
        images = (images + config.sigma * normal(images.shape, generator)).clamp(0, 1)
    if config.masking:
        images = images * (
            uniform((len(images), 1, *images.shape[2:]), generator) >= config.masking
        )
    return images


def binarise(images: Tensor, generator: torch.Generator) -> Tensor:
    """A pixel becomes 1 with the probability of its intensity (Salakhutdinov and Murray 2008)."""
    return (uniform(tuple(images.shape), generator) < images).float()


def augment(images: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Images (n, channels, height, width), each distorted in its own way."""
    if not config.active:
        return images
    count, _, height, width = images.shape
    angle, shear = (
        (2 * uniform((count,), generator) - 1) * math.radians(most)
        for most in (config.rotation, config.shear)
    )
    across, down = 1 / (1 + config.scale * (2 * uniform((2, count), generator) - 1))
    move = (2 * uniform((count, 2), generator) - 1) * config.shift
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    # affine_grid counts in halves of height and width, in which only a square's rotation is a rotation.
    aspect = height / width
    entries = [
        across * cos,
        across * (slant * cos - sin) * aspect,
        down * sin / aspect,
        down * (slant * sin + cos),
    ]
    matrix = torch.stack(entries, dim=1).view(count, 2, 2)
    size = torch.tensor([width, height], device=images.device)
    affine = torch.cat([matrix, (2 * move / size)[..., None]], dim=2)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    if config.elastic:
        coarse = normal((count, 2, 5, 5), generator)
        field = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
        grid = grid + (2 * config.elastic * field.permute(0, 2, 3, 1) / size)
    padding = "zeros" if config.outside == "black" else "border"
    distorted = functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    if config.brightness:
        factors = 1 + config.brightness * (2 * uniform((count, 1, 1, 1), generator) - 1)
        distorted = (distorted * factors).clamp(0, 1)
    for dimension in (2, 3) if config.mirror else ():
        turned = uniform((count, 1, 1, 1), generator) < 0.5
        distorted = torch.where(turned, distorted.flip(dimension), distorted)
    return distorted
