"""Bundles that are made of published ones, without training: in half precision, or calibrated anew."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from bundle.conformal import ConformalScores
from bundle.manifest import Calibration, MixturePrior, ModelManifest, ModelName, Provenance, Recalibration
from training.data import image_folder, photo_folder
from training.data.dataset import Tell
from training.data.image_folder import Folder
from training.data.image_set import Photographs
from training.errors import DataError, RecipeError
from training.evaluation import detector_report, report
from training.evaluation.graph_metrics import Floats
from training.evaluation.test_results import Findings
from training.export import calibration, golden, parity
from training.export.fp16 import write
from training.export.published import HISTORY, REPORT, Published, newest
from training.pipeline import draft_manifest, evaluate, publish, republish

FEWEST = 50  # images to calibrate on: with fewer, p-values would be too coarse and too much chance


def halve(name: str, new_name: str, directory: Path | None, models: Path, tell: Tell) -> Path:
    """Publish the newest version of a model again, computing in float16, with its own calibration and figures.

    Raises TrainingError where there is no such model, its data cannot be had, or float16 changes its outputs too much.
    """
    try:
        TypeAdapter(ModelName).validate_python(new_name)
    except ValidationError:
        raise RecipeError(f"{new_name!r} cannot be a model's name: lower-case letters, digits, dots, dashes") from None
    if new_name == name:
        raise RecipeError(
            f"{name} in half precision needs another name: as a version of it, it would be served instead"
        )
    source = newest(models, name).manifest
    _check_can_be_halved(source)
    model, before = evaluate.read_published(name, directory, models, tell)
    assert isinstance(before, Findings)  # it is an autoencoder
    with publish.staging(models, new_name) as staging, tempfile.TemporaryDirectory() as rounded:
        halved = republish.apply(model, before, staging, Path(rounded), tell)
        after = halved.findings
        golden.write(after.graphs, after.given.dataset.test.images, source.input, staging / source.golden)
        prior = (source.prior.file,) if isinstance(source.prior, MixturePrior) else ()
        for file in (HISTORY, *prior):
            shutil.copy(model.directory / file, staging)
        changes = {
            "name": new_name,
            "precision": "float16",
            "calibration": after.calibration,
            "metrics": after.figures() | halved.changes,
            "provenance": _made_of(
                source,
                libraries=draft_manifest.library_versions(),
                parity=halved.parity,
                halved_from=f"{source.name}/{source.version}",
            ),
        }

        def finish(version: int) -> None:
            publish.write_manifest(source.model_copy(update=changes | {"version": version}), staging)
            tell("drawing the report")
            report.write(Published(staging), after, staging / REPORT)

        return publish.publish(staging, finish)


def _check_can_be_halved(source: ModelManifest) -> None:
    """Raise RecipeError where a model is not an autoencoder in float32."""
    if source.precision != "float32":
        raise RecipeError(f"{source.name} computes in {source.precision} already")
    if source.selection is not None:
        raise RecipeError(f"{source.name} is a detector: float16 would change its scores too much")
    if "decoder" not in source.graphs:
        raise RecipeError(f"{source.name} has no decoder: only autoencoders can be halved")


def recalibrate(name: str, directory: Path, models: Path, tell: Tell) -> Path:
    """Publish the newest version of a model again, calibrated on the images below a directory, which are normal ones.

    Unreadable files are logged and skipped. Raises TrainingError where there is no such model, where it has no
    anomaly score, where it was trained on these images, or where they are too few.
    """
    model = newest(models, name)
    source = model.manifest
    if source.calibration is None:
        raise RecipeError(f"{name} has no anomaly score, so there is nothing to calibrate: name a detector")
    if test := image_folder.layout(directory).test:
        raise DataError(
            f"{directory} holds images to test with, which may be anomalous: name a folder of normal ones alone, "
            f"as {test / photo_folder.GOOD}"
        )
    normal = image_folder.read(directory, source.input, "convert", tell)
    count = len(normal.images)
    if normal.sha256 in source.training_data.sha256.values():
        raise DataError(
            f"{name} was trained on the images in {directory}, which it knows too well to be calibrated on: take others"
        )
    if count < FEWEST:
        raise DataError(f"{directory} holds {count} images; at least {FEWEST} are needed to calibrate on")
    tell(f"scoring {count} images; rates from {1 / (count + 1):.2g} on can be asked for then")
    method = source.calibration.method.removesuffix(calibration.CROSS_FITTED)
    calibrated = calibration.calibrate(model.graphs, normal.images, method)
    changes = {
        "calibration": calibrated,
        "metrics": {key: value for key, value in source.metrics.items() if not key.startswith("false_positive_rate")},
        "provenance": _made_of(
            source,
            recalibrated=Recalibration(source=f"{source.name}/{source.version}", images=count, sha256=normal.sha256),
        ),
    }
    with publish.staging(models, name) as staging:
        for file in source.files:
            shutil.copy(model.directory / file, staging)

        def finish(version: int) -> None:
            publish.write_manifest(source.model_copy(update=changes | {"version": version}), staging)
            tell("drawing the report")
            _draw_calibration(Published(staging), normal, staging / REPORT)

        return publish.publish(staging, finish)


def _draw_calibration(model: Published, normal: Folder, directory: Path) -> None:
    """Write the report of a model that was calibrated anew: of a detector, one without reconstructions."""
    if "decoder" in model.manifest.graphs:
        report.write_calibration(model, normal.images, directory)
    else:
        detector_report.write_calibration(model, Photographs(normal.paths), directory)


def _made_of(source: ModelManifest, **changes: Any) -> Provenance:
    now = {"created": datetime.now(UTC).replace(microsecond=0), "git_revision": draft_manifest.git_revision()}
    return source.provenance.model_copy(update=now | changes)


SCORE_TOLERANCE = 0.01  # of the median change of a score, relative to it
RATE = 0.01  # of false positives, at which verdicts are compared


@dataclass(frozen=True)
class Halved:
    """A model in half precision: what it does, how far its outputs are from the float32 graphs', and `effect`."""

    findings: Findings
    parity: dict[str, float]
    changes: dict[str, float]


