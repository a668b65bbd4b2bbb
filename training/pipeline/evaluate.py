"""Measurements and reports of published models."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from bundle.manifest import ModelManifest
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.autoencoder_results import AutoencoderResults
from training.evaluation.detector_results import DetectorResults
from training.export.published import REPORT, PublishedBundle, load_newest
from training.pipeline import load_data, plan
from training.progress import Log
from training.recipe import AnyRecipe, DetectorRecipe, EmbeddingRecipe, Recipe, find_recipe_type

Results = AutoencoderResults | DetectorResults


def measure(name: str, directory: Path | None, models: Path, log: Log) -> dict[str, float]:
    """Measure the newest version of a model on the test images of its recipe.

    Raises TrainingError if there is no such model, or its data are unavailable or differ.
    """
    return load_results(name, directory, models, log)[1].metrics()


def write_report(
    name: str, directory: Path | None, models: Path, output: Path | None, log: Log
) -> Path:
    """Draw the report of the newest version of a model; returns the path of the page.

    It goes to `output`, or else into the bundle. Raises TrainingError as `measure` does.
    """
    model, results = load_results(name, directory, models, log)
    target = output or model.directory / REPORT
    if isinstance(results, AutoencoderResults):
        return report.write(model, results, target)
    return detector_report.write(model, results, target)


def load_results(
    name: str, directory: Path | None, models: Path, log: Log
) -> tuple[PublishedBundle, Results]:
    """Load the newest version of a model, and its results on the test images of its recipe.

    Raises TrainingError if there is no such model, or its data are unavailable or differ.
    """
    model = load_newest(models, name)
    recipe = read_recipe(model.manifest)
    if isinstance(recipe, EmbeddingRecipe):
        raise DataError(
            f"{name} only embeds photographs: it has no test images and no report; name a model"
            " that was trained"
        )
    if isinstance(recipe, DetectorRecipe):
        return model, _measure_detector(model, recipe, directory, log)
    return model, measure_autoencoder(model, recipe, directory, log)


def read_recipe(manifest: ModelManifest) -> AnyRecipe:
    """Read the recipe of a model. Raises RecipeError if another version of the code wrote it."""
    tree = manifest.provenance.recipe
    try:
        return find_recipe_type(tree).model_validate(tree)
    except ValidationError as error:
        raise RecipeError(
            f"{manifest.name} was trained by a version whose recipes had other entries;"
            " train it again"
        ) from error


def measure_autoencoder(
    model: PublishedBundle, recipe: Recipe, directory: Path | None, log: Log
) -> AutoencoderResults:
    """Results of an autoencoder on the test images of its recipe."""
    images = load_data.load(recipe, directory, log)
    _check_digests(model.manifest, images.dataset.sha256)
    evaluation, latent_dim = plan.plan_evaluation(recipe), model.manifest.latent_dim
    return AutoencoderResults(
        model.graphs, model.require_calibration(), images, evaluation, latent_dim
    )


def _measure_detector(
    model: PublishedBundle, recipe: DetectorRecipe, directory: Path | None, log: Log
) -> DetectorResults:
    images = load_data.load_detector(recipe, directory, log)
    _check_digests(model.manifest, images.sha256)
    spec, seed = model.manifest.input, recipe.seed
    return DetectorResults(
        model.graphs, model.require_calibration(), spec, images, recipe.input, seed
    )


def _check_digests(manifest: ModelManifest, sha256: Mapping[str, str]) -> None:
    """Raise DataError if the data differ from the training data of the model."""
    if sorted(sha256.values()) != sorted(manifest.training_data.sha256.values()):
        raise DataError(
            f"the files are not those that {manifest.name} was trained with, byte by byte;"
            " their test images may be among its training images, so name the original files"
        )
