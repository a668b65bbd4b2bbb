"""The optimisers, and how their learning rate changes over the steps of a run."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from training.architectures.base import Config
from training.errors import RecipeError


class AdamwConfig(Config):
    """Loshchilov and Hutter 2019."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0


class AdamConfig(Config):
    """Kingma and Ba 2015."""

    kind: Literal["adam"] = "adam"
    learning_rate: PositiveFloat


class RmspropConfig(Config):
    """Tieleman and Hinton 2012; the defaults of decay and epsilon are TensorFlow's, which the classics used."""

    kind: Literal["rmsprop"] = "rmsprop"
    learning_rate: PositiveFloat
    decay: float = Field(0.9, gt=0, lt=1)
    epsilon: PositiveFloat = 1e-10
    momentum: float = Field(0.0, ge=0, lt=1)


class SgdConfig(Config):
    kind: Literal["sgd"] = "sgd"
    learning_rate: PositiveFloat
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: NonNegativeFloat = 0.0


OptimiserConfig = Annotated[AdamwConfig | AdamConfig | RmspropConfig | SgdConfig, Field(discriminator="kind")]


class ScheduleConfig(Config):
    """`one-cycle` rises to the optimiser's learning rate and falls to nothing (Smith and Topin 2018).

    With Adam and AdamW the first moment's decay goes the other way, from 0.95 to 0.85 and back, as in that paper.
    """

    kind: Literal["one-cycle", "constant"] = "one-cycle"
    warm_up: float = Field(0.1, gt=0, lt=1)  # the share of all steps on which the rate of one-cycle rises


def build_optimiser(config: OptimiserConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    trained = list(parameters)
    match config:
        case AdamwConfig():
            return AdamW(trained, config.learning_rate, weight_decay=config.weight_decay, fused=True)
        case AdamConfig():
            return Adam(trained, config.learning_rate, fused=True)
        case RmspropConfig():
            return RMSprop(trained, config.learning_rate, config.decay, config.epsilon, momentum=config.momentum)
        case SgdConfig():
            return SGD(trained, config.learning_rate, config.momentum, weight_decay=config.weight_decay, fused=True)


def build_schedule(config: ScheduleConfig, optimiser: Optimizer, steps: int) -> LRScheduler:
    """The schedule over this many steps, for which `check_steps` has passed."""
    if config.kind == "constant":
        return ConstantLR(optimiser, factor=1.0)
    # torch divides by zero where the rate rises for one step only, or falls for none.
    rising = min(max(config.warm_up, 2 / steps), 1 - 1 / steps)
    highest = [group["lr"] for group in optimiser.param_groups]
    cycled = "betas" in optimiser.defaults  # the momentum of the others is the recipe's
    return OneCycleLR(optimiser, highest, total_steps=steps, pct_start=rising, cycle_momentum=cycled)


def check_steps(config: ScheduleConfig, steps: int, stage: str) -> None:
    """Raise RecipeError where there are too few steps for the rate to rise and fall."""
    if config.kind == "one-cycle" and steps < 3:
        raise RecipeError(f"{stage} would have {steps} steps; train for more epochs or take a smaller batch_size")
