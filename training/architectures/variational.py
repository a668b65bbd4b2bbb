"""Convolutional variational autoencoders with a Gaussian posterior (Kingma and Welling 2014)."""

from math import prod
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from service.manifest import InputSpec
from training.architectures.base import Autoencoder, Config, Posterior, Widths
from training.architectures.convolutional import code_size, downward, upward


class VariationalConfig(Config):
    kind: Literal["variational"] = "variational"
    latent_dim: PositiveInt
    widths: Widths  # channels at each resolution; every entry halves height and width
    blocks: NonNegativeInt = 1


class VariationalAutoencoder(Autoencoder):
    def __init__(self, config: VariationalConfig, spec: InputSpec) -> None:
        super().__init__()
        features = config.widths[-1], *code_size(spec, config.widths)
        self.config = config
        self.latent_dim = config.latent_dim
        self.output = nn.Sigmoid()
        self.encoder = nn.Sequential(
            downward(spec.channels, config.widths, config.blocks),
            nn.Flatten(),
            nn.Linear(prod(features), 2 * config.latent_dim),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latent_dim, prod(features)),
            nn.Unflatten(1, features),
            upward(spec.channels, config.widths, config.blocks),
        )

    def encode(self, images: Tensor) -> Posterior:
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return Posterior(mean, log_variance)

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(latents)
        return raw

    def describe(self) -> str:
        widths = "-".join(map(str, self.config.widths))
        return f"convolutional variational, widths {widths}, {self.latent_dim} latent dimensions"
