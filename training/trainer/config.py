"""Configurations of training."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from training.config import Config
from training.trainer.optimisers import OptimiserConfig


class TrainingConfig(Config):
    """Length, batches and precision of a stage of training."""

    epochs: PositiveInt
    """Passes over the training images."""
    batch_size: PositiveInt = 128
    """Images of one step, over all processes together."""
    clip_norm: NonNegativeFloat = 1.0
    """Maximum norm of the gradient; 0: unlimited."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are exported; 0: no average."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the network. The loss always has float32."""
    patience: PositiveInt | None = None
    """Epochs without a lower validation loss, after which training ends with the best weights."""


class PretrainingConfig(Config):
    """Greedy layer-wise pre-training of a dense network, before all layers are trained together.

    Each layer learns to reconstruct the output of the layers below it, by mean squared error. The
    images are neither augmented nor corrupted.
    """

    epochs: PositiveInt
    """Passes over the training images for each layer."""
    batch_size: PositiveInt = 128
    """Images of one step."""
    learning_rate: PositiveFloat
    """Learning rate of each layer."""


class ClassifierConfig(Config):
    """A softmax layer on the latents, trained together with the network.

    With `pretrained`, the autoencoder is trained alone first.
    """

    training: TrainingConfig
    """Length, batches and precision of the fine-tuning."""
    optimiser: OptimiserConfig
    """Optimiser of the fine-tuning."""
    pretrained: bool = True
    """Train the autoencoder alone first."""
    labels: PositiveInt | None = None
    """Training images that keep their labels, equal for each class; unset: all."""
    reconstruction: NonNegativeFloat = 1.0
    """Weight of the reconstruction beside the cross-entropy."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
