"""The scattering transform: a convolutional network whose filters are wavelets and need no training.

Bruna and Mallat 2013, "Invariant Scattering Convolution Networks", sections 2 and 3. Moduli of wavelet coefficients,
and those of these moduli, averaged over a grid: stable under small shifts and deformations, yet rich in detail.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE = (
    32  # pixels: larger images are reduced, because the coefficients describe the image as a whole
)
SCALES = 3
ANGLES = 8
CELLS = 3  # of the grid, along each side
SLANT = 4 / ANGLES  # of a wavelet's envelope: how much longer it is along its waves' crests


class Scattering(nn.Module):
    """Images (n, channels, height, width) in 0..1 to the square roots (n, features) of their scattering coefficients.

    Of order 0 the channels, of orders 1 and 2 those of the grey image: in each of 9 cells, 216 and the channels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ParameterList(
            nn.Parameter(_wavelets(scale), requires_grad=False) for scale in range(SCALES)
        )

    def forward(self, images: Tensor) -> Tensor:
        factor = max(1, round(min(images.shape[2:]) / SIDE))
        images = functional.avg_pool2d(images, factor) if factor > 1 else images
        first = [self._moduli(images.mean(dim=1, keepdim=True), scale) for scale in range(SCALES)]
        found = [images, *first]
        for scale, moduli in enumerate(first):
            for times in range(
                1, SCALES - scale
            ):  # coarser than the moduli's own scale, on whose grid they are
                second = self._moduli(moduli.flatten(0, 1)[:, None], times)
                found.append(second.view(images.shape[0], -1, *second.shape[2:]))
        cells = [functional.adaptive_avg_pool2d(each, CELLS).flatten(1) for each in found]
        return torch.cat(cells, dim=1).sqrt()

    def _moduli(self, images: Tensor, scale: int) -> Tensor:
        """(n, 1, height, width) to (n, angles, height / step, width / step), with steps of the wavelets' scale."""
        wavelets = self.filters[scale]
        margin, step = wavelets.shape[-1] // 2, 2**scale
        padded = functional.pad(images, (margin,) * 4, mode="replicate")
        waves = functional.conv2d(padded, wavelets, stride=step)
        real, imaginary = waves.chunk(2, dim=1)
        return (real.square() + imaginary.square()).sqrt()


def _wavelets(scale: int) -> Tensor:
    """Morlet wavelets of a scale, real parts and then imaginary ones: (2 * angles, 1, size, size)."""
    width, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
    reach = math.ceil(3 * width)
    down, across = torch.meshgrid(*[torch.arange(-reach, reach + 1.0)] * 2, indexing="ij")
    found = []
    for angle in (math.pi * index / ANGLES for index in range(ANGLES)):
        along = across * math.cos(angle) + down * math.sin(angle)
        aside = down * math.cos(angle) - across * math.sin(angle)
        envelope = (-(along.square() + (SLANT * aside).square()) / (2 * width**2)).exp()
        wave = (1j * frequency * along).exp()
        # Less a multiple of the envelope, so that a flat image gives nothing.
        wavelet = envelope * (wave - (envelope * wave).sum() / envelope.sum())
        found.append(wavelet * SLANT / (2 * math.pi * width**2))
    stacked = torch.stack(found)
    return torch.cat([stacked.real, stacked.imag])[:, None]
