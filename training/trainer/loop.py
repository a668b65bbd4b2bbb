"""The training loop: consecutive stages, averaged weights, a checkpoint after every epoch."""

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
from training.trainer.objectives import Batch, BatchMetrics, Objective
from training.trainer.optimisers import (
    OptimiserConfig,
    ScheduleConfig,
    build_optimiser,
    build_schedule,
    check_steps,
)
from training.trainer.tracking import EpochRow, Tracker

CHECK_STEPS = 50  # between checks of the loss, because a check makes a GPU wait


@dataclass(frozen=True)
class Stage:
    """An objective that is minimised on one split of images."""

    name: str
    objective: Objective
    training: TrainingConfig
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    images: Split
    validation: Split


def train(
    stages: list[Stage], seed: int, checkpoints: Checkpoints, process: Process, log: Log
) -> list[EpochRow]:
    """Run the stages from the start or from the last checkpoint; returns a row for each epoch.

    The objectives share one network, which ends on the CPU, in evaluation mode, with the averaged
    weights. The same stages, seed and machine give the same weights, even after an interruption.
    Several processes give the same weights as one, up to rounding; the first has the history.

    Raises DivergedError, CollapsedError and CheckpointError. Raises DataError if images are not
    uint8, or too few. Raises RecipeError if there are too few steps, or if the processes cannot
    share a batch.
    """
    for stage in stages:
        _check(stage, process)
    make_deterministic()
    generator = torch.Generator(process.device).manual_seed(seed)
    state = checkpoints.load("last")
    history: list[EpochRow] = state["history"] if state else []
    tracker = Tracker(checkpoints.directory, history) if process.first else None
    if state:
        log(f"resumed after epoch {state['run']['epoch']} of {stages[state['stage']].name}")
    for index in range(state["stage"] if state else 0, len(stages)):
        run = Run(stages[index], index, generator, process, seed)
        if state:
            _restore(run, generator, state, checkpoints)
            state = None
        run.fit(history, tracker, checkpoints)
        if history:
            log(_summarise(history, stages[index].name))
        if run.collapse and run.stage.training.patience is None:
            log(f"warning: {stages[index].name} ended in a collapse: {run.collapse}")
    if tracker:
        tracker.close()
    stages[-1].objective.cpu().eval()
    return history


def _summarise(history: list[EpochRow], stage: str) -> str:
    """A line for the log about a finished stage."""
    rows = [row for row in history if row["stage"] == stage]
    seconds, loss = sum(row["seconds"] for row in rows), rows[-1]["validation_loss"]
    return f"{stage}: {len(rows)} epochs in {seconds:.0f} s, validation loss {loss:.5f}"


