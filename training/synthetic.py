"""Synthetic anomalies: what stands in for the defects that nobody has photographed yet.

A region of chance is blended with something that does not belong there, after DRAEM (Zavrtanik, Kristan and Skocaj
2021, section 3.3), which takes the foreign textures from another data set. Here all come from the images themselves or
from noise, so that nothing is downloaded; copies from elsewhere are those of CutPaste (Li et al. 2021, section 2.1).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from training.chance import normal, uniform

GRIDS = (4, 8, 16, 32)  # of smooth noise: cells along each side
LONGEST, SHORTEST = 0.7, 0.08  # half-axes of a region, where the image reaches from -1 to 1
FAINTEST = 0.15  # opacity of what is blended in
FAINT, VISIBLE = 5 / 255, 15 / 255  # the smallest change of a pixel that counts as one, to train on and to judge by


class Spoilt(NamedTuple):
    """Images (n, channels, height, width) in 0..1, and masks (n, 1, height, width): 1 where they were changed.

    `kinds` (n,) are numbers of what was done to each as a whole, where that may have left it what it was.
    """

    images: Tensor
    masks: Tensor
    kinds: Tensor | None = None


def spoil(images: Tensor, generator: torch.Generator, share: float = 1.0) -> Spoilt:
    """A synthetic anomaly in each of the images (n, channels, height, width) in 0..1, or in a share of them."""
    chosen = (uniform((len(images), 1, 1, 1), generator) < share).float()
    opacity = _between(FAINTEST, 1.0, len(images), generator)
    change = _region(images, generator) * (_foreign(images, generator) - images) * opacity * chosen
    return Spoilt(images + change, _seen(change, FAINT))


def deform(images: Tensor, generator: torch.Generator) -> Spoilt:
    """Anomalies of other kinds, on which a detector that was trained on those of `spoil` can be judged.

    A part that is twisted, lines like cracks and scratches, a part that is missing, a faint stain, a break.
    """
    count = len(images)
    region = _region(images, generator, larger=1.5)
    lines = region * (_smooth_noise(images[:, :1], generator).abs() < 0.12)
    stain = functional.avg_pool2d(region, 15, stride=1, padding=7) * _between(0.2, 0.5, count, generator)
    coarse = functional.adaptive_avg_pool2d(images, 6)
    filled = functional.interpolate(coarse, images.shape[2:], mode="bicubic", align_corners=False)
    colour = uniform((count, images.shape[1], 1, 1), generator)
    kinds = [
        region * (_twisted(images, generator) - images),
        lines * (colour - images),
        region * (filled - images),
        stain * (colour - images),
        _half_plane(images, generator) * (_moved(images, 0.05, 0.2, generator, mirrored=False) - images),
    ]
    kind = torch.randint(len(kinds), (count,), generator=generator, device=images.device)
    change = torch.stack(kinds)[kind, torch.arange(count, device=images.device)]
    # Of every strength, for where all anomalies are plain no score is better than another.
    change = (images + _between(0.5, 1.0, count, generator) * change).clamp(0, 1) - images
    return Spoilt(images + change, _seen(change, VISIBLE))


def rearrange(images: Tensor, generator: torch.Generator) -> Spoilt:
    """Something else made of each image as a whole: turned, cut, put together otherwise, laid over another, or wrung.

    Turns of the whole stand in for other objects as in Golan and El-Yaniv 2018, section 3, and in Tack et al. 2020
    (CSI), section 2.2. What does not belong there at a glance, such as a seam, is left out: every score would find it.
    """
    count, _, height, width = images.shape
    ground = _background(images)
    others = images[torch.randperm(count, generator=generator, device=images.device)]
    kinds = [
        images.flip(2),
        images.flip(3),
        images.flip(2, 3),
        _twisted(images, generator, least=0.2),
        torch.where(_half_plane(images, generator) > 0, ground, images),
        torch.where((images - ground).abs() > (others - ground).abs(), images, others),
        _mirrored(images, 2),
        _mirrored(images, 3),
        _mirrored(images.flip(2), 2),
        _mirrored(images.flip(3), 3),
    ]
    if height == width:
        kinds += [images.rot90(1, (2, 3)), images.rot90(3, (2, 3))]
    kind = torch.randint(len(kinds), (count,), generator=generator, device=images.device)
    chosen = torch.stack(kinds)[kind, torch.arange(count, device=images.device)]
    return Spoilt(chosen, torch.ones_like(images[:, :1]), kind)


def _background(images: Tensor) -> Tensor:
    """The median along each image's border: (n, channels, 1, 1)."""
    border = torch.cat([images[:, :, 0], images[:, :, -1], images[..., 0], images[..., -1]], dim=2)
    return border.median(dim=2).values[..., None, None]


