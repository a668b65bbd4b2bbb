"""Published models, measured and drawn again."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from bundle.manifest import ModelManifest
from training.data.dataset import Tell
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.detector_results import DetectorResults
from training.evaluation.test_results import Findings
from training.export.published import REPORT, Published, newest
from training.pipeline import load_data
from training.pipeline.load_data import load
from training.recipe import AnyRecipe, DetectorRecipe, EmbeddingRecipe, Recipe, kind_of

Results = Findings | DetectorResults


def evaluate_published(name: str, directory: Path | None, models: Path, tell: Tell) -> dict[str, float]:
    """Measure the newest published version of a model again, on the test images of its own recipe.

    Raises TrainingError where there is no such model, or its data are unavailable.
    """
    results = read_published(name, directory, models, tell)[1]
    return results.figures() if isinstance(results, Findings) else results.metrics()


def write_report(name: str, directory: Path | None, models: Path, output: Path | None, tell: Tell) -> Path:
    """Draw the report of a model's newest published version again, into the bundle or to `output`; gives the page."""
    model, results = read_published(name, directory, models, tell)
    target = output or model.directory / REPORT
    if isinstance(results, Findings):
        return report.write(model, results, target)
    return detector_report.write(model, results, target)


def read_published(name: str, directory: Path | None, models: Path, tell: Tell) -> tuple[Published, Results]:
    """The newest version of a model, and what it does on the test images of its recipe.

    Raises TrainingError where there is no such model, or its data are unavailable or others.
    """
    model = newest(models, name)
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


def _results(model: Published, recipe: Recipe | DetectorRecipe, directory: Path | None, tell: Tell) -> Results:
    manifest = model.manifest
    calibrated = manifest.calibration
    assert calibrated is not None  # every model with such a recipe is calibrated
    if isinstance(recipe, DetectorRecipe):
        images = load_data.load_detector(recipe, directory, tell)
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
