"""From a recipe to a published bundle."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from service.manifest import (
    Calibration,
    Capability,
    LatentPrior,
    MixturePrior,
    ModelManifest,
    Provenance,
    StandardNormal,
    TrainingData,
)
from training import bundle, calibration, data, evaluation, export, loop
from training.architectures import build
from training.checkpoint import Checkpoint
from training.data import Images
from training.errors import DataError, RecipeError
from training.graphs import Graphs
from training.loop import Parts, Tell
from training.recipe import Recipe


@dataclass(frozen=True)
class _Data:
    """All images of a run, and the digests of their files."""

    parts: Parts
    test: Images
    outliers: Images | None
    sha256: dict[str, str]


def run(recipe: Recipe, directory: Path | None, models: Path, runs: Path, tell: Tell) -> Path:
    """Train, calibrate, export, check, evaluate and publish; gives the bundle's directory.

    `directory` is where the data are (None: download them); `runs` keeps the checkpoint of an unfinished run.
    Raises TrainingError or OSError; then nothing is published.
    """
    revision = bundle.git_revision()
    _check_network(recipe)
    images = _load(recipe, directory, tell)
    for place in (models, runs):
        place.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before the training, not after it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fingerprint = recipe.fingerprint(sorted(images.sha256.items()), device.type, torch.__version__)
    checkpoint = Checkpoint(runs / recipe.name, fingerprint)
    tell(f"training {recipe.name} on {len(images.parts.training)} images, {device}")
    model = loop.train(recipe, images.parts, checkpoint, device, tell)

    with bundle.staging(models, recipe.name) as staging:
        tell("exporting, and comparing ONNX Runtime with torch")
        parity = export.export(model, recipe.input, images.test, staging)
        graphs = Graphs(staging, export.FILES)
        tell("calibrating")
        calibrated = calibration.calibrate(graphs, images.parts.calibration)
        prior = _prior(graphs, images.parts, recipe, staging)
        bundle.write_golden(graphs, images.test, recipe.input, staging / bundle.GOLDEN)
        tell("evaluating on the test images")
        metrics = _evaluate(graphs, calibrated, images, recipe, model.latent_dim)

        def finish(version: int) -> None:
            manifest = ModelManifest(
                name=recipe.name,
                version=version,
                description=recipe.description,
                architecture=model.describe(),
                capabilities=_capabilities(recipe),
                input=recipe.input,
                latent_dim=model.latent_dim,
                graphs=export.FILES,
                golden=bundle.GOLDEN,
                prior=prior,
                calibration=calibrated,
                metrics=metrics,
                training_data=_training_data(recipe, images),
                provenance=Provenance(
                    created=datetime.now(UTC).replace(microsecond=0),
                    recipe=recipe.model_dump(mode="json"),
                    git_revision=revision,
                    libraries=bundle.library_versions(),
                    parity=parity,
                ),
                files=bundle.digests(staging),
            )
            bundle.write_manifest(manifest, staging)

        published = bundle.publish(staging, finish)
    checkpoint.remove()
    return published


def evaluate(name: str, directory: Path | None, models: Path, tell: Tell) -> dict[str, float]:
    """Measure the newest published version of a model again, on the test images of its own recipe.

    Raises TrainingError where there is no such model, or its data cannot be had.
    """
    published = bundle.Published(models, name)
    manifest = published.manifest
    assert manifest.calibration is not None  # every recipe calibrates
    recipe = Recipe.model_validate(manifest.provenance.recipe)
    images = _load(recipe, directory, tell)
    return _evaluate(published.graphs, manifest.calibration, images, recipe, manifest.latent_dim)


def _check_network(recipe: Recipe) -> None:
    try:
        build(recipe.architecture, recipe.input)
    except ValueError as error:
        raise RecipeError(f"architecture: {error}") from error


def _load(recipe: Recipe, directory: Path | None, tell: Tell) -> _Data:
    dataset, outliers = recipe.data.dataset, recipe.data.outliers
    train, test = (data.load(dataset, part, directory) for part in ("train", "t10k"))
    strange = data.load_outliers(outliers, directory) if outliers else None
    if outliers and strange is None:
        tell(f"there is no folder {outliers} in {directory}: the AUROC against it is left out")
    for split in (train, test, *([strange] if strange else [])):
        data.check_fits(split.images, recipe.input)
    if len(test.images) < max(export.PARITY_BATCHES):
        raise DataError(f"{len(test.images)} test images are too few: {max(export.PARITY_BATCHES)} are needed")
    parts = loop.split(train.images, recipe)
    if len(parts.training) < recipe.mixture_components:
        raise RecipeError(f"mixture_components: there are only {len(parts.training)} images to train on")
    return _Data(parts, test.images, strange.images if strange else None, train.sha256 | test.sha256)


def _training_data(recipe: Recipe, images: _Data) -> TrainingData:
    source = data.SOURCES[recipe.data.dataset]
    published = all(source.sha256.get(name) == digest for name, digest in images.sha256.items())
    return TrainingData(
        name=source.title if published else f"not the published files of {source.title}",
        source=source.url if published else "unknown",
        licence=source.licence if published else "unknown",
        images={
            "training": len(images.parts.training),
            "validation": len(images.parts.validation),
            "calibration": len(images.parts.calibration),
            "test": len(images.test),
        },
        sha256=images.sha256,
    )


def _capabilities(recipe: Recipe) -> tuple[Capability, ...]:
    denoise: tuple[Capability, ...] = ("denoise",) if recipe.corruption.sigma else ()
    return ("encode", "decode", "reconstruct", *denoise, "sample", "anomaly-score", "interpolate")


def _prior(graphs: Graphs, parts: Parts, recipe: Recipe, staging: Path) -> LatentPrior:
    if recipe.architecture.kind == "variational":
        return StandardNormal()
    images = parts.training[: calibration.MIXTURE_IMAGES]
    latents = graphs.chain_in_batches(["encoder"], ["latents"], images=images)["latents"]
    calibration.fit_mixture(latents, recipe.mixture_components, recipe.seed).save(staging / bundle.PRIOR)
    return MixturePrior(file=bundle.PRIOR)


def _evaluate(
    graphs: Graphs, calibrated: Calibration, images: _Data, recipe: Recipe, latent_dim: int
) -> dict[str, float]:
    scored = evaluation.score(graphs, images.test)
    figures = {"mse": float(scored.errors.mean())}
    if latent_dim < min(images.test[0].size, len(images.parts.training)):
        figures["pca_mse"] = evaluation.pca_error(images.parts.training, images.test, latent_dim, recipe.seed)
    if recipe.corruption.sigma:
        figures |= evaluation.denoising(graphs, images.test, recipe.corruption.sigma)
    figures |= evaluation.false_positive_rates(calibrated, scored.scores)
    if images.outliers is not None:
        strange = evaluation.score(graphs, images.outliers).scores
        figures[f"auroc_against_{recipe.data.outliers}"] = evaluation.auroc(scored.scores, strange)
    return figures