def _mirrored(images: Tensor, dimension: int) -> Tensor:
    """The first half, and its mirror image in place of the second."""
    half = images.narrow(dimension, 0, (images.shape[dimension] + 1) // 2)
    rest = half.narrow(dimension, 0, images.shape[dimension] // 2).flip(dimension)
    return torch.cat([half, rest], dim=dimension)


def _seen(change: Tensor, least: float) -> Tensor:
    return (change.abs().amax(dim=1, keepdim=True) > least).float()


def _twisted(images: Tensor, generator: torch.Generator, least: float = 0.05) -> Tensor:
    """Every pixel from somewhere near, by a smooth field."""
    count, _, *size = images.shape
    field = functional.interpolate(normal((count, 2, 8, 8), generator), size, mode="bicubic", align_corners=False)
    upright = torch.eye(2, 3, device=images.device).expand(count, 2, 3)
    grid = functional.affine_grid(upright, list(images.shape), align_corners=False)
    grid = grid + _between(least, 0.3, count, generator) * field.permute(0, 2, 3, 1)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _region(images: Tensor, generator: torch.Generator, larger: float = 1.0) -> Tensor:
    """Ellipses with frayed and softened edges: (n, 1, height, width) in 0..1."""
    count, _, height, width = images.shape
    down, across = torch.meshgrid(
        torch.linspace(-1, 1, height, device=images.device),
        torch.linspace(-1, 1, width, device=images.device),
        indexing="ij",
    )
    down = down - _between(-0.9, 0.9, count, generator)
    across = across - _between(-0.9, 0.9, count, generator)
    angle = _between(0, torch.pi, count, generator)
    axes = larger * SHORTEST * (LONGEST / SHORTEST) ** uniform((2, count, 1, 1, 1), generator)
    along = (across * angle.cos() + down * angle.sin()) / axes[0]
    aside = (down * angle.cos() - across * angle.sin()) / axes[1]
    depth = 1 - along.square() - aside.square()
    frayed = 0.7 * _smooth_noise(images[:, :1], generator) * (_between(0, 1, count, generator) < 0.7)
    region = ((depth + frayed > 0) & (depth > -1.5)).float()
    return functional.avg_pool2d(region, 5, stride=1, padding=2)


def _foreign(images: Tensor, generator: torch.Generator) -> Tensor:
    """What is blended in, of a kind by chance for each image: (n, channels, height, width) in 0..1."""
    count, channels, *_ = images.shape
    colour = uniform((count, channels, 1, 1), generator)
    brightness, contrast = _between(-0.4, 0.4, count, generator), _between(0.4, 1.6, count, generator)
    others = images[torch.randperm(count, generator=generator, device=images.device)]
    blurred = functional.avg_pool2d(images, 9, stride=1, padding=4, count_include_pad=False)
    kinds = [
        colour.expand_as(images),
        colour + 0.35 * _smooth_noise(images, generator),
        _moved(others, 0.25, 1.0, generator),
        _moved(images, 0.05, 0.25, generator),
        contrast * images + brightness,
        blurred + 0.15 * _smooth_noise(images[:, :1], generator),
    ]
    kind = torch.randint(len(kinds), (count,), generator=generator, device=images.device)
    return torch.stack(kinds)[kind, torch.arange(count, device=images.device)].clamp(0, 1)


def _half_plane(images: Tensor, generator: torch.Generator) -> Tensor:
    """1 on one side of a line that passes near the middle: (n, 1, height, width)."""
    count, _, height, width = images.shape
    angle, offset = _between(0, 2 * torch.pi, count, generator), _between(-0.3, 0.3, count, generator)
    down = torch.linspace(-1, 1, height, device=images.device)[:, None]
    across = torch.linspace(-1, 1, width, device=images.device)
    return (across * angle.cos() + down * angle.sin() > offset).float()


def _moved(images: Tensor, least: float, most: float, generator: torch.Generator, mirrored: bool = True) -> Tensor:
    """Each moved by `least` to `most` of half its side in both directions, and every second one `mirrored`."""
    count = len(images)
    step = least + (most - least) * uniform((count, 2), generator)
    step = step * (2 * (uniform((count, 2), generator) < 0.5) - 1)
    mirror = 1 - 2 * (torch.arange(count, device=images.device) % 2) * mirrored
    affine = torch.zeros(count, 2, 3, device=images.device)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = mirror.float(), 1.0, step
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _smooth_noise(images: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of unit variance at the grid points, of a coarseness by chance for each image; shaped as the images."""
    count, channels, *size = images.shape
    fields = [
        functional.interpolate(
            normal((count, channels, grid, grid), generator), size, mode="bicubic", align_corners=False
        )
        for grid in GRIDS
    ]
    grid = torch.randint(len(GRIDS), (count,), generator=generator, device=images.device)
    return torch.stack(fields)[grid, torch.arange(count, device=images.device)]


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * uniform((count, 1, 1, 1), generator)
