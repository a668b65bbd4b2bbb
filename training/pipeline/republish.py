"""New bundles from published ones, without training: in fp16, recalibrated, or with examples."""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bundle.conformal import ConformalScores
from bundle.manifest import (
    EXAMPLES,
    MANIFEST,
    Calibration,
    MixturePrior,
    ModelManifest,
    ModelName,
)
from bundle.tensors import Floats
from training.data import dataset, image_folder, photo_folder
from training.data.image_folder import Folder
from training.data.image_set import Photographs
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.autoencoder_results import AutoencoderResults
from training.export import calibration, examples, fp16, golden, parity
from training.export.published import HISTORY, REPORT, PublishedBundle, load_newest
from training.pipeline import draft_manifest, evaluate, publish
from training.pipeline.destinations import Destination, ModelsDirectory
from training.pipeline.publish import Published
from training.progress import Log
from training.recipe import Recipe

MIN_CALIBRATION_IMAGES = 50  # with fewer, p-values are coarse and noisy
MAX_SCORE_CHANGE = 0.01  # median over images, relative to the score
VERDICT_RATE = 0.01  # false positive rate at which verdicts are compared


def convert_to_fp16(
    name: str, new_name: str, directory: Path | None, models: Path, log: Log
) -> Published:
    """Publish the newest version of a model in fp16, with its own calibration and metrics.

    Raises TrainingError if there is no such model, its data are unavailable, or fp16 changes its
    outputs too much.
    """
    _check_name(new_name, name)
    model = load_newest(models, name)
    source, recipe = model.manifest, evaluate.read_recipe(model.manifest)
    _check_convertible(source)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{name} is not an autoencoder: only autoencoders can be converted")
    before = evaluate.measure_autoencoder(model, recipe, directory, log)
    destination = ModelsDirectory(models)
    with (
        destination.open_staging(new_name) as staging,
        tempfile.TemporaryDirectory() as rounded,
    ):
        converted = apply_fp16(model, before, staging, Path(rounded), log)
        after = converted.results
        test = after.images.dataset.test.images
        golden.write(after.graphs, test, source.input, staging / source.golden)
        prior = (source.prior.file,) if isinstance(source.prior, MixturePrior) else ()
        shown = (EXAMPLES,) if source.has_examples else ()
        _copy((HISTORY, *prior, *shown), model.directory, staging)
        draft = draft_manifest.draft_converted(
            source, new_name, after, converted.changes, converted.parity
        )

        def draw(published: PublishedBundle) -> None:
            log("drawing the report")
            report.write(published, after, published.directory / REPORT)

        return publish.publish(destination, staging, draft, draw)


