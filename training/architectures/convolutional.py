"""Residual convolutional autoencoders without normalisation layers, whose code is a small feature map."""

from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from service.manifest import InputSpec
from training.architectures.base import OUTPUTS, Autoencoder, Config, OutputName, Posterior, Widths


class ConvolutionalConfig(Config):
    kind: Literal["convolutional"] = "convolutional"
    widths: Widths  # channels at each resolution; every entry halves height and width
    blocks: NonNegativeInt = 2  # residual blocks at each resolution, in the encoder and again in the decoder
    code_channels: PositiveInt
    output: OutputName = "clamp"


class ResidualBlock(nn.Module):
    """x + gain * conv(relu(conv(relu(x)))) with the gain starting at 0 (SkipInit: De and Smith 2020, section 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
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
        raise ValueError(f"{spec.height}x{spec.width} cannot be halved {len(widths)} times: use fewer widths")
    return spec.height // factor, spec.width // factor


class ConvolutionalAutoencoder(Autoencoder):
    def __init__(self, config: ConvolutionalConfig, spec: InputSpec) -> None:
        super().__init__()
        code = config.code_channels, *code_size(spec, config.widths)
        self.config = config
        self.latent_dim = code[0] * code[1] * code[2]
        self.output = OUTPUTS[config.output]()
        self.encoder = nn.Sequential(
            downward(spec.channels, config.widths, config.blocks),
            nn.Conv2d(config.widths[-1], config.code_channels, 1),
            nn.Flatten(),
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, code),
            nn.Conv2d(config.code_channels, config.widths[-1], 1),
            upward(spec.channels, config.widths, config.blocks),
        )

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(self.encoder(images))

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(latents)
        return raw

    def describe(self) -> str:
        widths = "-".join(map(str, self.config.widths))
        return f"residual convolutional, widths {widths}, {self.config.blocks} blocks each, code {self.latent_dim}"
