"""From a recipe to a published bundle."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import ValidationError

from service.manifest import (
    Capability,
    LatentPrior,
    MixturePrior,
    ModelManifest,
    Provenance,
    StandardNormal,
    TrainingData,
)
from training import bundle, calibration, data, detector, distributed, export, idx, loop, report
from training.architectures import Autoencoder, build
from training.architectures.segmenter import Segmenter
from training.checkpoint import Checkpoints
from training.data import Given, Parts, Tell
from training.detector import Detector
from training.distributed import Process
from training.errors import DataError, RecipeError
from training.findings import Findings
from training.graphs import Graphs
from training.losses import LIKELIHOODS
from training.recipe import Recipe
from training.stages import stages
from training.tracking import Row


def run(recipe: Recipe, directory: Path | None, models: Path, runs: Path, tell: Tell) -> Path | None:
    """Train, calibrate, export, check, evaluate, draw the report and publish; gives the bundle's directory.

    `directory` is where the data are (None: download them); `runs` keeps the checkpoints of an unfinished run. Of
    several processes that `torchrun` started all train, and the first does the rest; the others get None.
    Raises TrainingError or OSError; then nothing is published.
    """
    revision = bundle.git_revision()
    with distributed.process() as process:
        tell = tell if process.first else _silence
        _build(recipe, ())  # what does not fit is told before the data are read
        given = load(recipe, directory, tell)
        for place in (models, runs):
            place.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before the training, not after it
        on = f"{process.device.type}, {process.count} processes" if process.count > 1 else process.device.type
        tell(f"training {recipe.name} on {len(given.parts.training)} images, {on}")
        trainer = _Trainer(recipe, given, runs / recipe.name, process, tell)
        started = time.monotonic()
        trained = trainer.all()
        # An interrupted run goes on: what it took before is in its history alone.
        seconds = max(time.monotonic() - started, sum(row["seconds"] for row in trained.history))
    if not process.first:
        return None
    made = _Made(revision, process.device_name, round(seconds / 60, 1))
    published = _publish(trained, made, recipe, given, models, tell)
    trainer.clear()
    return published


class _Trained(NamedTuple):
    network: Autoencoder
    history: list[Row]
    detector: Detector | None


class _Made(NamedTuple):
    revision: str | None
    device: str
    minutes: float


class _Trainer:
    """Trains networks of one recipe: one, or one for each fold of the images and one for all."""

    def __init__(self, recipe: Recipe, given: Given, runs: Path, process: Process, tell: Tell) -> None:
        self._recipe, self._given, self._runs, self._process, self._tell = recipe, given, runs, process, tell
        self._history: list[Row] = []
        self._checkpoints: list[Checkpoints] = []

    def all(self) -> _Trained:
        recipe, parts = self._recipe, self._given.parts
        if recipe.anomaly is None or len(parts.calibration):
            network = self._train(parts, "", len(parts.training))
            found = detector.fit(network, recipe, parts, self._tell) if recipe.anomaly else None
        else:
            found = detector.cross_fit(recipe, parts.training, self._train, self._tell)
            network = found.network
        return _Trained(network, self._history, found)

    def clear(self) -> None:
        """Remove the checkpoints, when all is published."""
        for checkpoints in self._checkpoints:
            checkpoints.remove()

    def _train(self, parts: Parts, fold: str, fineness: int) -> Autoencoder:
        recipe, dataset = self._recipe, self._given.dataset
        network = _build(recipe, dataset.classes)
        network.prepare(torch.from_numpy(detector.representative(recipe, parts.training.images)), fineness)
        digests = sorted(dataset.sha256.values())
        fingerprint = recipe.fingerprint(
            digests, self._process.device.type, torch.__version__, *([fold] if fold else [])
        )
        self._checkpoints.append(Checkpoints(self._runs, fingerprint))
        planned = stages(recipe, network, parts)
        history = loop.train(planned, recipe.seed, self._checkpoints[-1], self._process, self._tell)
        self._history += [row | {"stage": f"{fold} {row['stage']}".strip()} for row in history]
        return network


def _publish(trained: _Trained, made: _Made, recipe: Recipe, given: Given, models: Path, tell: Tell) -> Path:
    network, history, found = trained
    with bundle.staging(models, recipe.name) as staging:
        tell("exporting, and comparing ONNX Runtime with torch")
        likelihood = network.variational and recipe.loss.kind in LIKELIHOODS
        scorer = found.scorer if found else export.error_scorer(network, data.sample(given.parts.training.images))
        exported = export.export(network, recipe.input, given.dataset.test.images, staging, likelihood, scorer)
        graphs = Graphs(staging, exported.files)
        tell("calibrating")
        method = found.scorer.describe() if found else calibration.METHOD
        if found and found.held_out:
            scores, maps, distances = found.held_out
            calibrated = calibration.summary(scores, maps, method + calibration.CROSS_FITTED, distances)
        else:
            calibrated = calibration.calibrate(graphs, given.parts.calibration.images, method)
        count = len(calibrated.scores)
        tell(f"calibrated on {count} images: false positive rates from {1 / (count + 1):.2g} on can be asked for")
        prior = _prior(graphs, given.parts, recipe, staging)
        bundle.write_golden(graphs, given.dataset.test.images, recipe.input, staging / bundle.GOLDEN)
        (staging / bundle.HISTORY).write_text(json.dumps(history) + "\n", encoding="utf-8")
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
                golden=bundle.GOLDEN,
                prior=prior,
                calibration=calibrated,
                selection=found.scorer.selection if found else None,
                classes=given.dataset.classes if recipe.classifier else (),
                metrics=metrics,
                training_data=_training_data(recipe, given, count),
                provenance=Provenance(
                    created=datetime.now(UTC).replace(microsecond=0),
                    recipe=recipe.model_dump(mode="json"),
                    git_revision=made.revision,
                    libraries=bundle.library_versions(),
                    parity=exported.parity,
                    device=made.device,
                    minutes=made.minutes,
                ),
                files=bundle.digests(staging),
            )
            bundle.write_manifest(manifest, staging)
            tell("drawing the report")
            report.write(bundle.Published(staging), findings, staging / bundle.REPORT)

        return bundle.publish(staging, finish)


def load(recipe: Recipe, directory: Path | None, tell: Tell) -> Given:
    """All images of a recipe. Raises DataError or RecipeError where they do not suit it."""
    dataset = data.load(recipe.data, recipe.input, recipe.seed, directory, tell)
    outliers = dataset.outliers
    if recipe.data.outliers:
        outliers = data.load_outliers(recipe.data.outliers, directory)
        if outliers is None:
            tell(f"there is no folder {recipe.data.outliers} in {directory}: the AUROC against it is left out")
        else:
            data.check_fits(outliers.images.images, recipe.input)
    if recipe.classifier and not dataset.classes:
        raise DataError("the classifier needs labels: IDX files of them, or a folder with a subfolder for each class")
    if recipe.anomaly:
        parts = detector.part(recipe, dataset.training)
    else:
        parts = data.split(dataset.training, recipe.data, recipe.seed)
    if len(parts.training) < recipe.mixture_components:
        raise RecipeError(f"mixture_components: there are only {len(parts.training)} images to train on")
    return Given(dataset, parts, outliers)


def evaluate_published(name: str, directory: Path | None, models: Path, tell: Tell) -> dict[str, float]:
    """Measure the newest published version of a model again, on the test images of its own recipe.

    Raises TrainingError where there is no such model, or its data cannot be had.
    """
    return published(name, directory, models, tell)[1].figures()


def write_report(name: str, directory: Path | None, models: Path, output: Path | None, tell: Tell) -> Path:
    """Draw the report of a model's newest published version again, into the bundle or to `output`; gives the page."""
    model, findings = published(name, directory, models, tell)
    return report.write(model, findings, output or model.directory / bundle.REPORT)


