"""Drafts of manifests of new bundles, without their version."""

import importlib.metadata
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bundle.manifest import (
    Capability,
    GraphName,
    LatentPrior,
    MixturePrior,
    ModelManifest,
    Provenance,
    StandardNormal,
    TrainingData,
)
from bundle.tensors import Images
from training.architectures import Autoencoder
from training.data import dataset
from training.data.dataset import RunImages
from training.evaluation.autoencoder_results import AutoencoderResults
from training.export import prior as mixture
from training.export.graph_runner import RUNTIME_VERSION, Graphs
from training.export.published import GOLDEN, PRIOR
from training.recipe import Recipe

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
