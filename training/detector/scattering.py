"""The scattering transform: a convolutional network with wavelets as filters, without training.

Bruna and Mallat 2013, "Invariant Scattering Convolution Networks", sections 2 and 3. It averages
moduli of wavelet coefficients, of orders 1 and 2, over a grid. Small shifts change them little.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE_PIXELS = 32  # larger images are reduced, because the coefficients describe whole images
SCALES = 3
ANGLES = 8
CELLS = 3  # of the grid, along each side
SLANT = 4 / ANGLES  # width of a wavelet's envelope over its length along the crests


class Scattering(nn.Module):
    """Images (n, channels, height, width) in 0..1 to square roots (n, features) of coefficients.

    Each of 9 cells has the channels (order 0) and 216 moduli of the grey image (orders 1 and 2).
    """

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.ParameterList(
            nn.Parameter(_build_wavelets(scale), requires_grad=False) for scale in range(SCALES)
        )

    def forward(self, images: Tensor) -> Tensor:
        factor = max(1, round(min(images.shape[2:]) / SIDE_PIXELS))
        images = functional.avg_pool2d(images, factor) if factor > 1 else images
        first = [
            self._compute_moduli(images.mean(dim=1, keepdim=True), scale) for scale in range(SCALES)
        ]
        coefficients = [images, *first]
        for scale, moduli in enumerate(first):
            # Second wavelets are coarser; their scale is relative to the grid of the moduli.
            for relative_scale in range(1, SCALES - scale):
                second = self._compute_moduli(moduli.flatten(0, 1)[:, None], relative_scale)
                coefficients.append(second.view(images.shape[0], -1, *second.shape[2:]))
        cells = [functional.adaptive_avg_pool2d(maps, CELLS).flatten(1) for maps in coefficients]
        return torch.cat(cells, dim=1).sqrt()

    def _compute_moduli(self, images: Tensor, scale: int) -> Tensor:
        """(n, 1, height, width) to (n, angles, height / 2**scale, width / 2**scale)."""
        wavelets = self.filters[scale]
        margin, step = wavelets.shape[-1] // 2, 2**scale
        padded = functional.pad(images, (margin,) * 4, mode="replicate")
        waves = functional.conv2d(padded, wavelets, stride=step)
        real, imaginary = waves.chunk(2, dim=1)
        return (real.square() + imaginary.square()).sqrt()


def _build_wavelets(scale: int) -> Tensor:
    """Morlet wavelets (2 * angles, 1, size, size): real parts, then imaginary parts."""
    width, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
    reach = math.ceil(3 * width)
    down, across = torch.meshgrid(*[torch.arange(-reach, reach + 1.0)] * 2, indexing="ij")
    wavelets = []
    for angle in (math.pi * index / ANGLES for index in range(ANGLES)):
        along = across * math.cos(angle) + down * math.sin(angle)
        aside = down * math.cos(angle) - across * math.sin(angle)
        envelope = (-(along.square() + (SLANT * aside).square()) / (2 * width**2)).exp()
        wave = (1j * frequency * along).exp()
        # A multiple of the envelope is subtracted, so that a flat image has coefficients of zero.
        wavelet = envelope * (wave - (envelope * wave).sum() / envelope.sum())
        wavelets.append(wavelet * SLANT / (2 * math.pi * width**2))
    stacked = torch.stack(wavelets)
    return torch.cat([stacked.real, stacked.imag])[:, None]
