"""Residual convolutional autoencoders without normalisation layers; optionally variational.

The code is a small feature map (`code_channels`) or a vector (`latent_dim`).
"""

from math import prod
from typing import Literal, Self

import torch
from pydantic import NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from bundle.manifest import InputSpec
from training.architectures.base import (
    OUTPUTS,
    Autoencoder,
    OutputName,
    Posterior,
    ResidualLayer,
    stack,
)
from training.config import Config, Widths

_Layers = tuple[list[nn.Module], list[nn.Module]]  # of the encoder, of the decoder


class ConvolutionalConfig(Config):
    """A convolutional autoencoder; the code is a feature map or a vector."""

    kind: Literal["convolutional"] = "convolutional"
    """Architecture."""
    widths: Widths
    """Channels at each resolution; every entry halves height and width."""
    blocks: NonNegativeInt = 2
    """Residual blocks at each resolution of the encoder, and again of the decoder."""
    code_channels: PositiveInt | None = None
    """Channels of the code, if it is a feature map."""
    latent_dim: PositiveInt | None = None
    """Number of latents, if the code is a vector."""
    hidden: tuple[PositiveInt, ...] = ()
    """Widths of fully connected layers of the encoder, mirrored in the decoder.

    With `code_channels`, they are residual layers on the whole feature map.
    """
    variational: bool = False
    """Give the latents a variance, by which `sample` draws."""
    output: OutputName = "clamp"
    """Last activation; a loss that is a likelihood needs its own."""

    @model_validator(mode="after")
    def _one_code(self) -> Self:
        if (self.code_channels is None) == (self.latent_dim is None):
            raise ValueError(
                "give either code_channels (the code is a feature map) or latent_dim (a vector)"
            )
        if self.variational and self.latent_dim is None:
            raise ValueError("a variational code is a latent vector: set latent_dim")
        return self


class ResidualBlock(nn.Module):
    """x + gain * conv(relu(conv(relu(x)))), with a gain that starts at 0.

    SkipInit, De and Smith 2020, section 3.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.layers(x)
        return x + self.gain * residual


def build_downward(channels: int, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """Convolutions from (batch, channels, h, w) to (batch, widths[-1], h / 2**n, w / 2**n)."""
    layers: list[nn.Module] = []
    for before, width in zip((channels, *widths), widths, strict=False):
        layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
        layers += [ResidualBlock(width) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.ReLU())


def build_upward(channels: int, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """Mirror of `build_downward`, with sub-pixel convolutions (Shi et al. 2016)."""
    layers: list[nn.Module] = []
    for width, after in zip(widths[::-1], (*widths[-2::-1], channels), strict=True):
        layers += [ResidualBlock(width) for _ in range(blocks)]
        layers += [nn.ReLU(), nn.Conv2d(width, 4 * after, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)


def compute_code_size(spec: InputSpec, widths: tuple[int, ...]) -> tuple[int, int]:
    """Height and width after the last halving.

    Raises ValueError if the input cannot be halved that often.
    """
    factor = 2 ** len(widths)
    if spec.height % factor or spec.width % factor:
        raise ValueError(
            f"{spec.height}x{spec.width} cannot be halved {len(widths)} times: use fewer widths"
        )
    return spec.height // factor, spec.width // factor


class ConvolutionalAutoencoder(Autoencoder):
    """A residual convolutional autoencoder, by its configuration."""

    encoder: nn.Sequential

    def __init__(self, config: ConvolutionalConfig, spec: InputSpec) -> None:
        super().__init__()
        self.config = config
        self.variational = config.variational
        self.output = OUTPUTS[config.output]()
        size = compute_code_size(spec, config.widths)
        if config.latent_dim is None:
            assert config.code_channels is not None  # the configuration has one of the two
            self.latent_dim = prod((config.code_channels, *size))
            inward, outward = self._build_map_code(config.code_channels, size)
        else:
            self.latent_dim = config.latent_dim
            inward, outward = self._build_vector_code(config.latent_dim, size)
        widths, blocks = config.widths, config.blocks
        self.encoder = nn.Sequential(build_downward(spec.channels, widths, blocks), *inward)
        self.decoder = nn.Sequential(*outward, build_upward(spec.channels, widths, blocks))

    def encode(self, images: Tensor) -> Posterior:
        return self.posterior(self.encoder(images))

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(latents)
        return raw

    def describe(self) -> str:
        kind = "convolutional variational" if self.variational else "convolutional"
        widths, blocks = "-".join(map(str, self.config.widths)), self.config.blocks
        return f"residual {kind}, widths {widths}, {blocks} blocks each, code {self.latent_dim}"

    def _build_map_code(self, channels: int, size: tuple[int, int]) -> _Layers:
        """Layers to a code that is a feature map, and back."""
        width = self.config.widths[-1]
        encoding, decoding = (
            [ResidualLayer(self.latent_dim, hidden) for hidden in self.config.hidden]
            for _ in range(2)
        )
        inward = [nn.Conv2d(width, channels, 1), nn.Flatten(), *encoding]
        outward = [*decoding, nn.Unflatten(1, (channels, *size)), nn.Conv2d(channels, width, 1)]
        return inward, outward

    def _build_vector_code(self, latent_dim: int, size: tuple[int, int]) -> _Layers:
        """Layers to a code that is a vector, and back."""
        features = self.config.widths[-1], *size
        layers = [prod(features), *self.config.hidden]
        inward = [nn.Flatten(), *stack([*layers, self.encoded_dim], "gelu", "linear")]
        outward = stack([latent_dim, *layers[::-1]], "gelu", "linear")
        return inward, [*outward, nn.Unflatten(1, features)]
