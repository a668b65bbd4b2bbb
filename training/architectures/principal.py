"""A linear autoencoder on principal components, and a convolutional one for what it leaves over.

The best linear autoencoder is known in closed form (Baldi and Hornik 1989): the principal components of the images. It
needs no training and is hard to beat where objects lie alike in all photographs; convolutions learn the rest.
"""

from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from service.manifest import InputSpec
from training.architectures.base import OUTPUTS, Autoencoder, Config, OutputName, Posterior, Widths
from training.architectures.convolutional import code_size, downward, levels, upward
from training.similarity import reduced, reduction

IMAGES_A_COMPONENT = 6  # with fewer, components would tell the training images apart rather than all images


class PrincipalConfig(Config):
    kind: Literal["principal"] = "principal"
    components: NonNegativeInt = 20  # at most; never more than one for six training images
    widths: Widths  # channels at each resolution; every entry halves height and width
    blocks: NonNegativeInt = 1  # residual blocks at each resolution, in the encoder and again in the decoder
    code_channels: PositiveInt
    variational: Literal[False] = False
    output: OutputName = "clamp"


class PrincipalAutoencoder(Autoencoder):
    """Works on images reduced to about 128 pixels, and gives reconstructions enlarged again."""

    encoder: nn.Sequential
    mean: Tensor
    basis: Tensor

    def __init__(self, config: PrincipalConfig, spec: InputSpec) -> None:
        super().__init__()
        self.config = config
        self.output = OUTPUTS[config.output]()
        self.factor = reduction(spec.height, spec.width)
        if spec.height % self.factor or spec.width % self.factor:
            raise ValueError(f"{spec.height}x{spec.width} cannot be reduced by {self.factor}: choose multiples of it")
        height, width = spec.height // self.factor, spec.width // self.factor
        inner = spec.model_copy(update={"height": height, "width": width})
        code = config.code_channels, *code_size(inner, config.widths)
        last = config.widths[-1]
        self.encoder = nn.Sequential(
            downward(spec.channels, config.widths, config.blocks), nn.Conv2d(last, code[0], 1), nn.Flatten()
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, code),
            nn.Conv2d(code[0], last, 1),
            upward(spec.channels, config.widths, config.blocks),
            Gain(),
        )
        self.code = code[0] * code[1] * code[2]
        self.shape = spec.channels, height, width
        self._set(torch.zeros(self.shape), torch.zeros(config.components, *self.shape))

    def prepare(self, images: Tensor, fineness: int) -> None:
        small = torch.cat([reduced(part.permute(0, 3, 1, 2) / 255) for part in torch.split(images, 256)])
        count = min(self.config.components, fineness // IMAGES_A_COMPONENT)
        mean = small.mean(dim=0)
        self._set(mean, _components((small - mean).flatten(1).double(), count).float().view(count, *self.shape))

    def _set(self, mean: Tensor, basis: Tensor) -> None:
        # In float16, as bundles store weights.
        self.register_buffer("mean", mean.half().float())
        self.register_buffer("basis", basis.half().float())
        self.latent_dim = len(basis) + self.code

    def encode(self, images: Tensor) -> Posterior:
        small = reduced(images)
        with _in_full_precision(images):
            coefficients = (small - self.mean).flatten(1) @ self.basis.flatten(1).T
        return Posterior(torch.cat([coefficients, self.encoder(small).float()], dim=1))

    def decode_raw(self, latents: Tensor) -> Tensor:
        coefficients, code = torch.split(latents, [len(self.basis), self.code], dim=1)
        with _in_full_precision(latents):
            linear = (coefficients.float() @ self.basis.flatten(1)).view(-1, *self.shape) + self.mean
        rest: Tensor = self.decoder(code)
        return self._enlarged(linear + rest.float())

    def activations(self, images: Tensor) -> list[Tensor]:
        return levels(self.encoder[0], images)

    def _enlarged(self, images: Tensor) -> Tensor:
        """By repetition and a mean over a window, for torch's own bilinear filter is not deterministic on a GPU."""
        if self.factor == 1:
            return images
        window = self.factor + 1 - self.factor % 2
        larger = functional.interpolate(images, scale_factor=float(self.factor), mode="nearest")
        return functional.avg_pool2d(larger, window, stride=1, padding=window // 2, count_include_pad=False)

    def describe(self) -> str:
        widths = "-".join(map(str, self.config.widths))
        return (
            f"{len(self.basis)} principal components and residual convolutions, widths {widths}, "
            f"{self.config.blocks} blocks each, code {self.latent_dim}"
        )


class Gain(nn.Module):
    """Scaling by one weight that starts at 0 (SkipInit: De and Smith 2020, section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * x


def _components(vectors: Tensor, count: int) -> Tensor:
    """The directions (count, d) of the largest variances of centred vectors (n, d), by the smaller of two matrices."""
    if len(vectors) > vectors.shape[1]:
        axes: Tensor = torch.linalg.eigh(vectors.T @ vectors)[1]
        return axes.flip(1)[:, :count].T
    values, products = torch.linalg.eigh(vectors @ vectors.T)
    largest: Tensor = (products / values.clamp(min=1e-12).sqrt()).flip(1)[:, :count]
    return largest.T @ vectors


def _in_full_precision(images: Tensor) -> torch.autocast:
    """Sums over all pixels are taken in float32 in training with bfloat16 too."""
    return torch.autocast(images.device.type, enabled=False)
