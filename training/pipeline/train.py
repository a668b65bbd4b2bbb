"""From a recipe to a published bundle."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError

from bundle.manifest import Capability, LatentPrior, MixturePrior, ModelManifest, StandardNormal, TrainingData
from training.architectures import Autoencoder, build
from training.data import dataset, image_set
from training.data.dataset import Given, Parts, Tell
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.detector_results import DetectorResults
from training.evaluation.test_results import Findings
from training.export import calibration, onnx_export
from training.export.graph_runner import Graphs
from training.pipeline import publish
from training.pipeline.stages import stages
from training.progress import silence
from training.recipe import AnyRecipe, DetectorRecipe, EmbeddingRecipe, Recipe, kind_of
from training.trainer import distributed, loop
from training.trainer.checkpoint import Checkpoints
from training.trainer.losses import LIKELIHOODS
from training.trainer.tracking import Row


def run(recipe: Recipe, directory: Path | None, models: Path, runs: Path, tell: Tell) -> Path | None:
    """Train, calibrate, export, check, evaluate, draw the report and publish; gives the bundle's directory.

    `directory` is where the data are (None: download them); `runs` keeps the checkpoints of an unfinished run. Of
    several processes that `torchrun` started all train, and the first does the rest; the others get None.
    Raises TrainingError or OSError; then nothing is published.
    """
    revision = publish.git_revision()
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
    made = _Made(revision, process.device_name, round(seconds / 60, 1))
    published = _publish(network, history, made, recipe, given, models, tell)
    checkpoints.remove()
    return published


class _Made(NamedTuple):
    revision: str | None
    device: str
    minutes: float


def _publish(
    network: Autoencoder,
    history: list[Row],
    made: _Made,
    recipe: Recipe,
    given: Given,
    models: Path,
    tell: Tell,
) -> Path:
    with publish.staging(models, recipe.name) as staging:
        tell("exporting, and comparing ONNX Runtime with torch")
        likelihood = network.variational and recipe.loss.kind in LIKELIHOODS
        scorer = onnx_export.error_scorer(network, dataset.sample(given.parts.training.images))
        exported = onnx_export.export(network, recipe.input, given.dataset.test.images, staging, likelihood, scorer)
        graphs = Graphs(staging, exported.files)
        tell("calibrating")
        calibrated = calibration.calibrate(graphs, given.parts.calibration.images)
        count = len(calibrated.scores)
        tell(f"calibrated on {count} images: false positive rates from {1 / (count + 1):.2g} on can be asked for")
        prior = _prior(graphs, given.parts, recipe, staging)
        publish.write_golden(graphs, given.dataset.test.images, recipe.input, staging / publish.GOLDEN)
        (staging / publish.HISTORY).write_text(json.dumps(history) + "\n", encoding="utf-8")
        tell("evaluating on the test images")
        findings = Findings(graphs, calibrated, given, recipe, network.latent_dim)
        metrics = findings.figures()

        def finish(version: int) -> None:
            manifest = ModelManifest(
                name=recipe.name,
                version=version,
                description=recipe.description,
                architecture=network.describe(),
                capabilities=_capabilities(recipe),
                input=recipe.input,
                latent_dim=network.latent_dim,
                graphs=exported.files,
                golden=publish.GOLDEN,
                prior=prior,
                calibration=calibrated,
                classes=given.dataset.classes if recipe.classifier else (),
                metrics=metrics,
                training_data=_training_data(recipe, given, count),
                provenance=publish.provenance(
                    recipe, made.revision, exported.parity, device=made.device, minutes=made.minutes
                ),
                files=publish.digests(staging),
            )
            publish.write_manifest(manifest, staging)
            tell("drawing the report")
            report.write(publish.Published(staging), findings, staging / publish.REPORT)

        return publish.publish(staging, finish)


def load(recipe: Recipe, directory: Path | None, tell: Tell) -> Given:
    """All images of a recipe. Raises DataError or RecipeError where they do not suit it."""
    loaded = dataset.load(recipe.data, recipe.input, recipe.seed, directory, tell)
    outliers = dataset.outliers_of(recipe.data, loaded, recipe.input, directory, tell)
    if recipe.classifier and not loaded.classes:
        raise DataError("the classifier needs labels: IDX files of them, or a folder with a subfolder for each class")
    parts = dataset.split(loaded.training, recipe.data, recipe.seed)
    if len(parts.training) < recipe.mixture_components:
        raise RecipeError(f"mixture_components: there are only {len(parts.training)} images to train on")
    return Given(loaded, parts, outliers)


Results = Findings | DetectorResults


def evaluate_published(name: str, directory: Path | None, models: Path, tell: Tell) -> dict[str, float]:
    """Measure the newest published version of a model again, on the test images of its own recipe.

    Raises TrainingError where there is no such model, or its data are unavailable.
    """
    results = published(name, directory, models, tell)[1]
    return results.figures() if isinstance(results, Findings) else results.metrics()


def write_report(name: str, directory: Path | None, models: Path, output: Path | None, tell: Tell) -> Path:
    """Draw the report of a model's newest published version again, into the bundle or to `output`; gives the page."""
    model, results = published(name, directory, models, tell)
    target = output or model.directory / publish.REPORT
    if isinstance(results, Findings):
        return report.write(model, results, target)
    return detector_report.write(model, results, target)


