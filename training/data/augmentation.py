"""Random changes of training images: augmentation, binarisation and noise.

Every change draws from the generator that is passed in. So a run can be repeated and resumed bit
by bit.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from training.config import Config


class CorruptionConfig(Config):
    """Corruption of the network's input, not of its target (denoising: Vincent et al. 2008)."""

    sigma: NonNegativeFloat = 0.0
    """Standard deviation of Gaussian noise on the 0..1 scale, before a clip to 0..1."""
    masking: float = Field(0.0, ge=0, lt=1)
    """Share of the pixels that are set to 0. No metric measures it."""

    @property
    def active(self) -> bool:
        return bool(self.sigma or self.masking)


class AugmentationConfig(Config):
    """Random affine and elastic distortions; every range is symmetric around no change."""

    shift: NonNegativeFloat = 0.0
    """Largest shift, in pixels."""
    rotation: NonNegativeFloat = 0.0
    """Largest rotation, in degrees."""
    scale: float = Field(0.0, ge=0, lt=1)
    """Largest change of size; 0.1 is a factor of 0.9 to 1.1, in each direction."""
    shear: NonNegativeFloat = 0.0
    """Largest shear, in degrees."""
    elastic: NonNegativeFloat = 0.0
    """Scale of a smooth random field of shifts, in pixels (Simard et al. 2003)."""
    brightness: float = Field(0.0, ge=0, lt=1)
    """Largest change of brightness; 0.1 is a factor of 0.9 to 1.1."""
    mirror: bool = False
    """Mirror left and right, and up and down, each in half of the images."""
    outside: Literal["black", "edge"] = "black"
    """Pixels that come in from beyond the border."""

    @property
    def active(self) -> bool:
        return any(self.model_dump(exclude={"outside"}).values())


class RandomChanges(NamedTuple):
    """Random changes of the target (augmentation, binarisation), then of the network's input."""

    augmentation: AugmentationConfig = AugmentationConfig()
    corruption: CorruptionConfig = CorruptionConfig()
    binarise: bool = False


def draw_uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers from the uniform distribution on 0..1, on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device)


def draw_normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    """Numbers from the standard normal distribution, on the generator's device."""
    return torch.randn(shape, generator=generator, device=generator.device)


def corrupt(images: Tensor, config: CorruptionConfig, generator: torch.Generator) -> Tensor:
    """Images (n, channels, height, width) in 0..1 with noise, still in 0..1."""
    if config.sigma:
        images = (images + config.sigma * draw_normal(images.shape, generator)).clamp(0, 1)
    if config.masking:
        drawn = draw_uniform((len(images), 1, *images.shape[2:]), generator)
        images = images * (drawn >= config.masking)
    return images


def binarise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Set each pixel to 1 with the probability of its intensity (Salakhutdinov and Murray 2008)."""
    return (draw_uniform(tuple(images.shape), generator) < images).float()


def augment(images: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Images (n, channels, height, width), each with random distortions of its own."""
    if not config.active:
        return images
    grid = _draw_grid(images, config, generator)
    padding = "zeros" if config.outside == "black" else "border"
    distorted = functional.grid_sample(images, grid, padding_mode=padding, align_corners=False)
    if config.brightness:
        drawn = draw_uniform((len(images), 1, 1, 1), generator)
        factors = 1 + config.brightness * (2 * drawn - 1)
        distorted = (distorted * factors).clamp(0, 1)
    for dimension in (2, 3) if config.mirror else ():
        mirrored = draw_uniform((len(images), 1, 1, 1), generator) < 0.5
        distorted = torch.where(mirrored, distorted.flip(dimension), distorted)
    return distorted


def _draw_grid(images: Tensor, config: AugmentationConfig, generator: torch.Generator) -> Tensor:
    """Random sampling positions (n, height, width, 2) in -1..1: affine, then elastic."""
    count, _, height, width = images.shape
    size = torch.tensor([width, height], device=images.device)
    affine = _draw_affine(count, height / width, size, config, generator)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    if config.elastic:
        coarse = draw_normal((count, 2, 5, 5), generator)
        field = functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=False)
        grid = grid + (2 * config.elastic * field.permute(0, 2, 3, 1) / size)
    return grid


def _draw_affine(
    count: int,
    aspect: float,
    size: Tensor,
    config: AugmentationConfig,
    generator: torch.Generator,
) -> Tensor:
    """Random affine matrices (count, 2, 3) of images with `aspect` = height / width."""
    angle, shear = (
        (2 * draw_uniform((count,), generator) - 1) * math.radians(most)
        for most in (config.rotation, config.shear)
    )
    across, down = 1 / (1 + config.scale * (2 * draw_uniform((2, count), generator) - 1))
    move = (2 * draw_uniform((count, 2), generator) - 1) * config.shift
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    # affine_grid measures in halves of height and width, so a rotation needs the aspect ratio.
    entries = [
        across * cos,
        across * (slant * cos - sin) * aspect,
        down * sin / aspect,
        down * (slant * sin + cos),
    ]
    matrix = torch.stack(entries, dim=1).view(count, 2, 2)
    return torch.cat([matrix, (2 * move / size)[..., None]], dim=2)
