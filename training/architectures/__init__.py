"""The architectures, by the `kind` of their configuration."""

from typing import Annotated

from pydantic import Field

from service.manifest import InputSpec
from training.architectures.base import Autoencoder, Posterior
from training.architectures.convolutional import ConvolutionalAutoencoder, ConvolutionalConfig
from training.architectures.dense import DenseAutoencoder, DenseConfig
from training.architectures.variational import VariationalAutoencoder, VariationalConfig

ArchitectureConfig = Annotated[DenseConfig | ConvolutionalConfig | VariationalConfig, Field(discriminator="kind")]

__all__ = ["ArchitectureConfig", "Autoencoder", "Posterior", "build"]


def build(config: ArchitectureConfig, spec: InputSpec) -> Autoencoder:
    """The untrained network. Raises ValueError where the configuration does not fit the input."""
    match config:
        case DenseConfig():
            return DenseAutoencoder(config, spec)
        case ConvolutionalConfig():
            return ConvolutionalAutoencoder(config, spec)
        case VariationalConfig():
            return VariationalAutoencoder(config, spec)
