"""The images of a recipe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.config import Size
from training.data import dataset, photo_folder, splits
from training.data.dataset import Dataset, RunImages
from training.data.image_set import Anomalous, Arrays, DetectorData, Photographs
from training.data.photo_folder import PhotoFolder
from training.errors import DataError, RecipeError
from training.progress import Log
from training.recipe import DetectorRecipe, Recipe


def load(recipe: Recipe, directory: Path | None, log: Log) -> RunImages:
    """All images of a recipe. Raises DataError or RecipeError where they do not suit it."""
    loaded = dataset.load(recipe.data, recipe.input, recipe.seed, directory, log)
    outliers = dataset.outliers_of(recipe.data, loaded, recipe.input, directory, log)
    if recipe.classifier and not loaded.classes:
        raise DataError(
            "the classifier needs labels: IDX files of them, or a folder with a subfolder for each class"
        )
    parts = splits.split(
        loaded.training, recipe.data.calibration, recipe.data.validation, recipe.seed
    )
    if len(parts.training) < recipe.mixture_components:
        raise RecipeError(
            f"mixture_components: there are only {len(parts.training)} images to train on"
        )
    return RunImages(loaded, parts, outliers)


def load_detector(recipe: DetectorRecipe, directory: Path | None, log: Log) -> DetectorData:
    """The images of a detector's recipe. Raises DataError where they are missing, damaged or too few."""
    if recipe.data.dataset == "photographs":
        return _photographs(recipe, directory, log)
    spec = recipe.spec(recipe.detector.sizes[0])
    loaded = dataset.load(recipe.data, spec, recipe.seed, directory, log)
    return _arrays(recipe, loaded, directory, log)


def _arrays(
    recipe: DetectorRecipe, loaded: Dataset, directory: Path | None, log: Log
) -> DetectorData:
    count, held_out = len(loaded.training), recipe.data.calibration
    if count <= held_out:
        raise DataError(
            f"{count} images to train on are too few: {held_out} are held out (data.calibration)"
        )
    calibration, training = np.split(
        np.random.default_rng(recipe.seed).permutation(count), [held_out]
    )
    fitted = splits.sample(loaded.training.take(training).images)
    spec = recipe.spec(recipe.detector.sizes[0])
    outliers = dataset.outliers_of(recipe.data, loaded, spec, directory, log)
    anomalous = None
    if outliers is not None:
        labels = outliers.images.labels if outliers.kinds else None
        anomalous = Anomalous(
            outliers.title,
            Arrays(outliers.images.images),
            np.zeros(len(outliers.images), dtype=np.int64) if labels is None else labels,
            outliers.kinds or (outliers.title,),
            (None,) * len(outliers.images),
        )
    return DetectorData(
        Arrays(fitted),
        Arrays(loaded.training.take(calibration).images),
        Arrays(loaded.test.images),
        anomalous,
        loaded.sha256,
        recipe.detector.sizes,
    )


def _photographs(recipe: DetectorRecipe, directory: Path | None, log: Log) -> DetectorData:
    if directory is None:
        raise DataError(
            "--data is missing: name the directory of normal photographs, or of train/good and test"
        )
    spec = recipe.spec(recipe.detector.sizes[0])
    found = photo_folder.find(directory, spec, recipe.data.unfit, log)
    parted = photo_folder.hold_out(found, recipe.data.test, recipe.seed)
    if parted.normal and not found.normal:
        log(
            f"{len(parted.normal)} of {len(found.training)} photographs are held out to test with: no test/good"
        )
    return DetectorData(
        Photographs(parted.training + parted.validation),
        None,
        Photographs(parted.normal),
        _defects(parted),
        parted.sha256,
        _useful_sizes(recipe.detector.sizes, parted.size),
    )


def _defects(found: PhotoFolder) -> Anomalous | None:
    if not found.anomalous:
        return None
    return Anomalous(
        "defects", Photographs(found.anomalous), found.labels, found.kinds, found.masks
    )


def _useful_sizes(sizes: Sequence[Size], of_photographs: Size) -> list[Size]:
    """The first working size, and larger ones up to the size of the photographs."""
    (height, width), (first, *larger) = of_photographs, sizes
    return [first, *(size for size in larger if size[0] <= height and size[1] <= width)]