def published(name: str, directory: Path | None, models: Path, tell: Tell) -> tuple[publish.Published, Results]:
    """The newest version of a model, and what it does on the test images of its recipe.

    Raises TrainingError where there is no such model, or its data are unavailable or others.
    """
    model = publish.newest(models, name)
    recipe = recipe_of(model.manifest)
    if isinstance(recipe, EmbeddingRecipe):
        raise DataError(f"{name} embeds photographs and was not trained: it has no test images, and no report")
    return model, _results(model, recipe, directory, tell)


def recipe_of(manifest: ModelManifest) -> AnyRecipe:
    """The recipe that a model was trained by. Raises RecipeError where it is of another version."""
    tree = manifest.provenance.recipe
    try:
        return kind_of(tree).model_validate(tree)
    except ValidationError as error:
        raise RecipeError(
            f"{manifest.name} was trained by a version whose recipes had other entries; train it again"
        ) from error


def _results(model: publish.Published, recipe: Recipe | DetectorRecipe, directory: Path | None, tell: Tell) -> Results:
    manifest = model.manifest
    calibrated = manifest.calibration
    assert calibrated is not None  # every model with such a recipe is calibrated
    if isinstance(recipe, DetectorRecipe):
        images = image_set.load(recipe, directory, tell)
        _check_digests(manifest, images.sha256)
        return DetectorResults(model.graphs, calibrated, manifest.input, images, recipe)
    given = load(recipe, directory, tell)
    _check_digests(manifest, given.dataset.sha256)
    return Findings(model.graphs, calibrated, given, recipe, manifest.latent_dim)


def _check_digests(manifest: ModelManifest, sha256: Mapping[str, str]) -> None:
    """Raise DataError where the data are not those that the model was trained with."""
    if sorted(sha256.values()) != sorted(manifest.training_data.sha256.values()):
        raise DataError(
            f"the files are not those that {manifest.name} was trained with, byte by byte, so the test images of this"
            " data may be among those it was trained on"
        )


def _build(recipe: Recipe, classes: Sequence[str]) -> Autoencoder:
    torch.manual_seed(recipe.seed)
    try:
        network = build(recipe.architecture, recipe.input, len(classes) if recipe.classifier else 0)
    except ValueError as error:
        raise RecipeError(f"architecture: {error}") from error
    return network


def _training_data(recipe: Recipe, given: Given, calibrated: int) -> TrainingData:
    counts = {
        "training": len(given.parts.training),
        "validation": len(given.parts.validation),
        "calibration": calibrated,
        "test": len(given.dataset.test),
    }
    return dataset.described(recipe.data, given.dataset.sha256, counts)


def _capabilities(recipe: Recipe) -> tuple[Capability, ...]:
    if recipe.classifier and not recipe.classifier.reconstruction:
        return ("encode", "classify")  # the decoder no longer fits the encoder
    denoise: tuple[Capability, ...] = ("denoise",) if recipe.corruption.sigma else ()
    classify: tuple[Capability, ...] = ("classify",) if recipe.classifier else ()
    sample: tuple[Capability, ...] = ("sample",) if _has_prior(recipe) else ()
    return ("encode", "decode", "reconstruct", *denoise, *sample, "anomaly-score", "interpolate", *classify)


def _has_prior(recipe: Recipe) -> bool:
    return recipe.architecture.variational or recipe.mixture_components > 0


def _prior(graphs: Graphs, parts: Parts, recipe: Recipe, staging: Path) -> LatentPrior | None:
    if recipe.architecture.variational:
        return StandardNormal()
    if not _has_prior(recipe):
        return None
    latents = calibration.mixture_latents(graphs, parts.training.images)
    calibration.fit_mixture(latents, recipe.mixture_components, recipe.seed).save(staging / publish.PRIOR)
    return MixturePrior(file=publish.PRIOR)
