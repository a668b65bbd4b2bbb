"""Fully connected autoencoders: one hidden layer or a stack, mirrored in the decoder."""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from service.manifest import InputSpec
from training.architectures.base import OUTPUTS, Autoencoder, Config, OutputName, Posterior, Widths

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "linear": nn.Identity,
}


class DenseConfig(Config):
    kind: Literal["dense"] = "dense"
    widths: Widths  # of the encoder's layers; the last is latent_dim
    activation: Literal["relu", "sigmoid", "gelu", "linear"] = "relu"
    output: OutputName = "clamp"


class DenseAutoencoder(Autoencoder):
    def __init__(self, config: DenseConfig, spec: InputSpec) -> None:
        super().__init__()
        self.shape = spec.channels, spec.height, spec.width
        self.latent_dim = config.widths[-1]
        self.widths = [spec.channels * spec.height * spec.width, *config.widths]
        self.output = OUTPUTS[config.output]()
        activation = ACTIVATIONS[config.activation]
        inward = [layer for a, b in pairwise(self.widths) for layer in (nn.Linear(a, b), activation())]
        outward = [layer for a, b in pairwise(self.widths[::-1]) for layer in (nn.Linear(a, b), activation())]
        self.encoder = nn.Sequential(nn.Flatten(), *inward)
        self.decoder = nn.Sequential(*outward[:-1], nn.Unflatten(1, self.shape))

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(self.encoder(images))

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(latents)
        return raw

    def describe(self) -> str:
        return "fully connected, " + "-".join(map(str, self.widths + self.widths[-2::-1]))
