"""Architectures of autoencoders, by the `kind` of their configuration."""

from typing import Annotated

from pydantic import Field

from bundle.manifest import InputSpec
from training.architectures.base import Autoencoder, Classifier, Posterior
from training.architectures.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.architectures.dense import DenseAutoencoder, DenseConfig, ResidualDenseConfig
from training.architectures.pooling import PoolingAutoencoder, PoolingConfig

ArchitectureConfig = Annotated[
    DenseConfig | ResidualDenseConfig | ConvolutionalConfig | PoolingConfig,
    Field(discriminator="kind"),
]

__all__ = [
    "ArchitectureConfig",
    "Autoencoder",
    "Classifier",
    "DenseAutoencoder",
    "Posterior",
    "build",
]


def build(config: ArchitectureConfig, spec: InputSpec) -> Autoencoder:
    """Build the untrained network. Raises ValueError if its configuration contradicts the input."""
    match config:
        case DenseConfig() | ResidualDenseConfig():
            return DenseAutoencoder(config, spec)
        case ConvolutionalConfig():
            return ConvolutionalAutoencoder(config, spec)
        case PoolingConfig():
            return PoolingAutoencoder(config, spec)
