"""The optimisers, and the schedules of their learning rates."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import nn
from torch.optim import SGD, Adam, AdamW, Muon, Optimizer, RMSprop
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from training.config import Config
from training.errors import RecipeError


class AdamwConfig(Config):
    """AdamW (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    """Optimiser."""
    learning_rate: PositiveFloat
    """Learning rate; the highest of its schedule."""
    weight_decay: NonNegativeFloat = 0.0
    """Decay of the weights."""


class AdamConfig(Config):
    """Adam (Kingma and Ba 2015)."""

    kind: Literal["adam"] = "adam"
    """Optimiser."""
    learning_rate: PositiveFloat
    """Learning rate; the highest of its schedule."""


class RmspropConfig(Config):
    """RMSProp (Tieleman and Hinton 2012).

    The defaults of decay and epsilon are TensorFlow's, because the classic networks used them.
    """

    kind: Literal["rmsprop"] = "rmsprop"
    """Optimiser."""
    learning_rate: PositiveFloat
    """Learning rate; the highest of its schedule."""
    decay: float = Field(0.9, gt=0, lt=1)
    """Decay of the mean squared gradient."""
    epsilon: PositiveFloat = 1e-10
    """Number that keeps the division from 0."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of the gradient."""


class SgdConfig(Config):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    """Optimiser."""
    learning_rate: PositiveFloat
    """Learning rate; the highest of its schedule."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of the gradient."""
    weight_decay: NonNegativeFloat = 0.0
    """Decay of the weights."""


class MuonConfig(Config):
    """Muon: orthogonalised momentum for matrices (Jordan et al. 2024).

    Steps are scaled to AdamW's (Liu et al. 2025, section 2.2). The weight of a convolution is the
    matrix (channels out, channels in x height x width). Other weights, and matrices with a side of
    at most 16, take AdamW's steps; first and last layers are often that thin.
    """

    kind: Literal["muon"] = "muon"
    """Optimiser."""
    learning_rate: PositiveFloat
    """Learning rate; the highest of its schedule."""
    weight_decay: NonNegativeFloat = 0.0
    """Decay of the weights."""
    momentum: float = Field(0.95, ge=0, lt=1)
    """Momentum of the gradient."""


OptimiserConfig = Annotated[
    AdamwConfig | AdamConfig | RmspropConfig | SgdConfig | MuonConfig, Field(discriminator="kind")
]


class ScheduleConfig(Config):
    """Schedule of the learning rate over the steps of a stage.

    `one-cycle` rises to the optimiser's learning rate and falls to 0 (Smith and Topin 2018). As in
    that paper, the first moment's decay of Adam and AdamW falls from 0.95 to 0.85 and rises back.
    """

    kind: Literal["one-cycle", "constant"] = "one-cycle"
    """Schedule."""
    warm_up: float = Field(0.1, gt=0, lt=1)
    """Share of all steps on which the rate of `one-cycle` rises."""


def build_optimiser(config: OptimiserConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Build the optimiser of these parameters."""
    trained, rate = list(parameters), config.learning_rate
    match config:
        case AdamwConfig(weight_decay=weight_decay):
            return AdamW(trained, rate, weight_decay=weight_decay, fused=True)
        case AdamConfig():
            return Adam(trained, rate, fused=True)
        case RmspropConfig(decay=decay, epsilon=epsilon, momentum=momentum):
            return RMSprop(trained, rate, decay, epsilon, momentum=momentum)
        case SgdConfig(momentum=momentum, weight_decay=weight_decay):
            return SGD(trained, rate, momentum, weight_decay=weight_decay, fused=True)
        case MuonConfig():
            return MuonWithAdamW(trained, config)


class MuonWithAdamW(Optimizer):
    """torch's Muon for the matrices and its AdamW for the rest, as one optimiser."""

    MAX_ADAMW_SIDE = 16  # with a side up to this, orthogonalising a matrix does not pay off

    def __init__(self, parameters: list[nn.Parameter], config: MuonConfig) -> None:
        super().__init__(parameters, {"lr": config.learning_rate})
        self._matrices = [weight for weight in parameters if self._is_wide(weight)]
        # torch's Muon takes two dimensions only, so views share the memory of the weights.
        self._views = [nn.Parameter(weight.detach().flatten(1)) for weight in self._matrices]
        rest = [weight for weight in parameters if not self._is_wide(weight)]
        rate, decay = config.learning_rate, config.weight_decay
        self._optimisers: list[Optimizer] = []
        if self._views:
            self._optimisers.append(
                Muon(self._views, rate, decay, config.momentum, adjust_lr_fn="match_rms_adamw")
            )
        if rest:
            self._optimisers.append(AdamW(rest, rate, weight_decay=decay, fused=True))
        self._share_groups()

    def _is_wide(self, weight: nn.Parameter) -> bool:
        return weight.ndim > 1 and min(len(weight), weight[0].numel()) > self.MAX_ADAMW_SIDE

    def _share_groups(self) -> None:
        """Share the parameter groups, so that a schedule changes both optimisers."""
        self.param_groups = [
            group for optimiser in self._optimisers for group in optimiser.param_groups
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)  # of the groups, which hold the views
        for weight in self._matrices:
            weight.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        assert closure is None  # the loop passes none
        for weight, view in zip(self._matrices, self._views, strict=True):
            view.grad = None if weight.grad is None else weight.grad.flatten(1)
        for optimiser in self._optimisers:
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [optimiser.state_dict() for optimiser in self._optimisers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for optimiser, state in zip(self._optimisers, state_dict["parts"], strict=True):
            optimiser.load_state_dict(state)
        self._share_groups()


def build_schedule(config: ScheduleConfig, optimiser: Optimizer, steps: int) -> LRScheduler:
    """Build the schedule over this many steps; `check_steps` must accept them."""
    if config.kind == "constant":
        return ConstantLR(optimiser, factor=1.0)
    # torch divides by zero if the rate rises for one step only, or never falls.
    rising = min(max(config.warm_up, 2 / steps), 1 - 1 / steps)
    highest = [group["lr"] for group in optimiser.param_groups]
    # Only Adam and AdamW cycle their momentum, because the others' momentum is the recipe's.
    cycled = "betas" in optimiser.defaults
    return OneCycleLR(
        optimiser, highest, total_steps=steps, pct_start=rising, cycle_momentum=cycled
    )


def check_steps(config: ScheduleConfig, steps: int, stage: str) -> None:
    """Raise RecipeError if there are too few steps for the rate to rise and fall."""
    if config.kind == "one-cycle" and steps < 3:
        raise RecipeError(
            f"{stage} would have {steps} steps; train for more epochs or take a smaller batch_size"
        )
