"""From a recipe to a published bundle."""

from collections.abc import Callable
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
from training.checkpoint import Checkpoint
from training.data import Images
from training.graphs import Graphs
from training.recipe import Recipe

Tell = Callable[[str], None]


def run(recipe: Recipe, directory: Path | None, models: Path, runs: Path, tell: Tell) -> Path:
    """Train, calibrate, export, check, evaluate and publish; gives the bundle's directory.

    `directory` is where the data are (None: download them); `runs` keeps the checkpoint of an unfinished run.
    Raises TrainingError; then nothing is published.
    """
    train_split = data.load(recipe.data.dataset, "train", directory)
    test_split = data.load(recipe.data.dataset, "t10k", directory)
    for images in (train_split.images, test_split.images):
        data.check_fits(images, recipe.input, recipe.data.dataset)
    parts = loop.split(train_split.images, recipe)
    checkpoint = Checkpoint(runs / recipe.name / "checkpoint.pt", recipe.fingerprint(train_split.sha256))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tell(f"training {recipe.name} on {len(parts.training)} images, {device}")
    model = loop.train(recipe, parts, checkpoint, device)

    with bundle.publishing(models, recipe.name) as (staging, version):
        tell("exporting, and comparing ONNX Runtime with torch")
        parity = export.export(model, recipe.input, test_split.images, staging)
        graphs = Graphs(staging, export.FILES)
        tell("calibrating")
        calibrated = calibration.calibrate(graphs, parts.calibration)
        prior = _prior(graphs, parts, recipe, staging)
        bundle.write_golden(graphs, test_split.images, recipe.input, staging / bundle.GOLDEN)
        tell("evaluating on the test images")
        outliers = _outliers(recipe, directory, tell)
        metrics = _evaluate(graphs, calibrated, parts, test_split.images, recipe, outliers)
        source = data.SOURCES[recipe.data.dataset]
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
            training_data=TrainingData(
                name=source.title,
                source=source.url,
                licence=source.licence,
                images={
                    "training": len(parts.training),
                    "validation": len(parts.validation),
                    "calibration": len(parts.calibration),
                    "test": len(test_split.images),
                },
                sha256=train_split.sha256 | test_split.sha256,
            ),
            provenance=Provenance(
                created=datetime.now(UTC).replace(microsecond=0),
                recipe=recipe.model_dump(mode="json"),
                git_revision=bundle.git_revision(),
                libraries=bundle.library_versions(),
                parity=parity,
            ),
            files=bundle.digests(staging),
        )
        bundle.write_manifest(manifest, staging)
    checkpoint.remove()
    return models / recipe.name / str(version)


def _capabilities(recipe: Recipe) -> tuple[Capability, ...]:
    denoise: tuple[Capability, ...] = ("denoise",) if recipe.corruption.sigma else ()
    return ("encode", "decode", "reconstruct", *denoise, "sample", "anomaly-score", "interpolate")


def _prior(graphs: Graphs, parts: loop.Parts, recipe: Recipe, staging: Path) -> LatentPrior:
    encoded = graphs.chain(["encoder"], images=parts.validation[:1])
    if "log_variances" in encoded:
        return StandardNormal()
    images = parts.training[: calibration.MIXTURE_IMAGES]
    latents = graphs.chain_in_batches(["encoder"], ["latents"], images=images)["latents"]
    calibration.fit_mixture(latents, recipe.mixture_components, recipe.seed).save(staging / bundle.PRIOR)
    return MixturePrior(file=bundle.PRIOR)


def _evaluate(
    graphs: Graphs, calibrated: Calibration, parts: loop.Parts, test: Images, recipe: Recipe, outliers: Images | None
) -> dict[str, float]:
    figures = evaluation.reconstruction_error(graphs, test)
    latent_dim = graphs.chain(["encoder"], images=test[:1])["latents"].shape[1]
    if latent_dim < min(test[0].size, len(parts.training)):
        figures["pca_mse"] = evaluation.pca_error(parts.training, test, latent_dim, recipe.seed)
    if recipe.corruption.sigma:
        figures |= evaluation.denoising(graphs, test, recipe.corruption.sigma)
    figures |= evaluation.false_positive_rates(graphs, calibrated, test)
    if outliers is not None:
        figures[f"auroc_against_{recipe.data.outliers}"] = evaluation.auroc(graphs, test, outliers)
    return figures


def _outliers(recipe: Recipe, directory: Path | None, tell: Tell) -> Images | None:
    if recipe.data.outliers is None:
        return None
    split = data.load_outliers(recipe.data.outliers, directory)
    if split is None:
        tell(f"there is no folder {recipe.data.outliers} in {directory}: the AUROC against it is left out")
        return None
    return split.images