def make_deterministic() -> None:
    """Make torch use only algorithms that give the same bits each time."""
    # cuBLAS is deterministic only with a fixed workspace.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # The training never reads uninitialised memory, so it need not be filled.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _check(stage: Stage, process: Process) -> None:
    """Raise errors of a stage before the first one starts, which may be hours earlier."""
    size = stage.training.batch_size
    collapse.check_images(stage.images.images)
    if len(stage.images) < size:
        raise DataError(
            f"{stage.name}: {len(stage.images)} images are too few to train on: a batch takes"
            f" {size}; lower its batch_size, or hold fewer out"
        )
    if size % process.count:
        raise RecipeError(
            f"{stage.name}: a batch_size of {size} cannot be shared by {process.count} processes:"
            " set a multiple"
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
        raise CheckpointError(
            f"{checkpoints.directory} is of other code: {error}; delete it to start afresh"
        ) from error


class _MovingAverage:
    """An exponential moving average of all weights, with faster decay of the first steps."""

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
    """The state of a stage that is being trained."""

    def __init__(
        self, stage: Stage, index: int, generator: torch.Generator, process: Process, seed: int
    ) -> None:
        options = stage.training
        self.stage, self.index, self.seed = stage, index, seed
        self.generator, self.process = generator, process
        self.epoch = 0
        self.collapse: str | None = None
        self.collapsed = 0  # consecutive epochs
        self.best = (0, float("inf"))  # the epoch with the lowest validation loss, and this loss
        self.steps_per_epoch = len(stage.images) // options.batch_size
        # The whole data set is on the device as uint8, so training needs no loader and no copies.
        self.images, self.labels = stage.images.tensors(process.device)
        self.validation = Batch(*stage.validation.tensors(process.device))
        self.objective = stage.objective.to(process.device).train()
        self.objective.requires_grad_(False)
        for module in self.objective.trained:
            module.requires_grad_(True)
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
        """The state for a checkpoint."""
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
        """Restore the state of a checkpoint."""
        self.objective.load_state_dict(state["network"])
        self.averaged.objective.load_state_dict(state["averaged"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.epoch, self.averaged.steps = state["epoch"], state["averaged_steps"]
        self.best = (state["best"][0], state["best"][1])
        self.collapse, self.collapsed = state["collapse"], state["collapsed"]

    def fit(
        self, history: list[EpochRow], tracker: Tracker | None, checkpoints: Checkpoints
    ) -> None:
        """Train the remaining epochs, then give the objective its averaged, or best, weights."""
        options, steps = self.stage.training, self.steps_per_epoch
        with progress.open_bar(
            steps * options.epochs,
            self.stage.name,
            "step",
            initial=self.epoch * steps,
            shown=self.process.first,
        ) as bar:
            while self.epoch < options.epochs and not self._is_out_of_patience():
                row = self._train_epoch(bar)
                better = row["validation_loss"] < self.best[1]
                if better:
                    self.best = (self.epoch, row["validation_loss"])
                if tracker:
                    tracker.log(row)
                    self._save(row, better, history, checkpoints)
        if options.patience is not None:
            # The best epoch must not be in a collapse, however short.
            since_best = self.epoch - self.best[0] + 1
            collapse.check_collapse(self.collapse, self.collapsed, self.epoch, since_best)
        self.process.wait()  # until the first process has written the checkpoints
        self.objective.load_state_dict(self._load_result(checkpoints))

    def _save(
        self, row: EpochRow, better: bool, history: list[EpochRow], checkpoints: Checkpoints
    ) -> None:
        if better:
            best = {"row": row, "network": self.averaged.objective.state_dict()}
            checkpoints.save(self._best_name, best)
        last = {"stage": self.index, "run": self.state_dict(), "history": history}
        checkpoints.save("last", last | _random_states(self.generator))

    @property
    def _best_name(self) -> str:
        return f"best-{self.stage.name}"

    def _is_out_of_patience(self) -> bool:
        patience = self.stage.training.patience
        return patience is not None and self.epoch - self.best[0] >= patience

    def _load_result(self, checkpoints: Checkpoints) -> dict[str, Any]:
        """The averaged weights of the last epoch, or with `patience` of the best epoch."""
        if self.stage.training.patience is None:
            return self.averaged.objective.state_dict()
        best = checkpoints.load(self._best_name)
        if best is None:  # it existed, because the first epoch always saves it
            raise CheckpointError(
                f"{checkpoints.directory} lacks {self._best_name}: processes must share it;"
                " delete it to start afresh"
            )
        network: dict[str, Any] = best["network"]
        return network

    def _train_epoch(self, bar: "tqdm[NoReturn]") -> EpochRow:
        self.epoch += 1
        started, rate = time.monotonic(), self.schedule.get_last_lr()[0]
        for step, loss in enumerate(self.steps()):
            if step % CHECK_STEPS == 0 or step == self.steps_per_epoch - 1:
                collapse.check_finite(loss.item(), self.stage.name, self.epoch)
                bar.set_postfix(epoch=self.epoch, loss=f"{loss.item():.5f}", refresh=False)
            bar.update()
        if not self.stage.training.ema:
            self.averaged.update()  # a decay of 0 copies the weights, so once an epoch is enough
        trained = time.monotonic() - started
        validation = self._validate()
        speed = self.steps_per_epoch * self.stage.training.batch_size / trained
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
            "images_per_second": round(speed, 1),
            "seconds": round(time.monotonic() - started, 3),
            **validation,
        }

    def steps(self) -> Iterator[Tensor]:
        """Train one epoch; yields the loss after each step."""
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
        loss: Tensor = self.shared(*(self.process.share(tensor) for tensor in inputs))
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
        # Reading the norm spares a CPU the multiplication, but would make a GPU wait.
        if norm.device.type != "cpu" or norm > most:
            clip_grads_with_norm_(self.parameters, most, norm)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Metrics of the averaged network, with the same random numbers at every epoch."""
        objective = self.averaged.objective
        generator = torch.Generator(self.process.device).manual_seed(self.seed)
        measured = _measure(objective, self.validation, self.stage.training.batch_size, generator)
        collapse.check_finite(measured.metrics["loss"], self.stage.name, self.epoch)
        dead = collapse.count_dead_units(measured.latents, objective.network.variational)
        self.collapse = collapse.find_collapse(dead, measured.latents, measured.outputs)
        self.collapsed = self.collapsed + 1 if self.collapse else 0
        collapse.check_collapse(self.collapse, self.collapsed, self.epoch)
        return {"dead_latents": dead} | {
            f"validation_{name}": value for name, value in measured.metrics.items()
        }


def _measure(
    objective: Objective, batch: Batch, size: int, generator: torch.Generator
) -> BatchMetrics:
    """Measure in batches of `size`, because large images would not fit into memory."""
    images = torch.split(batch.images, size)
    labels = [None] * len(images) if batch.labels is None else torch.split(batch.labels, size)
    measured = [
        objective.measure(*objective.draw(Batch(*small), generator))
        for small in zip(images, labels, strict=True)
    ]
    shares = [len(each.latents) / len(batch.images) for each in measured]
    metrics = {
        name: sum(share * each.metrics[name] for share, each in zip(shares, measured, strict=True))
        for name in measured[0].metrics
    }
    return BatchMetrics(
        metrics,
        torch.cat([each.latents for each in measured]),
        torch.cat([each.outputs for each in measured]),
    )
