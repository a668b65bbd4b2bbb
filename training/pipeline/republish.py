"""New bundles from published ones, without training: converted to half precision, or calibrated anew."""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bundle.conformal import ConformalScores
from bundle.manifest import (
    Calibration,
    MixturePrior,
    ModelManifest,
    ModelName,
    Provenance,
    Recalibration,
)
from bundle.tensors import Floats
from training.data import image_folder, photo_folder
from training.data.image_folder import Folder
from training.data.image_set import Photographs
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.autoencoder_results import AutoencoderResults
from training.export import calibration, fp16, golden, parity
from training.export.published import HISTORY, REPORT, Published, newest
from training.pipeline import draft_manifest, evaluate, publish
from training.progress import Log
from training.recipe import Recipe

MIN_CALIBRATION_IMAGES = 50  # with fewer, p-values would be coarse and random
SCORE_TOLERANCE = 0.01  # of the median change of a score, relative to it
RATE = 0.01  # false positive rate at which verdicts are compared


def convert_to_fp16(
    name: str, new_name: str, directory: Path | None, models: Path, log: Log
) -> Path:
    """Publish the newest version of a model again, computing in float16, with its own calibration and metrics.

    Raises TrainingError if there is no such model, its data are unavailable, or float16 changes its outputs too much.
    """
    _check_name(new_name, name)
    model = newest(models, name)
    source, recipe = model.manifest, evaluate.recipe_of(model.manifest)
    _check_convertible(source)
    if not isinstance(recipe, Recipe):
        raise RecipeError(f"{name} is no autoencoder: only autoencoders can be converted")
    before = evaluate.autoencoder_results(model, recipe, directory, log)
    with publish.staging(models, new_name) as staging, tempfile.TemporaryDirectory() as rounded:
        converted = apply_fp16(model, before, staging, Path(rounded), log)
        after = converted.results
        golden.write(
            after.graphs, after.images.dataset.test.images, source.input, staging / source.golden
        )
        prior = (source.prior.file,) if isinstance(source.prior, MixturePrior) else ()
        _copy((HISTORY, *prior), model.directory, staging)
        changes = {
            "name": new_name,
            "precision": "float16",
            "calibration": after.calibration,
            "metrics": after.metrics() | converted.changes,
            "provenance": _provenance_from(
                source,
                libraries=draft_manifest.library_versions(),
                parity=converted.parity,
                halved_from=f"{source.name}/{source.version}",
            ),
        }

        def draw(published: Published) -> None:
            log("drawing the report")
            report.write(published, after, published.directory / REPORT)

        return publish.publish(staging, source.model_copy(update=changes), draw)


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
            f"{name} in half precision needs another --name: as a version of {name} it would replace it"
        )


def _check_convertible(source: ModelManifest) -> None:
    """Raise RecipeError if a model is not an autoencoder in float32."""
    if source.precision != "float32":
        raise RecipeError(f"{source.name} computes in {source.precision} already")
    if source.selection is not None:
        raise RecipeError(f"{source.name} is a detector: float16 would change its scores too much")
    if "decoder" not in source.graphs:
        raise RecipeError(f"{source.name} has no decoder: only autoencoders can be converted")


@dataclass(frozen=True)
class Converted:
    """A model in half precision: its results, the differences of its outputs from float32, and its effect on scores."""

    results: AutoencoderResults
    parity: dict[str, float]
    changes: dict[str, float]


def apply_fp16(
    model: Published, before: AutoencoderResults, directory: Path, rounded: Path, log: Log
) -> Converted:
    """Convert the graphs of a bundle, calibrate them, and compare their scores of the test images with `before`."""
    log("converting, and comparing with the float32 graphs")
    graphs, differences = fp16.write(model, before.images.dataset.test.images, directory, rounded)
    log("calibrating")
    normal = before.images.splits.calibration.images
    calibrated = calibration.calibrate(graphs, normal, before.calibration.method)
    log("evaluating on the test images")
    after = replace(before, graphs=graphs, calibration=calibrated)
    changes = effect(
        before.calibration, before.scored.scores, calibrated, after.scored.scores, RATE
    )
    return Converted(after, differences, changes)


