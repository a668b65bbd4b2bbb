"""Configurations of training."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from training.config import Config
from training.trainer.optimisers import OptimiserConfig


class TrainingConfig(Config):
    """Length, batches and precision of a stage of training."""

    epochs: PositiveInt
    batch_size: PositiveInt = 128  # over all processes together
    clip_norm: NonNegativeFloat = 1.0  # of the gradient; 0: unlimited
    # Decay of the averaged weights, which are exported; 0: no average.
    ema: float = Field(0.999, ge=0, lt=1)
    # bfloat16 is for the networks, never for the loss.
    precision: Literal["float32", "bfloat16"] = "float32"
    # Epochs without a lower validation loss, after which training ends with the best weights.
    patience: PositiveInt | None = None


class PretrainingConfig(Config):
    """Greedy layer-wise pre-training of a dense network, before all layers are trained together.

    Each layer learns to reconstruct the output of the layers below it, by mean squared error. The
    images are neither augmented nor corrupted.
    """

    epochs: PositiveInt  # for each layer
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat


class ClassifierConfig(Config):
    """A softmax layer on the latents, trained together with the network.

    With `pretrained`, the autoencoder is trained alone first.
    """

    training: TrainingConfig
    optimiser: OptimiserConfig
    pretrained: bool = True
    # Number of training images that keep their labels, equal for each class; None: all.
    labels: PositiveInt | None = None
    reconstruction: NonNegativeFloat = 1.0  # weight of the reconstruction beside the cross-entropy
    label_smoothing: float = Field(0.0, ge=0, lt=1)
