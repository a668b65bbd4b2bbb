"""The training loop: stages one after the other, averaged weights, a checkpoint after every epoch."""

import copy
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim.swa_utils import get_ema_multi_avg_fn
from tqdm import tqdm

from training import progress
from training.data.splits import Split
from training.errors import CheckpointError, DataError, RecipeError
from training.progress import Log
from training.trainer import collapse
from training.trainer.checkpoint import Checkpoints, State
from training.trainer.config import TrainingConfig
from training.trainer.distributed import Process
from training.trainer.objectives import Batch, Measured, Objective
from training.trainer.optimisers import (
    OptimiserConfig,
    ScheduleConfig,
    build_optimiser,
    build_schedule,
    check_steps,
)
from training.trainer.tracking import Row, Tracker

CHECK_EVERY = 50  # steps between looks at the loss


@dataclass(frozen=True)
class Stage:
    """One objective, minimised on one set of images."""

    name: str
    objective: Objective
    training: TrainingConfig
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    images: Split
    validation: Split


def train(
    stages: list[Stage], seed: int, checkpoints: Checkpoints, process: Process, tell: Log
) -> list[Row]:
    """Run the stages from the start or from the last checkpoint; gives the history, a row for each epoch.

    The objectives share one network, which ends on the CPU, in evaluation mode, with the averaged weights. The same
    stages, seed and machine give the same weights, with or without an interruption between epochs; several processes
    give those of one but for rounding, and of them the first has the history. `tell` hears of a run that goes on.
    Raises DivergedError, CollapsedError, DataError (images that are not uint8, or too few), RecipeError (too few steps,
    a batch that the processes cannot share) and CheckpointError.
    """
    for stage in stages:
        _check(stage, process)
    be_deterministic()
    generator = torch.Generator(process.device).manual_seed(seed)
    state = checkpoints.load("last")
    history: list[Row] = state["history"] if state else []
    tracker = Tracker(checkpoints.directory, history) if process.first else None
    if state:
        tell(f"going on after epoch {state['run']['epoch']} of {stages[state['stage']].name}")
    for index in range(state["stage"] if state else 0, len(stages)):
        run = Run(stages[index], index, generator, process, seed)
        if state:
            _restore(run, generator, state, checkpoints)
            state = None
        run.fit(history, tracker, checkpoints)
        if history:
            tell(_summary(history, stages[index].name))
        if run.collapse and run.stage.training.patience is None:
            tell(f"warning: {stages[index].name} ended in a collapse: {run.collapse}")
    if tracker:
        tracker.close()
    stages[-1].objective.cpu().eval()
    return history


def _summary(history: list[Row], stage: str) -> str:
    """A line on the rows of a finished stage."""
    rows = [row for row in history if row["stage"] == stage]
    seconds = sum(row["seconds"] for row in rows)
    return f"{stage}: {len(rows)} epochs in {seconds:.0f} s, validation loss {rows[-1]['validation_loss']:.5f}"


