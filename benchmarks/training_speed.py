"""Measure the training loop against a bare PyTorch loop and a DataLoader loop, in images a second.

    python -m benchmarks.training_speed [--data DIR] [--seconds 5] [--rounds 5] [--output JSON]

All loops train the recipe's network on batches of its size, with its optimiser and precision and
the mean squared error. Every round runs each loop once; the metric is the median over the rounds.

- The bare loop is the textbook's. Its images are floats on the device, and it does nothing but
  forward, backward and step.
- Our loop also shuffles and converts. If the recipe says so, it averages weights, clips gradients
  and changes the learning rate. Validation and the progress bar are not timed.
- The DataLoader loop is the bare loop on images that are read as in torchvision's examples: PIL
  image, tensor, collated by workers.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, Dataset

from bundle.tensors import Images
from training import recipe
from training.architectures import build
from training.data import mnist, splits
from training.data.splits import Split
from training.image_ops import to_float
from training.pipeline.plan import plan_stages
from training.recipe import Recipe
from training.trainer.distributed import Process, open_process
from training.trainer.loop import Run, Stage, make_deterministic
from training.trainer.optimisers import build_optimiser

OUTPUT = Path("docs/results/training-speed.json")
RECIPES = ("classics/mnist-undercomplete", "mnist-undercomplete", "mnist-stacked", "mnist-latent2")


class DigitDataset(Dataset[Tensor]):
    """Single images, as torchvision's MNIST returns them through ToTensor."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        picture = Image.fromarray(self._images[index, ..., 0])
        return torch.from_numpy(np.array(picture)).unsqueeze(0).float().div(255)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_speed", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of MNIST; without it, it is downloaded"
    )
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="of each loop in each round (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="of the DataLoader (%(default)s)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override the recipes' entry",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="JSON", help="(%(default)s)")
    options = parser.parse_args()
    images = mnist.load_training("mnist", options.data)
    results = {}
    with open_process() as here:
        print(
            f"{here.device_name}; images a second, median of {options.rounds} rounds of"
            f" {options.seconds:g} s"
        )
        for name in RECIPES:
            results[name] = _measure(recipe.load_network(name, options.set), images, here, options)
            ours, bare, classic = (results[name][loop] for loop in ("ours", "bare", "dataloader"))
            print(
                f"{name:30} ours {ours:9,.0f}   bare {bare:9,.0f} (x{ours / bare:.2f})"
                f"   DataLoader {classic:9,.0f} (x{ours / classic:.2f})",
                flush=True,
            )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(
        json.dumps({"device": here.device_name, "images_per_second": results}, indent=1) + "\n"
    )


def _measure(
    chosen: Recipe, images: Split, here: Process, options: argparse.Namespace
) -> dict[str, float]:
    divided = splits.split(images, chosen.data.calibration, chosen.data.validation, chosen.seed)
    size = chosen.training.batch_size

    def stage() -> Stage:
        torch.manual_seed(chosen.seed)
        (only,) = plan_stages(chosen, build(chosen.architecture, chosen.input), divided)
        return only

    loops: dict[str, Callable[[], Iterator[None]]] = {
        "ours": lambda: _run_ours(stage(), here),
        "bare": lambda: _run_bare(stage(), here, _iterate_on_device(divided.training, size, here)),
        "dataloader": lambda: _run_bare(
            stage(), here, _iterate_loader(divided.training, size, here, options.workers)
        ),
    }
    rates: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            steps = _measure_steps_per_second(loop(), options.seconds, here.device)
            rates[name].append(size * steps)
    return {name: statistics.median(values) for name, values in rates.items()}


def _measure_steps_per_second(steps: Iterator[None], seconds: float, device: torch.device) -> float:
    for _ in range(3):
        next(steps)
    _wait(device)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        next(steps)
        count += 1
    _wait(device)
    return count / (time.perf_counter() - began)


def _run_ours(stage: Stage, here: Process) -> Iterator[None]:
    make_deterministic()
    while True:
        run = Run(stage, 0, torch.Generator(here.device).manual_seed(0), here, seed=0)
        for _ in range(stage.training.epochs):
            for _ in run.steps():
                yield


def _run_bare(stage: Stage, here: Process, batches: Iterator[Tensor]) -> Iterator[None]:
    torch.use_deterministic_algorithms(False)
    network = stage.objective.network.to(here.device).train()
    optimiser = build_optimiser(stage.optimiser, list(network.parameters()))
    mixed = stage.training.precision == "bfloat16"
    for batch in batches:
        optimiser.zero_grad()
        with torch.autocast(here.device.type, torch.bfloat16, enabled=mixed):
            restored = network.decode(network.encode(batch).mean)
        mse_loss(restored.float(), batch).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        yield


def _iterate_on_device(images: Split, size: int, here: Process) -> Iterator[Tensor]:
    every = to_float(images.tensors(here.device)[0])
    while True:
        for start in range(0, len(every) - size, size):
            yield every[start : start + size]


def _iterate_loader(images: Split, size: int, here: Process, workers: int) -> Iterator[Tensor]:
    pinned = here.device.type == "cuda"
    loader = DataLoader(
        DigitDataset(images.images),
        size,
        shuffle=True,
        num_workers=workers,
        pin_memory=pinned,
        drop_last=True,
    )
    while True:
        for batch in loader:
            yield batch.to(here.device, non_blocking=True)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
