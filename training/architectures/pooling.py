"""The classic convolutional autoencoder: max-pooling, then nearest-neighbour upsampling."""

from math import prod
from typing import Literal

from torch import Tensor, nn

from bundle.manifest import InputSpec
from training.architectures.base import OUTPUTS, Autoencoder, OutputName, Posterior
from training.config import Config, Widths


class PoolingConfig(Config):
    """A stack of convolutions with max-pooling, mirrored in the decoder."""

    kind: Literal["pooling"] = "pooling"
    """Architecture."""
    widths: Widths
    """Channels of each convolution; a halving of height and width, rounded up, follows each."""
    variational: Literal[False] = False
    """Never variational."""
    output: OutputName = "sigmoid"
    """Last activation; a loss that is a likelihood needs its own."""


class PoolingAutoencoder(Autoencoder):
    """A convolutional autoencoder with max-pooling, by its configuration."""

    def __init__(self, config: PoolingConfig, spec: InputSpec) -> None:
        super().__init__()
        self.config = config
        self.output = OUTPUTS[config.output]()
        sizes = [(spec.height, spec.width)]
        for _ in config.widths:
            height, width = sizes[-1]
            sizes.append(((height + 1) // 2, (width + 1) // 2))
        code = config.widths[-1], *sizes[-1]
        self.latent_dim = prod(code)
        inward: list[nn.Module] = []
        for before, after in zip((spec.channels, *config.widths), config.widths, strict=False):
            inward += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        outward: list[nn.Module] = [nn.Unflatten(1, code)]
        for before, after, size in zip(
            (code[0], *config.widths[::-1]), config.widths[::-1], sizes[-2::-1], strict=False
        ):
            outward += [nn.Upsample(size=size), nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        outward.append(nn.Conv2d(config.widths[0], spec.channels, 3, padding=1))
        self.encoder = nn.Sequential(*inward, nn.Flatten())
        self.decoder = nn.Sequential(*outward)

    def encode(self, images: Tensor) -> Posterior:
        return Posterior(self.encoder(images))

    def decode_raw(self, latents: Tensor) -> Tensor:
        raw: Tensor = self.decoder(latents)
        return raw

    def describe(self) -> str:
        widths = "-".join(map(str, self.config.widths))
        return f"convolutional with max-pooling, widths {widths}, code {self.latent_dim}"
