"""Configurations of training."""

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
)

from training.config import Config
from training.trainer.optimisers import OptimiserConfig


class TrainingConfig(Config):
    epochs: PositiveInt
    batch_size: PositiveInt = 128  # over all processes together
    clip_norm: NonNegativeFloat = 1.0  # of the gradient; 0: any
    ema: float = Field(
        0.999, ge=0, lt=1
    )  # decay of the averaged weights, which are the ones exported; 0: none
    precision: Literal["float32", "bfloat16"] = (
        "float32"  # bfloat16 for the networks, never for the loss
    )
    patience: PositiveInt | None = (
        None  # epochs without a better validation loss, after which the best is taken
    )


class PretrainingConfig(Config):
    """Greedy layer-wise pre-training of a dense network, before all layers are trained together.

    Each layer learns to give back what the layers below it make of the images as they are: neither augmentation nor
    corruption plays a part, and the error is the mean square.
    """

    epochs: PositiveInt  # for each layer
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat


class ClassifierConfig(Config):
    """A softmax layer on the latents, trained with the network after the autoencoder was (`pretrained`) or at once."""

    training: TrainingConfig
    optimiser: OptimiserConfig
    pretrained: bool = True
    labels: PositiveInt | None = (
        None  # how many training images keep theirs, as many of each class; without it all
    )
    reconstruction: NonNegativeFloat = 1.0  # weight of the reconstruction beside the cross-entropy
    label_smoothing: float = Field(0.0, ge=0, lt=1)
