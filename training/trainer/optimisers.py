"""The optimisers, and how their learning rate changes over the steps of a run."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer, RMSprop
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from training.config import Config
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


class MuonConfig(Config):
    """For matrices the momentum made orthogonal (Jordan et al. 2024), on AdamW's scale (Liu et al. 2025, section 2.2).

    Of a convolution's weight, the matrix is (channels out, channels in x height x width). All that is no matrix, or one
    with a side of at most 16, as the first and the last layer often have, takes AdamW's steps.
    """

    kind: Literal["muon"] = "muon"
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 0.0
    momentum: float = Field(0.95, ge=0, lt=1)


OptimiserConfig = Annotated[
    AdamwConfig | AdamConfig | RmspropConfig | SgdConfig | MuonConfig, Field(discriminator="kind")
]


class ScheduleConfig(Config):
    """`one-cycle` rises to the optimiser's learning rate and falls to nothing (Smith and Topin 2018).

    With Adam and AdamW the first moment's decay goes the other way, from 0.95 to 0.85 and back, as in that paper.
    """

    kind: Literal["one-cycle", "constant"] = "one-cycle"
    warm_up: float = Field(
        0.1, gt=0, lt=1
    )  # the share of all steps on which the rate of one-cycle rises


def build_optimiser(config: OptimiserConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    trained = list(parameters)
    match config:
        case AdamwConfig():
            return AdamW(
                trained, config.learning_rate, weight_decay=config.weight_decay, fused=True
            )
        case AdamConfig():
            return Adam(trained, config.learning_rate, fused=True)
        case RmspropConfig():
            return RMSprop(
                trained,
                config.learning_rate,
                config.decay,
                config.epsilon,
                momentum=config.momentum,
            )
        case SgdConfig():
            return SGD(
                trained,
                config.learning_rate,
                config.momentum,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case MuonConfig():
            return MuonWithAdamW(trained, config)


class MuonWithAdamW(Optimizer):
    """torch's Muon for the matrices and its AdamW for the rest, as one optimiser."""

    THIN = 16  # the side of a matrix up to which it is not worth being made orthogonal

    def __init__(self, parameters: list[nn.Parameter], config: MuonConfig) -> None:
        super().__init__(parameters, {"lr": config.learning_rate})
        self._matrices = [weight for weight in parameters if self._is_wide(weight)]
        # torch's Muon takes two dimensions only: these share the memory of the weights.
        self._views = [nn.Parameter(weight.detach().flatten(1)) for weight in self._matrices]
        rest = [weight for weight in parameters if not self._is_wide(weight)]
        rate, decay = config.learning_rate, config.weight_decay
        self._parts: list[Optimizer] = []
        if self._views:
            self._parts.append(
                Muon(self._views, rate, decay, config.momentum, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self._parts.append(AdamW(rest, rate, weight_decay=decay, fused=True))
        self._share_groups()

    def _is_wide(self, weight: nn.Parameter) -> bool:
        return weight.ndim > 1 and min(len(weight), weight[0].numel()) > self.THIN

    def _share_groups(self) -> None:
        """Let a schedule that changes these groups change the parts."""
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)  # of the groups, which hold the views
        for weight in self._matrices:
            weight.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None  # the loop has none
        for weight, view in zip(self._matrices, self._views, strict=True):
            view.grad = None if weight.grad is None else weight.grad.flatten(1)
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def build_schedule(config: ScheduleConfig, optimiser: Optimizer, steps: int) -> LRScheduler:
    """The schedule over this many steps, for which `check_steps` has passed."""
    if config.kind == "constant":
        return ConstantLR(optimiser, factor=1.0)
    # torch divides by zero where the rate rises for one step only, or falls for none.
    rising = min(max(config.warm_up, 2 / steps), 1 - 1 / steps)
    highest = [group["lr"] for group in optimiser.param_groups]
    cycled = "betas" in optimiser.defaults  # the momentum of the others is the recipe's
    return OneCycleLR(
        optimiser, highest, total_steps=steps, pct_start=rising, cycle_momentum=cycled
    )


def check_steps(config: ScheduleConfig, steps: int, stage: str) -> None:
    """Raise RecipeError where there are too few steps for the rate to rise and fall."""
    if config.kind == "one-cycle" and steps < 3:
        raise RecipeError(
            f"{stage} would have {steps} steps; train for more epochs or take a smaller batch_size"
        )
