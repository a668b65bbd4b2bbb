"""Drafts of manifests of new bundles, without their version."""

import importlib.metadata
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bundle.manifest import (
    Calibration,
    Capability,
    GraphName,
    LatentPrior,
    MixturePrior,
    ModelManifest,
    Provenance,
    Recalibration,
    Selection,
    StandardNormal,
    TrainingData,
)
from bundle.tensors import Images
from training.architectures import Autoencoder
from training.data import dataset
from training.data.dataset import RunImages
from training.detector.config import DetectorConfig
from training.detector.encoder import BackboneEncoder
from training.detector.fit import choose_map_component
from training.detector.image_features import MAX_BATCH_IMAGES
from training.detector.trials import Trials
from training.evaluation import detector_advice
from training.evaluation.autoencoder_results import AutoencoderResults
from training.evaluation.detector_results import DetectorResults
from training.export import prior as mixture
from training.export.graph_runner import RUNTIME_VERSION, Graphs
from training.export.published import GOLDEN, PRIOR
from training.recipe import DetectorRecipe, EmbeddingRecipe, Recipe

EMBEDDING_GRAPHS: dict[GraphName, str] = {"encoder": "encoder.onnx"}
DETECTOR_GRAPHS: dict[GraphName, str] = {"encoder": "encoder.onnx", "scorer": "scorer.onnx"}
LIBRARIES = (
    "torch",
    "onnx",
    "onnxscript",
    "numpy",
    "pillow",
    "scikit-learn",
    "scikit-image",
    "scipy",
)


def record_provenance(
    recipe: BaseModel, revision: str | None, parity: dict[str, float], **others: Any
) -> Provenance:
    """Record the provenance of a bundle: recipe, revision, installed libraries, and time."""
    return Provenance(
        created=datetime.now(UTC).replace(microsecond=0),
        recipe=recipe.model_dump(mode="json"),
        git_revision=revision,
        libraries=read_library_versions(),
        parity=parity,
        **others,
    )


