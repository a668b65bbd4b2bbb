"""From a recipe to a published bundle."""

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from training.architectures import Autoencoder, build
from training.data.dataset import Tell
from training.errors import RecipeError
from training.pipeline import draft_manifest
from training.pipeline.assemble import Made, assemble
from training.pipeline.load_data import load
from training.pipeline.stages import stages
from training.progress import silence
from training.recipe import Recipe
from training.trainer import distributed, loop
from training.trainer.checkpoint import Checkpoints


def run(recipe: Recipe, directory: Path | None, models: Path, runs: Path, tell: Tell) -> Path | None:
    """Train, calibrate, export, check, evaluate, draw the report and publish; gives the bundle's directory.

    `directory` is where the data are (None: download them); `runs` keeps the checkpoints of an unfinished run. Of
    several processes that `torchrun` started all train, and the first does the rest; the others get None.
    Raises TrainingError or OSError; then nothing is published.
    """
    revision = draft_manifest.git_revision()
    with distributed.process() as process:
        tell = tell if process.first else silence
        _build(recipe, ())  # what does not fit is told before the data are read
        given = load(recipe, directory, tell)
        for place in (models, runs):
            place.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before the training, not after it
        on = f"{process.device.type}, {process.count} processes" if process.count > 1 else process.device.type
        tell(f"training {recipe.name} on {len(given.parts.training)} images, {on}")
        network = _build(recipe, given.dataset.classes)
        digests = sorted(given.dataset.sha256.values())
        fingerprint = recipe.fingerprint(digests, process.device.type, torch.__version__)
        checkpoints = Checkpoints(runs / recipe.name, fingerprint)
        started = time.monotonic()
        history = loop.train(stages(recipe, network, given.parts), recipe.seed, checkpoints, process, tell)
        # An interrupted run goes on: what it took before is in its history alone.
        seconds = max(time.monotonic() - started, sum(row["seconds"] for row in history))
    if not process.first:
        return None
    made = Made(revision, process.device_name, round(seconds / 60, 1))
    published = assemble(network, history, made, recipe, given, models, tell)
    checkpoints.remove()
    return published


def _build(recipe: Recipe, classes: Sequence[str]) -> Autoencoder:
    torch.manual_seed(recipe.seed)
    try:
        network = build(recipe.architecture, recipe.input, len(classes) if recipe.classifier else 0)
    except ValueError as error:
        raise RecipeError(f"architecture: {error}") from error
    return network
