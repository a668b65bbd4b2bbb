"""Data sets: MNIST, Fashion-MNIST, or a folder of images, with their training and test splits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import AliasChoices, Field, NonNegativeInt, PositiveInt, model_validator

from bundle.manifest import InputSpec, TrainingData
from bundle.tensors import Images
from training.config import Config
from training.data import image_folder, mnist
from training.data.image_file import InvalidFilePolicy
from training.data.mnist import FILE_PREFIXES, load_split, load_test
from training.data.splits import Split, TrainingSplits
from training.errors import DataError
from training.progress import Log

MIN_TEST_IMAGES = 2


class DataConfig(Config):
    """The data set of a recipe, and the numbers of images held out from training."""

    dataset: Literal["mnist", "fashion-mnist", "folder", "photographs"]
    """Data set; `folder` is for networks and `photographs` for detectors."""
    calibration: PositiveInt = 5000
    """Training images held out for the calibration scores. Photographs need none."""
    validation: int = Field(1000, ge=2)
    """Training images held out to watch the training. Photographs need none."""
    test: int = Field(1000, ge=2)
    """Images of a folder or photographs held out for the test, if there is no folder `test`."""
    outliers: Literal["mnist", "fashion-mnist"] | None = None
    """Data set that the anomaly score is tested against."""
    title: str | None = None
    """Title of your own images, for the model card."""
    source: str | None = None
    """Source of your own images, for the model card."""
    licence: str | None = None
    """Licence of your own images, for the model card."""
    only: NonNegativeInt | None = None
    """The one class that is normal; test images of the other classes are the anomalies."""
    binarise: bool = False
    """Dynamic binarisation of the network's input and of its target."""
    # Published manifests call the entry `unfit`.
    invalid_files: InvalidFilePolicy = Field(
        "stop", validation_alias=AliasChoices("invalid_files", "unfit")
    )
    """Treatment of your own files that are unreadable or of another mode."""

    @property
    def own_images(self) -> bool:
        """True if the images are the user's, in a folder."""
        return self.dataset in ("folder", "photographs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        own, name = self.own_images, self.dataset
        if not own and (self.title or self.source or self.licence):
            raise ValueError(f"data.title, source and licence of {name} are known")
        held_out = self.test != type(self).model_fields["test"].default
        if not own and (self.invalid_files != "stop" or held_out):
            raise ValueError(
                f"data.invalid_files and test are for folders and photographs, not for {name}"
            )
        if own and self.only is not None:
            raise ValueError(
                f"data.only is for mnist and fashion-mnist, not for {name}:"
                " pass a folder that holds that class alone"
            )
        if self.outliers == name:
            raise ValueError("data.outliers must be another data set than data.dataset")
        return self


@dataclass(frozen=True)
class Outliers:
    """Anomalous images to test the anomaly score with; labels of the images index `kinds`."""

    title: str
    images: Split
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """All training and test images, the names of their classes, and the digests of the files.

    `sha256` is by the name of the file or folder. The name may change; the digest identifies data.
    """

    training: Split
    test: Split
    classes: tuple[str, ...]
    sha256: dict[str, str]
    outliers: Outliers | None = None


@dataclass(frozen=True)
class RunImages:
    """All images of a run."""

    dataset: Dataset
    splits: TrainingSplits
    outliers: Outliers | None


def load(
    config: DataConfig, spec: InputSpec, seed: int, directory: Path | None, log: Log
) -> Dataset:
    """Load the images of a recipe.

    Raises DataError if a file is missing, damaged, or not of the recipe's size.
    """
    if directory is not None:
        image_folder.check_exists(directory)
    if config.dataset == "folder":
        return _load_folder(config, spec, seed, directory, log)
    whole = _load_idx(config.dataset, spec, directory)
    if config.only is None:
        return whole
    if not whole.classes:
        raise DataError(
            f"data.only is {config.only}, but there are no labels beside the images of"
            f" {config.dataset}: add the label files"
        )
    return _select_class(whole, config.only)


def describe_data(
    config: DataConfig, sha256: dict[str, str], counts: dict[str, int]
) -> TrainingData:
    """Name, source and licence of the data, for the manifest.

    Files with digests other than the published ones are called unverified.
    """
    source = mnist.SOURCES.get(config.dataset)
    if source and all(source.sha256.get(name) == digest for name, digest in sha256.items()):
        return TrainingData(
            name=source.title,
            source=source.url,
            licence=source.licence,
            images=counts,
            sha256=sha256,
        )
    own = config.title or f"a folder, {', '.join(sha256)}"
    return TrainingData(
        name=f"unverified files of {source.title}" if source else own,
        source=config.source or "unknown",
        licence=config.licence or "unknown",
        images=counts,
        sha256=sha256,
    )


def load_outliers(dataset: str, directory: Path | None) -> Outliers | None:
    """The test split of another data set; None if `directory` has no folder of that name."""
    if directory is None or (directory / dataset).is_dir():
        return Outliers(dataset, load_test(dataset, directory))
    return None


def load_recipe_outliers(
    config: DataConfig, dataset: Dataset, spec: InputSpec, directory: Path | None, log: Log
) -> Outliers | None:
    """The outliers that a recipe names, or else the outliers of its data set.

    If they are missing, the result is None, and a line is logged.
    """
    if not config.outliers:
        return dataset.outliers
    outliers = load_outliers(config.outliers, directory)
    if outliers is None:
        log(f"there is no folder {config.outliers} in {directory}: skipped the AUROC against it")
    else:
        check_size(outliers.images.images, spec)
    return outliers


def _load_idx(name: str, spec: InputSpec, directory: Path | None) -> Dataset:
    """MNIST or Fashion-MNIST; without classes if labels are missing."""
    (training, test), digests = zip(
        *(load_split(name, prefix, directory) for prefix in FILE_PREFIXES), strict=True
    )
    for split in (training, test):
        check_size(split.images, spec)
    sha256, classes = digests[0] | digests[1], mnist.SOURCES[name].classes
    if training.labels is None or test.labels is None:
        return Dataset(Split(training.images), Split(test.images), (), sha256)
    if max(training.labels.max(), test.labels.max()) >= len(classes):
        raise DataError(f"a label is above {len(classes) - 1}, the last of {name}: check its files")
    return Dataset(training, test, classes, sha256)


def _load_folder(
    config: DataConfig, spec: InputSpec, seed: int, directory: Path | None, log: Log
) -> Dataset:
    if directory is None:
        raise DataError("data.dataset is folder: --data names the directory of the images")
    folder = image_folder.read_splits(directory, spec, config.invalid_files, log)
    training = Split(folder.training.images, folder.training.labels_in(folder.classes))
    if folder.test:
        test = Split(folder.test.images, folder.test.labels_in(folder.classes))
        if len(test) < MIN_TEST_IMAGES:
            home = folder.test.paths[0].parent
            raise DataError(f"{home} holds one image: take at least {MIN_TEST_IMAGES} to test with")
        return Dataset(training, test, folder.classes, folder.sha256)
    if len(training) <= config.test:
        raise DataError(
            f"{len(training)} images are too few: {config.test} are held out (data.test)"
        )
    held_out, fitted = np.split(
        np.random.default_rng(seed).permutation(len(training)), [config.test]
    )
    return Dataset(training.take(fitted), training.take(held_out), folder.classes, folder.sha256)


def _select_class(whole: Dataset, only: int) -> Dataset:
    """One class to train on and to test on; the test images of the others are the outliers."""
    if only >= len(whole.classes):
        raise DataError(f"data.only is {only}, but the last class is {len(whole.classes) - 1}")
    training, normal = (
        np.flatnonzero(split.require_labels() == only) for split in (whole.training, whole.test)
    )
    anomalous = whole.test.take(np.flatnonzero(whole.test.require_labels() != only))
    return Dataset(
        Split(whole.training.take(training).images),
        Split(whole.test.take(normal).images),
        (),
        whole.sha256,
        Outliers("other classes", anomalous, whole.classes),
    )


def check_size(images: Images, spec: InputSpec) -> None:
    """Raise DataError if the images are not of the recipe's size."""
    if images.shape[1:] != spec.shape:
        raise DataError(
            f"the images are {images.shape[1:]}, but the recipe's input is {spec.shape}"
        )
