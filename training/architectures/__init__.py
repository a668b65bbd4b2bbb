"""The architectures, by the `kind` of their configuration."""

from typing import Annotated

from pydantic import Field
from torch import nn

from bundle.manifest import InputSpec
from training.architectures.base import Autoencoder, Posterior
from training.architectures.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.architectures.dense import DenseAutoencoder, DenseConfig, ResidualDenseConfig
from training.architectures.pooling import PoolingAutoencoder, PoolingConfig

ArchitectureConfig = Annotated[
    DenseConfig | ResidualDenseConfig | ConvolutionalConfig | PoolingConfig,
    Field(discriminator="kind"),
]

__all__ = ["ArchitectureConfig", "Autoencoder", "DenseAutoencoder", "Posterior", "build"]


def build(config: ArchitectureConfig, spec: InputSpec, classes: int = 0) -> Autoencoder:
    """The untrained network, with a head where there are classes to tell apart.

    Raises ValueError where the configuration does not fit the input.
    """
    network: Autoencoder
    match config:
        case DenseConfig() | ResidualDenseConfig():
            network = DenseAutoencoder(config, spec)
        case ConvolutionalConfig():
            network = ConvolutionalAutoencoder(config, spec)
        case PoolingConfig():
            network = PoolingAutoencoder(config, spec)
    if classes:
        network.head = nn.Linear(network.latent_dim, classes)
    return network
