"""How alike two images are in their edges, at several scales: what the squared error is blind to."""

import torch
from torch import Tensor
from torch.nn import functional

SIDE = 128  # pixels: larger images are compared at reduced size, for the finest scale is mostly noise
SCALES = 4
SMALLEST = 8  # pixels: the least side of the coarsest scale
STABILITY = 0.0026  # c of Xue et al. 2014, section II-B: 170 on the 0..255 scale, squared


def reduction(height: int, width: int) -> int:
    """By which whole factor images are reduced, so that their shorter side is nearest to `SIDE` pixels."""
    return max(1, round(min(height, width) / SIDE))


def reduced(images: Tensor) -> Tensor:
    """Means over squares of pixels: (n, channels, height, width) -> (n, channels, height / factor, width / factor)."""
    factor = reduction(*images.shape[2:])
    return functional.avg_pool2d(images, factor) if factor > 1 else images


def gradient_deviations(images: Tensor, references: Tensor) -> list[Tensor]:
    """1 - gradient magnitude similarity of their greys at each scale: (n, 1, height, width), then half as large each.

    Gradient magnitude similarity is that of Xue et al. 2014, "Gradient Magnitude Similarity Deviation", equation 3;
    over several scales it compares images with their reconstructions in Zavrtanik et al. 2021 (RIAD), section 3.2.
    """
    a, b = (given.mean(dim=1, keepdim=True) for given in (images, references))
    found = []
    for scale in range(SCALES):
        if scale:
            a, b = functional.avg_pool2d(a, 2), functional.avg_pool2d(b, 2)
        if scale and min(a.shape[2:]) < SMALLEST:
            break
        first, second = _gradients(a), _gradients(b)
        # Clamped, for at 0 a root has no gradient; a sum with so small a number would be simplified away on export.
        alike = 2 * (first * second).clamp(min=1e-18).sqrt() + STABILITY
        found.append(1 - alike / (first + second + STABILITY))
    return found


def deviation_map(images: Tensor, references: Tensor) -> Tensor:
    """The mean of `gradient_deviations` over the scales: (n, height, width)."""
    found = gradient_deviations(images, references)
    size = list(found[0].shape[2:])
    enlarged = [functional.interpolate(each, size, mode="bilinear", align_corners=False) for each in found[1:]]
    return torch.stack([found[0], *enlarged]).mean(dim=0).squeeze(1)


def deviation(images: Tensor, references: Tensor) -> Tensor:
    """The same as one number for each image, (n,)."""
    return torch.stack([each.mean(dim=(1, 2, 3)) for each in gradient_deviations(images, references)]).mean(dim=0)


def _gradients(grey: Tensor) -> Tensor:
    """Squared magnitudes of the gradients by Prewitt's filter, (n, 1, height, width); 0 beyond the border."""
    slope = torch.tensor([[-1.0, 0.0, 1.0]] * 3, device=grey.device) / 3
    filters = torch.stack([slope, slope.T])[:, None]
    return functional.conv2d(_extended(grey), filters).square().sum(dim=1, keepdim=True)


def _extended(grey: Tensor) -> Tensor:
    """With the nearest pixel beyond each border; torch's own padding has no deterministic gradient on a GPU."""
    grey = torch.cat([grey[:, :, :1], grey, grey[:, :, -1:]], dim=2)
    return torch.cat([grey[:, :, :, :1], grey, grey[:, :, :, -1:]], dim=3)
