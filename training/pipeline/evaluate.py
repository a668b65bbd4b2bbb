"""Published models, measured and drawn again."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from bundle.manifest import Calibration, ModelManifest
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.autoencoder_results import AutoencoderResults
from training.evaluation.detector_results import DetectorResults
from training.export.published import REPORT, Published, newest
from training.pipeline import load_data, plan
from training.progress import Log
from training.recipe import AnyRecipe, DetectorRecipe, EmbeddingRecipe, Recipe, kind_of

Results = AutoencoderResults | DetectorResults


def measure(name: str, directory: Path | None, models: Path, log: Log) -> dict[str, float]:
    """Measure the newest published version of a model again, on the test images of its own recipe.

    Raises TrainingError if there is no such model, or its data are unavailable.
    """
    return read(name, directory, models, log)[1].metrics()


def write_report(
    name: str, directory: Path | None, models: Path, output: Path | None, log: Log
) -> Path:
    """Draw the report of a model's newest published version again, into the bundle or to `output`; gives the page."""
    model, results = read(name, directory, models, log)
    target = output or model.directory / REPORT
    if isinstance(results, AutoencoderResults):
        return report.write(model, results, target)
    return detector_report.write(model, results, target)


def read(name: str, directory: Path | None, models: Path, log: Log) -> tuple[Published, Results]:
    """The newest version of a model, and its results on the test images of its recipe.

    Raises TrainingError if there is no such model, or its data are unavailable or others.
    """
    model = newest(models, name)
    recipe = recipe_of(model.manifest)
    if isinstance(recipe, EmbeddingRecipe):
        raise DataError(
            f"{name} embeds photographs and was not trained: it has no test images, and no report"
        )
    if isinstance(recipe, DetectorRecipe):
        return model, _detector_results(model, recipe, directory, log)
    return model, autoencoder_results(model, recipe, directory, log)


def recipe_of(manifest: ModelManifest) -> AnyRecipe:
    """The recipe that a model was trained by. Raises RecipeError if it is of another version."""
    tree = manifest.provenance.recipe
    try:
        return kind_of(tree).model_validate(tree)
    except ValidationError as error:
        raise RecipeError(
            f"{manifest.name} was trained by a version whose recipes had other entries; train it again"
        ) from error


def autoencoder_results(
    model: Published, recipe: Recipe, directory: Path | None, log: Log
) -> AutoencoderResults:
    """What an autoencoder does on the test images of its recipe."""
    images = load_data.load(recipe, directory, log)
    _check_digests(model.manifest, images.dataset.sha256)
    evaluation, latent_dim = plan.evaluation(recipe), model.manifest.latent_dim
    return AutoencoderResults(model.graphs, _calibration(model), images, evaluation, latent_dim)


def _detector_results(
    model: Published, recipe: DetectorRecipe, directory: Path | None, log: Log
) -> DetectorResults:
    images = load_data.load_detector(recipe, directory, log)
    _check_digests(model.manifest, images.sha256)
    spec, seed = model.manifest.input, recipe.seed
    return DetectorResults(model.graphs, _calibration(model), spec, images, recipe.input, seed)


def _calibration(model: Published) -> Calibration:
    """Raises DataError if a model is not calibrated, as no such model of a recipe is."""
    if model.manifest.calibration is None:
        raise DataError(f"{model.manifest.name} has no calibration: train it again")
    return model.manifest.calibration


def _check_digests(manifest: ModelManifest, sha256: Mapping[str, str]) -> None:
    """Raise DataError if the data are not those that the model was trained with."""
    if sorted(sha256.values()) != sorted(manifest.training_data.sha256.values()):
        raise DataError(
            f"the files are not those that {manifest.name} was trained with, byte by byte, so the test images of this"
            " data may be among those it was trained on"
        )
