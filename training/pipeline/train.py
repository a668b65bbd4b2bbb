"""Training of a network, from a recipe to a published bundle."""

import time
from pathlib import Path

import torch

from training.architectures import Autoencoder, Classifier, build
from training.errors import RecipeError
from training.pipeline import draft_manifest, load_data, plan
from training.pipeline.assemble import TrainedNetwork, assemble
from training.pipeline.destinations import Destination
from training.pipeline.publish import Published
from training.progress import Log, silence
from training.recipe import Recipe
from training.trainer import distributed, loop
from training.trainer.checkpoint import Checkpoints


def run(
    recipe: Recipe,
    directory: Path | None,
    models: Destination,
    runs: Path,
    log: Log,
    compatible: bool = False,
) -> Published | None:
    """Train, calibrate, export, check, evaluate, draw the report and publish.

    `directory` holds the data; if it is None, they are downloaded. `runs` keeps the checkpoints of
    an interrupted run. Of several processes that `torchrun` started, all train, and the first
    publishes, `compatible` as in `publish.publish`. Returns None in the other processes. Raises
    DomainError or OSError; then nothing is published.
    """
    revision = draft_manifest.read_git_revision()
    with distributed.open_process() as process:
        log = log if process.first else silence
        _build(recipe)  # fails before the data are read, if the architecture is invalid
        images = load_data.load(recipe, directory, log)
        models.check()  # fails before the training, if unwritable
        runs.mkdir(parents=True, exist_ok=True)
        processes = f", {process.count} processes" if process.count > 1 else ""
        device = f"{process.device.type}{processes}"
        log(f"training {recipe.name} on {len(images.splits.training)} images, {device}")
        network = _build(recipe)
        classifier = Classifier(network, len(images.dataset.classes)) if recipe.classifier else None
        digests = sorted(images.dataset.sha256.values())
        fingerprint = recipe.fingerprint(digests, process.device.type, torch.__version__)
        checkpoints = Checkpoints(runs / recipe.name, fingerprint)
        started = time.monotonic()
        stages = plan.plan_stages(recipe, classifier or network, images.splits)
        history = loop.train(stages, recipe.seed, checkpoints, process, log)
        # Only the history has the time of a resumed run before its interruption.
        seconds = max(time.monotonic() - started, sum(row["seconds"] for row in history))
    if not process.first:
        return None
    minutes = round(seconds / 60, 1)
    trained = TrainedNetwork(network, classifier, history, revision, process.device_name, minutes)
    published = assemble(trained, recipe, images, models, log, compatible)
    checkpoints.remove()
    return published


def _build(recipe: Recipe) -> Autoencoder:
    torch.manual_seed(recipe.seed)
    try:
        return build(recipe.architecture, recipe.input)
    except ValueError as error:
        raise RecipeError(f"architecture: {error}") from error