def read_git_revision() -> str | None:
    """The commit of the code, with `+` if files differ from it; None outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=40", "--exclude=*"]
    try:
        process = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout.strip()


def read_library_versions() -> dict[str, str]:
    """Versions of the libraries that train and export, by name."""
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    return versions | {"onnxruntime": RUNTIME_VERSION}


def draft_network(
    recipe: Recipe,
    network: Autoencoder,
    graphs: dict[GraphName, str],
    prior: LatentPrior | None,
    results: AutoencoderResults,
    provenance: Provenance,
    files: dict[str, str],
) -> ModelManifest:
    """Draft the manifest of a trained network; `files` has the digests of its files."""
    return ModelManifest(
        name=recipe.name,
        version=1,
        description=recipe.description,
        architecture=network.describe(),
        capabilities=_list_capabilities(recipe),
        input=recipe.input,
        latent_dim=network.latent_dim,
        graphs=graphs,
        golden=GOLDEN,
        prior=prior,
        calibration=results.calibration,
        classes=results.images.dataset.classes if recipe.classifier else (),
        metrics=results.metrics(),
        training_data=_describe_data(recipe, results.images),
        provenance=provenance,
        files=files,
    )


def _describe_data(recipe: Recipe, images: RunImages) -> TrainingData:
    counts = {
        "training": len(images.splits.training),
        "validation": len(images.splits.validation),
        "calibration": len(images.splits.calibration),
        "test": len(images.dataset.test),
    }
    return dataset.describe_data(recipe.data, images.dataset.sha256, counts)


def draft_detector(
    recipe: DetectorRecipe,
    architecture: str,
    latent_dim: int,
    selection: Selection,
    results: DetectorResults,
    provenance: Provenance,
    files: dict[str, str],
) -> ModelManifest:
    """Draft the manifest of a detector; `files` has the digests of its files."""
    counts = {
        "training": len(results.data.training),
        "calibration": len(results.calibration.scores),
        "test": len(results.data.test),
    }
    return ModelManifest(
        name=recipe.name,
        version=1,
        description=recipe.description,
        architecture=architecture,
        capabilities=("encode", "anomaly-score"),
        input=results.spec,
        latent_dim=latent_dim,
        graphs=DETECTOR_GRAPHS,
        golden=GOLDEN,
        calibration=results.calibration,
        max_batch=MAX_BATCH_IMAGES,
        selection=selection,
        metrics=results.metrics(),
        training_data=dataset.describe_data(recipe.data, results.data.sha256, counts),
        provenance=provenance,
        files=files,
    )


def draft_selection(
    trials: Trials, config: DetectorConfig, weak: str | None, advice: tuple[str, ...]
) -> Selection:
    """Draft the choice of a detector by its trials."""
    return Selection(
        score=trials.choice.names,
        map=(choose_map_component(trials.choice.names, config),),
        compared={label: round(area, 4) for label, area in trials.steps.items()},
        synthetic=detector_advice.tabulate_synthetic(trials),
        recall=detector_advice.tabulate_recall(trials),
        weak=weak,
        advice=advice,
    )


def draft_embedding(
    recipe: EmbeddingRecipe,
    encoder: BackboneEncoder,
    latent_dim: int,
    provenance: Provenance,
    files: dict[str, str],
) -> ModelManifest:
    """Draft the manifest of an embedding; `files` has the digests of its files."""
    weights = encoder.backbone.weights
    return ModelManifest(
        name=recipe.name,
        version=1,
        description=recipe.description,
        architecture=f"{encoder.describe()}, averaged over positions and L2-normalised",
        capabilities=("encode",),
        input=recipe.input.spec(recipe.embedding.size),
        latent_dim=latent_dim,
        graphs=EMBEDDING_GRAPHS,
        golden=GOLDEN,
        max_batch=MAX_BATCH_IMAGES,
        metrics={},
        training_data=TrainingData(
            name=weights.trained_on,
            source=weights.source,
            licence=weights.licence,
            images={},
            sha256={},
        ),
        provenance=provenance,
        files=files,
    )


def draft_converted(
    source: ModelManifest,
    new_name: str,
    results: AutoencoderResults,
    changes: dict[str, float],
    parity: dict[str, float],
) -> ModelManifest:
    """Draft the manifest of a model in fp16; `changes` are the metrics of its effect on scores."""
    provenance = _update_provenance(
        source,
        libraries=read_library_versions(),
        parity=parity,
        converted_from=f"{source.name}/{source.version}",
    )
    update = {
        "name": new_name,
        "precision": "float16",
        "calibration": results.calibration,
        "metrics": results.metrics() | changes,
        "provenance": provenance,
    }
    return source.model_copy(update=update)


def draft_recalibrated(
    source: ModelManifest, calibrated: Calibration, images: int, sha256: str
) -> ModelManifest:
    """Draft the manifest without metrics of the former calibration."""
    recalibrated = Recalibration(
        source=f"{source.name}/{source.version}", images=images, sha256=sha256
    )
    metrics = {
        name: value
        for name, value in source.metrics.items()
        if not name.startswith("false_positive_rate")
    }
    update = {
        "calibration": calibrated,
        "metrics": metrics,
        "provenance": _update_provenance(source, recalibrated=recalibrated),
    }
    return source.model_copy(update=update)


def _update_provenance(source: ModelManifest, **changes: Any) -> Provenance:
    now = {
        "created": datetime.now(UTC).replace(microsecond=0),
        "git_revision": read_git_revision(),
    }
    return source.provenance.model_copy(update=now | changes)


def _list_capabilities(recipe: Recipe) -> tuple[Capability, ...]:
    if recipe.classifier and not recipe.classifier.reconstruction:
        return ("encode", "classify")  # the encoder was fine-tuned without its decoder
    denoise: tuple[Capability, ...] = ("denoise",) if recipe.corruption.sigma else ()
    classify: tuple[Capability, ...] = ("classify",) if recipe.classifier else ()
    sample: tuple[Capability, ...] = ("sample",) if _has_prior(recipe) else ()
    return (
        "encode",
        "decode",
        "reconstruct",
        *denoise,
        *sample,
        "anomaly-score",
        "interpolate",
        *classify,
    )


def _has_prior(recipe: Recipe) -> bool:
    return recipe.architecture.variational or recipe.mixture_components > 0


def fit_prior(
    graphs: Graphs, training: Images, recipe: Recipe, staging: Path
) -> LatentPrior | None:
    """Fit the prior of the latents, if the recipe has one; a mixture is written to `staging`."""
    if recipe.architecture.variational:
        return StandardNormal()
    if not _has_prior(recipe):
        return None
    latents = mixture.encode_for_mixture(graphs, training)
    mixture.fit_mixture(latents, recipe.mixture_components, recipe.seed).save(staging / PRIOR)
    return MixturePrior(file=PRIOR)