def effect(
    before: Calibration, scores_before: Floats, after: Calibration, scores: Floats, rate: float
) -> dict[str, float]:
    """The effect of half precision on the anomaly scores of the same images, by the names of a manifest's `metrics`.

    The median and the largest change of a score, relative to it, and the share of verdicts at the false positive
    `rate` that differ, each by the bundle's own calibration. Raises ParityError if the median is above
    `SCORE_TOLERANCE`.
    """
    changes = np.abs(scores - scores_before) / np.maximum(scores_before, np.finfo(np.float32).tiny)
    parity.check(
        {"the median score": float(np.median(changes))},
        {"the median score": SCORE_TOLERANCE},
        "float32",
    )
    anomalous = [
        ConformalScores(calibrated).p_values(each) <= rate
        for calibrated, each in ((before, scores_before), (after, scores))
    ]
    return {
        "score_change_median": float(np.median(changes)),
        "score_change_largest": float(changes.max()),
        f"verdicts_changed_at_{rate}": float((anomalous[0] != anomalous[1]).mean()),
    }


def recalibrate(name: str, directory: Path, models: Path, log: Log) -> Path:
    """Publish the newest version of a model again, calibrated on the normal images below a directory.

    Unreadable files are logged and skipped. Raises TrainingError if there is no such model, it has no anomaly score,
    it was trained on these images, or they are too few.
    """
    model = newest(models, name)
    source = model.manifest
    if source.calibration is None:
        raise RecipeError(
            f"{name} has no anomaly score, so there is nothing to calibrate: name a detector"
        )
    normal = _read_normal(directory, source, log)
    count = len(normal.images)
    log(f"scoring {count} images")
    method = source.calibration.method.removesuffix(calibration.CROSS_FITTED)
    calibrated = calibration.calibrate(model.graphs, normal.images, method)
    log(calibration.summary_line(calibrated))
    made = Recalibration(
        source=f"{source.name}/{source.version}", images=count, sha256=normal.sha256
    )
    changes = {
        "calibration": calibrated,
        "metrics": {
            key: value
            for key, value in source.metrics.items()
            if not key.startswith("false_positive_rate")
        },
        "provenance": _provenance_from(source, recalibrated=made),
    }
    with publish.staging(models, name) as staging:
        _copy(source.files, model.directory, staging)

        def draw(published: Published) -> None:
            log("drawing the report")
            _draw_calibration(published, normal)

        return publish.publish(staging, source.model_copy(update=changes), draw)


def _read_normal(directory: Path, source: ModelManifest, log: Log) -> Folder:
    """The images to calibrate a model on. Raises DataError if they may be anomalous, were trained on, or are few."""
    if test := image_folder.layout(directory).test:
        raise DataError(
            f"{directory} holds images to test with, which may be anomalous: name a folder of normal ones alone, "
            f"as {test / photo_folder.GOOD}"
        )
    normal = image_folder.read(directory, source.input, "convert", log)
    if normal.sha256 in source.training_data.sha256.values():
        raise DataError(
            f"{source.name} was trained on the images in {directory}: calibrate on images not used in training"
        )
    if len(normal.images) < MIN_CALIBRATION_IMAGES:
        count = len(normal.images)
        raise DataError(
            f"{directory} holds {count} images; at least {MIN_CALIBRATION_IMAGES} are needed to calibrate"
        )
    return normal


def _draw_calibration(model: Published, normal: Folder) -> None:
    """Write the report of a model that was calibrated anew: of a detector, one without reconstructions."""
    directory = model.directory / REPORT
    if "decoder" in model.manifest.graphs:
        report.write_calibration(model, normal.images, directory)
    else:
        detector_report.write_calibration(model, Photographs(normal.paths), directory)


def _copy(files: Iterable[str], source: Path, target: Path) -> None:
    for file in files:
        shutil.copy(source / file, target)


def _provenance_from(source: ModelManifest, **changes: Any) -> Provenance:
    now = {
        "created": datetime.now(UTC).replace(microsecond=0),
        "git_revision": draft_manifest.git_revision(),
    }
    return source.provenance.model_copy(update=now | changes)
