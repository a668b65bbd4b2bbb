"""The training loop: AdamW, a one-cycle schedule, averaged weights, a checkpoint after every epoch."""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from training.architectures import Autoencoder, build
from training.checkpoint import Checkpoint
from training.data import Images
from training.errors import CheckpointError, DataError, DivergedError, RecipeError
from training.losses import training_loss
from training.recipe import Recipe

Tensors = tuple[Tensor, ...] | list[Tensor]

Tell = Callable[[str], None]

CHECK_EVERY = 50  # steps between looks at the loss


@dataclass(frozen=True)
class Parts:
    """The training images, split by the recipe's seed; each uint8 (n, height, width, channels)."""

    training: Images
    validation: Images
    calibration: Images


def split(images: Images, recipe: Recipe) -> Parts:
    """Raises DataError where too few images are left to train on."""
    held_out = recipe.data.calibration + recipe.data.validation
    if len(images) < held_out + recipe.optimiser.batch_size:
        raise DataError(
            f"{len(images)} images are too few: {held_out} are held out (data.calibration, data.validation) "
            f"and a batch takes {recipe.optimiser.batch_size}"
        )
    order = np.random.default_rng(recipe.seed).permutation(len(images))
    calibration, validation, training = np.split(order, [recipe.data.calibration, held_out])
    return Parts(images[training], images[validation], images[calibration])


def to_float(images: Tensor) -> Tensor:
    """uint8 (n, height, width, channels) to float (n, channels, height, width) in 0..1."""
    return images.permute(0, 3, 1, 2).float() / 255


def corrupt(images: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise and clip to 0..1."""
    if sigma == 0:
        return images
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + sigma * noise).clamp(0, 1)


def train(recipe: Recipe, parts: Parts, checkpoint: Checkpoint, device: torch.device, tell: Tell) -> Autoencoder:
    """Train from the start or from the checkpoint; gives the averaged network on the CPU, in evaluation mode.

    The same recipe, data and machine give the same weights, with or without an interruption between epochs.
    `tell` hears of a run that goes on. Raises DivergedError where the loss is no longer a number, RecipeError where
    there are too few steps, and CheckpointError.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    run = _Run(recipe, parts, device)
    if state := checkpoint.load():
        try:
            run.load_state_dict(state)
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"{checkpoint.path} is of other code: {error}; delete it to start afresh") from error
        tell(f"going on after epoch {run.epoch}")
    steps = run.steps_per_epoch * recipe.optimiser.epochs
    bar: tqdm[NoReturn]
    with tqdm(total=steps, initial=run.epoch * run.steps_per_epoch, desc=recipe.name, unit="step") as bar:
        while run.epoch < recipe.optimiser.epochs:
            run.train_epoch(bar)
            checkpoint.save(run.state_dict())
    return run.network.cpu().eval()


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An exponential moving average of all weights that forgets its first, untrained steps faster."""

    def update(averages: Tensors, currents: Tensors, steps: Tensor | int) -> None:
        count = int(steps)
        average = get_ema_multi_avg_fn(min(decay, (1 + count) / (10 + count)))  # type: ignore[no-untyped-call]
        average(averages, currents, steps)

    return update


class _Run:
    """Everything that changes while training."""

    def __init__(self, recipe: Recipe, parts: Parts, device: torch.device) -> None:
        options = recipe.optimiser
        self.recipe = recipe
        self.epoch = 0
        self.steps_per_epoch = len(parts.training) // options.batch_size
        # Small data sets are kept whole on the device as uint8: no loader, no copies while training.
        self.images = torch.from_numpy(parts.training).to(device)
        self.validation = to_float(torch.from_numpy(parts.validation).to(device))
        self.model = build(recipe.architecture, recipe.input).to(device)
        self.averaged = AveragedModel(self.model, multi_avg_fn=_moving_average(options.ema))
        self.optimiser = AdamW(self.model.parameters(), options.learning_rate, weight_decay=options.weight_decay)
        total = self.steps_per_epoch * options.epochs
        if total < 3:
            raise RecipeError(f"the run would have {total} steps; train for more epochs or take a smaller batch_size")
        # torch divides by zero where the rate rises for one step only, or falls for none.
        rising = min(max(options.warm_up, 2 / total), 1 - 1 / total)
        self.schedule = OneCycleLR(self.optimiser, options.learning_rate, total_steps=total, pct_start=rising)
        self.generator = torch.Generator(device).manual_seed(recipe.seed)

    @property
    def network(self) -> Autoencoder:
        """The averaged network."""
        return cast(Autoencoder, self.averaged.module)

    def state_dict(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "generator": self.generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = int(state["epoch"])
        for name in ("model", "averaged", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.generator.set_state(state["generator"])

    def train_epoch(self, bar: "tqdm[NoReturn]") -> None:
        self.epoch += 1
        self.model.train()
        size = self.recipe.optimiser.batch_size
        order = torch.randperm(len(self.images), generator=self.generator, device=self.generator.device)
        for step in range(self.steps_per_epoch):
            loss = self._step(to_float(self.images[order[step * size : (step + 1) * size]]))
            if step % CHECK_EVERY == 0 or step == self.steps_per_epoch - 1:
                self._check(loss.item())
                bar.set_postfix(epoch=self.epoch, loss=f"{loss.item():.5f}", refresh=False)
            bar.update()
        error = self._validate()
        self._check(error)
        bar.set_postfix(epoch=self.epoch, loss=f"{loss.item():.5f}", validation_mse=f"{error:.5f}")

    def _step(self, clean: Tensor) -> Tensor:
        options = self.recipe.optimiser
        corrupted = corrupt(clean, self.recipe.corruption.sigma, self.generator)
        loss = training_loss(self.model, corrupted, clean, self.recipe.loss, self.generator, options.bfloat16)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        clip_grad_norm_(self.model.parameters(), options.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        self.averaged.update_parameters(self.model)
        return loss.detach()

    def _check(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise DivergedError(f"the loss is {loss} in epoch {self.epoch}; lower optimiser.learning_rate")

    @torch.no_grad()
    def _validate(self) -> float:
        """Mean squared error of the averaged network, with a corruption that is the same at every epoch."""
        self.averaged.eval()
        generator = torch.Generator(self.generator.device).manual_seed(self.recipe.seed)
        corrupted = corrupt(self.validation, self.recipe.corruption.sigma, generator)
        restored = self.network.decode(self.network.encode(corrupted).mean)
        return float((restored - self.validation).square().mean())