def published(name: str, directory: Path | None, models: Path, tell: Tell) -> tuple[bundle.Published, Findings]:
    """The newest version of a model, and what it does on the test images of its recipe.

    Raises TrainingError where there is no such model, or its data cannot be had or are others.
    """
    model = bundle.newest(models, name)
    try:
        recipe = Recipe.model_validate(model.manifest.provenance.recipe)
    except ValidationError as error:
        raise RecipeError(f"{name} was trained by a version whose recipes had other entries; train it again") from error
    given = load(recipe, directory, tell)
    if sorted(given.dataset.sha256.values()) != sorted(model.manifest.training_data.sha256.values()):
        raise DataError(
            f"the files are not those that {name} was trained with, byte by byte, so the test images of this data"
            " may be among those it was trained on"
        )
    manifest = model.manifest
    assert manifest.calibration is not None  # every recipe calibrates
    return model, Findings(model.graphs, manifest.calibration, given, recipe, manifest.latent_dim)


def _silence(_: str) -> None:
    pass


def _build(recipe: Recipe, classes: Sequence[str]) -> Autoencoder:
    torch.manual_seed(recipe.seed)
    try:
        network = build(recipe.architecture, recipe.input, len(classes) if recipe.classifier else 0)
    except ValueError as error:
        raise RecipeError(f"architecture: {error}") from error
    if recipe.anomaly:
        network.segmenter = Segmenter(recipe.input.channels, recipe.anomaly.segmenter)
    return network


def _training_data(recipe: Recipe, given: Given, calibrated: int) -> TrainingData:
    source = idx.SOURCES.get(recipe.data.dataset)
    digests = given.dataset.sha256
    published = source is not None and all(source.sha256.get(name) == digest for name, digest in digests.items())
    own = recipe.data
    title = f"unverified files of {source.title}" if source else own.title or f"a folder, {', '.join(digests)}"
    return TrainingData(
        name=source.title if source and published else title,
        source=source.url if source and published else own.source or "unknown",
        licence=source.licence if source and published else own.licence or "unknown",
        images={
            "training": len(given.parts.training),
            "validation": len(given.parts.validation),
            "calibration": calibrated,
            "test": len(given.dataset.test),
        },
        sha256=digests,
    )


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
    calibration.fit_mixture(latents, recipe.mixture_components, recipe.seed).save(staging / bundle.PRIOR)
    return MixturePrior(file=bundle.PRIOR)