def apply(model: Published, before: Findings, directory: Path, rounded: Path, tell: Tell) -> Halved:
    """`write` the graphs of a bundle, calibrate them, and hold their scores of the test images against `before`."""
    tell("converting, and comparing with the float32 graphs")
    graphs, parity = write(model, before.given.dataset.test.images, directory, rounded)
    tell("calibrating")
    calibrated = calibration.calibrate(graphs, before.given.parts.calibration.images, before.calibration.method)
    tell("evaluating on the test images")
    after = replace(before, graphs=graphs, calibration=calibrated)
    changes = effect(before.calibration, before.scored.scores, calibrated, after.scored.scores, RATE)
    return Halved(after, parity, changes)


def effect(
    before: Calibration, scores_before: Floats, after: Calibration, scores: Floats, rate: float
) -> dict[str, float]:
    """What half precision does to the anomaly scores of the same images, by the names of a manifest's `metrics`.

    The median and the largest change of a score, relative to it, and the share of verdicts at the false positive
    `rate` that differ, each by the bundle's own calibration. Raises ParityError where the median is above
    `SCORE_TOLERANCE`.
    """
    changes = np.abs(scores - scores_before) / np.maximum(scores_before, np.finfo(np.float32).tiny)
    parity.check({"the median score": float(np.median(changes))}, {"the median score": SCORE_TOLERANCE}, "float32")
    anomalous = [
        ConformalScores(calibration).p_values(each) <= rate
        for calibration, each in ((before, scores_before), (after, scores))
    ]
    return {
        "score_change_median": float(np.median(changes)),
        "score_change_largest": float(changes.max()),
        f"verdicts_changed_at_{rate}": float((anomalous[0] != anomalous[1]).mean()),
    }
