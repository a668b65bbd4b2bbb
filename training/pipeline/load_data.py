"""Loading of the images of a recipe."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.config import Size
from training.data import dataset, photo_folder, splits
from training.data.dataset import Dataset, Outliers, RunImages
from training.data.image_set import AnomalousImages, Arrays, DetectorData, Photographs
from training.data.photo_folder import PhotoFolder
from training.errors import DataError, RecipeError
from training.progress import Log
from training.recipe import DetectorRecipe, Recipe


def load(recipe: Recipe, directory: Path | None, log: Log) -> RunImages:
    """Load all images of a recipe. Raises DataError or RecipeError if they do not suit it."""
    loaded = dataset.load(recipe.data, recipe.input, recipe.seed, directory, log)
    outliers = dataset.load_recipe_outliers(recipe.data, loaded, recipe.input, directory, log)
    if recipe.classifier and not loaded.classes:
        raise DataError(
            "the classifier needs labels: add IDX files with labels, or a subfolder for each class"
        )
    divided = splits.split(
        loaded.training, recipe.data.calibration, recipe.data.validation, recipe.seed
    )
    if len(divided.training) < recipe.mixture_components:
        raise RecipeError(
            f"mixture_components is {recipe.mixture_components}, but there are only"
            f" {len(divided.training)} images to train on: lower it"
        )
    return RunImages(loaded, divided, outliers)


def load_detector(recipe: DetectorRecipe, directory: Path | None, log: Log) -> DetectorData:
    """Load the images of a detector. Raises DataError if they are missing, damaged or too few."""
    if recipe.data.dataset == "photographs":
        return _load_photographs(recipe, directory, log)
    spec = recipe.spec(recipe.detector.sizes[0])
    loaded = dataset.load(recipe.data, spec, recipe.seed, directory, log)
    return _load_arrays(recipe, loaded, directory, log)


def _load_arrays(
    recipe: DetectorRecipe, loaded: Dataset, directory: Path | None, log: Log
) -> DetectorData:
    count, held_out = len(loaded.training), recipe.data.calibration
    if count <= held_out:
        raise DataError(
            f"{count} images to train on are too few: {held_out} of them are held out"
            " (data.calibration); lower it or add images"
        )
    calibration, training = np.split(
        np.random.default_rng(recipe.seed).permutation(count), [held_out]
    )
    fitted = splits.sample(loaded.training.take(training).images)
    spec = recipe.spec(recipe.detector.sizes[0])
    outliers = dataset.load_recipe_outliers(recipe.data, loaded, spec, directory, log)
    anomalous = None if outliers is None else _label_outliers(outliers)
    return DetectorData(
        Arrays(fitted),
        Arrays(loaded.training.take(calibration).images),
        Arrays(loaded.test.images),
        anomalous,
        loaded.sha256,
        recipe.detector.sizes,
    )


def _label_outliers(outliers: Outliers) -> AnomalousImages:
    labels = outliers.images.labels if outliers.kinds else None
    return AnomalousImages(
        outliers.title,
        Arrays(outliers.images.images),
        np.zeros(len(outliers.images), dtype=np.int64) if labels is None else labels,
        outliers.kinds or (outliers.title,),
        (None,) * len(outliers.images),
    )


def _load_photographs(recipe: DetectorRecipe, directory: Path | None, log: Log) -> DetectorData:
    if directory is None:
        raise DataError(
            "--data is missing: name the directory of normal photographs, or of train/good and test"
        )
    spec = recipe.spec(recipe.detector.sizes[0])
    found = photo_folder.find(directory, spec, recipe.data.invalid_files, log)
    folder = photo_folder.hold_out(found, recipe.data.test, recipe.seed)
    if folder.normal and not found.normal:
        held_out, count = len(folder.normal), len(found.training)
        log(f"{held_out} of {count} photographs are held out to test with: no test/good")
    return DetectorData(
        Photographs(folder.training + folder.validation),
        None,
        Photographs(folder.normal),
        _list_defects(folder),
        folder.sha256,
        _select_sizes(recipe.detector.sizes, folder.size),
    )


def _list_defects(folder: PhotoFolder) -> AnomalousImages | None:
    if not folder.anomalous:
        return None
    return AnomalousImages(
        "defects", Photographs(folder.anomalous), folder.labels, folder.kinds, folder.masks
    )


def _select_sizes(sizes: Sequence[Size], photograph: Size) -> list[Size]:
    """The first working size, and larger sizes up to the size of the photographs."""
    (height, width), (first, *larger) = photograph, sizes
    return [first, *(size for size in larger if size[0] <= height and size[1] <= width)]