def be_deterministic() -> None:
    """Let torch take only algorithms that give the same bits each time."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it cuBLAS is not deterministic
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # none of it is read


def _check(stage: Stage, process: Process) -> None:
    """Raise what would end a stage at its start, which may be hours after that of the first one."""
    size = stage.training.batch_size
    collapse.check_images(stage.images.images)
    if len(stage.images) < size:
        raise DataError(
            f"{stage.name}: {len(stage.images)} images are too few to train on: a batch takes {size}; "
            "lower its batch_size, or hold fewer out"
        )
    if size % process.count:
        raise RecipeError(
            f"{stage.name}: a batch_size of {size} cannot be shared by {process.count} processes"
        )
    check_steps(stage.schedule, len(stage.images) // size * stage.training.epochs, stage.name)


def _random_states(generator: torch.Generator) -> State:
    return {"generator": generator.get_state(), "torch": torch.get_rng_state()}


def _restore(
    run: "Run", generator: torch.Generator, state: State, checkpoints: Checkpoints
) -> None:
    try:
        run.load_state_dict(state["run"])
        generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
    except (RuntimeError, ValueError, KeyError) as error:
        where = checkpoints.directory
        raise CheckpointError(
            f"{where} is of other code: {error}; delete it to start afresh"
        ) from error


class _MovingAverage:
    """An exponential moving average of all weights that forgets its first, untrained steps faster."""

    def __init__(self, objective: Objective, decay: float) -> None:
        self.objective = copy.deepcopy(objective).eval().requires_grad_(False)
        self.decay = decay
        self.steps = 0
        self._pairs = list(self.objective.parameters()), list(objective.parameters())

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        averages, currents = self._pairs
        get_ema_multi_avg_fn(decay)(averages, currents, self.steps)  # type: ignore[no-untyped-call]


class Run:
    """Everything that changes in a stage."""

    def __init__(
        self, stage: Stage, index: int, generator: torch.Generator, process: Process, seed: int
    ) -> None:
        options = stage.training
        self.stage, self.index, self.generator, self.process, self.seed = (
            stage,
            index,
            generator,
            process,
            seed,
        )
        self.epoch = 0
        self.collapse: str | None = None
        self.collapsed = 0  # epochs without a break
        self.best = (0, float("inf"))  # the epoch with the lowest validation loss, and this loss
        self.steps_per_epoch = len(stage.images) // options.batch_size
        # Small data sets are kept whole on the device as uint8: no loader, no copies while training.
        self.images, self.labels = stage.images.tensors(process.device)
        self.validation = Batch(*stage.validation.tensors(process.device))
        self.objective = stage.objective.to(process.device).train()
        self.objective.requires_grad_(False)
        for part in self.objective.trained:
            part.requires_grad_(True)
        self.parameters = [
            parameter for parameter in self.objective.parameters() if parameter.requires_grad
        ]
        self.shared = process.wrap(self.objective)
        self.averaged = _MovingAverage(self.objective, options.ema)
        self.optimiser = build_optimiser(stage.optimiser, self.parameters)
        self.schedule = build_schedule(
            stage.schedule, self.optimiser, self.steps_per_epoch * options.epochs
        )

    def state_dict(self) -> State:
        return {
            "epoch": self.epoch,
            "best": list(self.best),
            "collapse": self.collapse,
            "collapsed": self.collapsed,
            "network": self.objective.state_dict(),
            "averaged": self.averaged.objective.state_dict(),
            "averaged_steps": self.averaged.steps,
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        self.objective.load_state_dict(state["network"])
        self.averaged.objective.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.averaged.steps = state["epoch"], state["averaged_steps"]
        self.best = (state["best"][0], state["best"][1])
        self.collapse, self.collapsed = state["collapse"], state["collapsed"]

    def fit(self, history: list[Row], tracker: Tracker | None, checkpoints: Checkpoints) -> None:
        """Train the epochs that are left, then give the objective its averaged, or its best, weights."""
        options, steps = self.stage.training, self.steps_per_epoch
        with progress.bar(
            steps * options.epochs,
            self.stage.name,
            "step",
            initial=self.epoch * steps,
            shown=self.process.first,
        ) as bar:
            while self.epoch < options.epochs and not self._patience_is_over():
                row = self._train_epoch(bar)
                better = row["validation_loss"] < self.best[1]
                if better:
                    self.best = (self.epoch, row["validation_loss"])
                if tracker:
                    tracker.log(row)
                    if better:
                        checkpoints.save(
                            self._best_name,
                            {"row": row, "network": self.averaged.objective.state_dict()},
                        )
                    whole = {"stage": self.index, "run": self.state_dict(), "history": history}
                    checkpoints.save("last", whole | _random_states(self.generator))
        if (
            options.patience is not None
        ):  # the best epoch must not be one of a collapse, however short
            since_best = self.epoch - self.best[0] + 1
            collapse.check_collapse(self.collapse, self.collapsed, self.epoch, patience=since_best)
        self.process.wait()  # for the first process, which writes what all read now
        self.objective.load_state_dict(self._outcome(checkpoints))

    @property
    def _best_name(self) -> str:
        return f"best-{self.stage.name}"

    def _patience_is_over(self) -> bool:
        patience = self.stage.training.patience
        return patience is not None and self.epoch - self.best[0] >= patience

    def _outcome(self, checkpoints: Checkpoints) -> dict[str, Any]:
        if self.stage.training.patience is None:
            return self.averaged.objective.state_dict()
        best = checkpoints.load(self._best_name)
        if best is None:  # the first epoch was better than none, and saved
            where = checkpoints.directory
            raise CheckpointError(
                f"{where} lacks {self._best_name}: processes must share it; delete it to start afresh"
            )
        network: dict[str, Any] = best["network"]
        return network

    def _train_epoch(self, bar: "tqdm[NoReturn]") -> Row:
        self.epoch += 1
        started, rate = time.monotonic(), self.schedule.get_last_lr()[0]
        for step, loss in enumerate(self.steps()):
            if step % CHECK_EVERY == 0 or step == self.steps_per_epoch - 1:
                collapse.check_finite(loss.item(), self.stage.name, self.epoch)
                bar.set_postfix(epoch=self.epoch, loss=f"{loss.item():.5f}", refresh=False)
            bar.update()
        if not self.stage.training.ema:
            self.averaged.update()  # to the weights as they are, for which once is enough
        trained = time.monotonic() - started
        validation = self._validate()
        bar.set_postfix(
            epoch=self.epoch,
            loss=f"{loss.item():.5f}",
            validation=f"{validation['validation_loss']:.5f}",
        )
        return {
            "stage": self.stage.name,
            "epoch": self.epoch,
            "loss": loss.item(),
            "learning_rate": rate,
            "images_per_second": round(
                self.steps_per_epoch * self.stage.training.batch_size / trained, 1
            ),
            "seconds": round(time.monotonic() - started, 3),
            **validation,
        }

    def steps(self) -> Iterator[Tensor]:
        """Train one epoch; gives the loss after each step."""
        size = self.stage.training.batch_size
        order = torch.randperm(
            len(self.images), generator=self.generator, device=self.process.device
        )
        for step in range(self.steps_per_epoch):
            yield self._step(order[step * size : (step + 1) * size])

    def _step(self, indices: Tensor) -> Tensor:
        labels = None if self.labels is None else self.labels.index_select(0, indices)
        inputs = self.objective.draw(
            Batch(self.images.index_select(0, indices), labels), self.generator
        )
        loss: Tensor = self.shared(*(self.process.share(given) for given in inputs))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.stage.training.clip_norm:
            self._clip(self.stage.training.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        if self.stage.training.ema:
            self.averaged.update()
        return loss.detach()

    def _clip(self, most: float) -> None:
        norm = get_total_norm(
            parameter.grad for parameter in self.parameters if parameter.grad is not None
        )
        # To look at the norm spares a CPU the multiplication, but would make a GPU wait.
        if norm.device.type != "cpu" or norm > most:
            clip_grads_with_norm_(self.parameters, most, norm)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Figures of the averaged network, with a chance that is the same at every epoch."""
        objective = self.averaged.objective
        generator = torch.Generator(self.process.device).manual_seed(self.seed)
        measured = _measure(objective, self.validation, self.stage.training.batch_size, generator)
        collapse.check_finite(measured.figures["loss"], self.stage.name, self.epoch)
        dead = collapse.dead_units(measured.latents, objective.network.variational)
        self.collapse = collapse.collapse(dead, measured.latents, measured.outputs)
        self.collapsed = self.collapsed + 1 if self.collapse else 0
        collapse.check_collapse(self.collapse, self.collapsed, self.epoch)
        return {"dead_latents": dead} | {
            f"validation_{name}": value for name, value in measured.figures.items()
        }


def _measure(objective: Objective, batch: Batch, size: int, generator: torch.Generator) -> Measured:
    """A part at a time, for images may be large."""
    images = torch.split(batch.images, size)
    labels = [None] * len(images) if batch.labels is None else torch.split(batch.labels, size)
    parts = [
        objective.measure(*objective.draw(Batch(*part), generator))
        for part in zip(images, labels, strict=True)
    ]
    shares = [len(part.latents) / len(batch.images) for part in parts]
    return Measured(
        {
            name: sum(share * part.figures[name] for share, part in zip(shares, parts, strict=True))
            for name in parts[0].figures
        },
        torch.cat([part.latents for part in parts]),
        torch.cat([part.outputs for part in parts]),
    )
