"""Residual convolutional autoencoders without normalisation layers, plain or variational.

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


class ConvolutionalConfig(Config):
    kind: Literal["convolutional"] = "convolutional"
    widths: Widths  # channels at each resolution; every entry halves height and width
    blocks: NonNegativeInt = (
        2  # residual blocks at each resolution, in the encoder and again in the decoder
    )
    code_channels: PositiveInt | None = None
    latent_dim: PositiveInt | None = None
    # Fully connected layers, and again in the decoder: to a latent vector, or residual ones on all of a feature map.
    hidden: tuple[PositiveInt, ...] = ()
    variational: bool = False
    output: OutputName = "clamp"

    @model_validator(mode="after")
    def _one_code(self) -> Self:
        if (self.code_channels is None) == (self.latent_dim is None):
            raise ValueError(
                "give either code_channels (the code is a feature map) or latent_dim (a vector)"
            )
        if self.variational and self.latent_dim is None:
            raise ValueError("a variational code is a latent vector: give latent_dim")
        return self


class ResidualBlock(nn.Module):
    """x + gain * conv(relu(conv(relu(x)))) with the gain starting at 0 (SkipInit: De and Smith 2020, section 3)."""

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


def downward(channels: int, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """(batch, channels, h, w) -> (batch, widths[-1], h / 2**n, w / 2**n)."""
    layers: list[nn.Module] = []
    for before, width in zip((channels, *widths), widths, strict=False):
        layers.append(nn.Conv2d(before, width, 4, stride=2, padding=1))
        layers += [ResidualBlock(width) for _ in range(blocks)]
    return nn.Sequential(*layers, nn.ReLU())


def upward(channels: int, widths: tuple[int, ...], blocks: int) -> nn.Sequential:
    """The mirror of `downward`; resolution grows by sub-pixel convolution (Shi et al. 2016)."""
    layers: list[nn.Module] = []
    for width, after in zip(widths[::-1], (*widths[-2::-1], channels), strict=True):
        layers += [ResidualBlock(width) for _ in range(blocks)]
        layers += [nn.ReLU(), nn.Conv2d(width, 4 * after, 3, padding=1), nn.PixelShuffle(2)]
    return nn.Sequential(*layers)


def code_size(spec: InputSpec, widths: tuple[int, ...]) -> tuple[int, int]:
    """Height and width after the last halving. Raises ValueError where the input cannot be halved that often."""
    factor = 2 ** len(widths)
    if spec.height % factor or spec.width % factor:
        raise ValueError(
            f"{spec.height}x{spec.width} cannot be halved {len(widths)} times: use fewer widths"
        )
    return spec.height // factor, spec.width // factor


class ConvolutionalAutoencoder(Autoencoder):
    encoder: nn.Sequential

    def __init__(self, config: ConvolutionalConfig, spec: InputSpec) -> None:
        super().__init__()
        self.config = config
        self.variational = config.variational
        self.output = OUTPUTS[config.output]()
        width, size = config.widths[-1], code_size(spec, config.widths)
        if config.latent_dim is None:
            assert config.code_channels is not None  # the configuration has one of the two
            code = config.code_channels, *size
            self.latent_dim = prod(code)
            mixed = [
                [ResidualLayer(self.latent_dim, hidden) for hidden in config.hidden]
                for _ in range(2)
            ]
            inward: list[nn.Module] = [
                nn.Conv2d(width, config.code_channels, 1),
                nn.Flatten(),
                *mixed[0],
            ]
            outward: list[nn.Module] = [
                *mixed[1],
                nn.Unflatten(1, code),
                nn.Conv2d(config.code_channels, width, 1),
            ]
        else:
            features = width, *size
            self.latent_dim = config.latent_dim
            layers = [prod(features), *config.hidden]
            inward = [nn.Flatten(), *stack([*layers, self.encoded_dim], "gelu", "linear")]
            outward = [
                *stack([self.latent_dim, *layers[::-1]], "gelu", "linear"),
                nn.Unflatten(1, features),
            ]
        self.encoder = nn.Sequential(downward(spec.channels, config.widths, config.blocks), *inward)
        self.decoder = nn.Sequential(*outward, upward(spec.channels, config.widths, config.blocks))

    def encode(self, images: Tensor) -> Posterior:
        return self.posterior(self.encoder(images))

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(latents)
        return raw

    def describe(self) -> str:
        kind = "convolutional variational" if self.variational else "convolutional"
        widths = "-".join(map(str, self.config.widths))
        return f"residual {kind}, widths {widths}, {self.config.blocks} blocks each, code {self.latent_dim}"