def publish_again(bundle: Path, models: Destination, compatible: bool) -> Published:
    """Publish the files of a bundle as the next version of its model.

    Raises DataError if the directory is no bundle, and as `publish.publish` does.
    """
    try:
        manifest = ModelManifest.model_validate_json((bundle / MANIFEST).read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{bundle} is no bundle; name a directory with {MANIFEST}") from None
    models.check()
    with models.open_staging(manifest.name) as staging:
        shutil.copytree(bundle, staging, dirs_exist_ok=True)
        return publish.publish(models, staging, manifest, compatible=compatible)


def add_examples(name: str, directory: Path | None, models: Path, log: Log) -> Published:
    """Publish the newest version of a model again, with images for people who want to try it.

    They are test images of its data set; of a folder, or of photographs, those of the directory.
    Raises TrainingError if there is no such model, or its images are unavailable.
    """
    model = load_newest(models, name)
    destination = ModelsDirectory(models)
    with destination.open_staging(name) as staging:
        shutil.copytree(model.directory, staging, dirs_exist_ok=True)
        recipe = evaluate.read_recipe(model.manifest)
        if isinstance(recipe, Recipe) and not recipe.data.own_images:
            loaded = dataset.load(recipe.data, recipe.input, recipe.seed, directory, log)
            examples.write_images(loaded.test, loaded.classes, staging / EXAMPLES)
        elif directory is None:
            raise DataError(f"{name} has no public data set: name a folder of images by --data")
        else:
            examples.write_photographs(directory, model.manifest.input, staging / EXAMPLES, log)
        return publish.publish(destination, staging, model.manifest)


def _check_name(new_name: str, name: str) -> None:
    """Raise RecipeError if a converted model cannot have this name."""
    try:
        TypeAdapter(ModelName).validate_python(new_name)
    except ValidationError:
        raise RecipeError(
            f"{new_name!r} cannot be a model's name: lower-case letters, digits, dots, dashes"
        ) from None
    if new_name == name:
        raise RecipeError(
            f"--name {new_name} would replace {name}: the fp16 model needs another name"
        )


def _check_convertible(source: ModelManifest) -> None:
    """Raise RecipeError if a model is not an autoencoder in float32."""
    if source.precision != "float32":
        raise RecipeError(
            f"{source.name} computes in {source.precision} already: name a model in float32"
        )
    if source.selection is not None:
        raise RecipeError(f"{source.name} is a detector: fp16 would change its scores too much")
    if "decoder" not in source.graphs:
        raise RecipeError(f"{source.name} has no decoder: only autoencoders can be converted")


@dataclass(frozen=True)
class ConvertedModel:
    """A model in fp16: its results, its differences from float32, and its effect on scores."""

    results: AutoencoderResults
    parity: dict[str, float]
    changes: dict[str, float]


def apply_fp16(
    model: PublishedBundle, before: AutoencoderResults, directory: Path, rounded: Path, log: Log
) -> ConvertedModel:
    """Convert and calibrate the graphs of a bundle, and compare test scores with `before`."""
    log("converting, and comparing with the float32 graphs")
    graphs, differences = fp16.write(model, before.images.dataset.test.images, directory, rounded)
    log("calibrating")
    normal = before.images.splits.calibration.images
    calibrated = calibration.calibrate(graphs, normal, before.calibration.method)
    log("evaluating on the test images")
    after = replace(before, graphs=graphs, calibration=calibrated)
    changes = measure_effect(
        before.calibration, before.scored.scores, calibrated, after.scored.scores, VERDICT_RATE
    )
    return ConvertedModel(after, differences, changes)


def measure_effect(
    before: Calibration, scores_before: Floats, after: Calibration, scores: Floats, rate: float
) -> dict[str, float]:
    """The effect of fp16 on anomaly scores of the same images, by names of metrics in a manifest.

    These are the median and largest relative change of a score, and the share of changed verdicts.
    Verdicts are at the false positive `rate`, by the calibration of their own bundle. Raises
    ParityError if the median is above `MAX_SCORE_CHANGE`.
    """
    changes = np.abs(scores - scores_before) / np.maximum(scores_before, np.finfo(np.float32).tiny)
    parity.check(
        {"the median score": float(np.median(changes))},
        {"the median score": MAX_SCORE_CHANGE},
        "float32",
    )
    anomalous = [
        ConformalScores(calibrated).p_values(values) <= rate
        for calibrated, values in ((before, scores_before), (after, scores))
    ]
    return {
        "score_change_median": float(np.median(changes)),
        "score_change_largest": float(changes.max()),
        f"verdicts_changed_at_{rate}": float((anomalous[0] != anomalous[1]).mean()),
    }


def recalibrate(name: str, directory: Path, models: Path, log: Log) -> Published:
    """Publish the newest version of a model again, calibrated on normal images in a directory.

    Unreadable files are logged and skipped. Raises TrainingError if there is no such model, or it
    has no anomaly score. The images must be enough, and not used in training.
    """
    model = load_newest(models, name)
    source, previous = model.manifest, model.require_calibration()
    normal = _read_normal(directory, source, log)
    log(f"scoring {len(normal.images)} images")
    method = previous.method.removesuffix(calibration.CROSS_FITTED_SUFFIX)
    calibrated = calibration.calibrate(model.graphs, normal.images, method)
    log(calibration.format_summary(calibrated))
    count = len(normal.images)
    draft = draft_manifest.draft_recalibrated(source, calibrated, count, normal.sha256)
    destination = ModelsDirectory(models)
    with destination.open_staging(name) as staging:
        _copy(source.files, model.directory, staging)

        def draw(published: PublishedBundle) -> None:
            log("drawing the report")
            _draw_calibration(published, normal)

        return publish.publish(destination, staging, draft, draw)


def _read_normal(directory: Path, source: ModelManifest, log: Log) -> Folder:
    """Read calibration images.

    Raises DataError if they may be anomalous, were used in training, or are too few.
    """
    if test := image_folder.find_layout(directory).test:
        raise DataError(
            f"{directory} holds test images, which may be anomalous:"
            f" name a folder of normal images alone, as {test / photo_folder.GOOD}"
        )
    normal = image_folder.read(directory, source.input, "convert", log)
    if normal.sha256 in source.training_data.sha256.values():
        raise DataError(
            f"{source.name} was trained on the images in {directory}:"
            " calibrate on images not used in training"
        )
    if len(normal.images) < MIN_CALIBRATION_IMAGES:
        count = len(normal.images)
        raise DataError(
            f"{directory} holds {count} images; at least {MIN_CALIBRATION_IMAGES} are needed"
            " to calibrate: add more"
        )
    return normal


def _draw_calibration(model: PublishedBundle, normal: Folder) -> None:
    """Draw the report of a recalibrated model, with reconstructions if it is an autoencoder."""
    directory = model.directory / REPORT
    if "decoder" in model.manifest.graphs:
        report.write_calibration(model, normal.images, directory)
    else:
        detector_report.write_calibration(model, Photographs(normal.paths), directory)


def _copy(files: Iterable[str], source: Path, target: Path) -> None:
    for file in files:
        shutil.copy(source / file, target)
